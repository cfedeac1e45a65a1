//! Text to addresses: what is understood is what the grammar says, and can be written and read again.
//!
//! An input is the text.

use std::net::Ipv6Addr;
use std::path::Path;

use ratite_qmp::Address;

/// Checks that a text is understood as the table of [`Address`] says, or refused with a reason.
///
/// # Panics
/// When a promise is broken.
pub fn address(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match (text.parse::<Address>(), reference(text)) {
        (Ok(address), Some(expected)) => {
            assert_eq!(address, expected);
            let written = address.to_string();
            assert_eq!(written.parse().as_ref(), Ok(&address), "written as {written:?}");
        }
        (Err(refused), None) => assert!(refused.to_string().contains("is not an address: ")),
        (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
    }
}

/// The table of [`Address`], read right to left.
fn reference(text: &str) -> Option<Address> {
    let is_path = text.starts_with('/') || text.starts_with("./") || text.starts_with("../");
    let path = if is_path { Some(text) } else { text.strip_prefix("unix:") };
    if let Some(path) = path {
        return (!path.is_empty() && !path.contains('\0')).then(|| Address::Unix(Path::new(path).to_owned()));
    }
    if let Some(number) = text.strip_prefix("fd:") {
        return number_up_to(number, i32::MAX.unsigned_abs()).map(|number| Address::Fd(number.cast_signed()));
    }
    let text = text.strip_prefix("tcp:").unwrap_or(text);
    let digits = text.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (host, port) = text.split_at(text.len() - digits);
    let port = u16::try_from(number_up_to(port, 65535)?).ok()?;
    let host = host.strip_suffix(':')?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) if is_ipv6(inner) => inner,
        Some(_) => return None,
        None => host,
    };
    let brackets = text.starts_with('[');
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/@[]".contains(c) || (c == ':' && !brackets);
    (!host.is_empty() && !host.contains(odd)).then(|| Address::tcp(host, port))
}

/// An address, perhaps with the interface to reach it by.
fn is_ipv6(text: &str) -> bool {
    let parts: Vec<&str> = text.split('%').collect();
    let interface = match parts.as_slice() {
        [_] => true,
        [_, interface] => !interface.is_empty() && !interface.contains(':'),
        _ => false,
    };
    interface && parts[0].parse::<Ipv6Addr>().is_ok()
}

fn number_up_to(digits: &str, most: u32) -> Option<u32> {
    let mut number = 0_u64;
    for digit in digits.chars() {
        number = number * 10 + u64::from(digit.to_digit(10)?);
        if number > u64::from(most) {
            return None;
        }
    }
    (!digits.is_empty()).then(|| u32::try_from(number).ok()).flatten()
}
