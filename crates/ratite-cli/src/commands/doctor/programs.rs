//! The programs of QEMU in `PATH`, each asked for its version.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ratite::qmp::within;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::commands::doctor::Finding;
use crate::commands::doctor::State;
use crate::mending::Distribution;
use crate::mending::Need;

/// How long a program may take to print its version.
const LIMIT: Duration = Duration::from_secs(5);

/// How much a program is heard of.
const MOST: u64 = 4 << 10;

/// The oldest QEMU that ratite is written for.
const OLDEST: (u32, u32) = (6, 2);

/// Where Red Hat's distributions have theirs, beside `PATH`.
const ASIDE: &str = "/usr/libexec/qemu-kvm";

/// A QEMU for machines.
#[derive(Debug)]
pub(super) struct Qemu {
    pub(super) path: PathBuf,
    /// What it says of its version, or why it does not.
    version: Result<String, String>,
}

/// All of them, each name once, as a shell would find it.
pub(super) async fn qemus() -> Vec<Qemu> {
    let mut qemus = Vec::new();
    for path in paths(std::env::var_os("PATH").as_deref()) {
        let version = version(&path, "QEMU emulator version ").await;
        qemus.push(Qemu { path, version });
    }
    qemus
}

fn paths(search: Option<&OsStr>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let folders = search.map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let mut found = Vec::new();
    for folder in folders {
        let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut programs: Vec<_> = files.filter(|file| is_qemu(&name(file)) && is_program(file)).collect();
        programs.sort();
        found.extend(programs.into_iter().filter(|program| seen.insert(name(program))));
    }
    let aside = Path::new(ASIDE);
    found.extend((is_program(aside) && seen.insert(name(aside))).then(|| aside.to_owned()));
    found
}

fn is_qemu(name: &str) -> bool {
    name.starts_with("qemu-system-") || name == "qemu-kvm"
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The one for this computer's own processor, or else any.
pub(super) fn own(qemus: &[Qemu]) -> Option<&Qemu> {
    let own = [format!("qemu-system-{}", target()), "qemu-kvm".into()];
    let mut answering = qemus.iter().filter(|qemu| qemu.version.is_ok());
    let first = answering.clone().next();
    answering.find(|qemu| own.contains(&name(&qemu.path))).or(first)
}

/// What QEMU calls this computer's processor.
pub(super) fn target() -> &'static str {
    match std::env::consts::ARCH {
        "x86" => "i386",
        "powerpc64" => "ppc64",
        other => other,
    }
}

pub(super) fn about_qemus(qemus: &[Qemu], here: Option<Distribution>) -> Vec<Finding> {
    if qemus.is_empty() {
        let install = here.and_then(|here| here.install(Need::Qemu(target())));
        let missing =
            Finding::new("qemu", format!("qemu-system-{}", target()), State::Missing, "not in PATH");
        return vec![missing.mend(install)];
    }
    qemus.iter().map(about).collect()
}

fn about(qemu: &Qemu) -> Finding {
    let (state, says) = match &qemu.version {
        Err(why) => (State::Warning, why.clone()),
        Ok(version) if is_old(version) => {
            let (major, minor) = OLDEST;
            (
                State::Warning,
                format!("{version}, which is older than {major}.{minor}: not all of ratite works"),
            )
        }
        Ok(version) => (State::Ok, version.clone()),
    };
    Finding::new("qemu", name(&qemu.path), state, format!("{says}, {}", qemu.path.display()))
}

fn is_old(version: &str) -> bool {
    let mut numbers = version.split(['.', ' ']).map_while(|part| part.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) < OLDEST)
}

pub(super) async fn qemu_img(here: Option<Distribution>) -> Finding {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&search).map(|folder| folder.join("qemu-img")).find(|file| is_program(file));
    let version = match &found {
        Some(path) => version(path, "qemu-img version ").await,
        None => Err("not in PATH: no disk images can be made".into()),
    };
    match version {
        Ok(version) => Finding::new("images", "qemu-img", State::Ok, version),
        Err(why) => Finding::new("images", "qemu-img", State::Warning, why)
            .mend(here.and_then(|here| here.install(Need::QemuImg))),
    }
}

/// What is behind `before` in the first line that the program prints about its version.
async fn version(program: &Path, before: &str) -> Result<String, String> {
    let asked = within(LIMIT, "version", first_line(program)).await;
    let line = asked.map_err(|_| format!("does not say its version within {LIMIT:?}"))??;
    let version = line.strip_prefix(before).map(str::trim);
    version.map(str::to_owned).ok_or_else(|| "does not say its version as QEMU does".into())
}

async fn first_line(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // One that does not end is killed when its limit is over.
    command.kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let heard = stdout.take(MOST).read_to_end(&mut said).await;
        heard.map_err(|error| format!("cannot be heard: {error}"))?;
    }
    let status = child.wait().await.map_err(|error| format!("cannot be watched: {error}"))?;
    let text = String::from_utf8_lossy(&said);
    match text.lines().next() {
        Some(line) => Ok(line.to_owned()),
        None => Err(format!("does not say its version: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_old_or_not() {
        let old = ["6.1.0", "5.2.0 (Debian 1:5.2+dfsg-11)"].map(is_old);
        let new = ["6.2.0 (Debian)", "7.2.22", "11.0.50", "strange"].map(is_old);

        assert_eq!((old, new), ([true; 2], [false; 4]));
    }

    #[test]
    fn where_there_is_no_qemu_the_command_that_installs_one_is_told() {
        let findings = about_qemus(&[], Some(Distribution::Debian));

        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.state, State::Missing);
        assert!(finding.mend.as_ref().unwrap().starts_with("sudo apt install qemu-system-"), "{finding:?}");
    }

    #[test]
    fn a_name_is_found_where_a_shell_finds_it() {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for (folder, file, mode) in [
            (&first, "qemu-system-b", 0o755),
            (&first, "qemu-system-closed", 0o644),
            (&first, "qemu-img", 0o755),
            (&second, "qemu-system-a", 0o755),
            (&second, "qemu-system-b", 0o755),
        ] {
            let path = folder.path().join(file);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        let search = std::env::join_paths([first.path(), second.path()]).unwrap();
        let found = paths(Some(&search));

        let expected = [first.path().join("qemu-system-b"), second.path().join("qemu-system-a")];
        let found: Vec<_> = found.into_iter().filter(|path| path != Path::new(ASIDE)).collect();
        assert_eq!(found, expected);
    }
}
