//! The words of `ratite cmd`.

use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Cmd {
    /// How long all of it may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "60s")]
    pub(crate) timeout: Duration,

    /// Spreads the value over lines, as on a terminal
    #[arg(short, long)]
    pub(crate) pretty: bool,

    /// Prints a value that is a string as its text
    #[arg(long, conflicts_with = "pretty")]
    pub(crate) raw: bool,

    /// Sends also what this QEMU does not know
    #[arg(long)]
    pub(crate) no_check: bool,

    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// The QMP command
    #[arg(value_name = "COMMAND")]
    pub(crate) command: String,

    /// Its arguments, or all of them as one object in JSON
    #[arg(value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

pub(super) const AT_LENGTH: &str = "\
Executes one QMP command of a machine, and prints what it returns, as JSON.

What the arguments mean is asked of the running QEMU (query-qmp-schema): `id=5` is a
string where it wants one, and a number where it wants that. A command, an argument
or a value that it does not know is refused before anything is sent. `a.b=1 a.c=2`
are members of `a`, `a.0=x a.1=y` or `a=[\"x\",\"y\"]` is a list, and `a={\"b\":1}` is JSON.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite cmd web query-status
  ratite cmd ./qmp.sock blockdev-add driver=null-co node-name=disk size=1048576
  ratite cmd localhost:4444 device_add '{\"driver\": \"virtio-rng-pci\", \"id\": \"rng\"}'
  ratite cmd --raw ./qmp.sock human-monitor-command command-line='info version'

Exit codes: 0 when QEMU did it; 1 when it refused, or is not there; 2 usage, or
something that this QEMU does not know; 4 no reply in time.";
