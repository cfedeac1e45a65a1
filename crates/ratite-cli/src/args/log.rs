//! The words of `ratite log`.

use clap::Args;

use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The machine's name
    #[arg(value_name = "NAME", value_parser = Target::parse)]
    pub(crate) target: Target,

    /// Goes on with what comes, up to the machine's end
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Which console of the machine; by default its first
    #[arg(long, value_name = "CONSOLE")]
    pub(crate) console: Option<String>,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite log web
  ratite log web -f | grep --line-buffered error
  ratite log web --console serial1

What is recorded are the last bytes: of a machine of `ratite run`, 64 MiB. How many
came before them is said on stderr.";
