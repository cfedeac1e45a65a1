//! From a command line to a [`Machine`]: what happens before the monitor speaks, in order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::Signal;
use rustix::process::getpid;
use rustix::process::getrlimit;
use rustix::process::kill_process;
use rustix::process::setrlimit;

use crate::arguments::Address;
use crate::arguments::Arguments;
use crate::arguments::Chardev;
use crate::inherit;
use crate::line::Line;
use crate::line::Port;
use crate::machine::Machine;
use crate::words::Words;

/// The answer to a command line that only asks something.
pub(crate) fn information(given: &[OsString]) -> Option<String> {
    let texts: Vec<_> = given.iter().map(|word| word.to_string_lossy()).collect();
    let asks = |option: &str| {
        let value = |word: &str| word.trim_start_matches('-') == option;
        texts.windows(2).any(|pair| pair[0].starts_with('-') && value(&pair[0]) && pair[1] == "help")
    };
    if texts.iter().any(|word| word == "-version" || word == "--version") {
        Some("QEMU emulator version 9.9.9 (fake)\n".to_owned())
    } else if texts.iter().any(|word| word == "-help" || word == "--help") {
        Some("fake-qemu: the options of QEMU that it obeys are in `arguments.rs`\n".to_owned())
    } else if asks("accel") {
        Some("Accelerators supported in QEMU binary:\ntcg\nqtest\n".to_owned())
    } else if asks("machine") || asks("M") {
        Some("Supported machines are:\nnone                 empty machine\n".to_owned())
    } else {
        None
    }
}

/// Does what the words ask for before any monitor is opened; some of it does not return.
pub(crate) fn misbehave_early(words: &Words) -> Result<(), String> {
    dump_no_core()?;
    if let Some(path) = words.value("write-file") {
        write_pid(path.as_ref()).map_err(|error| format!("{}: {error}", path.to_string_lossy()))?;
    }
    speak(words).map_err(|error| format!("stderr: {error}"))?;
    if let Some(number) = words.status("signal-before-monitor") {
        return Err(die_of(number));
    }
    if let Some(status) = words.status("exit-before-monitor") {
        spawn_children(words)?;
        // Nobody may read stderr; the status is what counts.
        let _ = io::stderr().write_all(b"fake-qemu: -machine bogus: unsupported machine type\n");
        process::exit(status);
    }
    Ok(())
}

/// Opens the chardevs, and puts the machine together.
pub(crate) fn power_on(arguments: Arguments, words: Words) -> Result<Machine, String> {
    let children = spawn_children(&words)?;
    let mut ports = BTreeMap::new();
    for chardev in &arguments.chardevs {
        let is_monitor = arguments.monitors.iter().any(|monitor| monitor.chardev == chardev.id);
        let port = if is_monitor && words.has("no-connect") { Port::default() } else { open(chardev)? };
        if ports.insert(chardev.id.clone(), port).is_some() {
            return Err(format!("{}: Duplicate ID '{}' for chardev", chardev.text, chardev.id));
        }
    }
    Machine::assemble(arguments, words, ports, children)
}

fn open(chardev: &Chardev) -> Result<Port, String> {
    let text = &chardev.text;
    let failed = |error: io::Error| format!("{text}: Failed to {}: {error}", purpose(chardev));
    let socket: OwnedFd = match (&chardev.address, chardev.server) {
        (Address::Descriptor(number), _) => {
            inherit::take(*number).map_err(|error| format!("{text}: {error}"))?
        }
        (Address::Path(path), false) => UnixStream::connect(path).map_err(failed)?.into(),
        (Address::Path(path), true) => UnixListener::bind(path).map_err(failed)?.into(),
        (Address::Tcp { host, port }, false) => {
            TcpStream::connect((host.as_str(), *port)).map_err(failed)?.into()
        }
        (Address::Tcp { host, port }, true) => {
            TcpListener::bind((host.as_str(), *port)).map_err(failed)?.into()
        }
    };
    Ok(match chardev.server {
        true => Port { listener: Some(socket), line: None },
        false => Port { listener: None, line: Some(Line::new(socket)) },
    })
}

fn purpose(chardev: &Chardev) -> String {
    let verb = if chardev.server { "bind socket to" } else { "connect to" };
    match &chardev.address {
        Address::Descriptor(number) => format!("{verb} descriptor {number}"),
        Address::Path(path) => format!("{verb} '{}'", path.display()),
        Address::Tcp { host, port } => format!("{verb} '{host}:{port}'"),
    }
}

/// A test of `SIGABRT` must not litter the folder it runs in.
fn dump_no_core() -> Result<(), String> {
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })
        .map_err(|error| format!("setrlimit: {error}"))
}

/// Puts our pid into the file in one step, so that whoever sees the file sees the pid.
fn write_pid(path: &Path) -> io::Result<()> {
    let unfinished = path.with_added_extension("unfinished");
    fs::write(&unfinished, process::id().to_string())?;
    fs::rename(unfinished, path)
}

fn speak(words: &Words) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    if let Some(text) = words.bytes("stderr") {
        stderr.write_all(&[text, b"\n"].concat())?;
    }
    if let Some(count) = words.number("stderr-bytes") {
        let line = [[b'e'; 79].as_slice(), b"\n"].concat();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let text: Vec<u8> = line.iter().copied().cycle().take(count).collect();
        stderr.write_all(&text)?;
    }
    if words.has("stderr-invalid-utf8") {
        stderr.write_all(b"not UTF-8: \xff\xfe here\n")?;
    }
    Ok(())
}

fn die_of(number: i32) -> String {
    let Some(signal) = Signal::from_named_raw(number) else {
        return format!("no such signal: {number}");
    };
    // Rust's own handler of SIGSEGV and SIGBUS swallows the first one that was not caused by an overflown stack.
    for _ in 0..2 {
        if let Err(error) = kill_process(getpid(), signal) {
            return format!("could not send myself signal {number}: {error}");
        }
    }
    format!("I outlived signal {number}")
}

fn spawn_children(words: &Words) -> Result<Vec<Child>, String> {
    let mut children = Vec::new();
    for (word, own_group) in [("spawn-child", false), ("spawn-child-new-group", true)] {
        if words.has(word) {
            let mut command = Command::new("sleep");
            command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if own_group {
                command.process_group(0);
            }
            children.push(command.spawn().map_err(|error| format!("sleep: {error}"))?);
        }
    }
    Ok(children)
}
