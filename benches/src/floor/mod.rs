//! The floor: what the system calls alone cost that the work cannot do without.

pub(crate) mod console;
pub(crate) mod process;
pub(crate) mod qmp;
