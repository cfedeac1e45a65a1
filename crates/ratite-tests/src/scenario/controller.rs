//! A controlling program in a process of its own, which may end in any way: the program `controller`.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::process::Signal;

use super::AT_ONCE;
use super::PATIENCE;
use super::Stage;
use super::entries;
use super::program;
use super::send_signal;
use super::wait_until;
use crate::orphans::children_of;
use crate::orphans::is_alive;
use crate::orphans::processes_with_mark;
use crate::orphans::wait_until_gone;

/// A running `controller`. Dropping it kills it.
#[derive(Debug)]
pub struct Controller {
    child: Child,
    answers: BufReader<ChildStdout>,
    base: PathBuf,
    /// The machines that it has launched so far: pid and work folder.
    pub machines: Vec<(u32, PathBuf)>,
}

impl Controller {
    /// Starts one with machines in the base folder of `stage`, and waits until they run.
    ///
    /// # Panics
    /// If it does not get that far.
    #[must_use]
    #[track_caller]
    pub fn start(stage: &Stage, options: &[&str]) -> Self {
        let mut command = Command::new("env");
        // Whoever runs the tests may ignore signals, as nohup(1) does; a controller has to die of them.
        command.arg("--default-signal").arg(program("controller"));
        Self::start_by(command, stage, options)
    }

    /// The same by a shell that runs `script`, in which `"$@"` is the controller with its arguments.
    ///
    /// # Panics
    /// If it does not get that far.
    #[must_use]
    #[track_caller]
    pub fn start_in_shell(script: &str, stage: &Stage, options: &[&str]) -> Self {
        let mut shell = Command::new("env");
        shell.args(["--default-signal", "sh", "-c", script, "sh"]).arg(program("controller"));
        Self::start_by(shell, stage, options)
    }

    #[track_caller]
    fn start_by(mut command: Command, stage: &Stage, options: &[&str]) -> Self {
        command.arg("--base").arg(stage.base()).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the controller starts");
        let answers = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let base = stage.base().to_owned();
        let mut controller = Self { child, answers, base, machines: Vec::new() };
        loop {
            let answer = controller.answer();
            if answer == "ready" {
                return controller;
            }
            controller.note(&answer);
        }
    }

    /// Takes what it says of a machine.
    ///
    /// # Panics
    /// If that is not what it says.
    #[track_caller]
    pub fn note(&mut self, answer: &str) {
        let machine =
            answer.split_once(' ').and_then(|(pid, folder)| Some((pid.parse().ok()?, folder.into())));
        self.machines.push(machine.unwrap_or_else(|| panic!("the controller says: {answer}")));
    }

    /// Its pid.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it an order; see the program itself for what it obeys.
    ///
    /// # Panics
    /// If it is gone.
    #[track_caller]
    pub fn order(&mut self, order: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{order}").expect("the controller listens");
    }

    /// Reads its next line.
    ///
    /// # Panics
    /// If it says nothing more, or nothing for long.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        let limit = Timespec::try_from(PATIENCE).ok();
        if self.answers.buffer().is_empty() {
            let mut answer = [PollFd::new(self.answers.get_ref(), PollFlags::IN)];
            assert_eq!(
                poll(&mut answer, limit.as_ref()),
                Ok(1),
                "the controller says nothing for {PATIENCE:?}"
            );
        }
        let mut line = String::new();
        let count = self.answers.read_line(&mut line).expect("the controller says text");
        assert!(count > 0, "the controller ended with {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.id(), signal);
    }

    /// The processes that it has started and not reaped: its machines, and its guard.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        children_of(self.id()).iter().map(|child| child.pid).collect()
    }

    /// Its guard.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn guard(&self) -> u32 {
        let children = children_of(self.id());
        let guard = children.iter().find(|child| child.command_line.contains("ratite-guard"));
        guard.expect("a controller has a guard").pid
    }

    /// Ends it by `ending`, and checks that nothing of it is left soon after.
    ///
    /// # Panics
    /// If something is, after 5 s; the promise is 1 s, on a machine that has nothing else to do.
    #[track_caller]
    pub fn end_by(mut self, ending: impl FnOnce(&mut Self)) -> ExitStatus {
        let (pid, children) = (self.id(), self.children());
        assert!(children.len() > self.machines.len(), "machines and a guard: {children:?}");
        ending(&mut self);
        let status = self.wait();
        check_nothing_left(pid, &children, &self.base);
        status
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        assert!(wait_until_gone(self.id(), PATIENCE), "the controller does not end");
        self.child.wait().expect("it is our child")
    }
}

/// Checks that none of `children` lives, nor anything with the mark of the program `pid`, and that `base` is empty.
#[track_caller]
fn check_nothing_left(pid: u32, children: &[u32], base: &Path) {
    let mark = format!("{pid}-");
    wait_until("no process of a machine lives", AT_ONCE, || processes_with_mark(&mark).is_empty());
    wait_until("no child lives, the guard included", AT_ONCE, || {
        !children.iter().any(|child| is_alive(*child))
    });
    wait_until("no work folder is left", AT_ONCE, || entries(base).is_empty());
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended by itself, and was reaped then.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
