//! The `ratite` command.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod copy;
mod diagnostics;
mod duration;
mod hints;
mod output;
mod progress;
mod qemu_args;
mod records;
mod report;
mod signals;
#[expect(dead_code, reason = "for the verbs that speak with other processes' machines")]
mod target;
mod verdict;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = args::parse().and_then(commands::run);
    report::show(&outcome);
    ExitCode::from(report::exit_code(&outcome))
}
