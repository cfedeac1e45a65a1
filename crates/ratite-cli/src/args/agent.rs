//! The words of `ratite agent`.

use std::time::Duration;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Waits until the agent answers
    #[command(after_help = "Example:\n  ratite agent ping ./agent.sock --timeout 2m")]
    Ping {
        #[command(flatten)]
        channel: Channel,
    },
    /// Tells the agent's version, and which of its commands are enabled
    #[command(after_help = "Example:\n  ratite agent info ./agent.sock")]
    Info {
        #[command(flatten)]
        channel: Channel,
        #[command(flatten)]
        form: Form,
    },
    /// Runs a program in the guest, and passes on what it writes once it has ended
    #[command(after_help = EXEC, override_usage = "ratite agent exec [OPTIONS] <NAME|ADDRESS> -- <PROGRAM> [ARGUMENTS]...")]
    Exec(Exec),
    /// Writes a file of the guest to stdout, byte by byte as it is
    #[command(after_help = "Example:\n  ratite agent cat ./agent.sock /var/log/syslog > syslog")]
    Cat {
        #[command(flatten)]
        channel: Channel,
        /// The file's path in the guest
        path: String,
    },
    /// Writes stdin into a file of the guest, over what is there
    #[command(after_help = "Example:\n  ratite agent write ./agent.sock /tmp/job.sh < job.sh")]
    Write {
        #[command(flatten)]
        channel: Channel,
        /// The file's path in the guest
        path: String,
        /// Writes behind what is there
        #[arg(long)]
        append: bool,
    },
    /// Freezes the guest's file systems for a snapshot, thaws them, or tells which of both they are
    #[command(
        after_help = "Examples:\n  ratite agent fsfreeze ./agent.sock freeze\n  ratite agent fsfreeze ./agent.sock thaw"
    )]
    Fsfreeze {
        #[command(flatten)]
        channel: SlowChannel,
        /// What to do
        #[arg(value_enum)]
        action: FreezeAction,
        #[command(flatten)]
        form: Form,
    },
    /// Gives the free blocks of the guest's file systems back to the host
    #[command(after_help = "Example:\n  ratite agent fstrim ./agent.sock --minimum 1048576")]
    Fstrim {
        #[command(flatten)]
        channel: SlowChannel,
        /// The shortest run of free bytes to give back
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        minimum: u64,
        #[command(flatten)]
        form: Form,
    },
    /// Asks the guest to go down; QEMU ends when it has
    #[command(
        after_help = "Examples:\n  ratite agent shutdown ./agent.sock\n  ratite agent shutdown ./agent.sock reboot"
    )]
    Shutdown {
        #[command(flatten)]
        channel: Channel,
        /// How it is to go down
        #[arg(value_enum, default_value_t = Down::Powerdown)]
        mode: Down,
    },
    /// Asks the guest to sleep
    #[command(after_help = "Example:\n  ratite agent suspend ./agent.sock ram")]
    Suspend {
        #[command(flatten)]
        channel: Channel,
        /// Where it is to sleep
        #[arg(value_enum)]
        mode: Sleep,
    },
    /// Lists the guest's network interfaces with their addresses
    #[command(after_help = "Example:\n  ratite agent interfaces ./agent.sock")]
    Interfaces {
        #[command(flatten)]
        channel: Channel,
        #[command(flatten)]
        form: Form,
    },
}

/// How the agent is reached.
#[derive(Debug, Args)]
pub(crate) struct Channel {
    #[arg(value_name = target::WORD, help = target::CHANNEL, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// How long each answer of the agent may take, and how long it is waited for at first
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "10s")]
    pub(crate) timeout: Duration,
}

/// How the agent is reached for what takes its time.
#[derive(Debug, Args)]
pub(crate) struct SlowChannel {
    #[arg(value_name = target::WORD, help = target::CHANNEL, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// How long it may take, and how long the agent is waited for at first
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1m")]
    pub(crate) timeout: Duration,
}

/// How something is told.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Tells it as JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) channel: Channel,

    /// How long the program may run; for ever if this is not given
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) limit: Option<Duration>,

    /// A variable for the program, which then has only those given; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,

    /// Gives the program what comes on stdin, up to its end
    #[arg(long)]
    pub(crate) stdin: bool,

    /// Exits with the program's own code, or 128+n for signal n; ratite's own failures are told on stderr alone then
    #[arg(long)]
    pub(crate) status: bool,

    #[command(flatten)]
    pub(crate) form: Form,

    /// The program in the guest, and its arguments; no shell comes between
    #[arg(value_name = "PROGRAM", required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) program: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FreezeAction {
    /// Tells whether they are frozen
    Status,
    /// Has whoever writes in the guest wait
    Freeze,
    /// Lets them go on
    Thaw,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Down {
    /// Down, and the power off
    Powerdown,
    /// Down, and the power left on
    Halt,
    /// Down, and up again
    Reboot,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Sleep {
    /// On its disk, with the power off
    Disk,
    /// In its memory
    Ram,
    /// In both
    Hybrid,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is written NAME=VALUE"),
    }
}

pub(super) const AT_LENGTH: &str = "\
Speaks with QEMU's guest agent: a program in the guest that does what only the guest can.

In the guest the package `qemu-guest-agent` has to be installed and to run. QEMU needs
its channel. `ratite run --name web --agent` gives it one, and the agent is `web` then,
for any number of clients. Another QEMU has it like this, with the host's side on the
Unix socket ./agent.sock:

  -device virtio-serial -chardev socket,id=agent,path=agent.sock,server=on,wait=off
  -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0

There it serves one client at a time. Whatever an earlier one has left on the channel is
skipped. An agent that is not there, or not yet, is waited for as long as --timeout says.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite agent ping ./agent.sock --timeout 2m
  ratite agent exec web -- uname -r
  ratite agent cat ./agent.sock /var/log/syslog > syslog
  ratite agent fsfreeze ./agent.sock freeze

Exit codes: 0 when the agent did it; 1 when it refused, or the connection ended; 2 usage;
4 nobody answered in time; 128+n ended by signal n.";

const EXEC: &str = "\
Examples:
  ratite agent exec ./agent.sock -- ls -l /
  ratite agent exec --stdin ./agent.sock -- sh -s < script.sh
  ratite agent exec --status --limit 5m ./agent.sock -- make check

Exit codes: 0 when the program exited with 0; 1 when it ended otherwise, or could not be
started; 4 when the agent did not answer, or the program still ran after --limit (it runs
on: an agent cannot end it). With --status the program's own code.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name() {
        assert_eq!(variable("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert!(variable("A").is_err() && variable("=x").is_err());
    }
}
