//! What ends QEMU when we cannot.
//!
//! PR_SET_PDEATHSIG ends the process that we forked when we are killed, but not a wrapper's children, and nobody
//! removes the folders then. So each program that launches machines has one guard: a small `/bin/sh` process in a
//! process group of its own that reads from a pipe to its end. The guard then kills the machines' process groups, and
//! every process that carries the program's mark in its environment with its group, removes the program's work folders,
//! and exits. If the pipe ends while the program lives, since somebody has killed the holder, it only exits, and the next
//! launch posts another one.
//!
//! ```text
//! program ── opens it for each line ─► pipe ─► guard (sh)
//! holder (sleep) ── keeps it open ───►           │ reads it at the end
//! program ── writes a group at a time ─────► table in memory
//! ```
//!
//! The holder has the only lasting writing end of that pipe, and the parent-death signal: the pipe ends with the program,
//! even if a process that was forked off without exec(2) lives on with copies of all its descriptors.
//!
//! Base folders go through the pipe. Groups come and go with every machine, so they stand in a table that the guard looks
//! at only when the pipe has ended: to note one wakes nobody, and no guard that does not read can be in the way.
//!
//! The mark goes to the guard before anything is started, so there is no moment at which a machine runs unguarded.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;

use command_fds::CommandFdExt;
use rustix::fs::OFlags;

use crate::group_table::GroupTable;
use crate::inherit;
use crate::inherit::Inheritance;
use crate::procfs::group_of;
use crate::procfs::is_ours;
use crate::procfs::start_time;

/// The environment variable that every process of a machine carries: the owner's mark, a dot, and the machine's number.
pub(crate) const MARK_VARIABLE: &str = "RATITE_MACHINE";

/// What work folders are called: this, the owner's mark, a dash, and random letters.
pub(crate) const FOLDER_PREFIX: &str = "qemu-machine-";

/// Which program a process or folder belongs to: its pid, its start time, and random letters; so that neither a
/// reused pid nor another pid namespace can be mistaken for it. The start time is 0 where `/proc` does not tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnerMark(String);

impl OwnerMark {
    /// A mark for this process.
    fn of_this_process() -> io::Result<Self> {
        let pid = std::process::id();
        let start = if is_ours() { start_time(pid)? } else { UNKNOWN_START };
        Ok(Self(format!("{pid}-{start}-{}", random_letters()?)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The start time of an owner whose `/proc` was not its own: whether it lives, only its lock tells.
pub(crate) const UNKNOWN_START: u64 = 0;

fn random_letters() -> io::Result<String> {
    let mut bytes = [0_u8; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// This program's mark and guard; a process that was forked off has its own.
static OWNER: Mutex<Option<Owner>> = Mutex::new(None);

struct Owner {
    pid: u32,
    mark: OwnerMark,
    guard: Option<Guard>,
    /// What a guard has to know, and a new one at once: base folders, and the groups of living machines.
    folders: BTreeSet<Vec<u8>>,
    groups: GroupTable,
}

impl Owner {
    fn of_this_process() -> io::Result<Self> {
        if !is_ours() {
            tracing::warn!(
                "/proc is missing or another pid namespace's: a wrapper's children may outlive it"
            );
        }
        Ok(Self {
            pid: std::process::id(),
            mark: OwnerMark::of_this_process()?,
            guard: None,
            folders: BTreeSet::new(),
            groups: GroupTable::new()?,
        })
    }

    /// Puts a new guard in the place of what there was, and tells it all there is to know.
    fn post(&mut self, guard: Guard) -> io::Result<()> {
        self.dismiss();
        let guard = self.guard.insert(guard);
        for folder in &self.folders {
            guard.tell(folder)?;
        }
        Ok(())
    }

    /// Tells the guard; one that does not listen is given up, and replaced at the next launch.
    fn tell(&mut self, line: &[u8]) {
        if let Some(guard) = &self.guard
            && let Err(error) = guard.tell(line)
        {
            unguarded(error);
            self.dismiss();
        }
    }

    fn dismiss(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }
}

/// The mark for this program's next machine, whose work folder will be in `base`; its guard is on watch then.
///
/// Without a guard (no `/bin/sh`) machines still run: the parent-death signal stays.
pub(crate) fn enlist(base: &Path, start_tied: StartTied) -> io::Result<OwnerMark> {
    /// Held by who posts a guard. Not `OWNER`: the supervisor starts the holder, and may be about to announce a group.
    static POSTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = POSTING.lock().unwrap_or_else(PoisonError::into_inner);
    let (mark, groups) = with_owner(|owner| {
        let guarded = owner.guard.as_mut().is_some_and(Guard::is_alive);
        (owner.mark.clone(), (!guarded).then(|| owner.groups.share()))
    })?;
    let guard = groups.map(|groups| Guard::start(&mark, groups?, start_tied));
    with_owner(|owner| {
        let posted = guard.map(|guard| guard.and_then(|guard| owner.post(guard)));
        if let Some(Err(error)) = posted {
            unguarded(error);
        }
        let path = base.as_os_str().as_bytes();
        if path.contains(&b'\n') {
            tracing::warn!(folder = %base.display(), "a line break in the base folder's path: not guarded");
        } else if owner.folders.insert(path.to_owned()) {
            owner.tell(path);
        }
    })?;
    Ok(mark)
}

/// Does something with what is known of this process, which is never anything that waits.
fn with_owner<T>(act: impl FnOnce(&mut Owner) -> T) -> io::Result<T> {
    let mut owner = OWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = std::process::id();
    match &mut *owner {
        Some(known) if known.pid == pid => Ok(act(known)),
        other => Ok(act(other.insert(Owner::of_this_process()?))),
    }
}

/// Tells the guard of a process group that is a machine's, or no longer is.
pub(crate) fn announce(group: u32, lives: bool) {
    let mut owner = OWNER.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(owner) = owner.as_mut().filter(|owner| owner.pid == std::process::id()) else { return };
    let noted = if lives { owner.groups.insert(group) } else { owner.groups.remove(group) };
    if let Err(error) = noted {
        unguarded(error);
    }
}

fn unguarded(error: io::Error) {
    tracing::warn!(%error, "no guard: a wrapper's children may outlive a killed program");
}

/// How a process is started that is killed when this program ends, however it ends; and the thread with which it does.
pub(crate) type StartTied = fn(Command) -> io::Result<(Child, u32)>;

/// The guard of this program. The end of its holder lets it do its work.
#[derive(Debug)]
struct Guard {
    process: Child,
    holder: Child,
    /// Names the pipe, and keeps it no more open than a path would (O_PATH of open(2)).
    pipe: OwnedFd,
}

impl Guard {
    /// Starts the guard for what carries `mark`, and for the groups in the table `groups`.
    fn start(mark: &OwnerMark, groups: OwnedFd, start_tied: StartTied) -> io::Result<Self> {
        let pid = std::process::id();
        let (reader, writer) = io::pipe()?;
        let ours = is_ours();
        let pipe = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::PATH.bits().cast_signed())
            .open(format!("/proc/self/fd/{}", writer.as_raw_fd()))?;
        let mut holder = Command::new("/bin/sh");
        holder.args(["-c", HOLDER, "ratite-holder", &pid.to_string()]);
        let (holder, thread) = start_bare(holder, Stdio::null(), writer.into(), Vec::new(), start_tied)?;
        // Without a /proc of ours: no numbers from there, and nobody to look for by them.
        let (group, thread) = match ours {
            true => (group_of(pid)?.to_string(), format!("/proc/{pid}/task/{thread}/stat")),
            false => (String::new(), String::new()),
        };
        let mut guard = Command::new("/bin/sh");
        guard.args([
            "-c",
            SCRIPT,
            "ratite-guard",
            mark.as_str(),
            &group,
            MARK_VARIABLE,
            FOLDER_PREFIX,
            &thread,
        ]);
        let groups = vec![(TABLE, groups)];
        match start_bare(guard, reader.into(), Stdio::null(), groups, |mut guard| guard.spawn()) {
            Ok(process) => Ok(Self { process, holder, pipe: pipe.into() }),
            Err(error) => {
                end(holder);
                Err(error)
            }
        }
    }

    /// Writes a line to the guard. It stays in the pipe until it is read, also if this program ends meanwhile.
    fn tell(&self, line: &[u8]) -> io::Result<()> {
        let mut text = line.to_vec();
        text.push(b'\n');
        // A guard that somebody has stopped must not stop us; one that is gone is an error here.
        let mut pipe = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(format!("/proc/self/fd/{}", self.pipe.as_raw_fd()))?;
        // Shorter than PIPE_BUF in all but odd cases, so written whole or not at all.
        pipe.write_all(&text)
    }

    /// Whether the guard is still there; somebody may have killed it.
    fn is_alive(&mut self) -> bool {
        [&mut self.process, &mut self.holder].into_iter().all(|it| matches!(it.try_wait(), Ok(None)))
    }

    /// Ends it without letting it act: what it knows may be out of date.
    fn dismiss(self) {
        end(self.process);
        end(self.holder);
    }
}

/// Where the guard finds the table of groups.
const TABLE: RawFd = 3;

/// Starts a process that shares nothing with us but the two given ends, and `fds` by their numbers there.
fn start_bare<T>(
    mut command: Command,
    input: Stdio,
    output: Stdio,
    fds: Vec<(RawFd, OwnedFd)>,
    start: impl FnOnce(Command) -> io::Result<T>,
) -> io::Result<T> {
    // It must not hold open what the program's end is to close.
    let Inheritance { mappings, placeholders } = inherit::exactly(fds)?;
    if !mappings.is_empty() {
        command.fd_mappings(mappings).map_err(io::Error::other)?;
    }
    inherit::no_blocked_signals(&mut command)?;
    let mut path = OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    // Not every system has grep, sleep and rm there.
    if let Some(programs) = std::env::var_os("PATH") {
        path.push(":");
        path.push(programs);
    }
    command
        .env_clear()
        .env("PATH", path)
        .current_dir("/")
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::null())
        // A Ctrl-C in the terminal is meant for the program.
        .process_group(0);
    let child = start(command);
    drop(placeholders);
    child
}

/// Kills and reaps a process, which may be gone already. Never waits: while somebody traces it, it cannot be reaped.
fn end(mut process: Child) {
    let _gone = process.kill();
    // Where no thread can be had it stays a zombie.
    let _thread = std::thread::Builder::new().name("ratite-aside".into()).spawn(move || process.wait());
}

/// The mark that a machine's processes carry.
pub(crate) fn machine_mark(owner: &OwnerMark, machine: u64) -> String {
    format!("{}.{machine}", owner.as_str())
}

/// Whether `name` is a work folder's, and if so the pid and start time of its owner.
pub(crate) fn owner_in_folder_name(name: &OsStr) -> Option<(u32, u64)> {
    let mut parts = name.to_str()?.strip_prefix(FOLDER_PREFIX)?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The holder: it lasts 68 years, the most that every `sleep` takes, unless the program died before it had its signal.
/// What ends all processes of a session or a unit is not for it: the program may want to end its machines then.
const HOLDER: &str = r#"trap '' HUP INT QUIT TERM; [ "$PPID" = "$1" ] && exec sleep 2147483647"#;

/// The guard itself: POSIX sh, with grep, sleep and rm.
///
/// Each line read is a base folder; each of the table at 3 is empty or a machine's process group. The end of
/// input is the end of the program, or at least of the thread on which the machines' own end hangs, which is ending before
/// the kernel kills the holder; a thread that is not (field 9 of proc_pid_stat(5), PF_EXITING) has lost its holder otherwise.
/// Several rounds then, because a process may have been between fork and exec, with the parent's environment, when the first
/// looked. Without a thread to look at there is no /proc to look into.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
mark=$1 program_group=$2 variable=$3 prefix=$4 thread=$5
set --
while IFS= read -r line; do
    case $line in /*) set -- "$@" "$line" ;; esac
done
if [ -n "$thread" ] && { IFS= read -r stat < "$thread"; } 2>/dev/null; then
    case $stat in *'(ratite-supervis)'*) (set -f; set -- ${stat##*\) }; exit $(($7 & 4))) && exit ;; esac
fi
while read -r group; do
    [ -n "$group" ] && kill -s KILL -- "-$group" 2>/dev/null
done <&3
round=0
while [ -n "$thread" ] && [ $round -lt 40 ]; do
    found=
    for file in $(grep -l -a -F "$variable=$mark." /proc/[0-9]*/environ 2>/dev/null); do
        pid=${file#/proc/} pid=${pid%/environ}
        IFS= read -r stat 2>/dev/null < "/proc/$pid/stat" || continue
        rest=${stat##*\) } rest=${rest#* } rest=${rest#* } group=${rest%% *}
        [ "$group" = "$program_group" ] || kill -s KILL -- "-$group" 2>/dev/null
        kill -s KILL "$pid" 2>/dev/null
        found=yes
    done
    round=$((round + 1))
    [ -z "$found" ] && [ $round -ge 4 ] && break
    sleep 0.05
done
for folder in "$@"; do rm -rf -- "$folder/$prefix$mark-"*; done
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_name_tells_its_owner() {
        let mark = OwnerMark("12-345-ab".into());
        let name = format!("{FOLDER_PREFIX}{}-XYZ", mark.as_str());

        assert_eq!(owner_in_folder_name(OsStr::new(&name)), Some((12, 345)));
        assert_eq!(owner_in_folder_name(OsStr::new("qemu-machine-xyz")), None);
        assert_eq!(owner_in_folder_name(OsStr::new("other")), None);
    }
}
