//! The words of the command line, as types: one verb a file.

mod accel;
mod demo;
mod run;

use clap::Parser;
use clap::Subcommand;

use crate::report::Failure;

pub(crate) use accel::Accel;
pub(crate) use demo::Demo;
pub(crate) use run::Accelerator;
pub(crate) use run::ConsoleKind;
pub(crate) use run::Run;
pub(crate) use run::Words;

/// Reads the program's arguments.
pub(crate) fn parse() -> Result<Cli, Failure> {
    Cli::try_parse().map_err(Failure::Arguments)
}

/// Runs QEMU machines: starts one, shows its console, and ends it; nothing is left behind.
#[derive(Debug, Parser)]
#[command(name = "ratite", version, max_term_width = 100, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Runs a tiny guest in QEMU, talks to it, and shows what happens, in a second
    #[command(after_help = demo::EXAMPLES)]
    Demo(Demo),
    /// Tells which accelerators of a QEMU are of use here, by running guest code on each
    #[command(after_help = accel::EXAMPLES, long_about = accel::AT_LENGTH)]
    Accel(Accel),
    /// Runs your own QEMU command line, with its serial console on stdout
    #[command(after_help = run::EXAMPLES, long_about = run::AT_LENGTH, override_usage = run::USAGE)]
    Run(Box<Run>),
}

const EXIT_CODES: &str = "\
Exit codes:
      0  it worked
      1  QEMU, the guest or the system said no
      2  the command line was wrong
      3  the machine could not be launched
      4  the time was over
     70  a bug in ratite
  128+n  signal n ended it: 130 for Ctrl-C, 143 for SIGTERM, 141 when nobody
         reads stdout any more

Environment:
  RATITE_LOG  what to log on stderr: error (the default), warn, debug, ratite=trace, …
  NO_COLOR    no colours, if set";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
