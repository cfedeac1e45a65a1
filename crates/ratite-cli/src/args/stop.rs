//! The words of `ratite stop`.

use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// Kills it at once, without asking
    #[arg(long, conflicts_with = "grace")]
    pub(crate) kill: bool,

    /// How long it may take before it is killed; for an address, how long it is waited for
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    pub(crate) grace: Duration,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite stop web
  ratite stop web --grace 1m
  ratite stop web --kill
  ratite stop ./qmp.sock

QEMU is asked to quit, which the guest does not hear of: it is as if its power was
cut. To let a guest shut itself down, `ratite cmd web system_powerdown`.";
