//! What the system has for machines: devices, limits, and folders.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::process::Resource;
use rustix::process::getrlimit;

use crate::commands::doctor::Finding;
use crate::commands::doctor::State;
use crate::mending::JOIN_KVM;

/// The devices of the kernel that QEMU uses.
pub(super) fn devices() -> Vec<Finding> {
    vec![
        kvm(Path::new("/dev/kvm"), &cpu_flags()),
        vhost("vhost-vsock", "guests have no vsock"),
        vhost("vhost-net", "a tap network copies in QEMU, and is slower"),
    ]
}

fn cpu_flags() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().find(|line| line.starts_with("flags")).unwrap_or_default().to_owned()
}

fn kvm(device: &Path, flags: &str) -> Finding {
    let finding = |state, says: String| Finding::new("device", device.to_string_lossy(), state, says);
    let module = flags.split_whitespace().find_map(|flag| match flag {
        "vmx" => Some("kvm_intel"),
        "svm" => Some("kvm_amd"),
        _ => None,
    });
    match open(device) {
        Ok(()) => finding(State::Ok, "opens; whether guests run on it is what `accelerator` says".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match module {
            Some(module) => {
                finding(State::Warning, format!("not there, and the module `{module}` may be missing"))
                    .mend(Some(format!("sudo modprobe {module}")))
            }
            None if cfg!(any(target_arch = "x86", target_arch = "x86_64")) => {
                finding(State::Warning, "not there: the processor offers no virtualisation here".into())
            }
            None => finding(State::Warning, "not there".into()),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            finding(State::Warning, "not for this user; log in again when it is mended".into())
                .mend(Some(how_to_open(device)))
        }
        Err(error) => finding(State::Warning, error.to_string()),
    }
}

/// What lets this user open a device: to join its group, if that may.
fn how_to_open(device: &Path) -> String {
    const GROUP_MAY: u32 = 0o060;
    match fs::metadata(device) {
        Ok(it) if it.mode() & GROUP_MAY != GROUP_MAY || it.gid() == 0 => {
            format!("sudo chgrp kvm {0} && sudo chmod 660 {0} && {JOIN_KVM}", device.display())
        }
        _ => JOIN_KVM.to_owned(),
    }
}

fn vhost(name: &str, without: &str) -> Finding {
    let device = PathBuf::from("/dev").join(name);
    let finding = |state, says: String| Finding::new("device", device.to_string_lossy(), state, says);
    match open(&device) {
        Ok(()) => finding(State::Ok, "opens".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            finding(State::Warning, format!("not there: {without}"))
                .mend(Some(format!("sudo modprobe {}", name.replace('-', "_"))))
        }
        Err(error) => finding(State::Warning, format!("{error}: {without}")),
    }
}

fn open(device: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(device).map(drop)
}

/// What ratite itself needs, and what bounds it.
pub(super) fn surroundings() -> Vec<Finding> {
    vec![kernel(), descriptors(), locked_memory(), work_folders(Path::new("/var/tmp")), runtime_folder()]
}

/// The oldest Linux that ratite works with, as docs/guide/README.md says.
const OLDEST: (u32, u32) = (5, 6);

fn kernel() -> Finding {
    let finding = |state, says| Finding::new("system", "Linux", state, says);
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else {
        return finding(State::Missing, "/proc is not mounted".to_owned())
            .mend(Some("sudo mount -t proc proc /proc"));
    };
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            finding(State::Missing, format!("{release} is older than {}.{}", OLDEST.0, OLDEST.1))
        }
        _ => finding(State::Ok, release.to_owned()),
    }
}

/// What a machine with a few consoles takes, twice.
const DESCRIPTORS: u64 = 256;

fn descriptors() -> Finding {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let finding = |state| Finding::new("limit", "open files", state, shown(limit));
    match limit < DESCRIPTORS {
        true => finding(State::Warning).mend(Some("ulimit -n 1024")),
        false => finding(State::Ok),
    }
}

fn locked_memory() -> Finding {
    let limit = getrlimit(Resource::Memlock).current.map(|bytes| bytes >> 20);
    let says = match limit {
        None => "as much as there is".into(),
        Some(limit) => format!("{limit} MiB; `-overcommit mem-lock=on` and VFIO lock all of a guest's"),
    };
    Finding::new("limit", "locked memory", State::Ok, says)
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "as many as there are".into() } else { limit.to_string() }
}

fn work_folders(base: &Path) -> Finding {
    let name = base.to_string_lossy().into_owned();
    match ratite::WorkFolder::create(base) {
        Ok(_removed_at_once) => Finding::new("folder", name, State::Ok, "takes the folders of machines"),
        Err(error) => {
            let why = std::error::Error::source(error.kind()).map(ToString::to_string).unwrap_or_default();
            Finding::new("folder", name, State::Missing, format!("takes no folders of machines: {why}"))
                .mend(Some("sudo chmod 1777 /var/tmp"))
        }
    }
}

fn runtime_folder() -> Finding {
    let given = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let user = rustix::process::geteuid().as_raw();
    let (state, says) = match &given {
        None => {
            let names = format!("/run/user/{user} or /tmp/ratite-{user}");
            (State::Warning, format!("not set: machines are reachable by name below {names}"))
        }
        Some(folder) => about_runtime_folder(folder, user),
    };
    Finding::new("folder", "XDG_RUNTIME_DIR", state, says)
}

fn about_runtime_folder(folder: &Path, user: u32) -> (State, String) {
    let shown = folder.display();
    let warning = |why: &str| (State::Warning, format!("{shown} {why}; ratite uses another folder"));
    match fs::metadata(folder) {
        _ if folder.is_relative() => warning("is no absolute path"),
        Err(error) => warning(&format!("is not to be had: {error}")),
        Ok(found) if !found.is_dir() => warning("is no folder"),
        Ok(found) if found.uid() != user => warning("belongs to somebody else"),
        Ok(found) if found.mode() & 0o077 != 0 => {
            (State::Warning, format!("{shown} is open to others (mode {:o}, not 700)", found.mode() & 0o777))
        }
        Ok(_) => (State::Ok, shown.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kvm_that_is_not_there_is_missing_a_module_or_a_processor() {
        let mend = |flags| kvm(Path::new("/nonexistent/kvm"), flags).mend;

        assert_eq!(mend("flags : fpu vmx").as_deref(), Some("sudo modprobe kvm_intel"));
        assert_eq!(mend("flags : svm").as_deref(), Some("sudo modprobe kvm_amd"));
        assert_eq!(mend("flags : fpu"), None);
    }

    #[test]
    fn a_runtime_folder_belongs_to_its_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let user = rustix::process::geteuid().as_raw();
        let about = |folder: &Path, user| about_runtime_folder(folder, user);

        assert_eq!(about(folder.path(), user).0, State::Ok);
        assert!(about(folder.path(), user + 1).1.contains("somebody else"));
        assert!(about(Path::new("run"), user).1.contains("no absolute path"));
        assert!(about(Path::new("/nonexistent/run"), user).1.contains("is not to be had"));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(about(folder.path(), user).1.contains("mode 755"));
    }
}
