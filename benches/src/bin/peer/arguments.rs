//! What the peer takes from a QEMU command line: `-chardev socket`, `-mon`, `-qmp unix:`; the rest is ignored.

use std::ffi::c_int;

/// Where a character device leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Fd(c_int),
    Path(&'a [u8]),
}

/// `-chardev socket,…`, or the socket of `-qmp unix:…`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chardev<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) place: Place<'a>,
    /// `server=on`: a descriptor is listening already, a path is bound.
    pub(crate) listens: bool,
}

/// The monitor's device, and the others: consoles.
#[derive(Debug, Default)]
pub(crate) struct Arguments<'a> {
    pub(crate) monitor: Option<Chardev<'a>>,
    pub(crate) consoles: Vec<Chardev<'a>>,
}

impl<'a> Arguments<'a> {
    pub(crate) fn parse(words: &[&'a [u8]]) -> Self {
        let mut arguments = Self::default();
        let mut monitor_id: &[u8] = b"";
        for pair in words.windows(2) {
            let (option, value) = (pair[0], pair[1]);
            match option {
                b"-chardev" => arguments.consoles.extend(chardev(value)),
                b"-mon" if field(value, b"mode") == Some(b"control") => {
                    monitor_id = field(value, b"chardev").unwrap_or_default();
                }
                b"-qmp" => {
                    let place = value.strip_prefix(b"unix:").unwrap_or(value);
                    let path = place.split(|byte| *byte == b',').next().unwrap_or_default();
                    let place = Place::Path(path);
                    arguments.monitor = Some(Chardev { id: b"", place, listens: listens(value) });
                }
                _ => {}
            }
        }
        if let Some(at) = arguments.consoles.iter().position(|chardev| chardev.id == monitor_id) {
            arguments.monitor = Some(arguments.consoles.remove(at));
        }
        arguments
    }
}

fn chardev(value: &[u8]) -> Option<Chardev<'_>> {
    let id = field(value, b"id")?;
    let fd = field(value, b"fd").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    let place = fd.map(Place::Fd).or_else(|| field(value, b"path").map(Place::Path))?;
    Some(Chardev { id, place, listens: listens(value) })
}

fn listens(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| matches!(part, b"server=on" | b"server"))
}

fn field<'a>(value: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    value.split(|byte| *byte == b',').find_map(|part| part.strip_prefix(key)?.strip_prefix(b"="))
}
