//! Why a program could not be started, as far as looking at it tells. Pure but for looking.
//!
//! The system has one word, "no such file", for a missing binary, a script's missing interpreter and a missing loader.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

/// What is wrong with `program`, which could not be started because of `source`.
pub(crate) fn what_is_wrong(program: &Path, search: Option<&OsStr>, source: &io::Error) -> String {
    match find(program, search) {
        None if program.as_os_str().as_encoded_bytes().contains(&b'/') => "there is no such file".into(),
        None => "no folder in PATH has it".into(),
        Some(path) => what_is_wrong_at(&path, source),
    }
}

/// Where the system finds a program; a name without a `/` in the folders of `search`, a PATH.
pub(crate) fn find(program: &Path, search: Option<&OsStr>) -> Option<PathBuf> {
    find_with(program, search).map(|(path, _)| path)
}

fn find_with(program: &Path, search: Option<&OsStr>) -> Option<(PathBuf, Metadata)> {
    let look = |candidate: PathBuf| std::fs::metadata(&candidate).ok().map(|metadata| (candidate, metadata));
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return look(program.to_owned());
    }
    std::env::split_paths(search?).map(|folder| folder.join(program)).find_map(look)
}

/// What a look at a program's file tells of starting it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A program, as far as is known.
    Program,
    /// A script with its interpreter, which starts what it likes.
    Script,
    /// A file of text that names no interpreter, or a program for another kind of machine.
    ///
    /// The system would refuse it (ENOEXEC), but the C library's `execvp` runs such a file with the shell instead, whose
    /// complaints about it tell nothing.
    Refused,
}

impl Kind {
    /// What the system would say.
    ///
    /// # Errors
    /// ENOEXEC.
    pub(crate) fn check(self) -> io::Result<()> {
        match self {
            Self::Refused => Err(io::Error::from_raw_os_error(ENOEXEC)),
            Self::Program | Self::Script => Ok(()),
        }
    }
}

/// A file that was looked at: a program that changes is another one.
#[derive(Debug, Clone)]
pub(crate) struct Looked {
    pub(crate) kind: Kind,
    /// Of what can be remembered.
    file: Option<(PathBuf, Stamp)>,
}

/// What is remembered of a program.
#[derive(Debug, Clone)]
struct Known {
    stamp: Stamp,
    kind: Kind,
    /// The capabilities that its monitor has offered.
    offers: Option<Vec<String>>,
}

static KNOWN: Mutex<BTreeMap<PathBuf, Known>> = Mutex::new(BTreeMap::new());

/// Looks at a program. What was seen is remembered for as long as the file stays as it is.
pub(crate) fn look_at(program: &Path, search: Option<&OsStr>) -> Looked {
    let Some((path, metadata)) = find_with(program, search) else {
        return Looked { kind: Kind::Program, file: None };
    };
    let stamp = stamp_of(&metadata);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match known.get(&path) {
        Some(known) if known.stamp == stamp => {
            return Looked { kind: known.kind, file: Some((path, stamp)) };
        }
        // A program that starts ever other files is not to keep them all in mind.
        _ if known.len() >= REMEMBERED => known.clear(),
        _ => {}
    }
    let kind = look(&path, &metadata);
    // What is refused today may be a format that the kernel is told of tomorrow.
    if kind != Kind::Refused {
        known.insert(path.clone(), Known { stamp, kind, offers: None });
    }
    Looked { kind, file: Some((path, stamp)) }
}

impl Looked {
    /// The capabilities that a monitor of this very file has offered.
    pub(crate) fn offers(&self) -> Option<Vec<String>> {
        let (path, stamp) = self.file.as_ref()?;
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(path).filter(|known| known.stamp == *stamp)?.offers.clone()
    }

    /// Remembers what its monitor offers.
    pub(crate) fn remember(&self, offers: &[String]) {
        let Some((path, stamp)) = &self.file else { return };
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(path).filter(|known| known.stamp == *stamp)
            && known.offers.as_deref() != Some(offers)
        {
            known.offers = Some(offers.to_vec());
        }
    }
}

/// How many programs are remembered.
const REMEMBERED: usize = 64;

/// A file as it is now: device and inode, and when its content or its mode was changed.
type Stamp = (u64, u64, i64, i64);

fn stamp_of(metadata: &Metadata) -> Stamp {
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

fn look(path: &Path, metadata: &Metadata) -> Kind {
    // What cannot be read may still be run.
    let Ok(head) = head(path) else { return Kind::Program };
    let may_run = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    let is_elf = head.starts_with(b"\x7fELF");
    // Other formats may be registered with the kernel (binfmt_misc), but none of them is text.
    match head.starts_with(b"#!") {
        true => Kind::Script,
        false if may_run && (is_elf && !may_be_ours(&head) || !is_elf && !head.contains(&0)) => Kind::Refused,
        false => Kind::Program,
    }
}

/// Whether an ELF program (elf(5)) may run here: it is for the machine that we are for, or its little sister, or the kernel has been
/// told how to run others' (binfmt_misc).
fn may_be_ours(head: &[u8]) -> bool {
    const MACHINE: std::ops::Range<usize> = 18..20;
    const LITTLE_SISTERS: [([u8; 2], [u8; 2]); 2] = [([62, 0], [3, 0]), ([183, 0], [40, 0])];
    let Some(theirs) = head.get(MACHINE) else { return false };
    let ours = self::head(Path::new("/proc/self/exe")).unwrap_or_default();
    // Without `/proc` nothing is known of us.
    let Some(ours) = ours.get(MACHINE) else { return true };
    let is_sister = LITTLE_SISTERS.iter().any(|(big, little)| big == ours && little == theirs);
    theirs == ours || is_sister || knows_other_formats()
}

/// Whether a format is registered with the kernel, beside its two files for doing so.
fn knows_other_formats() -> bool {
    std::fs::read_dir("/proc/sys/fs/binfmt_misc").is_ok_and(|entries| {
        entries.flatten().any(|entry| !["register", "status"].iter().any(|it| entry.file_name() == *it))
    })
}

/// The beginning of a file.
fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(4096).read_to_end(&mut head)?;
    Ok(head)
}

fn what_is_wrong_at(path: &Path, source: &io::Error) -> String {
    let shown = path.display();
    if path.is_dir() {
        return format!("`{shown}` is a folder");
    }
    if path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0) {
        return format!("`{shown}` is not executable");
    }
    match source.kind() {
        // What it is about stands in it already.
        _ if source.raw_os_error().is_none() => "the system refuses what is needed for that".into(),
        io::ErrorKind::NotFound => match interpreter(path).filter(|it| !Path::new(it).exists()) {
            Some(interpreter) => format!("`{shown}` needs the interpreter `{interpreter}`, which is missing"),
            // Standard input is to be there.
            None if !Path::new("/dev/null").exists() => "`/dev/null` is missing".into(),
            None => format!("`{shown}` is there, but something it needs to start is missing"),
        },
        io::ErrorKind::WouldBlock => "the system allows no process more".into(),
        io::ErrorKind::ArgumentListTooLong => {
            "its arguments and environment are too long for the system".into()
        }
        _ if matches!(source.raw_os_error(), Some(EMFILE | ENFILE)) => {
            "too few descriptors are left to start anything".into()
        }
        _ if source.raw_os_error() == Some(ENOEXEC) => {
            format!("`{shown}` is no program of this machine's format")
        }
        // A filter of system calls (seccomp(2)) may refuse what is done between fork and exec.
        _ if matches!(source.raw_os_error(), Some(EPERM | ENOSYS)) => {
            format!("the system refuses to run `{shown}`, or what comes before that (setpgid, prctl)")
        }
        _ => format!("the system refuses to run `{shown}`"),
    }
}

/// "Exec format error", the same number on every Linux.
const ENOEXEC: i32 = 8;

/// "Operation not permitted" and "Function not implemented", by which system calls are filtered.
const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// "Too many open files", in this process and in the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// The interpreter in a script's first line, or in an ELF program's header (PT_INTERP), as far as it can be read.
fn interpreter(path: &Path) -> Option<String> {
    let head = head(path).ok()?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        return String::from_utf8_lossy(line).split_whitespace().next().map(str::to_owned);
    }
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    // The loader's path is the first absolute path in the header's page.
    let start = memchr::memmem::find(&head, b"/lib")?;
    let end = head[start..].iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&head[start..start + end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(number: i32, expected: &str) {
        let source = io::Error::from_raw_os_error(number);
        assert_eq!(what_is_wrong(Path::new("/bin/sh"), None, &source), expected);
    }

    #[test]
    fn nothing_that_is_there_is_said_to_be_missing() {
        check(2, "`/bin/sh` is there, but something it needs to start is missing");
    }

    #[test]
    fn what_the_system_refuses_is_told_apart() {
        check(EPERM, "the system refuses to run `/bin/sh`, or what comes before that (setpgid, prctl)");
        check(11, "the system allows no process more");
        let named = io::Error::other("pidfd_open: Function not implemented (os error 38)");
        let told = what_is_wrong(Path::new("/bin/sh"), None, &named);
        assert_eq!(told, "the system refuses what is needed for that");
    }
}
