//! From a description to the arguments of a process. Pure.
//!
//! The order is fixed and part of the interface: wrapper, binary, ratite's own arguments, the user's arguments last.

mod consoles;

use std::borrow::Cow;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

use crate::config::ExtraMonitor;
use crate::config::MachineConfig;
use crate::config::Place;
use crate::masking::MASK;
use crate::masking::masked;
use crate::options::doubled;
use consoles::push_agent;
use consoles::push_consoles;

/// The words that start a machine. Displays as one line that a shell understands, with secrets masked (`data=***` of a
/// `secret` object, `password=***`); [`CommandLine::words`] has them as they are.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandLine(Vec<OsString>);

impl fmt::Debug for CommandLine {
    /// The same as its display: an error that is printed for debugging must not tell secrets either.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CommandLine").field(&format_args!("{self}")).finish()
    }
}

impl CommandLine {
    /// The words, the program first.
    #[must_use]
    pub fn words(&self) -> &[OsString] {
        &self.0
    }

    pub(crate) fn program(&self) -> &OsStr {
        &self.0[0]
    }

    pub(crate) fn arguments(&self) -> &[OsString] {
        &self.0[1..]
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, word) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(" ")?;
            }
            f.write_str(&quoted(word))?;
        }
        Ok(())
    }
}

/// `word` as a shell reads it back: quoted where it must be, `$'…'` for bytes that are no printable text.
fn quoted(word: &OsStr) -> String {
    match word.to_str() {
        Some(text) if !text.contains(|c: char| c.is_control()) => {
            let text = masked(text);
            shlex::try_quote(&text).map_or_else(|_| text.to_string(), Cow::into_owned)
        }
        // The mask is sought in what can be read of it; bytes that are no text are no secret that QEMU takes.
        _ => match masked(&word.to_string_lossy()) {
            Cow::Owned(masked) if masked.contains(MASK) => format!("$'{}'", masked.as_bytes().escape_ascii()),
            _ => format!("$'{}'", word.as_bytes().escape_ascii()),
        },
    }
}

/// Where QEMU finds the other ends of what it is connected to.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChildEnds {
    pub(crate) monitor: Option<MonitorEnd>,
    /// Those of the consoles, in their order.
    pub(crate) consoles: Vec<RawFd>,
    pub(crate) agent: Option<RawFd>,
    pub(crate) qtest: Option<RawFd>,
    /// The listening sockets of the extra monitors that have one, in their order.
    pub(crate) extra_monitors: Vec<RawFd>,
    /// Whether QEMU itself is to end with its parent: the wrapper.
    pub(crate) exit_with_parent: bool,
    /// The numbers of [`MachineConfig::fd`]'s descriptors, in their order.
    pub(crate) passed: Vec<RawFd>,
}

/// Where QEMU's monitor is to connect to.
#[derive(Debug, Clone)]
pub(crate) enum MonitorEnd {
    Fd(RawFd),
    Unix(OsString),
    Tcp(String, u16),
}

/// The command line of `config`, with its ends at `ends`.
pub(crate) fn render(config: &MachineConfig, ends: &ChildEnds) -> CommandLine {
    let mut words: Vec<OsString> = config.wrapper.clone();
    words.push(config.binary.clone());
    if config.headless {
        words.extend(["-display", "none", "-vga", "none"].map(OsString::from));
    }
    if let Some(monitor) = &ends.monitor {
        let mut chardev = option("socket,id=mon");
        match monitor {
            MonitorEnd::Fd(fd) => chardev.push(format!(",fd={fd}")),
            MonitorEnd::Unix(path) => push_value(&mut chardev, "path", path),
            MonitorEnd::Tcp(host, port) => {
                push_value(&mut chardev, "host", OsStr::new(host));
                chardev.push(format!(",port={port}"));
            }
        }
        words.extend(["-chardev".into(), chardev, "-mon".into(), "chardev=mon,mode=control".into()]);
    }
    if let Some(machine_type) = &config.machine_type {
        words.extend(["-machine".into(), doubled(machine_type)]);
    }
    push_consoles(&mut words, config, &ends.consoles);
    if let (Some(agent), Some(fd)) = (&config.agent, ends.agent) {
        push_agent(&mut words, agent, fd);
    }
    push_accelerators(&mut words, config);
    push_extra_monitors(&mut words, &config.extra_monitors, &ends.extra_monitors);
    for (passed, number) in config.fds.iter().zip(&ends.passed) {
        push_fd(&mut words, &passed.place, *number);
    }
    if ends.exit_with_parent {
        words.extend(["-run-with", "exit-with-parent=on"].map(OsString::from));
    }
    if let Some(fd) = ends.qtest {
        words.extend(["-chardev".into(), format!("socket,id=qtest,fd={fd}").into()]);
        words.extend(["-qtest", "chardev:qtest"].map(OsString::from));
        if config.accelerators.is_empty() {
            words.extend(["-accel", "qtest"].map(OsString::from));
        }
    }
    words.extend(config.args.iter().cloned());
    CommandLine(words)
}

fn push_accelerators(words: &mut Vec<OsString>, config: &MachineConfig) {
    for accelerator in &config.accelerators {
        words.extend(["-accel".into(), doubled(accelerator)]);
    }
}

fn push_extra_monitors(words: &mut Vec<OsString>, monitors: &[ExtraMonitor], sockets: &[RawFd]) {
    let mut sockets = sockets.iter();
    for (number, monitor) in monitors.iter().enumerate() {
        let mode = match monitor {
            ExtraMonitor::Null => {
                words.extend(["-monitor", "null"].map(OsString::from));
                continue;
            }
            ExtraMonitor::Qmp(_) => "control",
            ExtraMonitor::Human(_) => "readline",
        };
        let Some(fd) = sockets.next() else { continue };
        words.extend([
            "-chardev".into(),
            format!("socket,id=mon-{number},fd={fd},server=on,wait=off").into(),
            "-mon".into(),
            format!("chardev=mon-{number},mode={mode}").into(),
        ]);
    }
}

fn push_fd(words: &mut Vec<OsString>, place: &Place, number: RawFd) {
    let Place::Set { set, opaque, options } = place else {
        return;
    };
    let mut value = option(&format!("fd={number},set={set}"));
    if let Some(opaque) = opaque {
        push_value(&mut value, "opaque", opaque);
    }
    if let Some(options) = options {
        value.push(",");
        value.push(options);
    }
    words.extend(["-add-fd".into(), value]);
}

fn option(text: &str) -> OsString {
    OsString::from(text)
}

fn push_value(option: &mut OsString, key: &str, value: &OsStr) {
    option.push(format!(",{key}="));
    option.push(doubled(value));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    use crate::config::ConsoleConfig;
    use crate::config::PassedFd;

    fn null() -> std::fs::File {
        std::fs::File::open("/dev/null").unwrap()
    }

    #[track_caller]
    fn check(config: &MachineConfig, ends: &ChildEnds, expected: &str) {
        assert_eq!(render(config, ends).to_string(), expected);
    }

    #[test]
    fn a_plain_machine() {
        let config = MachineConfig::new("qemu").args(["-S", "-m", "64"]);
        let ends = ChildEnds { monitor: Some(MonitorEnd::Fd(3)), ..ChildEnds::default() };

        check(
            &config,
            &ends,
            "qemu -display none -vga none -chardev 'socket,id=mon,fd=3' -mon 'chardev=mon,mode=control' -S -m 64",
        );
    }

    #[test]
    fn a_machine_with_a_screen() {
        check(&MachineConfig::new("qemu").with_screen().arg("-S"), &ChildEnds::default(), "qemu -S");
    }

    #[test]
    fn a_machine_with_everything() {
        let config = MachineConfig::new("qemu")
            .wrapper(["env", "X=1"])
            .machine_type("q35")
            .accelerator("kvm")
            .accelerator("tcg")
            .console(ConsoleConfig::device("virtconsole").index(1))
            .extra_monitor(ExtraMonitor::Null)
            .extra_monitor(ExtraMonitor::Qmp("/run/q".into()))
            .fd(PassedFd::in_set(null(), 2).opaque("a,b").options("x=y"))
            .fd(PassedFd::at(null(), 10))
            .qtest();
        let ends = ChildEnds {
            monitor: Some(MonitorEnd::Tcp("::1".into(), 4444)),
            consoles: vec![4],
            agent: None,
            qtest: Some(5),
            extra_monitors: vec![7],
            exit_with_parent: true,
            passed: vec![6, 10],
        };

        let words: Vec<_> = render(&config, &ends).words().to_vec();

        let expected = [
            "env",
            "X=1",
            "qemu",
            "-display",
            "none",
            "-vga",
            "none",
            "-chardev",
            "socket,id=mon,host=::1,port=4444",
            "-mon",
            "chardev=mon,mode=control",
            "-machine",
            "q35",
            "-serial",
            "null",
            "-chardev",
            "socket,id=console,fd=4",
            "-device",
            "virtconsole,chardev=console",
            "-accel",
            "kvm",
            "-accel",
            "tcg",
            "-monitor",
            "null",
            "-chardev",
            "socket,id=mon-1,fd=7,server=on,wait=off",
            "-mon",
            "chardev=mon-1,mode=control",
            "-add-fd",
            "fd=6,set=2,opaque=a,,b,x=y",
            "-run-with",
            "exit-with-parent=on",
            "-chardev",
            "socket,id=qtest,fd=5",
            "-qtest",
            "chardev:qtest",
        ];
        assert_eq!(words, expected.map(OsString::from));
    }

    #[test]
    fn qtest_brings_its_accelerator_unless_one_is_named() {
        let ends = ChildEnds { qtest: Some(3), ..ChildEnds::default() };

        check(
            &MachineConfig::new("q").qtest(),
            &ends,
            "q -display none -vga none -chardev 'socket,id=qtest,fd=3' -qtest chardev:qtest -accel qtest",
        );
    }

    #[test]
    fn commas_are_doubled_and_any_bytes_pass() {
        let path = OsString::from_vec(b"/mo,n\xff".to_vec());
        let config = MachineConfig::new("q").machine_type("a,b").arg(OsString::from_vec(b"\xfe'\n".to_vec()));
        let ends = ChildEnds { monitor: Some(MonitorEnd::Unix(path)), ..ChildEnds::default() };

        let line = render(&config, &ends);

        assert_eq!(line.words()[6].as_bytes(), b"socket,id=mon,path=/mo,,n\xff");
        let shown = line.to_string();
        assert!(shown.contains(r"$'socket,id=mon,path=/mo,,n\xff'"), "{shown}");
        assert!(shown.ends_with(r"-machine 'a,,b' $'\xfe\'\n'"), "{shown}");
    }

    #[test]
    fn what_is_displayed_holds_no_secret() {
        let config =
            MachineConfig::new("q").args(["-object", "secret,id=s,data=hunter2", "password=hunter2\n"]);

        let line = render(&config, &ChildEnds::default());

        assert!(line.to_string().ends_with("-object 'secret,id=s,data=***' $'password=***'"), "{line}");
        assert_eq!(line.words().last().unwrap(), "password=hunter2\n");
    }

    #[test]
    fn what_is_displayed_can_be_pasted() {
        let config = MachineConfig::new("/opt/my qemu").args(["", "it's", "$HOME", "a\"b", "*"]);

        let line = render(&config, &ChildEnds::default());

        let read_back = shlex::split(&line.to_string()).unwrap();
        assert_eq!(read_back, line.words().iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>());
    }
}
