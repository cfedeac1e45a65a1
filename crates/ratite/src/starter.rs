//! Starts a program by way of another, the starter: without a copy of this process, which is what fork(2) makes.
//!
//! A copy costs more the more memory this program has, and is thrown away at once. `posix_spawn` makes none, but cannot give
//! a child its parent-death signal, and cannot close what is not meant for it. So what it starts is `starter.bin`, some
//! hundred bytes from a file in memory, which does both and then becomes the program.
//!
//! ```text
//! posix_spawn: descriptors, group, signals ─► starter: descriptors closed, PR_SET_PDEATHSIG, folder ─► the program
//!                                                └── cannot ─► tells why on the report, and exits
//! ```
//!
//! Where that does not work (no `/proc`, no program may be run from memory, another processor) nothing has happened, and
//! the caller has other ways.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;
use nix::spawn::PosixSpawnAttr;
use nix::spawn::PosixSpawnFileActions;
use nix::spawn::PosixSpawnFlags;
use nix::spawn::posix_spawn;
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use rustix::fs::MemfdFlags;
use rustix::process::Pid;
use rustix::process::WaitOptions;

/// What is to be started, and how it finds the world.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// What was got ready for it, see [`get_ready`].
    pub(crate) launch: Option<u64>,
    pub(crate) program: &'a OsStr,
    pub(crate) arguments: &'a [OsString],
    /// What differs from this program's environment; later ones count.
    pub(crate) environment: &'a [(OsString, Option<OsString>)],
    pub(crate) working_folder: Option<&'a Path>,
    /// Standard output and error.
    pub(crate) output: BorrowedFd<'a>,
    /// The other descriptors, by their numbers there.
    pub(crate) fds: &'a [(RawFd, OwnedFd)],
    pub(crate) own_group: bool,
}

/// Why nothing was started.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// This way is barred here.
    NotThisWay,
    /// The program cannot be started.
    Failed(io::Error),
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Starts a program as `start` says, with no signal blocked and nothing inherited but what it is given, to be killed when
/// this thread ends. Waits until it is that program.
pub(crate) fn start(start: &Start<'_>) -> Result<Pid, NotStarted> {
    let starter = the_starter().ok_or(NotStarted::NotThisWay)?;
    let program = which(start)?;
    let given = || start.fds.iter().map(|(number, _)| *number);
    let taken: BTreeSet<RawFd> = (0..=2).chain(given()).collect();
    let starter = Aside::of(starter.as_fd(), &taken)?;
    let report_number =
        (3..).find(|number| !taken.contains(number) && *number != starter.number()).expect("few are taken");
    let (mut report, telling) = io::pipe()?;
    let null = File::open("/dev/null")?;
    let sources = [(0, null.as_fd()), (1, start.output), (2, start.output)].into_iter();
    let sources = sources.chain(start.fds.iter().map(|(number, fd)| (*number, fd.as_fd())));
    let mut asides = Vec::new();
    let mut actions = PosixSpawnFileActions::init().map_err(system)?;
    // Last, because its number may be a source's. Moved, because the number must change for the descriptor to be inherited.
    for (number, source) in sources.chain([(report_number, telling.as_fd())]) {
        let source = Aside::of(source, &taken)?;
        actions.add_dup2(source.number(), number).map_err(system)?;
        asides.push(source);
    }
    let mut words = vec![c"ratite-starter".to_owned(), text(report_number.to_string())?];
    words.push(text(start.working_folder.unwrap_or(Path::new("")))?);
    words.push(text(program)?);
    words.push(text(std::process::id().to_string())?);
    for number in gaps(given().chain([report_number]).collect()) {
        words.push(text(number.to_string())?);
    }
    words.push(CString::default());
    words.push(text(start.program)?);
    for argument in start.arguments {
        words.push(text(argument)?);
    }
    let path = format!("/proc/self/fd/{}", starter.number());
    let attributes = attributes(start.own_group).map_err(system)?;
    let environment = environment(around(start.launch)?, start.environment)?;
    let started = posix_spawn(path.as_str(), &actions, &attributes, &words, &environment);
    drop(asides);
    drop(telling);
    let pid = match started {
        Ok(pid) => Pid::from_raw(pid.as_raw()).expect("a child has a number"),
        Err(error @ (Errno::EAGAIN | Errno::ENOMEM)) => return Err(system(error)),
        Err(_) => return Err(NotStarted::NotThisWay),
    };
    let mut said = [0; 4];
    match report.read_exact(&mut said) {
        // It closed when the starter became the program.
        Err(_) => Ok(pid),
        Ok(()) => {
            // It exits right behind that. Where somebody else reaps it there is nothing to reap.
            let _reaped = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            Err(failure(u32::from_ne_bytes(said)))
        }
    }
}

/// The processors for which there is a starter.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const STARTER: Option<&[u8]> = Some(include_bytes!("../starter/starter.bin"));
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
const STARTER: Option<&[u8]> = None;

/// The starter, as a file that can be executed; `None` where there cannot be one.
fn the_starter() -> Option<Rc<OwnedFd>> {
    thread_local! {
        static FILE: RefCell<Option<Rc<OwnedFd>>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        if file.is_none() {
            *file = STARTER.and_then(|starter| in_memory(starter).ok()).map(Rc::new);
        }
        file.clone()
    })
}

fn in_memory(program: &[u8]) -> io::Result<OwnedFd> {
    // To be executed: some systems want to be told, and older ones (before Linux 6.3) do not know the word.
    let made = rustix::fs::memfd_create("ratite-starter", MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("ratite-starter", MemfdFlags::CLOEXEC))?;
    rustix::io::write(&made, program)?;
    // What is open for writing cannot be executed (ETXTBSY).
    Ok(File::open(format!("/proc/self/fd/{}", made.as_raw_fd()))?.into())
}

/// What the starter has said: the system's number, and whether it was before the program's own turn.
fn failure(said: u32) -> NotStarted {
    /// Set in what is told of the preparations, which another way may do without.
    const UNPREPARED: u32 = 0x1_0000;
    match said & UNPREPARED {
        0 => NotStarted::Failed(io::Error::from_raw_os_error(said.cast_signed())),
        _ => NotStarted::NotThisWay,
    }
}

fn system(error: Errno) -> NotStarted {
    NotStarted::Failed(error.into())
}

/// A descriptor whose number is none of those that are taken in the child.
enum Aside<'a> {
    As(BorrowedFd<'a>),
    Copy(OwnedFd),
}

impl<'a> Aside<'a> {
    fn of(fd: BorrowedFd<'a>, taken: &BTreeSet<RawFd>) -> io::Result<Self> {
        if !taken.contains(&fd.as_raw_fd()) {
            return Ok(Self::As(fd));
        }
        let mut unfit = Vec::new();
        loop {
            let copy = rustix::io::fcntl_dupfd_cloexec(fd, 3)?;
            if !taken.contains(&copy.as_raw_fd()) {
                return Ok(Self::Copy(copy));
            }
            // Kept, so that the next one has another number.
            unfit.push(copy);
        }
    }

    fn number(&self) -> RawFd {
        match self {
            Self::As(fd) => fd.as_raw_fd(),
            Self::Copy(fd) => fd.as_raw_fd(),
        }
    }
}

/// The first and the last number of each gap between those that are kept, from 3 on.
fn gaps(kept: BTreeSet<RawFd>) -> Vec<u32> {
    let mut gaps = Vec::new();
    let mut next = 3;
    for number in kept.into_iter().map(RawFd::unsigned_abs) {
        if number > next {
            gaps.extend([next, number - 1]);
        }
        next = next.max(number + 1);
    }
    gaps.extend([next, u32::MAX]);
    gaps
}

/// Which file the system would execute, as execvp(3) finds it.
fn which(start: &Start<'_>) -> Result<PathBuf, NotStarted> {
    let program = Path::new(start.program);
    if start.program.as_bytes().contains(&b'/') {
        return Ok(program.to_owned());
    }
    let own = start.environment.iter().rev().find(|(name, _)| name == "PATH");
    let search = own.map_or_else(|| std::env::var_os("PATH"), |(_, value)| value.clone());
    // Where nothing says where to look, the C library knows.
    let search = search.ok_or(NotStarted::NotThisWay)?;
    // A folder that is not absolute means another one once the working folder has changed.
    let may_run = |path: &PathBuf| {
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file() && path.is_absolute()
    };
    let found = std::env::split_paths(&search).map(|folder| folder.join(program)).find(may_run);
    found.ok_or(NotStarted::NotThisWay)
}

fn attributes(own_group: bool) -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    let mut flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
    attributes.set_sigmask(&SigSet::empty())?;
    // Rust's programs ignore it, and nobody expects to inherit that.
    attributes.set_sigdefault(&SigSet::from_iter([Signal::SIGPIPE]))?;
    if own_group {
        flags |= PosixSpawnFlags::POSIX_SPAWN_SETPGROUP;
        attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
    }
    attributes.set_flags(flags)?;
    Ok(attributes)
}

thread_local! {
    /// This program's environment, made ready, and for which launch. Not for another one: it may have changed since.
    static READY: RefCell<Option<(u64, Vec<CString>)>> = const { RefCell::new(None) };
}

/// Prepares what can be before a launch has got as far as its start.
pub(crate) fn get_ready(launch: u64) {
    // What fails here fails there, and is told then.
    READY.set(own_environment().ok().map(|environment| (launch, environment)));
    let _starter = the_starter();
}

/// This program's environment, for a launch that may have been prepared.
fn around(launch: Option<u64>) -> io::Result<Vec<CString>> {
    match READY.take() {
        Some((ahead, environment)) if Some(ahead) == launch => Ok(environment),
        _ => own_environment(),
    }
}

fn own_environment() -> io::Result<Vec<CString>> {
    std::env::vars_os().map(|(name, value)| variable(&name, &value)).collect()
}

/// This environment with these changes.
fn environment(around: Vec<CString>, changes: &[(OsString, Option<OsString>)]) -> io::Result<Vec<CString>> {
    let is_of = |variable: &CString, name: &OsString| {
        variable.to_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
    };
    let stays = |variable: &CString| !changes.iter().any(|(changed, _)| is_of(variable, changed));
    let last = |place: usize| changes[place + 1..].iter().all(|(later, _)| *later != changes[place].0);
    let new = changes.iter().enumerate().filter(|(place, _)| last(*place));
    let new = new.filter_map(|(_, (name, value))| Some(variable(name, value.as_ref()?)));
    around.into_iter().filter(stays).map(Ok).chain(new).collect()
}

/// A variable as a program gets it. Made in one piece: there are dozens of them.
fn variable(name: &OsStr, value: &OsStr) -> io::Result<CString> {
    let mut text = Vec::with_capacity(name.len() + value.len() + 2);
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
    CString::from_vec_with_nul(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn text(words: impl Into<OsString>) -> io::Result<CString> {
    Ok(CString::new(words.into().into_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_lies_between() {
        assert_eq!(gaps(BTreeSet::new()), [3, u32::MAX]);
        assert_eq!(gaps(BTreeSet::from([3, 4])), [5, u32::MAX]);
        assert_eq!(gaps(BTreeSet::from([4, 6, 7, 20])), [3, 3, 5, 5, 8, 19, 21, u32::MAX]);
    }

    #[test]
    fn the_last_change_of_a_variable_counts() {
        let change = |name: &str, value: Option<&str>| (name.into(), value.map(Into::into));
        let changes = [change("NEW", Some("1")), change("PATH", None), change("NEW", Some("2"))];

        let environment = environment(own_environment().unwrap(), &changes).unwrap();

        let of =
            |name: &str| environment.iter().filter(|it| it.to_bytes().starts_with(name.as_bytes())).count();
        assert!(environment.contains(&c"NEW=2".to_owned()));
        assert_eq!((of("NEW="), of("PATH=")), (1, 0));
    }

    #[test]
    fn what_cannot_be_executed_is_told_with_the_systems_number() {
        let output = File::open("/dev/null").unwrap();
        let start_with = |program: &str, folder: Option<&str>| {
            let start = Start {
                launch: None,
                program: OsStr::new(program),
                arguments: &[],
                environment: &[],
                working_folder: folder.map(Path::new),
                output: output.as_fd(),
                fds: &[],
                own_group: true,
            };
            match super::start(&start) {
                Err(NotStarted::Failed(error)) => error.raw_os_error(),
                Err(NotStarted::NotThisWay) => None,
                Ok(pid) => panic!("started {pid:?}"),
            }
        };
        if the_starter().is_none() {
            return;
        }

        assert_eq!(start_with("/nowhere", None), Some(2));
        assert_eq!(start_with("/bin/sh", Some("/nowhere")), Some(2));
        assert_eq!(start_with("/dev/null", None), Some(13));
    }
}
