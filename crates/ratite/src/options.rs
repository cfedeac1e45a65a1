//! QEMU's option strings, `driver,key=value,key=value`: read, changed, and written again. Pure.
//!
//! A comma within a value is written twice ("QemuOpts" in QEMU's documentation of its command line).

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;

/// One option string. What stands before the first comma without a `=` has no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options(Vec<(OsString, Option<OsString>)>);

impl Options {
    /// Reads an option string; every text is one.
    pub(crate) fn parse(text: &OsStr) -> Self {
        Self(pieces(text.as_bytes()).iter().map(|piece| split(piece)).collect())
    }

    /// The first word, if it has no key: a device's type, a machine's.
    pub(crate) fn implied(&self) -> Option<&OsStr> {
        self.0.first().filter(|(_, value)| value.is_none()).map(|(word, _)| word.as_os_str())
    }

    /// The value that QEMU takes for `key`, which is the last one.
    pub(crate) fn get(&self, key: &str) -> Option<&OsStr> {
        self.0.iter().rev().find(|(name, _)| name == key).and_then(|(_, value)| value.as_deref())
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| ["on", "yes", "true", "y"].iter().any(|it| value == *it))
    }

    /// The same without what is said of `key`.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.retain(|(name, value)| value.is_none() || name != key);
        self
    }

    /// The same with this one value for `key`.
    pub(crate) fn with(self, key: &str, value: impl Into<OsString>) -> Self {
        let mut options = self.without(key);
        options.0.push((key.into(), Some(value.into())));
        options
    }

    /// All values, those without a key too.
    pub(crate) fn values(&self) -> impl Iterator<Item = &OsStr> {
        self.0.iter().map(|(word, value)| value.as_deref().unwrap_or(word))
    }

    /// As QEMU reads it.
    pub(crate) fn text(&self) -> OsString {
        let mut text = OsString::new();
        for (place, (key, value)) in self.0.iter().enumerate() {
            if place > 0 {
                text.push(",");
            }
            match value {
                Some(value) => {
                    text.push(key);
                    text.push("=");
                    text.push(doubled(value));
                }
                None => text.push(doubled(key)),
            }
        }
        text
    }
}

/// `value` as it stands in an option string: each comma twice.
pub(crate) fn doubled(value: &OsStr) -> OsString {
    let mut bytes = Vec::with_capacity(value.len());
    for byte in value.as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

/// What single commas separate, with each pair of commas made one.
fn pieces(text: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    let mut bytes = text.iter().peekable();
    while let Some(byte) = bytes.next() {
        let piece = pieces.last_mut().expect("there is one from the start");
        match byte {
            b',' if bytes.next_if(|next| **next == b',').is_some() => piece.push(b','),
            b',' => pieces.push(Vec::new()),
            _ => piece.push(*byte),
        }
    }
    pieces
}

fn split(piece: &[u8]) -> (OsString, Option<OsString>) {
    let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    match memchr::memchr(b'=', piece) {
        Some(at) => (word(&piece[..at]), Some(word(&piece[at + 1..]))),
        None => (word(piece), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Options {
        Options::parse(OsStr::new(text))
    }

    #[test]
    fn keys_values_and_the_implied_word_are_told_apart() {
        let options = parse("virtio-blk-pci,drive=d0,,1,bootindex=1,drive=d1");

        assert_eq!(options.implied(), Some(OsStr::new("virtio-blk-pci")));
        assert_eq!(options.get("drive"), Some(OsStr::new("d1")));
        assert_eq!(options.get("bootindex"), Some(OsStr::new("1")));
        assert_eq!(options.get("id"), None);
        assert_eq!(options.without("drive").text(), "virtio-blk-pci,bootindex=1");
    }

    #[test]
    fn a_value_is_replaced_where_it_stands_twice() {
        let options = parse("file=a,,b,file=c,if=virtio").with("file", "/x,y");

        assert_eq!(options.text(), "if=virtio,file=/x,,y");
    }

    #[test]
    fn switches_are_on_in_all_of_qemus_ways() {
        assert!(parse("readonly=on").is_on("readonly") && parse("readonly=yes").is_on("readonly"));
        assert!(!parse("readonly=off").is_on("readonly") && !parse("readonly").is_on("readonly"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(pairs in proptest::collection::vec(("[a-z.]{1,6}", "[ -~]{0,8}"), 1..6)) {
            let options = Options(
                pairs.into_iter().map(|(key, value)| (key.into(), Some(value.into()))).collect(),
            );

            prop_assert_eq!(Options::parse(&options.text()), options);
        }
    }
}
