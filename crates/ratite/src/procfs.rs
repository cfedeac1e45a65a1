//! What proc(5) tells of processes: read, and nothing else.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::RawFd;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::Pid;

/// Whether `/proc` shows the pid namespace that this process is in (pid_namespaces(7)). In another one's, the numbers of
/// processes are not ours: each may be a stranger's here.
pub(crate) fn is_ours() -> bool {
    std::fs::read_link("/proc/self")
        .is_ok_and(|target| target.to_str().and_then(|it| it.parse().ok()) == Some(std::process::id()))
}

/// When a process started, in clock ticks since the system's boot. With the pid it names a process for good.
pub(crate) fn start_time(pid: u32) -> io::Result<u64> {
    stat_field(pid, 22)
}

/// The parent of a process.
pub(crate) fn parent_of(pid: u32) -> io::Result<u64> {
    stat_field(pid, 4)
}

/// The process group of a process: 0 for one that was made outside this process's pid namespace (pid_namespaces(7)).
pub(crate) fn group_of(pid: u32) -> io::Result<u64> {
    stat_field(pid, 5)
}

/// Whether `pid` is `ancestor`, or descends from it.
pub(crate) fn descends(pid: u32, ancestor: u32) -> bool {
    let mut candidate = pid;
    // Parents have lower depth, not lower numbers; the bound is against a /proc that lies.
    for _ in 0..64 {
        if candidate == ancestor {
            return true;
        }
        match parent_of(candidate).map(u32::try_from) {
            Ok(Ok(parent)) if parent > 1 => candidate = parent,
            _ => return false,
        }
    }
    false
}

/// Whether the kernel is ending a process: it runs no more code of its own, but is not a zombie yet, or just one.
pub(crate) fn is_ending(pid: u32) -> bool {
    /// PF_EXITING of the kernel's sched.h, in field 9.
    const EXITING: u64 = 0x4;
    is_ours() && stat_field(pid, 9).is_ok_and(|flags| flags & EXITING != 0)
}

/// A numeric field of proc_pid_stat(5), counted from 1 as there.
fn stat_field(pid: u32, number: usize) -> io::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| named(&path, error))?;
    // The name in field 2 may hold anything; what counts comes behind its last parenthesis.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let field = fields.split_ascii_whitespace().nth(number - 3).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("an odd {path}")))
}

/// The error with the file or call that it is about. A lack of descriptors is about none, and keeps its number.
pub(crate) fn named(what: &str, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(EMFILE | ENFILE) => error,
        _ => io::Error::new(error.kind(), format!("{what}: {error}")),
    }
}

/// "Too many open files", in this process and in the system; the same numbers on every Linux.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// The descriptors beyond stderr that this process would pass on to a child (proc_pid_fdinfo(5)).
pub(crate) fn inheritable() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    let folder = "/proc/self/fdinfo";
    for entry in std::fs::read_dir(folder).map_err(|error| named(folder, error))? {
        let name = entry.map_err(|error| named(folder, error))?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()).filter(|number| *number > 2)
        else {
            continue;
        };
        // Closed meanwhile, by another thread: then it is not passed on either.
        let Ok(text) = beginning(&Path::new(folder).join(&name)) else { continue };
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
        if flags & OFlags::CLOEXEC.bits() == 0 {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// The first lines of a file in `/proc`, in one read: the flags stand in the second.
fn beginning(path: &Path) -> io::Result<String> {
    let mut bytes = [0; 64];
    let count = File::open(path)?.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// The processes with `mark` in their environment (proc_pid_environ(5)); a zombie has none. None in a `/proc` that is not
/// ours.
pub(crate) fn marked(mark: &[u8]) -> Vec<Pid> {
    let is_marked = |number: &i32| {
        std::fs::read(format!("/proc/{number}/environ"))
            .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
    };
    all().into_iter().filter(is_marked).filter_map(Pid::from_raw).collect()
}

/// The processes of a group, zombies among them. None in a `/proc` that is not ours.
pub(crate) fn members(group: u32) -> Vec<Pid> {
    let is_member = |number: &i32| group_of(number.unsigned_abs()).is_ok_and(|it| it == u64::from(group));
    all().into_iter().filter(is_member).filter_map(Pid::from_raw).collect()
}

fn all() -> Vec<i32> {
    let entries = is_ours().then(|| std::fs::read_dir("/proc").ok()).flatten();
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time_and_a_parent() {
        let pid = std::process::id();

        assert_eq!(start_time(pid).unwrap(), start_time(pid).unwrap());
        assert_eq!(parent_of(pid).unwrap(), u64::from(std::os::unix::process::parent_id()));
        assert!(start_time(u32::MAX).is_err());
        assert!(!is_ending(pid));
        assert!(is_ours());
    }

    #[test]
    fn an_error_names_its_file() {
        let error = start_time(u32::MAX).unwrap_err().to_string();

        assert_eq!(error, "/proc/4294967295/stat: No such file or directory (os error 2)");
    }
}
