//! The words of `ratite accel`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use crate::duration;

#[derive(Debug, Args)]
pub(crate) struct Accel {
    /// The QEMU to ask
    #[arg(value_name = "BINARY", default_value = "qemu-system-x86_64")]
    pub(crate) binary: OsString,

    /// How long the measurement of one accelerator may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) limit: Duration,
}

pub(super) const AT_LENGTH: &str = "\
Tells which accelerators of a QEMU are of use here, by running guest code on each.

That /dev/kvm opens, or that QEMU says it uses KVM, does not say that guests run:
where virtualisation is only emulated, they run a thousand times too slowly. So each
accelerator that the binary lists gets a machine of its own, with a few bytes of
64-bit code that compute, leave the guest, and change page tables.

SPEED is how often a second that code did five instructions. What computes less than
a quarter as fast as TCG, or leaves the guest less than 2000 times a second, is not
usable. For a QEMU of another target than x86_64 nothing is measured.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite accel
  ratite accel --limit 30s ./build/qemu-system-x86_64

Exit codes: 0 when at least one is usable; 1 when none is known to be; 2 usage;
3 the binary could not be started; 4 it did not list them in time.";
