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
mod modes;
mod output;
mod progress;
mod qemu_args;
mod records;
mod report;
mod signals;
mod target;
mod terminal;
mod verdict;

use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = args::parse().and_then(commands::run);
    report::show(&outcome);
    ExitCode::from(report::exit_code(&outcome))
}
