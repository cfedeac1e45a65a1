//! The words of `ratite keys`.

use std::time::Duration;

use clap::Args;

use crate::duration;
use crate::target;
use crate::target::Target;

#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[arg(value_name = target::WORD, help = target::MONITOR, value_parser = Target::parse)]
    pub(crate) target: Target,

    /// What to press, one after the other: a key, or several joined by `-`
    #[arg(value_name = "KEYS", required_unless_present = "text")]
    pub(crate) keys: Vec<ratite::Keys>,

    /// Types this text first; a line feed in it is the return key
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,

    /// The keyboard layout that the guest believes in: us, uk, de or fr
    #[arg(long, value_name = "LAYOUT", default_value = "us")]
    pub(crate) layout: ratite::Layout,

    /// How long a key is held, from 1ms to 10s
    #[arg(long, value_name = "DURATION", value_parser = hold, default_value = "40ms")]
    pub(crate) hold: Duration,

    /// How long each answer of QEMU may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "30s")]
    pub(crate) timeout: Duration,
}

/// What [`ratite::Input::hold`] takes as it is.
fn hold(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        hold if (SHORTEST..=LONGEST).contains(&hold) => Ok(hold),
        _ => Err("a key is held from 1ms to 10s".into()),
    }
}

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(10);

pub(super) const AT_LENGTH: &str = "\
Presses keys of a machine's keyboard, and releases them.

Keys have QEMU's names, which stand for the places of a US keyboard: a, 1, f1, ret, esc,
spc, tab, backspace, delete, up, pgup, shift, ctrl, alt, alt_r, meta_l, minus, slash and so
on; enter, escape, del, win, altgr and other usual names are taken, too. One that there is
not is refused before anything is pressed, and so is a text that the layout cannot type.

It returns once the last key is released. The machine has to run: a guest that is paused
sees no keys.";

pub(super) const EXAMPLES: &str = "\
Examples:
  ratite keys ./qmp.sock ctrl-alt-delete
  ratite keys ./qmp.sock down down enter
  ratite keys ./qmp.sock --text root enter
  ratite keys ./qmp.sock --text 'grüße?' --layout de --hold 100ms

Exit codes: 0 all were pressed; 1 QEMU said no, or the machine does not run; 2 usage;
4 time over.";

#[cfg(test)]
mod tests {
    use crate::args::Cli;
    use crate::args::Verb;
    use clap::Parser;

    #[test]
    fn keys_are_read_before_anything_is_sent() {
        let cli =
            Cli::try_parse_from(["ratite", "keys", "./q", "ctrl-alt-del", "a", "--layout", "de"]).unwrap();
        let Verb::Keys(keys) = cli.verb else { panic!("{cli:?}") };
        assert_eq!(keys.keys.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ctrl-alt-delete", "a"]);

        let wrong = Cli::try_parse_from(["ratite", "keys", "./q", "ctrl-altt"]).unwrap_err().to_string();
        assert!(wrong.contains("no key is called `altt`, perhaps `alt`"), "{wrong}");
        assert!(Cli::try_parse_from(["ratite", "keys", "./q"]).is_err());
    }

    #[test]
    fn a_key_is_held_as_long_as_is_said_or_not_at_all() {
        for hold in ["0s", "11s", "1h"] {
            let wrong = Cli::try_parse_from(["ratite", "keys", "./q", "a", "--hold", hold]).unwrap_err();
            assert!(wrong.to_string().contains("a key is held from 1ms to 10s"), "{wrong}");
        }
        assert!(Cli::try_parse_from(["ratite", "keys", "./q", "a", "--hold", "10s"]).is_ok());
    }
}
