//! What a user can do about a failure: from what was said, to a line of advice. Pure but for a look at what is there.

use std::io;
use std::path::Path;

use ratite::ConfigError;
use ratite::Exit;
use ratite::LaunchError;
use ratite::LaunchErrorKind;

use crate::report::Failure;

/// The hints for a failure, the most likely first.
pub(crate) fn of(failure: &Failure) -> Vec<String> {
    let mut hints = match failure {
        Failure::Usage { hint, .. } => vec![hint.clone()],
        Failure::Launch(error) => about_launch(error),
        Failure::Ended { exit, .. } => Vec::from_iter(about_debug_exit(exit)),
        Failure::Bug(_) => vec![BUG.into()],
        _ => Vec::new(),
    };
    let program = failure.command_line().map(|line| {
        let word = line.words().first().cloned().unwrap_or_default();
        word.to_string_lossy().into_owned()
    });
    if let (Some(program), Some(words)) = (program, failure.words()) {
        hints.extend(about_words(&words.text(), &program));
    }
    hints
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
        LaunchErrorKind::Spawn { program, source, .. } => about_spawn(program, source),
        LaunchErrorKind::Config(ConfigError::Daemonize) => {
            Some("leave it out; `ratite run … &` runs in the background of the shell".into())
        }
        LaunchErrorKind::Exited(status) if status.code() == Some(0) => Some(
            "an option that only prints something, such as `-version` or `-machine help`, needs no ratite"
                .into(),
        ),
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

fn about_spawn(program: &str, source: &io::Error) -> Option<String> {
    match source.kind() {
        io::ErrorKind::NotFound if Path::new(program).exists() => None,
        io::ErrorKind::NotFound => Some(match debian_package(program) {
            Some(package) => format!(
                "on Debian and Ubuntu, `sudo apt install {package}` installs `{}`",
                file_name(program)
            ),
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

/// Which package of Debian 12 has a QEMU.
fn debian_package(program: &str) -> Option<&'static str> {
    Some(match file_name(program).strip_prefix("qemu-system-")? {
        "i386" | "x86_64" => "qemu-system-x86",
        "aarch64" | "arm" => "qemu-system-arm",
        "mips" | "mips64" | "mips64el" | "mipsel" => "qemu-system-mips",
        "ppc" | "ppc64" => "qemu-system-ppc",
        "sparc" | "sparc64" => "qemu-system-sparc",
        _ => "qemu-system-misc",
    })
}

/// What QEMU says, and what helps then. `{qemu}` stands for the binary.
const ADVICE: &[(&str, &str)] = &[
    ("unsupported machine type", "`{qemu} -machine help` lists the machine types of this QEMU"),
    ("invalid option", "`{qemu} -help` lists the options of this QEMU"),
    ("requires an argument", "`{qemu} -help` lists the options of this QEMU, and what they take"),
    (
        "invalid accelerator",
        "`{qemu} -accel help` lists the accelerators of this QEMU; `tcg` is in every build",
    ),
    (
        "KVM kernel module: Permission denied",
        "/dev/kvm is not for this user: join the group `kvm` (`sudo usermod -aG kvm $USER`, then log in again), or use `-accel tcg`",
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
    let (_, advice) = ADVICE.iter().find(|(said, _)| words.contains(said))?;
    let folder = std::env::current_dir().unwrap_or_default();
    Some(advice.replace("{qemu}", program).replace("{folder}", &folder.to_string_lossy()))
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
        check("Could not access KVM kernel module: Permission denied", "/dev/kvm is not for");
        check("Could not access KVM kernel module: No such file or directory", "this system offers no");
        check("qemu: -hda /x: Could not open '/x': No such file or directory", "a path that");
        assert_eq!(about_words("qemu: warning: whatever", "qemu"), None);
    }

    #[test]
    fn a_missing_qemu_is_in_a_package() {
        assert_eq!(debian_package("/usr/bin/qemu-system-x86_64"), Some("qemu-system-x86"));
        assert_eq!(debian_package("qemu-system-riscv64"), Some("qemu-system-misc"));
        assert_eq!(debian_package("qemu"), None);
    }
}
