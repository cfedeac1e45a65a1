//! The words of `ratite man`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where they go; it is made if missing
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite man target/doc-cli/man
  man -l target/doc-cli/man/ratite-run.1";
