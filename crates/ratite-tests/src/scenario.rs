//! What the scenario tests share: a stage to play on, the machines that play, and waits for facts.
//!
//! [`play`] gives a test the process for itself and a runtime of its own, and proves at the end that nothing is left:
//! no process, no descriptor, no folder, and no thread but the few that ratite keeps for the whole program.

pub mod apart;
pub mod controller;

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;
use std::time::Instant;

use ratite::ConsoleConfig;
use ratite::MachineConfig;
use ratite::PassedFd;
use ratite::guest;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::process::Pid;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Builder;

use crate::orphans::Allowed;
use crate::orphans::Footprint;
use crate::orphans::exclusive;

/// How long a test waits for what is bound to come, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How soon something comes that must come at once: far below every limit of the library, far above any hiccup.
pub const AT_ONCE: Duration = Duration::from_secs(5);

/// How long a whole scenario may take before it counts as hanging.
const HANGING: Duration = Duration::from_secs(110);

/// Where one test plays: a base folder for its machines, and a folder for its own files.
#[derive(Debug)]
pub struct Stage {
    base: TempDir,
    files: TempDir,
}

/// Plays `scenario` on a runtime of its own, alone in this process, and proves that nothing is left.
///
/// # Panics
/// If the scenario does, or hangs, or leaves something behind.
#[track_caller]
pub fn play(scenario: impl AsyncFnOnce(&Stage)) {
    on_stage(|stage| {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("scenario")
            .enable_all()
            .build()
            .expect("a runtime");
        let outcome = runtime.block_on(async { tokio::time::timeout(HANGING, scenario(stage)).await });
        // Drops what the scenario has left running on it: the library must see to the rest without it.
        drop(runtime);
        assert!(outcome.is_ok(), "the scenario hangs");
    });
}

/// Plays `scenario` without any runtime, alone in this process, and proves that nothing is left.
///
/// # Panics
/// If the scenario does, or leaves something behind.
#[track_caller]
pub fn play_blocking(scenario: impl FnOnce(&Stage)) {
    on_stage(scenario);
}

#[track_caller]
fn on_stage(scenario: impl FnOnce(&Stage)) {
    let _alone = exclusive();
    warm_up();
    let stage = Stage::empty();
    let before = Footprint::take().folder(stage.base()).allowing(Allowed::nothing());
    scenario(&stage);
    before.assert_nothing_left();
    let forgotten = entries(stage.base());
    assert_eq!(forgotten, Vec::<String>::new(), "left behind in the base folder");
    // A thread that the supervisor has just started bears its name for a moment.
    let supervisors = || threads_called("ratite-supervi");
    wait_until("one thread of a program starts all machines", AT_ONCE, || supervisors() == 1);
}

/// Has ratite make what it keeps for the whole program: its threads and its guard.
fn warm_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let stage = Stage::empty();
        let config = stage.fake(&[]).console(ConsoleConfig::serial());
        let machine = ratite::blocking::Machine::launch(&config).expect("a plain fake can be launched");
        machine.shutdown(PATIENCE).expect("a plain fake ends when it is told to");
    });
}

impl Stage {
    /// A stage of one's own, for a test that cannot use [`play`].
    ///
    /// # Panics
    /// If no folder can be made.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            base: tempfile::tempdir().expect("a base folder"),
            files: tempfile::tempdir().expect("a folder for files"),
        }
    }

    /// The folder in which the machines make their work folders; nothing else may be in it.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// A path for a file of the test's own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A fake QEMU that misbehaves as `words` say.
    pub fn fake(&self, words: &[&str]) -> MachineConfig {
        MachineConfig::new(fake_qemu())
            .base_folder(self.base())
            .args(words.iter().flat_map(|word| ["-fake", word]))
    }

    /// A real QEMU without a machine in it.
    ///
    /// # Panics
    /// If there is no QEMU.
    pub fn real(&self) -> MachineConfig {
        real_qemu(self).machine_type("none")
    }

    /// A real QEMU with ratite's boot sector in it and a console.
    ///
    /// # Panics
    /// If there is no QEMU.
    pub fn guest(&self) -> MachineConfig {
        let disk = guest::boot_sector().expect("memory for a boot sector");
        real_qemu(self)
            .accelerator("tcg")
            .args(["-nodefaults", "-m", "2"])
            .args(["-drive", "file=/dev/fdset/1,format=raw,if=floppy,readonly=on"])
            .fd(PassedFd::in_set(disk, 1))
            .console(ConsoleConfig::serial())
    }
}

fn real_qemu(stage: &Stage) -> MachineConfig {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join(REAL_QEMU).exists());
    assert!(found, "no `{REAL_QEMU}` in PATH: `make setup` installs it");
    MachineConfig::new(REAL_QEMU).base_folder(stage.base())
}

const REAL_QEMU: &str = "qemu-system-x86_64";

/// Where the fake QEMU is.
#[must_use]
pub fn fake_qemu() -> PathBuf {
    program("fake-qemu")
}

/// Where one of this package's programs is: beside the folder of the test that runs.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // Without /proc only the first argument tells.
    let test = env::current_exe().ok().or_else(|| env::args_os().next().map(PathBuf::from));
    let test = test.expect("this program has a path");
    let mut folders = test.ancestors().skip(1).map(|folder| folder.join(name));
    folders
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("no `{name}` near {}: `cargo test` builds it", test.display()))
}

/// Says on stderr what a test could not try, since the system it runs on does not permit it.
pub fn not_tested(why: &str) {
    // A test whose stderr is gone has nobody to tell.
    let _gone = writeln!(io::stderr(), "not tested: {why}");
}

/// An error with all its causes, as a user would see them.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Asserts that `error`, with all its causes, says each of `words`.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn assert_says(error: &dyn Error, words: &[&str]) {
    let text = chain(error);
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

/// Waits until `fact` holds, for as long as `limit`.
///
/// # Panics
/// If it does not hold in time; the message names `what`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !fact() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        // Nothing tells when a file or a process goes, so this looks again and again.
        let pause = Timespec::try_from(Duration::from_millis(2)).ok();
        let _interrupted_or_not = poll(&mut [], pause.as_ref());
    }
}

/// Sends a signal to a process that is known to live, or to have ended unreaped.
///
/// # Panics
/// If there is no such process.
#[track_caller]
pub fn send_signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is positive");
    rustix::process::kill_process(pid, signal).expect("the process is there");
}

/// The names in a folder, sorted; none if there is no such folder.
#[must_use]
pub fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// How many threads of this process have a name that begins so (the kernel keeps 15 bytes of a name).
#[must_use]
pub fn threads_called(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name)).count()
}

/// The descriptors of a process: number and what it is.
#[must_use]
pub fn descriptors_of(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut open: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect();
    open.sort_unstable();
    open
}
