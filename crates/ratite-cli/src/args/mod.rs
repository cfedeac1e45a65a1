//! The words of the command line, as types: one verb a file.

mod accel;
mod agent;
mod cmd;
mod completions;
mod console;
mod demo;
mod doctor;
mod events;
#[cfg(test)]
mod help;
mod keys;
mod log;
mod ls;
mod man;
mod qom;
mod run;
mod screenshot;
mod shell;
mod stop;
mod template;
mod wait;

use clap::Command;
use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap_complete::CompleteEnv;

use crate::report::Failure;

pub(crate) use accel::Accel;
pub(crate) use agent::Agent;
pub(crate) use agent::Channel as AgentChannel;
pub(crate) use agent::Down;
pub(crate) use agent::Exec as AgentExec;
pub(crate) use agent::Form;
pub(crate) use agent::FreezeAction;
pub(crate) use agent::Sleep;
pub(crate) use agent::SlowChannel as AgentSlowChannel;
pub(crate) use agent::Verb as AgentVerb;
pub(crate) use cmd::Cmd;
pub(crate) use completions::Completions;
pub(crate) use console::Console;
pub(crate) use demo::Demo;
pub(crate) use doctor::Doctor;
pub(crate) use events::Events;
pub(crate) use keys::Keys;
pub(crate) use log::Log;
pub(crate) use ls::Ls;
pub(crate) use man::Man;
pub(crate) use qom::Qom;
pub(crate) use qom::Verb as QomVerb;
pub(crate) use qom::Watch as QomWatch;
pub(crate) use run::Accelerator;
pub(crate) use run::ConsoleKind;
pub(crate) use run::Run;
pub(crate) use run::Words;
pub(crate) use screenshot::Screenshot;
pub(crate) use shell::Shell;
pub(crate) use stop::Stop;
pub(crate) use template::Template;
pub(crate) use template::Verb as TemplateVerb;
pub(crate) use wait::Wait;

/// The environment variable by which a shell asks for completions.
pub(crate) const COMPLETION: &str = "RATITE_COMPLETE";

/// Reads the program's arguments. If a shell asks for completions, they are written, and the program ends.
pub(crate) fn parse() -> Result<Cli, Failure> {
    CompleteEnv::with_factory(command).var(COMPLETION).complete();
    Cli::try_parse().map_err(Failure::Arguments)
}

/// All that can be said, as clap has it.
pub(crate) fn command() -> Command {
    completions::completed(Cli::command())
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
    /// Tells whether machines can be run here, and what mends what is missing
    #[command(after_help = doctor::EXAMPLES, long_about = doctor::AT_LENGTH)]
    Doctor(Doctor),
    /// Runs your own QEMU command line, with its serial console on stdout
    #[command(after_help = run::EXAMPLES, long_about = run::AT_LENGTH, override_usage = run::USAGE)]
    Run(Box<Run>),
    /// Boots a machine once, and goes on from there as often as one is wanted
    #[command(after_help = template::EXAMPLES, long_about = template::AT_LENGTH)]
    Template(Template),
    /// Speaks QMP with a machine, line by line: completion, history, events as they come
    #[command(after_help = shell::EXAMPLES, long_about = shell::AT_LENGTH, override_usage = shell::USAGE)]
    Shell(Shell),
    /// Executes one QMP command of a machine, and prints what it returns
    #[command(after_help = cmd::EXAMPLES, long_about = cmd::AT_LENGTH)]
    Cmd(Cmd),
    /// Prints the events of a machine as they come, one a line
    #[command(after_help = events::EXAMPLES)]
    Events(Events),
    /// Takes a picture of a machine's screen, or reads its text
    #[command(after_help = screenshot::EXAMPLES, long_about = screenshot::AT_LENGTH)]
    Screenshot(Screenshot),
    /// Presses keys of a machine's keyboard, or types a text
    #[command(after_help = keys::EXAMPLES, long_about = keys::AT_LENGTH)]
    Keys(Keys),
    /// Lists the machines that can be reached by name
    #[command(after_help = ls::EXAMPLES)]
    Ls(Ls),
    /// Attaches to the console of a machine that runs elsewhere
    #[command(after_help = console::EXAMPLES, long_about = console::AT_LENGTH)]
    Console(Console),
    /// Shows what a machine's console has recorded, and follows it
    #[command(after_help = log::EXAMPLES)]
    Log(Log),
    /// Ends a machine that runs elsewhere
    #[command(after_help = stop::EXAMPLES)]
    Stop(Stop),
    /// Waits for a machine's end, and tells how it ended
    #[command(after_help = wait::EXAMPLES)]
    Wait(Wait),
    /// Speaks with QEMU's agent in a guest: runs programs, reads and writes files, freezes, shuts down
    #[command(after_help = agent::EXAMPLES, long_about = agent::AT_LENGTH)]
    Agent(Agent),
    /// Looks into the objects a QEMU is made of, and sets their properties
    #[command(after_help = qom::EXAMPLES, long_about = qom::AT_LENGTH)]
    Qom(Qom),
    /// Writes a script with which a shell completes command lines of ratite
    #[command(after_help = completions::EXAMPLES, long_about = completions::AT_LENGTH)]
    Completions(Completions),
    /// Writes the manual pages, for those who package ratite
    #[command(after_help = man::EXAMPLES, hide = true)]
    Man(Man),
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

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
