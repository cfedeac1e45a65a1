//! What the user's own QEMU arguments say about the first serial port, which `ratite run` shows. Pure.
//!
//! ratite's arguments come before the user's, so a serial port of ratite's is the first, and one of the user's moves to
//! the second place. `-nographic` needs no care: it connects the serial port only where nobody else has.

use std::ffi::OsString;

/// Who has the first serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FirstSerial {
    /// Nobody; ratite takes it.
    Free,
    /// The user wants it on the terminal, which is what ratite does: the two words at this index say no more.
    Terminal(usize),
    /// The user has other plans for it: the option's value.
    Taken(String),
}

/// Looks for the first `-serial`.
pub(crate) fn first_serial(args: &[OsString]) -> FirstSerial {
    let Some(at) = args.iter().position(|arg| arg == "-serial" || arg == "--serial") else {
        return FirstSerial::Free;
    };
    match args.get(at + 1) {
        // Nothing to connect: QEMU complains better than we could.
        None => FirstSerial::Free,
        Some(value) if value == "stdio" || value == "mon:stdio" => FirstSerial::Terminal(at),
        Some(value) => FirstSerial::Taken(value.to_string_lossy().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], expected: FirstSerial) {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        assert_eq!(first_serial(&args), expected);
    }

    #[test]
    fn the_first_serial_port_is_whose_it_is() {
        check(&["-m", "64", "-nographic"], FirstSerial::Free);
        check(&["-m", "64", "-serial", "stdio"], FirstSerial::Terminal(2));
        check(&["--serial", "mon:stdio"], FirstSerial::Terminal(0));
        check(&["-serial", "file:x", "-serial", "stdio"], FirstSerial::Taken("file:x".into()));
        check(&["-serial"], FirstSerial::Free);
    }
}
