//! A machine that runs, or ran.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ratite::MachineError;
use ratite::qmp;
use ratite::qmp::PeerCredentials;
use ratite::qmp::Socket;

use crate::agent::Agent;
use crate::client;
use crate::client::Client;
use crate::client::Server;
use crate::console::Console;
use crate::errors::Raise;
use crate::exit::Exit;
use crate::exit::ProcessExit;
use crate::input::Input;
use crate::listener;
use crate::listener::Listener;
use crate::listener::Wanted;
use crate::pending::Pending;
use crate::qtest::Qtest;
use crate::screen::Screen;
use crate::template::Template;
use crate::template_errors::Unfrozen;
use crate::values::Owned;
use crate::values::duplicate;
use crate::values::limit;

/// A machine that runs, or ran. The last reference that goes ends it by force.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Machine {
    inner: Owned<Arc<ratite::Machine>>,
}

impl Machine {
    pub(crate) fn new(inner: ratite::Machine) -> Self {
        Self { inner: Owned::new(Arc::new(inner)) }
    }

    pub(crate) fn give(py: Python<'_>, inner: ratite::Machine) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, Self::new(inner))?.into_any())
    }

    pub(crate) fn share(&self, py: Python<'_>) -> PyResult<Arc<ratite::Machine>> {
        self.inner.get(py).map(Arc::clone)
    }
}

fn exit(py: Python<'_>, exit: ratite::Exit) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, Exit::from(exit))?.into_any())
}

#[pymethods]
impl Machine {
    /// Sends a command; the whole reply as JSON text.
    #[pyo3(signature = (name, arguments, oob, fds, seconds))]
    fn send(
        &self,
        py: Python<'_>,
        name: &str,
        arguments: Option<String>,
        oob: bool,
        fds: Vec<RawFd>,
        seconds: Option<f64>,
    ) -> PyResult<Pending> {
        let (machine, command) = (self.share(py)?, client::command(py, name, arguments, oob, fds, seconds)?);
        Ok(Pending::light(async move { machine.qmp(command).await }, |py, reply| client::reply(py, &reply)))
    }

    /// Takes the oldest event that is wanted; others stay.
    fn next_event(&self, py: Python<'_>, wanted: Wanted, seconds: f64) -> PyResult<Pending> {
        let (machine, wanted, limit) = (self.share(py)?, listener::filter(py, wanted)?, limit(seconds)?);
        if let Ok(Some(event)) = machine.try_event(&wanted) {
            return Ok(Pending::done(listener::text(py, &event)?));
        }
        let next = async move { machine.event_wait(wanted, limit).await };
        Ok(Pending::new(next, |py, event| listener::text(py, &event)))
    }

    /// Waits until `try_event` has something to take.
    fn event_ready(&self, py: Python<'_>, wanted: Wanted, seconds: f64) -> PyResult<Pending> {
        let (machine, wanted, limit) = (self.share(py)?, listener::filter(py, wanted)?, limit(seconds)?);
        let ready = async move { machine.event_ready(&wanted, limit).await };
        Ok(Pending::light(ready, |py, ()| Ok(py.None())))
    }

    /// Takes the oldest event that is wanted, if there is one; others stay.
    fn try_event(&self, py: Python<'_>, wanted: Wanted) -> PyResult<Option<String>> {
        let event =
            self.inner.get(py)?.try_event(&listener::filter(py, wanted)?).map_err(|error| error.raise(py))?;
        Ok(event.map(|event| event.text().to_owned()))
    }

    /// Takes all events that are there, as JSON texts.
    fn take_events(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.inner.get(py)?.take_events().iter().map(|event| event.text().to_owned()).collect())
    }

    /// How many events were dropped because nobody read them.
    #[getter]
    fn dropped_events(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.inner.get(py)?.dropped_events())
    }

    /// A further queue, of the events that are wanted from now on.
    fn listen(&self, py: Python<'_>, wanted: Wanted) -> PyResult<Listener> {
        let listener =
            self.inner.get(py)?.listen(listener::filter(py, wanted)?).map_err(|error| error.raise(py))?;
        Ok(Listener::new(listener))
    }

    /// All consoles with their names, in the order in which they were given.
    #[getter]
    fn consoles(&self, py: Python<'_>) -> PyResult<Vec<(String, Console)>> {
        let consoles = self.inner.get(py)?.consoles();
        Ok(consoles.map(|(name, console)| (name.to_owned(), Console::new(console.clone()))).collect())
    }

    /// The console, if there is one.
    #[getter]
    fn console(&self, py: Python<'_>) -> PyResult<Option<Console>> {
        Ok(self.inner.get(py)?.console().cloned().map(Console::new))
    }

    /// The guest's agent, if the machine has its channel.
    #[getter]
    fn agent(&self, py: Python<'_>) -> PyResult<Option<Agent>> {
        Ok(self.inner.get(py)?.agent().cloned().map(Agent::new))
    }

    /// The qtest session, if there is one.
    #[getter]
    fn qtest(&self, py: Python<'_>) -> PyResult<Option<Qtest>> {
        Ok(self.inner.get(py)?.qtest().cloned().map(Qtest::new))
    }

    /// The screen, if there is a monitor.
    #[getter]
    fn screen(&self, py: Python<'_>) -> PyResult<Screen> {
        self.inner.get(py)?.screen().map(Screen::new).map_err(|error| error.raise(py))
    }

    /// Keyboard and mouse, if there is a monitor.
    #[getter]
    fn input(&self, py: Python<'_>) -> PyResult<Input> {
        self.inner.get(py)?.input().map(Input::new).map_err(|error| error.raise(py))
    }

    /// QEMU's greeting as JSON text, if there is a monitor.
    #[getter]
    fn greeting(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let client = self.inner.get(py)?.client().ok();
        Ok(client.and_then(|client| client.greeting().map(|greeting| greeting.text().to_owned())))
    }

    /// Begins a QMP session over a copy of the connected socket `fd`; the end of the process ends the wait.
    fn connect(
        &self,
        py: Python<'_>,
        fd: RawFd,
        negotiate: bool,
        connect: f64,
        command: f64,
    ) -> PyResult<Pending> {
        let (fd, (options, events)) = (duplicate(fd)?, client::options(negotiate, connect, command)?);
        let session = async move {
            let socket = Socket::try_from(fd).map_err(client::Fault::System)?;
            let client = qmp::Client::over(socket, options).await.map_err(client::Fault::Qmp)?;
            Ok::<_, client::Fault>((client, events))
        };
        Ok(Pending::new(unless_it_ends(self.share(py)?, session), Client::give))
    }

    /// Waits at `server` for this machine's QEMU and begins a QMP session; the end of the process ends the wait.
    fn accept(
        &self,
        py: Python<'_>,
        server: &Server,
        negotiate: bool,
        connect: f64,
        command: f64,
    ) -> PyResult<Pending> {
        let (server, (options, events)) = (server.get(py)?, client::options(negotiate, connect, command)?);
        let machine = self.share(py)?;
        let session = async move {
            let ours = |peer: Option<PeerCredentials>| {
                let pid = peer.and_then(|peer| peer.pid).and_then(|pid| u32::try_from(pid).ok());
                pid.is_none_or(|pid| machine.has_process(pid))
            };
            let client = qmp::Client::accept(&server, ours, options).await.map_err(client::Fault::Qmp)?;
            Ok::<_, client::Fault>((client, events))
        };
        Ok(Pending::new(unless_it_ends(self.share(py)?, session), Client::give))
    }

    #[getter]
    fn pid(&self, py: Python<'_>) -> PyResult<u32> {
        Ok(self.inner.get(py)?.pid())
    }

    #[getter]
    fn is_running(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.inner.get(py)?.is_running())
    }

    /// How the process ended, if it has.
    #[getter]
    fn exit(&self, py: Python<'_>) -> PyResult<Option<ProcessExit>> {
        Ok(self.inner.get(py)?.exit().map(ProcessExit::from))
    }

    /// Waits until the process has ended; ends nothing.
    fn exited(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        let (exited, limit) = (self.inner.get(py)?.exited(), limit(seconds)?);
        let exited = async move { qmp::within(limit, "end of the process", exited).await };
        Ok(Pending::new(exited, |py, status| Ok(Py::new(py, ProcessExit::from(status))?.into_any())))
    }

    /// Everything that QEMU has written to stdout and stderr so far.
    fn log<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let machine = self.share(py)?;
        let log = py.detach(|| machine.log().bytes()).map_err(|error| error.raise(py))?;
        Ok(PyBytes::new(py, &log))
    }

    #[getter]
    fn log_path(&self, py: Python<'_>) -> PyResult<OsString> {
        Ok(self.inner.get(py)?.log().path().into())
    }

    #[getter]
    fn command(&self, py: Python<'_>) -> PyResult<Vec<OsString>> {
        Ok(self.inner.get(py)?.command_line().words().to_vec())
    }

    /// The same as one line for a shell, with secrets masked.
    #[getter]
    fn command_line(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.inner.get(py)?.command_line().to_string())
    }

    #[getter]
    fn work_folder(&self, py: Python<'_>) -> PyResult<OsString> {
        Ok(self.inner.get(py)?.work_folder().into())
    }

    /// Seconds from the start of the process to its monitor being ready.
    #[getter]
    fn launch_time(&self, py: Python<'_>) -> PyResult<f64> {
        Ok(self.inner.get(py)?.launch_time().as_secs_f64())
    }

    /// Makes a template of it, and ends it.
    fn freeze(&self, py: Python<'_>) -> PyResult<Pending> {
        let machine = self.share(py)?;
        let frozen = async move {
            let outcome = machine.freeze().await;
            outcome.map_err(|source| Unfrozen { source, machine })
        };
        Ok(Pending::new(frozen, Template::give))
    }

    fn shutdown(&self, py: Python<'_>, grace: f64) -> PyResult<Pending> {
        let (machine, grace) = (self.share(py)?, limit(grace)?);
        Ok(Pending::new(async move { machine.shutdown(grace).await }, exit))
    }

    fn kill(&self, py: Python<'_>) -> PyResult<Pending> {
        let machine = self.share(py)?;
        Ok(Pending::new(async move { machine.kill().await }, exit))
    }

    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        let (machine, limit) = (self.share(py)?, limit(seconds)?);
        Ok(Pending::new(async move { machine.wait(limit).await }, exit))
    }
}

/// Why a machine's session did not begin.
enum Ended {
    Fault(client::Fault),
    Exited(MachineError),
}

impl Raise for Ended {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Fault(fault) => fault.raise(py),
            Self::Exited(error) => error.raise(py),
        }
    }
}

/// A session that begins, unless the process ends first: then that is the cause.
async fn unless_it_ends<T>(
    machine: Arc<ratite::Machine>,
    session: impl Future<Output = Result<T, client::Fault>>,
) -> Result<T, Ended> {
    let exited = machine.exited();
    tokio::pin!(exited);
    let fault = tokio::select! {
        // What has been said counts before how it ended.
        biased;
        outcome = session => match outcome {
            Ok(session) => return Ok(session),
            Err(fault) => fault,
        },
        exit = &mut exited => return Err(Ended::Exited(told(&machine, exit))),
    };
    // A monitor that closes mostly belongs to a process that is about to end, and that says more.
    match qmp::within(AFTER_CLOSE, "exit", exited).await {
        Ok(exit) => Err(Ended::Exited(told(&machine, exit))),
        Err(_) => Err(Ended::Fault(fault)),
    }
}

/// How long the end of a process is waited for whose monitor has failed.
const AFTER_CLOSE: std::time::Duration = std::time::Duration::from_millis(50);

fn told(machine: &ratite::Machine, exit: ratite::ProcessExit) -> MachineError {
    let log = machine.log().tail(8 << 10).unwrap_or_default();
    MachineError::Exited { exit, doing: "before its monitor was ready".into(), log }
}
