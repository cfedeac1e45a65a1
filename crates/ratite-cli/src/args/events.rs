//! The words of `ratite events`.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only the events with these names
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Ends, and succeeds, after so many events
    #[arg(long, value_name = "NUMBER")]
    pub(crate) count: Option<NonZeroU64>,

    /// Ends, and fails, after a time such as 500ms, 30s, 2m, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,

    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite events web
  ratite events --only SHUTDOWN,RESET localhost:4444
  ratite events --only JOB_STATUS_CHANGE --count 1 --timeout 5m ./qmp.sock

Exit codes: 0 when the machine is gone, or --count events came; 1 when it is gone
before that, or is not there; 2 usage, or a name that this QEMU does not know; 4 time
over; 128+n ended by signal n.";
