//! The words of `ratite screenshot`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Screenshot {
    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// Where the picture goes, as a PNG; `-` is stdout
    #[arg(value_name = "FILE.png", required_unless_present = "text")]
    pub(crate) file: Option<PathBuf>,

    /// Reads the text on the screen by its glyphs, and writes it to stdout
    #[arg(long)]
    pub(crate) text: bool,

    /// The graphics card, by its `id`; by default the one that QEMU shows first
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<String>,

    /// Which of the card's screens, from 0 on
    #[arg(long, value_name = "NUMBER", requires = "device", default_value_t = 0)]
    pub(crate) head: u32,

    /// How long all of it may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "30s")]
    pub(crate) timeout: Duration,
}

pub(super) const AT_LENGTH: &str = "\
Takes a picture of a machine's screen.

The picture is a PNG. With --text, what is on the screen is also read: exactly, by the
glyphs of the VGA's fonts, in text mode or wherever a guest draws with them. What is in no
font is shown as \u{fffd}.

A QEMU that runs elsewhere, and is reached by TCP, cannot hand over a picture.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite screenshot ./qmp.sock screen.png
  ratite screenshot ./qmp.sock --text
  ratite screenshot ./qmp.sock - | display
  ratite screenshot ./qmp.sock --device video1 --head 1 second.png

Exit codes: 0 it was taken; 1 QEMU or the system said no, or there is no text;
2 usage; 4 time over.";
