//! The words of `ratite shell`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Shell {
    /// Speaks HMP, the language of QEMU's human monitor, through QMP
    #[arg(short = 'H', long, conflicts_with = "skip_negotiation")]
    pub(crate) hmp: bool,

    /// Begins without greeting and negotiation, as the guest agent wants it
    #[arg(short = 'N', long)]
    pub(crate) skip_negotiation: bool,

    /// Shows what is sent
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Spreads replies over lines
    #[arg(short, long)]
    pub(crate) pretty: bool,

    /// Appends every message in both directions, with its time, to this file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) logfile: Option<PathBuf>,

    /// How long each command may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "60s")]
    pub(crate) timeout: Duration,

    /// Sends also what this QEMU does not know
    #[arg(long)]
    pub(crate) no_check: bool,

    /// Where lines are read from a pipe: prints events, too
    #[arg(long)]
    pub(crate) events: bool,

    /// Where lines are read from a pipe: goes on after one that failed
    #[arg(long)]
    pub(crate) keep_going: bool,

    /// With a QEMU of its own: how long its end may take before it is killed
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) grace: Duration,

    #[arg(value_name = target::WORD, help = format!("{}; by default $QMP_SOCKET", target::MONITOR), value_parser = Target::parse, conflicts_with = "command")]
    pub(crate) target: Option<Target>,

    /// Starts this QEMU with these arguments, and ends it with the shell
    #[arg(value_name = "QEMU", last = true, conflicts_with = "skip_negotiation")]
    pub(crate) command: Vec<OsString>,
}

pub(super) const USAGE: &str = "\
ratite shell [OPTIONS] [NAME|ADDRESS]
       ratite shell [OPTIONS] -- <QEMU> [ARGUMENTS]...";

pub(super) const AT_LENGTH: &str = "\
Speaks QMP with a machine, line by line.

  (QEMU) blockdev-add driver=null-co node-name=disk size=1048576
  {\"return\": {}}

Tab completes commands, arguments and values, by what the running QEMU says of itself;
what it does not know is refused before anything is sent. `help COMMAND` shows a
command's arguments, `transaction(` begins a transaction that `)` sends, `exit` or
Ctrl-D leaves. Events appear as they come. Ctrl-C gives up a line, or the wait for a
reply.

Read from a pipe, it is a tool for scripts: no prompts, one line of JSON for each reply
on stdout, and an end with exit code 1 at the first line that fails. `#` begins a
comment.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite shell web
  ratite shell ./qmp.sock
  ratite shell -H localhost:4444
  ratite shell -N /run/guest-agent.sock
  ratite shell -- qemu-system-x86_64 -m 512 disk.img
  printf 'stop\\nquery-status\\n' | ratite shell ./qmp.sock

Exit codes: 0 when the shell was left, or the machine ended as asked; 1 when the
machine went away otherwise, or a line from a pipe failed; 2 usage; 3 not launched;
4 no reply in time, for a line from a pipe; 128+n ended by signal n.";
