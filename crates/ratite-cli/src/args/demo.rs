//! The words of `ratite demo`.

use std::ffi::OsString;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The QEMU to run, one for x86
    #[arg(long, value_name = "BINARY", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: OsString,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite demo
  ratite demo --qemu ./build/qemu-system-x86_64";
