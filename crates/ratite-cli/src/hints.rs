//! What a user can do about a failure: from what was said, to a line of advice. Pure but for a look at what is there, and
//! at the limits that this program shares with what it starts.

use std::error::Error;
use std::io;
use std::path::Path;

use ratite::CommandLine;
use ratite::ConfigError;
use ratite::Exit;
use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::Tail;
use ratite::qmp;
use ratite::qmp::AgentError;
use ratite::reach::ReachError;
use rustix::process::Resource;
use rustix::process::getrlimit;

use crate::args;
use crate::mending::Distribution;
use crate::mending::JOIN_KVM;
use crate::mending::Need;
use crate::report::Failure;
use crate::target::FOLDER;

/// The hints for a failure, the most likely first.
pub(crate) fn of(failure: &Failure) -> Vec<String> {
    if let Some(hint) = about_descriptors(failure) {
        return vec![hint];
    }
    let mut hints = match failure {
        Failure::Usage { hint, .. } if hint.is_empty() => Vec::new(),
        Failure::Usage { hint, .. } | Failure::NotThere { hint, .. } => vec![hint.clone()],
        Failure::Reach { hint, .. } | Failure::NotSpawned { hint, .. } | Failure::Template { hint, .. } => {
            Vec::from_iter(hint.clone())
        }
        Failure::Launch(error) => about_launch(error),
        Failure::Ended { exit, .. } => Vec::from_iter(about_debug_exit(exit)),
        Failure::Conversation { source, .. } => {
            let hint = about_devices(failure)
                .or_else(|| about_conversation(&**source))
                .or_else(|| about_connection(failure));
            Vec::from_iter(hint)
        }
        Failure::File { path, .. } if path.is_relative() => {
            vec![in_folder("a path that does not begin with `/` begins in the folder `{folder}`")]
        }
        Failure::TimedOut { what, .. } if what.starts_with("no QMP session") => vec![ONE_CLIENT.into()],
        Failure::Bug(_) => vec![BUG.into()],
        _ => Vec::new(),
    };
    let program = failure.command_line().map(|line| {
        let word = line.words().first().cloned().unwrap_or_default();
        word.to_string_lossy().into_owned()
    });
    if let (Some(program), Some(words), true) = (program, failure.words(), hints.is_empty()) {
        hints.extend(about_words(&words.text(), &program));
    }
    if said(failure).any(|said| said.contains("No space left on device")) {
        hints.push("`df -h` shows which disk is full, and `df -i` which has no room for another file".into());
    }
    hints
}

/// All that is said of a failure, but for its hints.
fn said(failure: &Failure) -> impl Iterator<Item = String> {
    let words = failure.words().map(Tail::text);
    [failure.to_string()].into_iter().chain(failure.causes()).chain(words)
}

fn about_descriptors(failure: &Failure) -> Option<String> {
    // The other limit, that of the whole system, ends in "in system".
    said(failure).find(|said| said.contains("Too many open files") && !said.contains("in system"))?;
    let limit = getrlimit(Resource::Nofile).current?;
    Some(format!("a program may have {limit} open files here (RLIMIT_NOFILE): `ulimit -n 1024` allows more"))
}

/// What a machine needs for people to see it and to be felt by it.
fn about_devices(failure: &Failure) -> Option<String> {
    let said = |words: &str| failure.causes().iter().any(|cause| cause.contains(words));
    let hint = if said("There is no console") {
        "a machine has a screen if it has a graphics card: `ratite run --screen`, or `-vga std` among QEMU's arguments"
    } else if said("its guest would see no input") {
        "the QMP command `cont` lets the machine run on"
    } else if said("no text that can be read") {
        "without `--text` the picture is taken, whatever it shows"
    } else {
        return None;
    };
    Some(hint.into())
}

/// What helps where nobody can be connected to at an address.
fn about_connection(failure: &Failure) -> Option<String> {
    let Failure::Conversation { doing, source, .. } = failure else { return None };
    let cause = what_the_system_said(&**source)?;
    match cause.kind() {
        _ if !doing.starts_with("connect to ") => None,
        io::ErrorKind::NotFound if doing.starts_with("connect to unix:") => Some(in_folder(
            "QEMU makes a socket where it is told to, as by `-qmp unix:qmp.sock,server=on,wait=off`; a path that does not begin with `/` begins in the folder `{folder}`",
        )),
        io::ErrorKind::ConnectionRefused => {
            Some("nobody listens at this address; a QEMU that did has ended".into())
        }
        _ => None,
    }
}

fn what_the_system_said<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    error.downcast_ref().or_else(|| what_the_system_said(error.source()?))
}

const ONE_CLIENT: &str = "a monitor of QEMU speaks with one client at a time; another one may be connected, and `-qmp` makes more monitors";

fn about_conversation(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref()? {
        AgentError::NoAgent { heard: None, .. } => {
            "an agent at an address serves one client and answers nobody else; `ratite agent --help` tells what an agent needs"
        }
        AgentError::NoAgent { .. } => "`ratite agent --help` tells which channel an agent needs",
        AgentError::Monitor { .. } => {
            "an agent has a channel of its own: a `-device virtserialport` named org.qemu.guest_agent.0"
        }
        AgentError::Disabled { .. } => {
            "`ratite agent info` lists what is enabled; the agent's own options, and frozen file systems, disable commands"
        }
        AgentError::Unknown { .. } => "`ratite agent info` lists what the agent has",
        _ => return None,
    };
    Some(hint.into())
}

const BUG: &str = "report it, with what `RUST_BACKTRACE=1 RATITE_LOG=debug` shows; the machine was ended";

/// The one way in which a guest chooses QEMU's exit status.
fn about_debug_exit(exit: &Exit) -> Option<String> {
    let has_device =
        exit.command_line.words().iter().any(|word| word.to_string_lossy().contains("isa-debug-exit"));
    let status = exit.status.code().filter(|status| has_device && status % 2 == 1)?;
    Some(format!("with `isa-debug-exit`, status {status} means that the guest wrote {}", status / 2))
}

fn about_launch(error: &LaunchError) -> Vec<String> {
    let hint = match error.kind() {
        LaunchErrorKind::Spawn { source, .. } if source.kind() == io::ErrorKind::ArgumentListTooLong => {
            error.command_line().map(about_length)
        }
        LaunchErrorKind::Spawn { role, program, reason, source } => {
            // For a program that it has not found, the system says "permission denied" if PATH has a closed folder.
            let kind =
                if reason.starts_with("no folder in PATH") { io::ErrorKind::NotFound } else { source.kind() };
            about_spawn(role, program, kind)
        }
        LaunchErrorKind::WorkFolder { source, .. } | LaunchErrorKind::Log { source, .. }
            if source.kind() == io::ErrorKind::StorageFull =>
        {
            None
        }
        LaunchErrorKind::WorkFolder { .. } => {
            Some("`--base-folder` takes a folder that exists, and in which this user may make others".into())
        }
        LaunchErrorKind::Log { .. } => Some(
            "`--log-folder` takes a folder in which this user may make files; it is made if missing".into(),
        ),
        LaunchErrorKind::MonitorAddress(qmp::Error::Bind { source, .. }) => about_bind(source),
        LaunchErrorKind::Config(ConfigError::Daemonize) => {
            Some("leave it out; `ratite run … &` runs in the background of the shell".into())
        }
        LaunchErrorKind::Exited(status) if status.code() == Some(0) => Some(
            "an option that only prints something, such as `-version` or `-machine help`, needs no ratite"
                .into(),
        ),
        LaunchErrorKind::Exited(status) if status.code() == Some(NOT_FOUND) && !lacks_library(error) => {
            Some("with status 127 a shell or another wrapper says that it has not found the program".into())
        }
        LaunchErrorKind::Reach(ReachError::Taken { name, .. }) => {
            Some(format!("`ratite ls` shows that machine, and `ratite stop {name}` ends it"))
        }
        LaunchErrorKind::Reach(ReachError::Folder { .. }) => Some(FOLDER.into()),
        LaunchErrorKind::Console(_) => {
            Some("`--log` takes a file in a folder that exists, and follows no symbolic link".into())
        }
        LaunchErrorKind::Qmp(_) | LaunchErrorKind::TimedOut { .. } => {
            Some("the first word behind `--` is a QEMU that speaks QMP; `RATITE_LOG=debug` shows more".into())
        }
        _ => None,
    };
    Vec::from_iter(hint)
}

/// What a shell exits with when it has not found a program; the dynamic loader, too, when it lacks a library.
const NOT_FOUND: i32 = 127;

fn lacks_library(error: &LaunchError) -> bool {
    error.log().text().contains(LIBRARY)
}

const LIBRARY: &str = "error while loading shared libraries";

/// What Linux takes for arguments and environment together (execve(2)).
fn about_length(command_line: &CommandLine) -> String {
    const LEAST: u64 = 128 << 10;
    const MOST: u64 = 6 << 20;
    let stack = getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
    let limit = (stack / 4).clamp(LEAST, MOST) >> 10;
    let bytes: usize = command_line.words().iter().map(|word| word.len() + 1).sum();
    let arguments = bytes >> 10;
    format!(
        "the arguments have {arguments} KiB, and with the environment they may have {limit}: a quarter of `ulimit -s`, 6 MiB at most"
    )
}

fn about_bind(source: &io::Error) -> Option<String> {
    let hint = match source.kind() {
        io::ErrorKind::InvalidFilename => "a relative path counts from `/`, too: `/tmp` has short ones",
        io::ErrorKind::NotFound => "`--qmp` takes a path in a folder that exists",
        io::ErrorKind::AddrInUse => {
            "another program, perhaps another QEMU, has this socket: `ss -xlp` shows which"
        }
        io::ErrorKind::AlreadyExists => "`--qmp` replaces a socket that nobody listens on, and nothing else",
        _ => return None,
    };
    Some(hint.into())
}

fn about_spawn(role: &str, program: &str, kind: io::ErrorKind) -> Option<String> {
    match kind {
        io::ErrorKind::NotFound if Path::new(program).exists() => None,
        io::ErrorKind::NotFound if role == "wrapper" => {
            Some("`--wrapper` takes a program and its arguments, such as 'taskset -c 1'".into())
        }
        io::ErrorKind::NotFound => Some(match file_name(program).strip_prefix("qemu-system-") {
            Some(target) => about_package(program, target),
            None => "the first word behind `--` is the QEMU to run, such as `qemu-system-x86_64`".into(),
        }),
        io::ErrorKind::PermissionDenied if Path::new(program).is_dir() => None,
        io::ErrorKind::PermissionDenied => Some(format!("`chmod +x {program}` makes a program executable")),
        _ => None,
    }
}

fn file_name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// Which package has a QEMU; that of Debian where the distribution is none that is known.
fn about_package(program: &str, target: &str) -> String {
    let here = Distribution::here().unwrap_or(Distribution::Debian);
    let command = here.install(Need::Qemu(target)).unwrap_or_default();
    format!("on {}, `{command}` installs `{}`", here.name(), file_name(program))
}

/// What QEMU says, and what helps then. `{qemu}` stands for the binary.
const ADVICE: &[(&str, &str)] = &[
    (LIBRARY, "`ldd {qemu}` lists the libraries that it needs, and which are not found"),
    ("unsupported machine type", "`{qemu} -machine help` lists the machine types of this QEMU"),
    ("invalid option", "`{qemu} -help` lists the options of this QEMU"),
    ("requires an argument", "`{qemu} -help` lists the options of this QEMU, and what they take"),
    (
        "invalid accelerator",
        "`{qemu} -accel help` lists the accelerators of this QEMU; `tcg` is in every build",
    ),
    (
        "KVM kernel module: Permission denied",
        "/dev/kvm is not for this user: join the group `kvm` (`{join}`, then log in again), or use `-accel tcg`",
    ),
    (
        "Could not access KVM kernel module",
        "this system offers no KVM; `-accel tcg` works everywhere, without its speed",
    ),
    ("requires KVM", "`-cpu host` needs `-accel kvm`; `-cpu max` has all that `-accel tcg` can do"),
    ("unable to find CPU model", "`{qemu} -cpu help` lists the CPU models of this QEMU"),
    ("not a valid device model name", "`{qemu} -device help` lists the devices of this QEMU"),
    ("Duplicate ID 'mon'", "ratite's own chardevs are called `mon` and `console`: call yours otherwise"),
    ("Duplicate ID 'console'", "ratite's own chardevs are called `mon` and `console`: call yours otherwise"),
    (
        "Address already in use",
        "another program, perhaps another QEMU, has this address: `ss -tlnp` shows which",
    ),
    (
        "Could not set up host forwarding",
        "another program has this port, or it is for root only: `ss -tulnp` shows which",
    ),
    (
        "Failed to get \"write\" lock",
        "another process, perhaps another QEMU, has this image: `-snapshot` shares it",
    ),
    ("could not open kernel file", "a path that does not begin with `/` begins in the folder `{folder}`"),
    ("No such file or directory", "a path that does not begin with `/` begins in the folder `{folder}`"),
    ("cannot set up guest memory", "`-m` asks for more memory than this system gives"),
    (
        "is not available",
        "ratite asks for `-display none`; a display of your own has to be in this QEMU: `{qemu} -display help`",
    ),
];

fn about_words(words: &str, program: &str) -> Option<String> {
    if let Some(option) = words.lines().find_map(misplaced) {
        return Some(format!("`{option}` is an option of ratite's: it goes before `--`"));
    }
    let (_, advice) = ADVICE.iter().find(|(said, _)| words.contains(said))?;
    Some(in_folder(&advice.replace("{qemu}", program).replace("{join}", JOIN_KVM)))
}

/// The option of ratite's own that QEMU has been given, and did not know.
fn misplaced(line: &str) -> Option<&str> {
    let option = line.strip_suffix(": invalid option")?.rsplit(' ').next()?;
    let name = option.strip_prefix("--")?;
    let command = args::command();
    let run = command.find_subcommand("run")?;
    let create = command.find_subcommand("template")?.find_subcommand("create")?;
    let mut ours = run.get_arguments().chain(create.get_arguments());
    ours.any(|argument| argument.get_long() == Some(name)).then_some(option)
}

fn in_folder(advice: &str) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    advice.replace("{folder}", &folder.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(words: &str, start: &str) {
        let hint = about_words(words, "qemu").unwrap_or_default();
        assert!(hint.starts_with(start), "{words}: {hint}");
    }

    #[test]
    fn what_qemu_says_has_its_hint() {
        check("qemu: unsupported machine type\nUse -machine help…", "`qemu -machine help` lists");
        check("qemu: -nosuch: invalid option", "`qemu -help`");
        check("qemu: --nosuch: invalid option", "`qemu -help`");
        check("qemu: --timeout: invalid option", "`--timeout` is an option of ratite's: it goes before");
        check("Could not access KVM kernel module: Permission denied", "/dev/kvm is not for");
        check("Could not access KVM kernel module: No such file or directory", "this system offers no");
        check("qemu: error while loading shared libraries: libz.so: No such file or directory", "`ldd qemu`");
        check("qemu: -hda /x: Could not open '/x': No such file or directory", "a path that");
        assert_eq!(about_words("qemu: warning: whatever", "qemu"), None);
    }
}
