//! Finds what a test has left behind: processes, descriptors, folders.
//!
//! A [`Footprint`] is taken before a test and compared after it. Descriptors and children are those of the whole
//! process, so the comparison is exact only if no other test runs meanwhile: see [`exclusive`].

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::pidfd_open;

/// What this process had before a test.
#[derive(Clone, Debug)]
pub struct Footprint {
    descriptors: BTreeMap<u32, String>,
    threads: usize,
    children: Vec<u32>,
    folders: Vec<PathBuf>,
    allowed: Allowed,
}

impl Footprint {
    /// Records the open descriptors, the threads and the children of this process.
    ///
    /// Allows nothing new but what [`Allowed::default`] does, and looks into no folder.
    #[must_use]
    pub fn take() -> Self {
        Self {
            descriptors: open_descriptors(),
            threads: numbers_in("/proc/self/task").len(),
            children: children_of(process::id()).iter().map(|child| child.pid).collect(),
            folders: Vec::new(),
            allowed: Allowed::default(),
        }
    }

    /// Looks for forgotten `qemu-machine-<our pid>-…` below `base`, too.
    #[must_use]
    pub fn folder(mut self, base: impl Into<PathBuf>) -> Self {
        self.folders.push(base.into());
        self
    }

    /// Replaces what may be left.
    #[must_use]
    pub fn allowing(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// Checks that nothing is left: no child, no process with our mark, no descriptor, no folder.
    ///
    /// Gives what ends by itself 5 s to do so.
    ///
    /// # Panics
    /// If something is left; the message lists all of it.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut pause = Duration::from_millis(1);
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind after 5 s:\n{left}");
            // Nothing tells when a descriptor or a folder goes, so this looks again and again, more and more seldom.
            rest(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// What is there now and was not there before.
    #[must_use]
    pub fn left(&self) -> Left {
        let mut children = children_of(process::id());
        children.retain(|child| !self.children.contains(&child.pid) && !self.allowed.permits_child(child));
        let mut marked = processes_with_mark(&format!("{}-", process::id()));
        marked.retain(|marked| !self.allowed.permits_child(marked));
        let folders = self.folders.iter().flat_map(|base| machine_folders(base));
        Left {
            children,
            marked,
            descriptors: self.allowed.unexplained(self.new_descriptors()),
            threads: numbers_in("/proc/self/task").len().saturating_sub(self.threads),
            folders: folders.collect(),
        }
    }

    fn new_descriptors(&self) -> Vec<(u32, String)> {
        let mut open = open_descriptors();
        open.retain(|number, target| self.descriptors.get(number) != Some(target));
        open.into_iter().collect()
    }
}

/// What may be new, because it belongs to the runtime or to the guard and lives as long as the process.
#[derive(Clone, Debug)]
pub struct Allowed {
    descriptors: Vec<(String, usize)>,
    children: Vec<String>,
}

impl Allowed {
    /// Nothing at all may be new.
    #[must_use]
    pub fn nothing() -> Self {
        let (descriptors, children) = (Vec::new(), Vec::new());
        Self { descriptors, children }
    }

    /// Allows at most `count` new descriptors whose target starts with `target`, such as `pipe:`.
    #[must_use]
    pub fn descriptors(mut self, target: impl Into<String>, count: usize) -> Self {
        self.descriptors.push((target.into(), count));
        self
    }

    /// Allows new children, and processes with our mark, of this name.
    #[must_use]
    pub fn child(mut self, name: impl Into<String>) -> Self {
        self.children.push(name.into());
        self
    }

    fn permits_child(&self, process: &Process) -> bool {
        self.children.iter().any(|name| process.is_called(name))
    }

    fn unexplained(&self, mut descriptors: Vec<(u32, String)>) -> Vec<(u32, String)> {
        let mut allowed = self.descriptors.clone();
        descriptors.retain(|(_, target)| {
            let explains =
                |(prefix, left): &&mut (String, usize)| target.starts_with(prefix.as_str()) && *left > 0;
            let reason = allowed.iter_mut().find(explains);
            reason.map(|(_, left)| *left -= 1).is_none()
        });
        descriptors
    }
}

impl Default for Allowed {
    /// One lazily made runtime and one guard: 8 event polls, 8 event counters, 4 pipe ends, and `ratite-guard`.
    fn default() -> Self {
        Self::nothing()
            .descriptors("anon_inode:[eventpoll]", 8)
            .descriptors("anon_inode:[eventfd]", 8)
            .descriptors("pipe:", 4)
            .child("ratite-guard")
    }
}

/// What a test has left behind.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// New children of this process, zombies among them.
    pub children: Vec<Process>,
    /// Processes anywhere whose `RATITE_MACHINE` names this process.
    pub marked: Vec<Process>,
    /// New descriptors: number and target.
    pub descriptors: Vec<(u32, String)>,
    /// How many threads there are more than before. They may be a runtime's: told, but not counted as left.
    pub threads: usize,
    /// Folders of machines of this process.
    pub folders: Vec<PathBuf>,
}

impl Left {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let nothing_runs = self.children.is_empty() && self.marked.is_empty();
        nothing_runs && self.descriptors.is_empty() && self.folders.is_empty()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for child in &self.children {
            writeln!(formatter, "  child {child}")?;
        }
        for process in &self.marked {
            writeln!(formatter, "  process with our mark {process}")?;
        }
        for (number, target) in &self.descriptors {
            writeln!(formatter, "  descriptor {number} → {target}")?;
        }
        for folder in &self.folders {
            writeln!(formatter, "  folder {}", folder.display())?;
        }
        writeln!(formatter, "  (threads more than before: {})", self.threads)
    }
}

/// One process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// `R`, `S`, `D`, `Z`…, as in `proc(5)`.
    pub state: char,
    /// Its short name, at most 15 bytes.
    pub name: String,
    /// Its arguments with blanks between them; empty for a zombie.
    pub command_line: String,
}

impl Process {
    /// Reads the process with this id, if there is one.
    #[must_use]
    pub fn find(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in parentheses and may itself contain some; nothing after it does.
        let (before, after) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut fields = after.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        let command_line = arguments.trim_end_matches('\0').replace('\0', " ");
        let name = name.to_owned();
        Some(Self { pid, parent, state, name, command_line })
    }

    /// Whether it has ended and only waits to be reaped.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    fn is_called(&self, name: &str) -> bool {
        let program = self.command_line.split(' ').next().unwrap_or_default();
        self.name == name || Path::new(program).file_name().is_some_and(|file| file == name)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.pid, self.name)?;
        match self.is_zombie() {
            true => formatter.write_str(", a zombie"),
            false => write!(formatter, ": {}", self.command_line),
        }
    }
}

/// Whether a process runs. A zombie does not.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    Process::find(pid).is_some_and(|process| !process.is_zombie())
}

/// The children of a process, zombies among them.
#[must_use]
pub fn children_of(pid: u32) -> Vec<Process> {
    let all = numbers_in("/proc").into_iter().filter_map(Process::find);
    all.filter(|process| process.parent == pid).collect()
}

/// The running processes in whose environment `RATITE_MACHINE` starts with `mark`.
///
/// Processes whose environment we may not read are passed over, and so is this one.
#[must_use]
pub fn processes_with_mark(mark: &str) -> Vec<Process> {
    let wanted = format!("RATITE_MACHINE={mark}").into_bytes();
    let has_mark = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        variables.any(|variable| variable.starts_with(&wanted))
    };
    let others = numbers_in("/proc").into_iter().filter(|&pid| pid != process::id());
    let marked = others.filter(has_mark).filter_map(Process::find);
    marked.filter(|process| !process.is_zombie()).collect()
}

/// Waits until a process has ended (a zombie has), and says whether it did so within `limit`.
#[must_use]
pub fn wait_until_gone(pid: u32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(Ok(handle)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return true;
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            // Interrupted: the rest of the time is left.
            Err(_) => {}
        }
    }
}

/// Who counts what this process has holds it alone; who only adds to that shares it.
static COUNTED: RwLock<()> = RwLock::new(());

/// Lets one test at a time go on, so that what it counts is its own.
///
/// A test that failed meanwhile does not make the others fail.
pub fn exclusive() -> RwLockWriteGuard<'static, ()> {
    COUNTED.write().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a test go on beside others of its kind, but beside none that counts: it has children or descriptors of its own.
pub fn uncounted() -> RwLockReadGuard<'static, ()> {
    COUNTED.read().unwrap_or_else(PoisonError::into_inner)
}

/// The folders of machines of this process directly below `base`.
#[must_use]
pub fn machine_folders(base: &Path) -> Vec<PathBuf> {
    let start = format!("qemu-machine-{}-", process::id());
    // A base that is gone holds no folders.
    let entries = fs::read_dir(base).into_iter().flatten().filter_map(Result::ok);
    let ours = entries.filter(|entry| entry.file_name().as_bytes().starts_with(start.as_bytes()));
    ours.map(|entry| entry.path()).collect()
}

/// The open descriptors of this process: number and target.
#[must_use]
pub fn open_descriptors() -> BTreeMap<u32, String> {
    let links = numbers_in("/proc/self/fd").into_iter().filter_map(|number| {
        // Another thread may have closed it since, and the listing itself is closed already.
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        Some((number, target.to_string_lossy().into_owned()))
    });
    // Readings of /proc come and go, those of other threads among them.
    links.filter(|(_, target)| !target.starts_with("/proc/")).collect()
}

/// The entries of a folder of /proc that are numbers.
fn numbers_in(folder: &str) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.collect()
}

fn rest(pause: Duration) {
    // Interrupted or not: the caller looks again.
    let _ = poll(&mut [], Timespec::try_from(pause).ok().as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::panic;
    use std::process::Child;
    use std::process::Command;
    use std::process::Stdio;

    use crate::scenario::AT_ONCE;
    use crate::scenario::wait_until;

    /// A child that lives until its stdin is closed.
    fn patient_child(mark: Option<&str>) -> Child {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.envs(mark.map(|mark| ("RATITE_MACHINE", mark)));
        command.spawn().unwrap()
    }

    #[test]
    fn a_new_descriptor_is_found_and_can_be_allowed() {
        let _alone = exclusive();
        let before = Footprint::take().allowing(Allowed::nothing());

        let file = File::open("/dev/null").unwrap();

        let left = before.left();
        let found = (u32::try_from(file.as_raw_fd()).unwrap(), "/dev/null".to_owned());
        assert!(left.descriptors.contains(&found), "{left}");
        let allowing = before.clone().allowing(Allowed::nothing().descriptors("/dev/null", 1));
        assert!(!allowing.left().descriptors.contains(&found));
        drop(file);
        before.assert_nothing_left();
    }

    #[test]
    fn a_child_is_found_alive_and_as_a_zombie() {
        let _alone = exclusive();
        let before = Footprint::take();
        let mut child = patient_child(None);
        let pid = child.id();

        assert!(is_alive(pid));
        assert!(!wait_until_gone(pid, Duration::from_millis(1)));
        drop(child.stdin.take());
        assert!(wait_until_gone(pid, Duration::from_secs(10)));

        assert!(!is_alive(pid));
        let left = before.left();
        let is_ours = |child: &Process| child.pid == pid && child.is_zombie();
        assert!(left.children.iter().any(is_ours), "{left}");
        child.wait().unwrap();
        before.assert_nothing_left();
    }

    #[test]
    fn a_process_with_our_mark_is_found_until_it_ends() {
        let _alone = exclusive();
        let mark = format!("{}-orphans-test", process::id());
        let before = Footprint::take().allowing(Allowed::default().child("cat"));
        let mut child = patient_child(Some(&mark));

        // `spawn` returns in the middle of the exec, when the child may have no environment yet.
        let found = || processes_with_mark(&mark).iter().map(|process| process.pid).collect::<Vec<_>>();
        wait_until("the child has its environment", AT_ONCE, || !found().is_empty());
        assert_eq!(found(), [child.id()]);
        assert!(before.left().marked.is_empty());
        assert_eq!(before.clone().allowing(Allowed::default()).left().marked.len(), 1);
        drop(child.stdin.take());
        assert!(wait_until_gone(child.id(), Duration::from_secs(10)));
        assert_eq!(processes_with_mark(&mark), []);

        child.wait().unwrap();
    }

    #[test]
    fn a_folder_of_ours_is_found() {
        let _alone = exclusive();
        let base = tempfile::tempdir().unwrap();
        let before = Footprint::take().folder(base.path());
        fs::create_dir(base.path().join("qemu-machine-1-of-somebody-else")).unwrap();
        let folder = base.path().join(format!("qemu-machine-{}-x", process::id()));

        fs::create_dir(&folder).unwrap();

        assert_eq!(before.left().folders, std::slice::from_ref(&folder));
        fs::remove_dir(folder).unwrap();
        before.assert_nothing_left();
    }

    #[test]
    fn the_failure_lists_what_is_left() {
        let process = Process::find(process::id()).unwrap();
        let (pid, name, command_line) = (process.pid, process.name.clone(), process.command_line.clone());
        let left = Left {
            children: vec![process],
            descriptors: vec![(9, "pipe:[1]".to_owned())],
            ..Left::default()
        };

        let text = left.to_string();

        let expected = format!("  child {pid} ({name}): {command_line}\n  descriptor 9 → pipe:[1]\n");
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn a_failed_test_does_not_lock_out_the_others() {
        let failed = panic::catch_unwind(|| {
            let _alone = exclusive();
            panic!("on purpose");
        });

        assert!(failed.is_err());
        drop(exclusive());
    }
}
