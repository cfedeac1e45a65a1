//! What cannot work in a configuration, found before anything is made. Pure.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::RawFd;

use crate::config::ConsoleConfig;
use crate::config::Device;
use crate::config::MachineConfig;
use crate::config::Monitor;
use crate::config::Place;
use crate::config::WorkingFolder;

/// What is wrong with a configuration, seen before anything is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The name cannot name a file.
    #[error("the name {name:?} cannot name a log file: {reason}")]
    Name {
        /// The name.
        name: OsString,
        /// Why.
        reason: &'static str,
    },
    /// The machine is to be reachable by a name that it has not, or that is none for that.
    #[error("the machine cannot be reachable by its name: {reason}")]
    Unreachable {
        /// Why.
        reason: &'static str,
    },
    /// An argument, a path or a variable holds a NUL, which no argument of a process can.
    #[error("{what} {value:?} holds a NUL byte")]
    Nul {
        /// What it is: "the argument", "the variable".
        what: &'static str,
        /// The whole value.
        value: OsString,
    },
    /// QEMU would leave its process, and with it everybody who watches.
    #[error("`-daemonize` takes QEMU out of ratite's hands; ratite runs in the background by itself")]
    Daemonize,
    /// Two descriptors under one number, or one that is taken.
    #[error("descriptor number {number} cannot be given: {reason}")]
    FdNumber {
        /// The number.
        number: RawFd,
        /// Why.
        reason: &'static str,
    },
    /// Something that must be said is empty.
    #[error("{what} is empty")]
    Empty {
        /// What it is: "the binary".
        what: &'static str,
    },
    /// No environment can hold a variable of this name.
    #[error("{name:?} cannot name an environment variable: it is empty or holds a `=`")]
    Variable {
        /// The name.
        name: OsString,
    },
    /// A console's name cannot be part of a QEMU id.
    #[error("the name {name:?} cannot name a console: {reason}")]
    ConsoleName {
        /// The name.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// Two consoles are to be the same serial port.
    #[error("the consoles {first:?} and {second:?} cannot both be serial port {port}")]
    SerialPort {
        /// The one that was named first.
        first: String,
        /// The other.
        second: String,
        /// The port, counted from 0.
        port: u32,
    },
    /// A console is to be a serial port that no machine has.
    #[error("the console {name:?} cannot be serial port {port}: QEMU has no more than {most}")]
    NoSerialPort {
        /// The console.
        name: String,
        /// The port, counted from 0.
        port: u32,
        /// How many there can be.
        most: u32,
    },
    /// The monitor's host is empty.
    #[error("the monitor's host is empty; `127.0.0.1` is this machine")]
    EmptyHost,
}

impl MachineConfig {
    /// Looks for what cannot work, before anything is made.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if self.reachable
            && let Err(reason) = self.name.as_deref().ok_or("it has none").and_then(check_reachable)
        {
            return Err(ConfigError::Unreachable { reason });
        }
        for (what, value) in self.what_must_be_said() {
            if value.is_empty() {
                return Err(ConfigError::Empty { what });
            }
        }
        for (what, value) in self.what_reaches_the_system() {
            check_nul(what, value)?;
        }
        for (name, _) in &self.environment {
            if name.is_empty() || name.as_encoded_bytes().contains(&b'=') {
                return Err(ConfigError::Variable { name: name.clone() });
            }
        }
        // The word alone, or with QEMU's second dash; a value such as `-name -daemonize` is not worth the risk.
        if self.args.iter().any(|arg| arg == "-daemonize" || arg == "--daemonize") {
            return Err(ConfigError::Daemonize);
        }
        if matches!(&self.monitor, Monitor::Tcp { host, .. } if host.is_empty()) {
            return Err(ConfigError::EmptyHost);
        }
        self.check_consoles()?;
        self.check_fd_numbers()
    }

    /// The name by which it is to be reachable, which was checked.
    pub(crate) fn reachable_name(&self) -> Option<&str> {
        self.name.as_deref()?.to_str().filter(|_| self.reachable)
    }

    fn what_must_be_said(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        let first = self.wrapper.first().map(|program| ("the wrapper", program.as_os_str()));
        [("the binary", self.binary.as_os_str()), ("the base folder", self.base_folder.as_os_str())]
            .into_iter()
            .chain(first)
    }

    /// Everything that becomes an argument, a path or a variable.
    fn what_reaches_the_system(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        let arguments = self.wrapper.iter().chain([&self.binary]).chain(&self.args);
        let arguments = arguments.chain(&self.machine_type).chain(&self.accelerators);
        let devices = self.consoles.iter().flat_map(|console| match &console.device {
            Device::Serial => [None, None],
            Device::Other(device) => [Some(device), None],
            Device::Virtio { port, bus } => [port.as_ref(), bus.as_ref()],
        });
        let agents_bus = self.agent.iter().filter_map(|agent| agent.bus.as_ref());
        let texts = self.fds.iter().flat_map(|fd| match &fd.place {
            Place::Set { opaque, options, .. } => [opaque.as_ref(), options.as_ref()],
            Place::Number(_) => [None, None],
        });
        let arguments = arguments
            .chain(devices.flatten())
            .chain(agents_bus)
            .chain(texts.flatten())
            .map(|arg| ("the argument", arg.as_os_str()));
        let variables = self.environment.iter().flat_map(|(name, value)| {
            [("the variable", name.as_os_str()), ("the value", value.as_deref().unwrap_or_default())]
        });
        let working = match &self.working_folder {
            WorkingFolder::At(folder) => Some(folder),
            WorkingFolder::Callers | WorkingFolder::Work => None,
        };
        let folders = [Some(&self.base_folder), self.log_folder.as_ref(), working].into_iter().flatten();
        arguments.chain(variables).chain(folders.map(|folder| ("the folder", folder.as_os_str())))
    }

    fn check_consoles(&self) -> Result<(), ConfigError> {
        for (place, console) in self.consoles.iter().enumerate() {
            check_id(&console.name)?;
            let Some(port) = console.index else { continue };
            if port >= MOST_SERIAL_PORTS {
                let name = console.name.clone();
                return Err(ConfigError::NoSerialPort { name, port, most: MOST_SERIAL_PORTS });
            }
            let is_serial = |console: &ConsoleConfig| console.device == Device::Serial;
            let same = |other: &&ConsoleConfig| is_serial(other) && other.index == console.index;
            if let Some(first) = self.consoles[..place].iter().find(same).filter(|_| is_serial(console)) {
                let (first, second) = (first.name.clone(), console.name.clone());
                return Err(ConfigError::SerialPort { first, second, port });
            }
        }
        Ok(())
    }

    fn check_fd_numbers(&self) -> Result<(), ConfigError> {
        let mut taken = Vec::new();
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        for fd in &self.fds {
            let Place::Number(number) = fd.place else { continue };
            let reason = match number {
                ..0 => "it is negative",
                0..=2 => "it is stdin, stdout or stderr",
                _ if u64::from(number.unsigned_abs()) >= most => {
                    "the system allows none so high (RLIMIT_NOFILE)"
                }
                _ if taken.contains(&number) => "it is given twice",
                _ => {
                    taken.push(number);
                    continue;
                }
            };
            return Err(ConfigError::FdNumber { number, reason });
        }
        Ok(())
    }
}

/// Whether a machine can be reachable by this name: one that stands in a path and on a command line without quotes, and is
/// no option, no hidden file and no address.
pub(crate) fn check_reachable(name: &OsStr) -> Result<(), &'static str> {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let bytes = name.as_encoded_bytes();
    match bytes.first() {
        None => Err("it is empty"),
        Some(b'.' | b'-') => Err("it begins with a `.` or a `-`"),
        Some(_) if !bytes.iter().all(is_allowed) => {
            Err("it holds something other than ASCII letters, digits, `.`, `_` and `-`")
        }
        Some(_) => Ok(()),
    }
}

fn check_name(name: &OsStr) -> Result<(), ConfigError> {
    let bytes = name.as_encoded_bytes();
    let reason = if bytes.is_empty() {
        "it is empty"
    } else if bytes.contains(&b'/') {
        "it holds a `/`"
    } else if bytes.contains(&0) {
        "it holds a NUL byte"
    } else if bytes.len() > LONGEST_NAME {
        "with `.log.1` it is longer than the 255 bytes a file name may have"
    } else {
        return Ok(());
    };
    Err(ConfigError::Name { name: name.to_owned(), reason })
}

/// What QEMU takes as an id (its `id_wellformed`), of which the name becomes the end.
fn check_id(name: &str) -> Result<(), ConfigError> {
    let reason = match name.chars().next() {
        None => "it is empty",
        Some(first) if !first.is_ascii_alphabetic() => "it does not begin with a letter",
        _ if !name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) => {
            "it holds something else than letters, digits, `-`, `.` and `_`"
        }
        _ if name.len() > LONGEST_ID => "it is longer than 100 bytes",
        _ => return Ok(()),
    };
    Err(ConfigError::ConsoleName { name: name.to_owned(), reason })
}

fn check_nul(what: &'static str, value: &OsStr) -> Result<(), ConfigError> {
    if value.as_encoded_bytes().contains(&0) {
        return Err(ConfigError::Nul { what, value: value.to_owned() });
    }
    Ok(())
}

/// More than any machine of QEMU has; far fewer `-serial null` than a command line can hold.
const MOST_SERIAL_PORTS: u32 = 256;

/// QEMU shortens the names of what belongs to an id beyond some 127 bytes.
const LONGEST_ID: usize = 100;

/// What is left of NAME_MAX (255 on Linux) beside `.log.1`.
const LONGEST_NAME: usize = 255 - 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PassedFd;

    #[track_caller]
    fn check_refused(config: MachineConfig, words: &str) {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    fn qemu() -> MachineConfig {
        MachineConfig::new("qemu")
    }

    #[test]
    fn what_cannot_work_is_named() {
        check_refused(qemu().name("a/b"), "holds a `/`");
        check_refused(qemu().name("a\0"), "NUL");
        check_refused(qemu().name("x".repeat(250)), "255 bytes");
        check_refused(qemu().name(""), "empty");
        check_refused(qemu().arg("-x\0y"), "the argument \"-x\\0y\" holds a NUL");
        check_refused(qemu().env("A", "\0"), "the value");
        check_refused(qemu().arg("-daemonize"), "out of ratite's hands");
        check_refused(qemu().monitor(Monitor::Tcp { host: String::new(), port: 1 }), "host is empty");
    }

    #[test]
    fn consoles_have_names_and_ports_of_their_own() {
        let serial = |name: &str, port| ConsoleConfig::serial().name(name).index(port);
        check_refused(qemu().console(ConsoleConfig::serial().name("")), "empty");
        check_refused(qemu().console(ConsoleConfig::serial().name("0")), "begin with a letter");
        check_refused(qemu().console(ConsoleConfig::serial().name("a,b")), "something else");
        check_refused(qemu().console(serial("a", 1)).console(serial("b", 1)), "serial port 1");
        check_refused(qemu().console(serial("a", 1000)), "no more than 256");
        check_refused(qemu().console(ConsoleConfig::virtserialport("x\0").name("x")), "NUL");
        check_refused(qemu().console(ConsoleConfig::virtconsole().bus("x\0")), "NUL");
        assert_eq!(qemu().console(serial("a", 1)).console(serial("a", 2)).check(), Ok(()));
    }

    #[test]
    fn descriptor_numbers_are_free_and_given_once() {
        let fd = || std::fs::File::open("/dev/null").unwrap();
        check_refused(qemu().fd(PassedFd::at(fd(), 2)), "stderr");
        check_refused(qemu().fd(PassedFd::at(fd(), -1)), "negative");
        check_refused(qemu().fd(PassedFd::at(fd(), 9)).fd(PassedFd::at(fd(), 9)), "twice");
    }

    #[test]
    fn odd_names_that_work_are_taken() {
        for name in ["a,b", "%s", "-x", "name with blanks", "ü"] {
            assert_eq!(qemu().name(name).check(), Ok(()));
        }
    }
}
