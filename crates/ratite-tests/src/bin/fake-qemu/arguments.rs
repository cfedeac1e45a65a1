//! The part of a QEMU command line that the fake understands.
//!
//! Plain data, no I/O. Everything unknown is ignored, because a controller may say anything to a QEMU.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) chardevs: Vec<Chardev>,
    pub(crate) monitors: Vec<MonitorOption>,
    /// The chardev ids of the consoles, in the order of the command line.
    pub(crate) consoles: Vec<String>,
    /// The chardev ids that speak the qtest protocol.
    pub(crate) qtests: Vec<String>,
    pub(crate) name: Option<String>,
    /// Whether `-S` was given.
    pub(crate) paused: bool,
    /// What stood behind each `-fake`.
    pub(crate) words: Vec<OsString>,
}

/// One `-chardev socket,…`.
#[derive(Debug)]
pub(crate) struct Chardev {
    pub(crate) id: String,
    pub(crate) address: Address,
    /// Whether we listen; otherwise we connect, or take over the descriptor.
    pub(crate) server: bool,
    /// The option as it was given, for error messages.
    pub(crate) text: String,
}

/// Where a chardev's socket is.
#[derive(Debug)]
pub(crate) enum Address {
    Descriptor(RawFd),
    Path(PathBuf),
    Tcp { host: String, port: u16 },
}

/// One `-mon …,mode=control`.
#[derive(Debug)]
pub(crate) struct MonitorOption {
    pub(crate) chardev: String,
    pub(crate) pretty: bool,
}

impl Arguments {
    /// Reads a command line, without the name of the program.
    pub(crate) fn parse(given: &[OsString]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut rest = given.iter();
        while let Some(word) = rest.next() {
            let name = option_name(word);
            if name == "S" {
                parsed.paused = true;
            } else if TAKES_A_VALUE.contains(&name) {
                let value = rest.next().ok_or_else(|| format!("-{name}: requires an argument"))?;
                parsed.option(name, value)?;
            }
        }
        Ok(parsed)
    }

    fn option(&mut self, name: &str, value: &OsStr) -> Result<(), String> {
        match name {
            "fake" => self.words.push(value.to_owned()),
            "chardev" => self.chardevs.extend(chardev(value)?),
            "mon" => self.monitors.extend(monitor(value)),
            "serial" | "qtest" => {
                if let Some(id) = value.to_string_lossy().strip_prefix("chardev:") {
                    let users = if name == "serial" { &mut self.consoles } else { &mut self.qtests };
                    users.push(id.to_owned());
                }
            }
            "device" => self.consoles.extend(Options::split(value, "driver").text("chardev")),
            "name" => self.name = Options::split(value, "guest").text("guest"),
            _ => {}
        }
        Ok(())
    }
}

fn option_name(word: &OsStr) -> &str {
    let word = word.to_str().unwrap_or_default();
    word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default()
}

fn chardev(value: &OsStr) -> Result<Option<Chardev>, String> {
    let options = Options::split(value, "backend");
    if options.text("backend").as_deref() != Some("socket") {
        return Ok(None);
    }
    let text = format!("-chardev {}", value.to_string_lossy());
    let id = options.text("id").ok_or_else(|| format!("{text}: Parameter 'id' is missing"))?;
    let number = |key: &str| {
        let digits = options.text(key).unwrap_or_default();
        digits.parse::<u16>().map_err(|_| format!("{text}: Parameter '{key}' expects a number"))
    };
    let address = if options.has("fd") {
        Address::Descriptor(number("fd")?.into())
    } else if let Some(path) = options.bytes("path") {
        Address::Path(OsString::from_vec(path.to_vec()).into())
    } else if let Some(host) = options.text("host") {
        Address::Tcp { host, port: number("port")? }
    } else {
        return Err(format!("{text}: one of 'fd', 'path' and 'host' is needed"));
    };
    Ok(Some(Chardev { id, address, server: options.is_on("server"), text }))
}

fn monitor(value: &OsStr) -> Option<MonitorOption> {
    let options = Options::split(value, "chardev");
    (options.text("mode").as_deref() == Some("control")).then(|| MonitorOption {
        chardev: options.text("chardev").unwrap_or_default(),
        pretty: options.is_on("pretty"),
    })
}

/// `first,key=value,flag,…`, with doubled commas undoubled.
struct Options(Vec<(String, Vec<u8>)>);

impl Options {
    /// Splits an option string; a first item without `=` is the value of `implied`.
    fn split(value: &OsStr, implied: &str) -> Self {
        let mut items = vec![Vec::new()];
        let mut bytes = value.as_bytes().iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            if byte == b',' && bytes.next_if_eq(&b',').is_none() {
                items.push(Vec::new());
            } else if let Some(item) = items.last_mut() {
                item.push(byte);
            }
        }
        let pairs =
            items.iter().enumerate().map(|(index, item)| match item.iter().position(|&b| b == b'=') {
                Some(at) => (String::from_utf8_lossy(&item[..at]).into_owned(), item[at + 1..].to_vec()),
                None if index == 0 => (implied.to_owned(), item.clone()),
                None => (String::from_utf8_lossy(item).into_owned(), b"on".to_vec()),
            });
        Self(pairs.collect())
    }

    /// The value of `key`; as in QEMU, the last one counts.
    fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    fn text(&self, key: &str) -> Option<String> {
        self.bytes(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn has(&self, key: &str) -> bool {
        self.bytes(key).is_some()
    }

    fn is_on(&self, key: &str) -> bool {
        matches!(self.bytes(key), Some(b"on" | b"yes" | b"true" | b"y"))
    }
}

/// The options whose value is read here; the values of all others are skipped as unknown words.
const TAKES_A_VALUE: [&str; 7] = ["fake", "chardev", "mon", "serial", "qtest", "device", "name"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_comma_is_one() {
        let given = ["-chardev", "socket,id=a,path=x,,y,,,server=on,wait=off"].map(OsString::from);

        let parsed = Arguments::parse(&given).unwrap();

        let chardev = &parsed.chardevs[0];
        assert!(matches!(&chardev.address, Address::Path(path) if path.as_os_str() == "x,y,"));
        assert!(chardev.server);
    }

    #[test]
    fn what_is_unknown_is_ignored() {
        let given = ["-display", "none", "--serial", "null", "-device", "isa-serial,chardev=c", "file", "-S"];

        let parsed = Arguments::parse(&given.map(OsString::from)).unwrap();

        assert_eq!(parsed.consoles, ["c"]);
        assert!(parsed.paused && parsed.chardevs.is_empty());
    }
}
