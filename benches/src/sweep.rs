//! What a sample leaves behind comes to us, is counted and killed: on a core of ours it would spoil what comes after.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How long what a sample has started may live on by itself. ratite's guard looks around once more.
const AFTERLIFE: Duration = Duration::from_secs(1);

/// Lets every process whose parent ends become a child of this one.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: it takes a number alone.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reaps what has ended, and ends what has not done so within a second. Returns what that was.
pub(crate) fn sweep() -> Vec<String> {
    let start = Instant::now();
    let mut left = children();
    while !left.is_empty() && start.elapsed() < AFTERLIFE {
        reap();
        pause();
        left = children();
    }
    let killed = left.iter().map(|pid| {
        let what = command_line(*pid);
        // SAFETY: it is a child that is not reaped: the number is its.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
        format!("process {pid} ({what})")
    });
    let killed = killed.collect();
    while !children().is_empty() {
        reap();
        pause();
    }
    killed
}

#[expect(clippy::disallowed_methods, reason = "the end of an adopted process is told by nothing but SIGCHLD")]
fn pause() {
    thread::sleep(Duration::from_millis(2));
}

fn reap() {
    // SAFETY: no status is asked for.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// The processes whose parent this one is.
fn children() -> Vec<c_int> {
    let ours = std::process::id().to_string();
    let Ok(folders) = fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |pid: &c_int| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name in parentheses, which may contain anything: the state, then the parent.
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&ours)
    };
    let numbers = folders.filter_map(|folder| folder.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter(is_child).collect()
}

fn command_line(pid: c_int) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
}
