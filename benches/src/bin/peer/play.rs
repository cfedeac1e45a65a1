//! What the peer does beyond answering: the words of `PEER_PLAY`, separated by blanks.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::system;

/// The words, each with what it does.
#[derive(Debug, Default)]
pub(crate) struct Play {
    /// `events=N`: so many events after the command `start-flood`; `events=forever`: until it is ended, commands are answered in between.
    pub(crate) events: Events,
    /// `console=BYTES`: so many bytes of lines to the first console after the command `start-console`, a prompt at their end.
    pub(crate) console: usize,
    /// `reply=FILE`: what `query-qmp-schema` is answered with: a reply of QEMU without an id, as recorded.
    pub(crate) reply: Vec<u8>,
    /// `oob`: the greeting offers it.
    pub(crate) oob: bool,
    /// `fail`: ends with status 1 and a message before its monitor is ready.
    pub(crate) fail: bool,
    /// `hang`: reacts neither to `quit` nor to SIGTERM, and answers nothing from `quit` on.
    pub(crate) hang: bool,
}

/// How many events a flood has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Events {
    Count(usize),
    Forever,
}

impl Default for Events {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl Play {
    pub(crate) fn from_environment() -> Self {
        let words = std::env::var_os("PEER_PLAY").map(OsString::into_vec).unwrap_or_default();
        let mut play = Self::default();
        for word in words.split(|byte| *byte == b' ') {
            let mut parts = word.splitn(2, |byte| *byte == b'=');
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            match name {
                b"events" if value == b"forever" => play.events = Events::Forever,
                b"events" => play.events = Events::Count(number(value)),
                b"console" => play.console = number(value),
                b"reply" => play.reply = system::read_file(value).unwrap_or_default(),
                b"oob" => play.oob = true,
                b"fail" => play.fail = true,
                b"hang" => play.hang = true,
                _ => {}
            }
        }
        play
    }
}

fn number(digits: &[u8]) -> usize {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
