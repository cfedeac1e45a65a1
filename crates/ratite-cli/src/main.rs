//! The `ratite` command.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod copy;
mod diagnostics;
mod duration;
mod hints;
mod input;
mod json;
mod language;
mod mending;
mod modes;
mod output;
mod progress;
mod qemu_args;
mod questions;
mod records;
mod report;
mod signals;
mod table;
mod target;
mod templates;
mod terminal;
mod verdict;

use std::panic;
use std::process::ExitCode;
use std::thread;

use crate::report::Failure;

fn main() -> ExitCode {
    let outcome = on_a_stack_of_its_own(|| args::parse().and_then(commands::run));
    report::show(&outcome);
    ExitCode::from(report::exit_code(&outcome))
}

/// How much stack the program has, whatever `ulimit -s` leaves to the thread that it begins with.
const STACK: usize = 8 << 20;

fn on_a_stack_of_its_own(work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    let thread = thread::Builder::new().name("ratite".into()).stack_size(STACK).spawn(work);
    let outcome = thread.map_err(Failure::System)?.join();
    outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
}
