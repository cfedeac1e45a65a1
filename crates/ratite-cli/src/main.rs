//! The `ratite` command.
fn main() {}
