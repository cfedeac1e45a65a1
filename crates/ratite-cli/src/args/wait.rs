//! The words of `ratite wait`.

use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// Gives up after a time such as 500ms, 30s, 2m, 1h; the machine runs on
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite wait web
  ratite wait web --timeout 10m && echo well

Exit codes: 0 when the machine ended well; 1 when it ended otherwise, or is not there;
4 time over.";
