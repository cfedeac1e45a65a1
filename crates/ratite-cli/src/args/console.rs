//! The words of `ratite console`.

use clap::Args;

use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Console {
    #[arg(value_name = target::WORD, help = target::SERIAL_PORT, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// Which console of the machine; by default its first
    #[arg(value_name = "CONSOLE")]
    pub(crate) console: Option<String>,

    /// How many of the last recorded bytes come first; 4096 on a terminal, and else none
    #[arg(long, value_name = "BYTES")]
    pub(crate) replay: Option<usize>,
}

pub(super) const AT_LENGTH: &str = "\
Attaches to a machine's console.

On a terminal every key goes to the guest, Ctrl-C too; ctrl-] detaches. The
machine runs on, and any number may be attached at once. The terminal is put back
as it was, whatever ends this but SIGKILL; `stty sane` mends it then.

Without a terminal, stdin goes to the guest to its end, and what the guest writes
meanwhile goes to stdout.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite console web
  ratite console web serial1
  (echo reboot; sleep 2) | ratite console web
  ratite console ./serial.sock      # of `-serial unix:serial.sock,server=on`";
