//! The twin of [`crate::Machine`].

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use ratite_qmp::Command;
use ratite_qmp::Event;
use ratite_qmp::EventFilter;
use ratite_qmp::Reply;
use ratite_qmp::within;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::blocking::agent::Agent;
use crate::blocking::console::Console;
use crate::blocking::listener::Listener;
use crate::blocking::qmp::Client;
use crate::blocking::qtest::Qtest;
use crate::blocking::wait::Background;
use crate::command_line::CommandLine;
use crate::config::MachineConfig;
use crate::error::LaunchError;
use crate::error::LaunchErrorKind;
use crate::error::MachineError;
use crate::error::ShutdownError;
use crate::exit::Exit;
use crate::exit::ProcessExit;
use crate::work_folder::WorkFolder;
use crate::workdir::Log;

/// A machine that runs, or ran; see [`crate::Machine`].
#[derive(Debug)]
pub struct Machine {
    pub(super) inner: crate::machine::Machine,
    pub(super) background: Background,
}

impl Machine {
    /// Starts the machine and returns once its monitor answers; see [`MachineConfig::launch`].
    ///
    /// # Errors
    /// As there.
    pub fn launch(config: &MachineConfig) -> Result<Self, LaunchError> {
        let background =
            Background::start().map_err(|error| LaunchError::new(LaunchErrorKind::Channel(error)))?;
        let inner = background.wait("MachineConfig::launch", config.launch())?;
        Ok(Self { inner, background })
    }

    /// The same in a folder that was made ahead; see [`MachineConfig::launch_in`].
    ///
    /// # Errors
    /// As there.
    pub fn launch_in(config: &MachineConfig, folder: &WorkFolder) -> Result<Self, LaunchError> {
        let background =
            Background::start().map_err(|error| LaunchError::new(LaunchErrorKind::Channel(error)))?;
        let inner = background.wait("MachineConfig::launch_in", config.launch_in(folder))?;
        Ok(Self { inner, background })
    }

    /// Executes a QMP command and returns its value; see [`crate::Machine::cmd`].
    ///
    /// # Errors
    /// As there.
    pub fn cmd(&self, name: &str, arguments: impl Serialize) -> Result<Value, MachineError> {
        self.background.wait("Machine::cmd", self.inner.cmd(name, arguments))
    }

    /// Executes a QMP command and returns its value as a `T`; see [`crate::Machine::cmd_as`].
    ///
    /// # Errors
    /// As there.
    pub fn cmd_as<T: DeserializeOwned>(
        &self,
        name: &str,
        arguments: impl Serialize,
    ) -> Result<T, MachineError> {
        self.background.wait("Machine::cmd_as", self.inner.cmd_as(name, arguments))
    }

    /// Sends a command and returns the reply as it is; see [`crate::Machine::qmp`].
    ///
    /// # Errors
    /// As there.
    pub fn qmp(&self, command: Command) -> Result<Reply, MachineError> {
        self.background.wait("Machine::qmp", self.inner.qmp(command))
    }

    /// Gives QEMU a descriptor under a name; see [`crate::Machine::send_fd`].
    ///
    /// # Errors
    /// As there.
    pub fn send_fd(&self, name: &str, fd: impl Into<OwnedFd>) -> Result<(), MachineError> {
        self.background.wait("Machine::send_fd", self.inner.send_fd(name, fd))
    }

    /// The QMP session itself; see [`crate::Machine::client`].
    ///
    /// # Errors
    /// As there.
    pub fn client(&self) -> Result<Client, MachineError> {
        self.inner.client().map(|client| Client::new(client.clone(), self.background.clone()))
    }

    /// Waits for an event that `filter` takes; see [`crate::Machine::event_wait`].
    ///
    /// # Errors
    /// As there.
    pub fn event_wait(&self, filter: EventFilter, limit: Duration) -> Result<Event, MachineError> {
        self.background.wait("Machine::event_wait", self.inner.event_wait(filter, limit))
    }

    /// Waits for an event that any of `filters` takes; see [`crate::Machine::events_wait`].
    ///
    /// # Errors
    /// As there.
    pub fn events_wait(&self, filters: &[EventFilter], limit: Duration) -> Result<Event, MachineError> {
        self.background.wait("Machine::events_wait", self.inner.events_wait(filters, limit))
    }

    /// Takes the oldest event that was not taken yet; see [`crate::Machine::next_event`].
    ///
    /// # Errors
    /// As there.
    pub fn next_event(&self, limit: Duration) -> Result<Event, MachineError> {
        self.background.wait("Machine::next_event", self.inner.next_event(limit))
    }

    /// Takes the oldest event that was not taken yet, if there is one; see [`crate::Machine::try_next_event`].
    ///
    /// # Errors
    /// As there.
    pub fn try_next_event(&self) -> Result<Option<Event>, MachineError> {
        self.inner.try_next_event()
    }

    /// Waits until there is an event that `filter` takes; see [`crate::Machine::event_ready`].
    ///
    /// # Errors
    /// As there.
    pub fn event_ready(&self, filter: &EventFilter, limit: Duration) -> Result<(), MachineError> {
        self.background.wait("Machine::event_ready", self.inner.event_ready(filter, limit))
    }

    /// Takes the oldest event that `filter` takes, if there is one; see [`crate::Machine::try_event`].
    ///
    /// # Errors
    /// As there.
    pub fn try_event(&self, filter: &EventFilter) -> Result<Option<Event>, MachineError> {
        self.inner.try_event(filter)
    }

    /// How many events were dropped; see [`crate::Machine::dropped_events`].
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.inner.dropped_events()
    }

    /// Takes all events that have arrived and were not taken yet; see [`crate::Machine::take_events`].
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.inner.take_events()
    }

    /// Listens to events in a queue of its own; see [`crate::Machine::listen`].
    ///
    /// # Errors
    /// As there.
    pub fn listen(&self, filter: EventFilter) -> Result<Listener, MachineError> {
        self.inner.listen(filter).map(|listener| Listener::new(listener, self.background.clone()))
    }

    /// The machine's console, if it was given one; see [`crate::Machine::console`].
    #[must_use]
    pub fn console(&self) -> Option<Console> {
        self.inner.console().map(|console| Console::new(console.clone(), self.background.clone()))
    }

    /// The console of this name, if there is one; see [`crate::Machine::console_named`].
    #[must_use]
    pub fn console_named(&self, name: &str) -> Option<Console> {
        let console = self.inner.console_named(name);
        console.map(|console| Console::new(console.clone(), self.background.clone()))
    }

    /// All consoles with their names; see [`crate::Machine::consoles`].
    pub fn consoles(&self) -> impl Iterator<Item = (&str, Console)> {
        let twin = |console: &crate::console::Console| Console::new(console.clone(), self.background.clone());
        self.inner.consoles().map(move |(name, console)| (name, twin(console)))
    }

    /// The agent in the guest, if the machine was given its channel; see [`crate::Machine::agent`].
    #[must_use]
    pub fn agent(&self) -> Option<Agent> {
        self.inner.agent().map(|agent| Agent::new(agent.clone(), self.background.clone()))
    }

    /// The machine's qtest session, if it runs under qtest; see [`crate::Machine::qtest`].
    #[must_use]
    pub fn qtest(&self) -> Option<Qtest> {
        self.inner.qtest().map(|qtest| Qtest::new(qtest.clone(), self.background.clone()))
    }

    /// The process that was started; see [`crate::Machine::pid`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.pid()
    }

    /// Whether `pid` is this machine's process or a descendant; see [`crate::Machine::has_process`].
    #[must_use]
    pub fn has_process(&self, pid: u32) -> bool {
        self.inner.has_process(pid)
    }

    /// Whether the process has not ended yet; see [`crate::Machine::is_running`].
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.inner.is_running()
    }

    /// How the process ended, if it has; see [`crate::Machine::exit`].
    #[must_use]
    pub fn exit(&self) -> Option<ProcessExit> {
        self.inner.exit()
    }

    /// Waits until the process has ended, at most for `limit`, and ends nothing; `None` if it still runs. See
    /// [`crate::Machine::exited`].
    #[must_use]
    pub fn exited(&self, limit: Duration) -> Option<ProcessExit> {
        self.background.wait("Machine::exited", within(limit, "exit", self.inner.exited())).ok()
    }

    /// What QEMU has written to stdout and stderr; see [`crate::Machine::log`].
    #[must_use]
    pub fn log(&self) -> &Log {
        self.inner.log()
    }

    /// What was run; see [`crate::Machine::command_line`].
    #[must_use]
    pub fn command_line(&self) -> &CommandLine {
        self.inner.command_line()
    }

    /// The machine's own folder; see [`crate::Machine::work_folder`].
    #[must_use]
    pub fn work_folder(&self) -> &Path {
        self.inner.work_folder()
    }

    /// How long the launch took; see [`crate::Machine::launch_time`].
    #[must_use]
    pub fn launch_time(&self) -> Duration {
        self.inner.launch_time()
    }

    /// Ends the machine; see [`crate::Machine::shutdown`].
    ///
    /// # Errors
    /// As there.
    pub fn shutdown(&self, grace: Duration) -> Result<Exit, ShutdownError> {
        self.background.wait("Machine::shutdown", self.inner.shutdown(grace))
    }

    /// Ends the machine by force; see [`crate::Machine::kill`].
    ///
    /// # Errors
    /// As there.
    pub fn kill(&self) -> Result<Exit, ShutdownError> {
        self.background.wait("Machine::kill", self.inner.kill())
    }

    /// Waits until the machine ends by itself; see [`crate::Machine::wait`].
    ///
    /// # Errors
    /// As there.
    pub fn wait(&self, limit: Duration) -> Result<Exit, ShutdownError> {
        self.background.wait("Machine::wait", self.inner.wait(limit))
    }
}
