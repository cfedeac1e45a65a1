//! Where a QMP peer is to be found: parsing and printing, nothing more.
//!
//! Strict on purpose: an address that is not understood is refused, never taken for a file name.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::RawFd;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a QMP peer is to be found.
///
/// | written | meaning |
/// |---|---|
/// | `unix:PATH`, `/PATH`, `./PATH`, `../PATH` | a Unix socket |
/// | `HOST:PORT`, `tcp:HOST:PORT` | TCP, the host a name or an IPv4 address |
/// | `[ADDRESS]:PORT` | TCP over IPv6 |
/// | `fd:N` | a socket that this process already has under the number N |
///
/// ```
/// use ratite_qmp::Address;
///
/// assert_eq!("[::1]:4444".parse::<Address>()?, Address::tcp("::1", 4444));
/// assert!("localhost:99999".parse::<Address>().is_err());
/// # Ok::<(), ratite_qmp::BadAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket in the file system.
    Unix(PathBuf),
    /// A TCP port of a host.
    Tcp {
        /// A name or a numeric address, IPv6 without brackets.
        host: String,
        /// The port; 0 lets the system choose one, which only a server can do.
        port: u16,
    },
    /// A socket that this process inherited or made, by its number.
    Fd(RawFd),
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {reason}")]
pub struct BadAddress {
    text: String,
    reason: &'static str,
}

impl Address {
    /// A Unix socket at `path`.
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::Unix(path.as_ref().to_owned())
    }

    /// A TCP port of `host`, a name or a numeric address.
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::parse_path(path);
        }
        if let Some(number) = text.strip_prefix("fd:") {
            return decimal(number).map(Self::Fd).ok_or("a descriptor is a decimal number");
        }
        if ["/", "./", "../"].iter().any(|start| text.starts_with(start)) {
            return Self::parse_path(text);
        }
        Self::parse_tcp(text.strip_prefix("tcp:").unwrap_or(text))
    }

    fn parse_path(path: &str) -> Result<Self, &'static str> {
        if path.is_empty() {
            return Err("the path is empty");
        }
        if path.contains('\0') {
            return Err("the path holds a NUL");
        }
        Ok(Self::unix(OsStr::new(path)))
    }

    fn parse_tcp(text: &str) -> Result<Self, &'static str> {
        let (host, port) =
            text.rsplit_once(':').ok_or("it has no port (a path starts with `/`, `./` or `unix:`)")?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or("the bracket is not closed")?;
                // A link-local address may name its interface: `fe80::1%eth0`.
                let (address, interface) = inner.split_once('%').unwrap_or((inner, "none"));
                if interface.is_empty() || interface.contains(['%', ':']) {
                    return Err("what is behind `%` is no name of an interface");
                }
                address.parse::<std::net::Ipv6Addr>().map_err(|_| "the brackets hold no IPv6 address")?;
                inner
            }
            None => host,
        };
        if host.is_empty() {
            return Err("the host is empty");
        }
        if !text.starts_with('[') && host.contains(':') {
            return Err("an IPv6 address is written in brackets, like `[::1]:4444`");
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/[]@".contains(c)) {
            return Err("the host holds a character that no host name has");
        }
        let port = decimal(port).ok_or("the port is a decimal number from 0 to 65535")?;
        Ok(Self::tcp(host, port))
    }
}

/// Reads plain ASCII digits; `str::parse` alone would take a sign.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        Self::parse(text).map_err(|reason| BadAddress { text: text.to_owned(), reason })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            // Hosts that without the prefix would be taken for one of the other forms.
            Self::Tcp { host, port } if ["unix", "fd", "tcp"].contains(&host.as_str()) => {
                write!(f, "tcp:{host}:{port}")
            }
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Fd(number) => write!(f, "fd:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Address) {
        assert_eq!(text.parse::<Address>().unwrap(), expected);
    }

    #[track_caller]
    fn check_refused(text: &str, reason: &str) {
        let error = text.parse::<Address>().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn every_written_form_is_understood() {
        check("unix:/run/q.sock", Address::unix("/run/q.sock"));
        check("unix:q.sock", Address::unix("q.sock"));
        check("/run/a:b", Address::unix("/run/a:b"));
        check("./q:1", Address::unix("./q:1"));
        check("localhost:4444", Address::tcp("localhost", 4444));
        check("tcp:127.0.0.1:0", Address::tcp("127.0.0.1", 0));
        check("[::1]:65535", Address::tcp("::1", 65535));
        check("fd:7", Address::Fd(7));
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        check_refused("", "no port");
        check_refused("qmp.sock", "starts with `/`");
        check_refused("unix:", "empty");
        check_refused("h:-1", "decimal");
        check_refused("h:1_0", "decimal");
        check_refused("h: 1", "decimal");
        check_refused("h:+1", "decimal");
        check_refused("h:65536", "65535");
        check_refused(":1", "host is empty");
        check_refused("a:b:1", "brackets");
        check_refused("::1:1", "brackets");
        check_refused("[::1:1", "not closed");
        check_refused("[host]:1", "no IPv6");
        check_refused("fd:x", "decimal");
        check_refused("fd:99999999999", "decimal");
        check_refused("a b:1", "character");
    }

    #[test]
    fn printing_and_parsing_agree() {
        for text in ["unix:/a b,c", "[fe80::1]:1", "host:2", "fd:0"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            if let Ok(address) = text.parse::<Address>() {
                proptest::prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
            }
        }
    }
}
