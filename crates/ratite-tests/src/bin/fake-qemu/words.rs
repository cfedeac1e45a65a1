//! The misbehaviour asked for by `-fake WORD[=VALUE]`, and the list of all words.
//!
//! An unknown word, or a value that is not what the word needs, ends the fake at once: a misspelt word must not
//! turn a test of misbehaviour into a test of nothing.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The words given on the command line.
#[derive(Debug)]
pub(crate) struct Words(Vec<(&'static str, OsString)>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    Nothing,
    Text,
    Number,
}

impl Words {
    /// Checks each `WORD[=VALUE]` against the list.
    pub(crate) fn parse(given: &[OsString]) -> Result<Self, String> {
        given.iter().map(|word| parse_one(word)).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn has(&self, word: &str) -> bool {
        self.value(word).is_some()
    }

    /// The value of `word`, verbatim.
    pub(crate) fn value(&self, word: &str) -> Option<&OsStr> {
        debug_assert!(WORDS.iter().any(|(known, _)| *known == word), "`{word}` is not in the list of words");
        self.0.iter().find(|(name, _)| *name == word).map(|(_, value)| value.as_os_str())
    }

    /// The bytes of the value of `word`.
    pub(crate) fn bytes(&self, word: &str) -> Option<&[u8]> {
        self.value(word).map(OsStr::as_bytes)
    }

    pub(crate) fn number(&self, word: &str) -> Option<u64> {
        self.value(word).and_then(|value| value.to_str()?.parse().ok())
    }

    pub(crate) fn status(&self, word: &str) -> Option<i32> {
        self.number(word).and_then(|number| i32::try_from(number).ok())
    }

    pub(crate) fn milliseconds(&self, word: &str) -> Option<Duration> {
        self.number(word).map(Duration::from_millis)
    }

    /// Whether one of the (repeatable) words `word=COMMAND` names `command`.
    pub(crate) fn names(&self, word: &str, command: &str) -> bool {
        self.0.iter().any(|(name, value)| *name == word && value == command)
    }
}

fn parse_one(given: &OsStr) -> Result<(&'static str, OsString), String> {
    let bytes = given.as_bytes();
    let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
        None => (bytes, None),
    };
    let shown = given.to_string_lossy();
    let Some((known, takes)) = WORDS.iter().find(|(known, _)| known.as_bytes() == name) else {
        return Err(format!("-fake {shown}: no such word"));
    };
    let fits = match (takes, value) {
        (Takes::Nothing, value) => value.is_none(),
        (Takes::Text, value) => value.is_some(),
        (Takes::Number, value) => value.and_then(OsStr::to_str).is_some_and(|v| v.parse::<u64>().is_ok()),
    };
    if !fits {
        return Err(format!("-fake {shown}: `{known}` takes {takes:?}"));
    }
    Ok((known, value.unwrap_or_default().to_owned()))
}

/// Every word, what it takes, and what it does.
const WORDS: &[(&str, Takes)] = &[
    // Before the monitor, in this order.
    ("write-file", Takes::Text),               // writes our pid into this file
    ("stderr", Takes::Text),                   // says this line on stderr
    ("stderr-bytes", Takes::Number),           // says so many bytes on stderr, in lines of 79 `e`
    ("stderr-invalid-utf8", Takes::Nothing),   // says a line with the bytes FF FE on stderr
    ("spawn-child", Takes::Nothing), // starts `sleep 1000` in our process group, and leaves it behind
    ("spawn-child-new-group", Takes::Nothing), // the same in a process group of its own
    ("ignore-sigterm", Takes::Nothing), // SIGTERM, SIGINT and SIGHUP do nothing
    ("signal-before-monitor", Takes::Number), // dies of this signal
    ("exit-before-monitor", Takes::Number), // complains about the machine type, and exits with this status
    ("lifetime", Takes::Number),     // exits after so many seconds instead of 120
    // Greeting.
    ("no-connect", Takes::Nothing),       // does not open its monitors' sockets
    ("silent", Takes::Nothing),           // never greets, and never answers
    ("greeting-delay", Takes::Number),    // greets after so many ms
    ("garbage-greeting", Takes::Nothing), // greets with a line that is not JSON
    ("half-greeting", Takes::Nothing),    // sends half of the greeting, then nothing
    ("no-oob", Takes::Nothing),           // does not offer out-of-band execution
    ("close-before-greeting", Takes::Nothing), // closes the monitor, lives on
    ("close-after-greeting", Takes::Nothing), // greets, closes the monitor, lives on
    ("exit-after-greeting", Takes::Number), // greets, and exits with this status
    // Negotiation.
    ("nego-silent", Takes::Nothing),         // does not answer qmp_capabilities
    ("nego-error", Takes::Nothing),          // refuses qmp_capabilities
    ("nego-event", Takes::Nothing), // sends two FAKE_EARLY events before the answer to qmp_capabilities
    ("event-flood", Takes::Number), // sends so many FAKE_FLOOD events after the negotiation; 0: for ever
    ("exit-after-handshake", Takes::Number), // answers qmp_capabilities, and exits with this status
    // Commands, each word repeatable.
    ("abort-on", Takes::Text), // dies of SIGABRT instead of answering this command
    ("exit-on", Takes::Text),  // exits with status 1 instead of answering this command
    ("hang-on", Takes::Text),  // reads no monitor any more instead of answering this command
    ("never-answer", Takes::Text), // does not answer this command, and does not execute it
    ("target", Takes::Text),   // is for this target instead of x86_64
    // The end.
    ("ignore-quit", Takes::Nothing),         // answers quit, and lives on
    ("quit-no-reply", Takes::Nothing),       // exits on quit, with neither event nor answer
    ("quit-status", Takes::Number),          // exits with this status on quit
    ("quit-delay", Takes::Number), // answers quit, exits so many ms later; deaf to SIGTERM meanwhile
    ("quit-console", Takes::Number), // answers quit, writes so many bytes to the console, then exits
    ("exit-after", Takes::Number), // exits with status 0 after so many ms, without a word
    ("fake-exit-after", Takes::Number), // the same
    ("guest-shutdown-after", Takes::Number), // the guest shuts down so many ms after the negotiation
    ("obey-powerdown", Takes::Nothing), // the guest shuts down on system_powerdown
    // Consoles.
    ("console-banner", Takes::Text),   // writes this first, verbatim
    ("console-flood", Takes::Number),  // then writes so many bytes; 0: for ever
    ("console-echo", Takes::Nothing),  // answers each line with `you said: LINE`
    ("console-close", Takes::Nothing), // closes the consoles at once (after the banner)
    // qtest.
    ("qtest-irq", Takes::Nothing), // sends `IRQ raise 8` before every answer
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(word: &str, expected: &str) {
        assert_eq!(Words::parse(&[word.into()]).unwrap_err(), expected);
    }

    #[test]
    fn a_misspelt_word_is_refused() {
        check_refused("silnt", "-fake silnt: no such word");
        check_refused("silent=1", "-fake silent=1: `silent` takes Nothing");
        check_refused("quit-delay", "-fake quit-delay: `quit-delay` takes Number");
        check_refused("quit-delay=soon", "-fake quit-delay=soon: `quit-delay` takes Number");
    }

    #[test]
    fn a_value_may_contain_anything() {
        let words = Words::parse(&["stderr=a=b, c".into(), "never-answer=x".into(), "never-answer=y".into()]);

        let words = words.unwrap();
        assert_eq!(words.bytes("stderr"), Some(b"a=b, c".as_slice()));
        assert!(words.names("never-answer", "x") && words.names("never-answer", "y"));
    }
}
