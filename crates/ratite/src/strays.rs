//! What a machine has started besides its process: killed with it, and reaped where it came to us. Pure but for looking,
//! killing and reaping.
//!
//! Orphans come to a program that is the first of its pid namespace, as in a container without an init, or that has made
//! itself a subreaper (PR_SET_CHILD_SUBREAPER): there they would stay as zombies, and use up numbers of processes.

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::WaitOptions;

use crate::procfs::marked;
use crate::procfs::members;

/// How often strays are looked for; each round kills all that are there.
const ROUNDS: usize = 100;

/// Kills every process with `mark` in its environment, and looks again until twice none is left: one may just have forked, and
/// has no environment for a moment while it executes another program.
/// Returns those that were found; whether there are still some is `Err`.
pub(crate) fn kill_marked(mark: &[u8]) -> Result<Vec<Pid>, Vec<Pid>> {
    let (mut killed, mut was_clear) = (Vec::new(), false);
    for _ in 0..ROUNDS {
        let strays = marked(mark);
        if strays.is_empty() && was_clear {
            return Ok(killed);
        }
        was_clear = strays.is_empty();
        for pid in strays {
            // A failure means that it has gone meanwhile, or is not ours to kill.
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
            if !killed.contains(&pid) {
                killed.push(pid);
            }
        }
    }
    Err(killed)
}

/// Whether orphans among our descendants become our children.
pub(crate) fn come_to_us() -> bool {
    std::process::id() == 1 || matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

/// Reaps those of `strays`, and of the process group that `leader` leads, that have ended and came to us; never the leader.
///
/// All of them have been killed. Says whether any is still to come: it is ending, or its parent is.
pub(crate) fn reap(leader: Pid, leads_group: bool, strays: &[Pid]) -> bool {
    let group = if leads_group { members(leader.as_raw_nonzero().get().unsigned_abs()) } else { Vec::new() };
    let others = strays.iter().copied().filter(|pid| rustix::process::test_kill_process(*pid).is_ok());
    let mut all: Vec<Pid> = group.into_iter().chain(others).filter(|pid| *pid != leader).collect();
    // A success reaps it. An error means that it is not our child, or not yet.
    all.retain(|pid| !matches!(rustix::process::waitpid(Some(*pid), WaitOptions::NOHANG), Ok(Some(_))));
    !all.is_empty()
}
