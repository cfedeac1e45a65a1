//! The words of `ratite ls`.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// One JSON object a line, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite ls
  ratite ls --json | jq -r .name

Of each machine: its name, the pid of its QEMU, QEMU's version, how long it runs,
its state as `query-status` says it (`unknown` if QEMU does not say so within a
second), and the last line of its first console.";
