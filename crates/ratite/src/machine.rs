//! The running machine: what one can ask of it.

mod devices;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ratite_qmp::Agent;
use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::Event;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::ListenError;
use ratite_qmp::Listener;
use ratite_qmp::Reply;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::command_line::CommandLine;
use crate::config::MachineConfig;
use crate::console::Console;
use crate::error::LaunchError;
use crate::error::MachineError;
use crate::error::ShutdownError;
use crate::exit::Exit;
use crate::exit::ProcessExit;
use crate::exit::Tail;
use crate::launch;
use crate::procfs;
use crate::qtest::Qtest;
use crate::reach_server;
use crate::running::MonitorSession;
use crate::running::Running;
use crate::shutdown;
use crate::work_folder::WorkFolder;
use crate::workdir::Log;

/// A machine that runs, or ran.
///
/// All methods take `&self`, and any number of tasks and threads may use them at once. To share a machine, put it into
/// an [`std::sync::Arc`].
///
/// Dropping it ends the machine by force without waiting: the process with its group is killed, reaped, and the work
/// folder removed, in the background. [`Machine::shutdown`] is how one learns how it ended. A handle that was lent to a pool's
/// preparation ([`crate::Template::prepared_pool`]) ends nothing.
#[derive(Debug)]
pub struct Machine {
    pub(crate) running: Arc<Running>,
    /// Whether dropping it ends the machine. Somebody else's does, if not.
    is_owner: bool,
}

impl MachineConfig {
    /// Starts the machine and returns once its monitor answers (without a monitor: once the process is started).
    ///
    /// Bounded by [`crate::Timeouts::connect`], and ended early by the process's own end. Cancelling leaves nothing
    /// behind. Must be called within a tokio runtime, which then drives the monitor's connection; the process is
    /// watched and the console read in the background, whatever the runtime does.
    ///
    /// # Errors
    /// [`LaunchError`] with the command line, the exit status if there is one, and QEMU's last words. Nothing is left
    /// behind.
    pub async fn launch(&self) -> Result<Machine, LaunchError> {
        launch::launch(self, None, None).await.map(Machine::of)
    }

    /// The same in a folder that was made ahead, in the place of a new one in [`MachineConfig::base_folder`]. It is kept
    /// for as long as the machine needs it, or a clone of it lives.
    ///
    /// # Errors
    /// As [`MachineConfig::launch`].
    pub async fn launch_in(&self, folder: &WorkFolder) -> Result<Machine, LaunchError> {
        launch::launch(self, Some(folder.clone()), None).await.map(Machine::of)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.is_owner {
            return;
        }
        if let Some(reach) = &self.running.reach {
            // Here, since the program may end right behind this. It is a matter of microseconds.
            reach.folder.remove();
        }
        if self.is_running() {
            tracing::warn!(pid = self.pid(), "a running machine was dropped, and is killed");
            // Whoever is being served from another process may hold the handle for a moment longer.
            self.running.process.kill();
        }
    }
}

impl Machine {
    pub(crate) fn of(running: Running) -> Self {
        let machine = Self::unserved(running);
        machine.serve();
        machine
    }

    /// The same for one that is not ready yet: whoever wants to reach it waits for [`Machine::serve`].
    pub(crate) fn unserved(running: Running) -> Self {
        Self { running: Arc::new(running), is_owner: true }
    }

    /// The same machine, for somebody who may use it and is not to end it by dropping it.
    pub(crate) fn lent(&self) -> Self {
        Self { running: Arc::clone(&self.running), is_owner: false }
    }

    /// Lets others reach it, if they may.
    pub(crate) fn serve(&self) {
        reach_server::serve(&self.running);
    }

    /// Executes a QMP command and returns its value.
    ///
    /// `arguments` is anything that serialises to a JSON object; `()` for none. Bounded by
    /// [`crate::Timeouts::command`].
    ///
    /// # Errors
    /// [`MachineError::Command`] with QEMU's own words if it refused; [`MachineError::Exited`] if QEMU ended.
    pub async fn cmd(&self, name: &str, arguments: impl Serialize) -> Result<Value, MachineError> {
        self.cmd_as(name, arguments).await
    }

    /// Executes a QMP command and returns its value as a `T`, read straight from the reply's text.
    ///
    /// # Errors
    /// As [`Machine::cmd`].
    pub async fn cmd_as<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<T, MachineError> {
        let client = self.qmp_client(|| format!("send `{name}`"))?;
        let late = !self.is_running();
        match client.execute_as(name, arguments).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.command_failed(name, late, error).await),
        }
    }

    /// Sends a command and returns the reply as it is, be it a value or a refusal.
    ///
    /// Takes a [`Command`], which can carry descriptors, go out of band, or have a limit of its own.
    ///
    /// # Errors
    /// As [`Machine::cmd`], but a refusal is no error here.
    pub async fn qmp(&self, command: Command) -> Result<Reply, MachineError> {
        let name = command.name().to_owned();
        let client = self.qmp_client(|| format!("send `{name}`"))?;
        let late = !self.is_running();
        match client.send(command).await {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.command_failed(&name, late, error).await),
        }
    }

    /// Gives QEMU a descriptor under the name `name` (`getfd`), for commands that take one by name.
    ///
    /// Travels with its command, so no other command can come in between. Our copy is closed.
    ///
    /// # Errors
    /// As [`Machine::cmd`].
    #[doc(alias = "send_fd_scm")]
    pub async fn send_fd(&self, name: &str, fd: impl Into<OwnedFd>) -> Result<(), MachineError> {
        let command = Command::new("getfd")
            .arguments(serde_json::json!({ "fdname": name }))
            .map_err(|source| ExecuteError::Arguments { command: "getfd".into(), source })?;
        let reply = self.qmp(command.fd(fd)).await?;
        match reply.error() {
            None => Ok(()),
            Some(refusal) => {
                Err(ExecuteError::Refused { command: "getfd".into(), source: refusal.clone() }.into())
            }
        }
    }

    /// The QMP session itself.
    ///
    /// # Errors
    /// [`MachineError::NoMonitor`].
    pub fn client(&self) -> Result<&Client, MachineError> {
        self.qmp_client(|| "speak QMP".into())
    }

    /// Waits for an event that `filter` takes, among those that have arrived and those to come, at most `limit`. The
    /// limit is for the whole wait. Events that are passed over stay for later reads, in their order.
    ///
    /// # Errors
    /// [`MachineError::Event`] when the time is over; [`MachineError::Exited`] at once if QEMU has ended and nothing
    /// that arrived fits.
    pub async fn event_wait(&self, filter: EventFilter, limit: Duration) -> Result<Event, MachineError> {
        let events = &self.monitor(|| "wait for events".into())?.events;
        match events.next_matching(&filter, limit).await {
            Ok(event) => Ok(event),
            Err(error) => Err(self.listening_failed("while an event was waited for", error).await),
        }
    }

    /// Waits for an event that any of `filters` takes; otherwise as [`Machine::event_wait`].
    ///
    /// # Errors
    /// As [`Machine::event_wait`].
    pub async fn events_wait(&self, filters: &[EventFilter], limit: Duration) -> Result<Event, MachineError> {
        let any = filters.iter().cloned().fold(EventFilter::none(), EventFilter::or);
        self.event_wait(any, limit).await
    }

    /// Takes the oldest event that was not taken yet, waiting for one at most `limit`.
    ///
    /// # Errors
    /// As [`Machine::event_wait`]; [`ListenError::Lagged`] once after events were dropped.
    #[doc(alias = "get_qmp_event")]
    pub async fn next_event(&self, limit: Duration) -> Result<Event, MachineError> {
        let events = &self.monitor(|| "wait for events".into())?.events;
        match events.next(limit).await {
            Ok(event) => Ok(event),
            Err(error) => Err(self.listening_failed("while an event was waited for", error).await),
        }
    }

    /// Takes the oldest event that was not taken yet, if there is one.
    ///
    /// # Errors
    /// As [`Machine::next_event`], except that it never times out.
    pub fn try_next_event(&self) -> Result<Option<Event>, MachineError> {
        Ok(self.monitor(|| "look for events".into())?.events.try_next()?)
    }

    /// Waits until there is an event that `filter` takes, and takes nothing: for those who can be interrupted between an
    /// event and its use. [`Machine::try_event`] takes it.
    ///
    /// # Errors
    /// As [`Machine::event_wait`].
    pub async fn event_ready(&self, filter: &EventFilter, limit: Duration) -> Result<(), MachineError> {
        let events = &self.monitor(|| "wait for events".into())?.events;
        match events.ready(filter, limit).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.listening_failed("while an event was waited for", error).await),
        }
    }

    /// Takes the oldest event that `filter` takes, if there is one; others stay.
    ///
    /// # Errors
    /// [`MachineError::NoMonitor`]; [`MachineError::Event`] when the connection has ended and nothing that arrived fits.
    pub fn try_event(&self, filter: &EventFilter) -> Result<Option<Event>, MachineError> {
        Ok(self.monitor(|| "look for events".into())?.events.try_next_matching(filter)?)
    }

    /// How many events were dropped because nobody took them in time, of the 16384 that are kept.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.running.monitor.as_ref().map_or(0, |monitor| monitor.events.dropped())
    }

    /// Takes all events that have arrived and were not taken yet, oldest first. Works after the end, too.
    /// [`Machine::dropped_events`] tells whether there were more.
    #[doc(alias = "get_qmp_events")]
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.running.monitor.as_ref().map(|monitor| monitor.events.take_all()).unwrap_or_default()
    }

    /// Listens to the events that `filter` takes, from now on, in a queue of its own.
    ///
    /// # Errors
    /// [`MachineError::NoMonitor`].
    pub fn listen(&self, filter: EventFilter) -> Result<Listener, MachineError> {
        Ok(self.qmp_client(|| "listen to events".into())?.listen(filter))
    }

    /// The machine's console, if it was given one; the first of several.
    #[must_use]
    pub fn console(&self) -> Option<&Console> {
        self.running.consoles.first().map(|(_, console)| console)
    }

    /// The console of this name, if there is one.
    #[must_use]
    pub fn console_named(&self, name: &str) -> Option<&Console> {
        self.consoles().find(|(other, _)| *other == name).map(|(_, console)| console)
    }

    /// All consoles with their names, in the order in which they were given.
    pub fn consoles(&self) -> impl Iterator<Item = (&str, &Console)> {
        self.running.consoles.iter().map(|(name, console)| (name.as_str(), console))
    }

    /// The agent in the guest, if the machine was given its channel. Its commands have the limit of
    /// [`crate::Timeouts::command`], which is also how long they wait for an agent that has not started yet.
    #[must_use]
    pub fn agent(&self) -> Option<&Agent> {
        self.running.agent.as_ref()
    }

    /// The machine's qtest session, if it runs under qtest.
    #[must_use]
    pub fn qtest(&self) -> Option<&Qtest> {
        self.running.qtest.as_ref()
    }

    /// The process that was started: QEMU, or the wrapper if there is one.
    #[doc(alias = "get_pid")]
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.process.pid()
    }

    /// Whether `pid` is this machine's process or one that descends from it, such as a wrapper's QEMU: to check who has
    /// connected to a socket.
    #[must_use]
    pub fn has_process(&self, pid: u32) -> bool {
        self.is_running() && procfs::descends(pid, self.pid())
    }

    /// Whether the process has not ended yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.process.exited().is_none()
    }

    /// How the process ended, if it has. Never waits; [`Machine::wait`] tells more.
    #[doc(alias = "exitcode")]
    #[must_use]
    pub fn exit(&self) -> Option<ProcessExit> {
        self.running.process.exited().map(|exited| exited.status)
    }

    /// Resolves once the process has ended; for `select!`. It borrows nothing and ends nothing.
    pub fn exited(&self) -> impl Future<Output = ProcessExit> + Send + use<> {
        let ended = self.running.process.wait();
        async move { ended.await.status }
    }

    /// What QEMU has written to stdout and stderr; readable while it runs.
    #[doc(alias = "get_log")]
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.running.log
    }

    /// What was run: as words, and as one line for a shell by its `Display`.
    #[must_use]
    pub fn command_line(&self) -> &CommandLine {
        &self.running.command_line
    }

    /// The machine's own folder (mode 0700), removed when the machine has ended.
    #[doc(alias = "temp_dir")]
    #[must_use]
    pub fn work_folder(&self) -> &Path {
        &self.running.work_folder
    }

    /// How long it took from the start of the process to the monitor being ready; zero without a monitor.
    #[must_use]
    pub fn launch_time(&self) -> Duration {
        self.running.launch_time
    }

    /// Ends the machine: asks it to quit (SIGTERM without a monitor), and kills it once `grace` is over.
    ///
    /// `grace` bounds everything up to the kill. An exit with status 0 is clean, whoever asked for it. May be called
    /// again, also after it was cancelled or the machine ended by itself: everybody gets the same [`Exit`].
    ///
    /// # Errors
    /// [`ShutdownError`] when it had to be killed, or ended otherwise than with status 0.
    pub async fn shutdown(&self, grace: Duration) -> Result<Exit, ShutdownError> {
        shutdown::shutdown(&self.running, grace).await
    }

    /// Ends the machine by force (SIGKILL to its process group), and waits for its end.
    ///
    /// # Errors
    /// [`ShutdownError`] only when even that does not end it within [`crate::Timeouts::kill`].
    pub async fn kill(&self) -> Result<Exit, ShutdownError> {
        shutdown::kill(&self.running).await
    }

    /// Waits until the machine ends by itself, and kills it once `limit` is over. Events and commands go on meanwhile.
    ///
    /// # Errors
    /// [`ShutdownError`] when it had to be killed; an exit with any status is a value.
    pub async fn wait(&self, limit: Duration) -> Result<Exit, ShutdownError> {
        shutdown::wait(&self.running, limit).await
    }

    fn monitor(&self, doing: impl FnOnce() -> String) -> Result<&MonitorSession, MachineError> {
        self.running.monitor.as_ref().ok_or_else(|| MachineError::NoMonitor { doing: doing() })
    }

    fn qmp_client(&self, doing: impl FnOnce() -> String) -> Result<&Client, MachineError> {
        self.monitor(doing).map(|monitor| &monitor.client)
    }

    async fn command_failed(&self, name: &str, late: bool, error: ExecuteError) -> MachineError {
        let doing = match late {
            true => format!("before `{name}` was sent"),
            false => format!("while `{name}` waited for its reply"),
        };
        if error.is_disconnected()
            && let Some(exited) = self.cause(&doing).await
        {
            return exited;
        }
        error.into()
    }

    async fn listening_failed(&self, doing: &str, error: ListenError) -> MachineError {
        if matches!(error, ListenError::Disconnected(_))
            && let Some(exited) = self.cause(doing).await
        {
            return exited;
        }
        error.into()
    }

    /// The process's end, when that is why a connection ended: the monitor closes a moment before its process is gone.
    async fn cause(&self, doing: &str) -> Option<MachineError> {
        let exited = self.running.process.ends_soon(EXIT_AFTER_CLOSE).await?;
        let log = self.running.log.tail(LAST_WORDS).unwrap_or_else(|_| Tail::default());
        Some(MachineError::Exited { exit: exited.status, doing: doing.to_owned(), log })
    }
}

/// How long a process whose monitor has closed is waited for.
const EXIT_AFTER_CLOSE: Duration = Duration::from_secs(1);

/// How much of the log an error carries.
const LAST_WORDS: usize = 8 << 10;
