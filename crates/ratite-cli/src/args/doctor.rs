//! The words of `ratite doctor`.

use std::time::Duration;

use clap::Args;

use crate::duration;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// One JSON object a line, for programs
    #[arg(long)]
    pub(crate) json: bool,

    /// How long the measurement of one accelerator may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) limit: Duration,
}

pub(super) const AT_LENGTH: &str = "\
Tells whether machines can be run here, and what is missing, with the command that
mends it on Debian, Ubuntu, Fedora, Arch Linux, openSUSE and Alpine.

Looked at are: each qemu-system-… in PATH, which is asked for its version; the
accelerators of that for this computer's own processor, which are measured as
`ratite accel` does; /dev/kvm and the devices of vhost; UEFI firmware by QEMU's JSON
descriptors, and whether the files that they name are there; qemu-img; limits, and the
folders that ratite uses. Nothing is changed.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite doctor
  ratite doctor --json | jq 'select(.state != \"ok\")'

With --json each line has `check`, `name`, `state` (ok, warning or missing), `says`, and
`mend`, a command or null; the last line's `check` is `verdict`.

Exit codes: 0 when machines can be run; 1 when not.";
