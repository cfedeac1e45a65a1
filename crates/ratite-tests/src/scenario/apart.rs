//! A test in a process of its own, with a runtime folder of its own: reachable machines are found by the environment, and
//! a program cannot change its environment while others may read it.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use rustix::process::Signal;

use crate::orphans::uncounted;
use crate::orphans::wait_until_gone;
use crate::scenario::HANGING;
use crate::scenario::send_signal;

/// Set in the process that plays.
const APART: &str = "RATITE_TESTS_APART";

/// Plays the test `test` (its path within its program) in a process of its own, in which `XDG_RUNTIME_DIR` is an empty
/// folder; nothing may be in it at the end.
///
/// # Panics
/// If the test does, or did not run.
#[track_caller]
pub fn apart(test: &str, act: impl FnOnce()) {
    if env::var_os(APART).is_some() {
        return act();
    }
    let _beside_no_one_who_counts = uncounted();
    let folder = tempfile::tempdir().expect("a runtime folder");
    let program = env::current_exe().expect("this program has a path");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(APART, "1").env("XDG_RUNTIME_DIR", folder.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.expect("this program starts again");
    let pid = child.id();
    let watchdog = thread::spawn(move || {
        let hangs = !wait_until_gone(pid, HANGING);
        if hangs {
            send_signal(pid, Signal::KILL);
        }
        hangs
    });
    let output = child.wait_with_output().expect("it ends");
    let hangs = watchdog.join().expect("it only waits");
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!hangs, "{test} hangs:\n{said}\n{told}");
    assert!(output.status.success() && said.contains("1 passed"), "{test}:\n{said}\n{told}");
}

/// Where reachable machines have their folders.
///
/// # Panics
/// Outside of [`apart`].
#[must_use]
pub fn machines() -> PathBuf {
    assert!(env::var_os(APART).is_some(), "this is for a test in a process of its own");
    PathBuf::from(env::var_os("XDG_RUNTIME_DIR").expect("it is set")).join("ratite")
}
