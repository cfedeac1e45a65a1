//! A QMP session with any peer, and the waiting for one.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use pyo3::prelude::*;
use ratite::qmp;
use ratite::qmp::Address;
use ratite::qmp::Command;
use ratite::qmp::EventFilter;
use ratite::qmp::Options;
use ratite::qmp::PeerCredentials;
use ratite::qmp::Reply;
use ratite::qmp::Socket;
use serde_json::value::RawValue;

use crate::errors::Raise;
use crate::errors::raise;
use crate::listener;
use crate::listener::Listener;
use crate::listener::Wanted;
use crate::pending::Pending;
use crate::values::Owned;
use crate::values::duplicate;
use crate::values::limit;

/// A QMP session.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Client {
    inner: Owned<qmp::Client>,
    events: Py<Listener>,
}

/// A session under way, with the listener that was armed before it began.
pub(crate) type Session = (qmp::Client, qmp::Listener);

impl Client {
    /// What Python gets of a session.
    pub(crate) fn give(py: Python<'_>, (inner, events): Session) -> PyResult<Py<PyAny>> {
        let events = Py::new(py, Listener::new(events))?;
        Ok(Py::new(py, Self { inner: Owned::new(inner), events })?.into_any())
    }
}

/// How a session is to begin, and the listener of all its events.
pub(crate) fn options(negotiate: bool, connect: f64, command: f64) -> PyResult<(Options, qmp::Listener)> {
    let (events, every) = qmp::Listener::new(EventFilter::any());
    let options =
        Options::default().connect_limit(limit(connect)?).command_limit(limit(command)?).subscribe(every);
    Ok((if negotiate { options } else { options.without_handshake() }, events))
}

/// A command from what Python says of it.
pub(crate) fn command(
    py: Python<'_>,
    name: &str,
    arguments: Option<String>,
    oob: bool,
    fds: Vec<RawFd>,
    seconds: Option<f64>,
) -> PyResult<Command> {
    let fault = |error: serde_json::Error| {
        raise(py, "ArgumentsError", format!("could not send the arguments of `{name}`: {error}"), [])
    };
    let mut command = Command::new(name);
    if let Some(text) = arguments {
        let arguments = RawValue::from_string(text).map_err(fault)?;
        command = command.arguments(arguments).map_err(fault)?;
    }
    if oob {
        command = command.oob();
    }
    for fd in fds {
        command = command.fd(duplicate(fd)?);
    }
    Ok(match seconds {
        Some(seconds) => command.limit(limit(seconds)?),
        None => command,
    })
}

/// The whole reply as its JSON text, be it a value or a refusal.
pub(crate) fn reply(py: Python<'_>, reply: &Reply) -> PyResult<Py<PyAny>> {
    Ok(reply.text().into_pyobject(py)?.into_any().unbind())
}

fn address(py: Python<'_>, text: &str) -> PyResult<Address> {
    text.parse().map_err(|error| qmp::Error::Address(error).raise(py))
}

#[pymethods]
impl Client {
    /// Connects to a QMP server.
    #[staticmethod]
    fn connect(py: Python<'_>, to: &str, negotiate: bool, connect: f64, command: f64) -> PyResult<Pending> {
        let (address, (options, events)) = (address(py, to)?, options(negotiate, connect, command)?);
        let session =
            async move { Ok::<_, qmp::Error>((qmp::Client::connect(&address, options).await?, events)) };
        Ok(Pending::new(session, Self::give))
    }

    /// Begins a session over a copy of the connected socket `fd`.
    #[staticmethod]
    fn over(py: Python<'_>, fd: RawFd, negotiate: bool, connect: f64, command: f64) -> PyResult<Pending> {
        let (fd, (options, events)) = (duplicate(fd)?, options(negotiate, connect, command)?);
        let session = async move {
            let socket = Socket::try_from(fd).map_err(Fault::System)?;
            Ok::<_, Fault>((qmp::Client::over(socket, options).await.map_err(Fault::Qmp)?, events))
        };
        let _ = py;
        Ok(Pending::new(session, Self::give))
    }

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
        let (client, command) =
            (self.inner.get(py)?.clone(), command(py, name, arguments, oob, fds, seconds)?);
        Ok(Pending::light(async move { client.send(command).await }, |py, answer| reply(py, &answer)))
    }

    /// Every event from the session's first message on.
    #[getter]
    fn events(&self, py: Python<'_>) -> Py<Listener> {
        self.events.clone_ref(py)
    }

    /// A further queue, of the events that are wanted from now on.
    fn listen(&self, py: Python<'_>, wanted: Wanted) -> PyResult<Listener> {
        Ok(Listener::new(self.inner.get(py)?.listen(listener::filter(py, wanted)?)))
    }

    /// The peer's greeting as JSON text.
    #[getter]
    fn greeting(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.inner.get(py)?.greeting().map(|greeting| greeting.text().to_owned()))
    }

    /// What was negotiated.
    #[getter]
    fn capabilities(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.inner.get(py)?.capabilities().to_vec())
    }

    /// Bounds each command that says nothing else.
    fn set_command_limit(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        self.inner.get(py)?.set_command_limit(limit(seconds)?);
        Ok(())
    }

    /// Why the session has ended; `None` while it goes on.
    #[getter]
    fn ended(&self, py: Python<'_>) -> PyResult<Option<String>> {
        Ok(self.inner.get(py)?.ended().map(|why| why.to_string()))
    }

    /// Waits until the session has ended; why.
    fn closed(&self, py: Python<'_>) -> PyResult<Pending> {
        let closed = self.inner.get(py)?.closed();
        let closed = async move { Ok::<_, std::convert::Infallible>(closed.await.to_string()) };
        Ok(Pending::new(closed, |py, why| Ok(why.into_pyobject(py)?.into_any().unbind())))
    }

    /// Ends the session; commands that wait fail.
    fn close(&self, py: Python<'_>) -> PyResult<Pending> {
        let client = self.inner.get(py)?.clone();
        let close = async move {
            client.close().await;
            Ok::<_, std::convert::Infallible>(())
        };
        Ok(Pending::new(close, |py, ()| Ok(py.None())))
    }
}

/// Why a session did not begin.
pub(crate) enum Fault {
    Qmp(qmp::Error),
    System(std::io::Error),
}

impl Raise for Fault {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Qmp(error) => error.raise(py),
            Self::System(error) => error.raise(py),
        }
    }
}

/// A socket that waits for a QMP peer.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Server {
    inner: Owned<Mutex<Option<Arc<qmp::Server>>>>,
}

impl Server {
    /// # Errors
    /// `ValueError` for one that was closed.
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<Arc<qmp::Server>> {
        let server = self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).clone();
        server.ok_or_else(|| pyo3::exceptions::PyValueError::new_err("the server was closed"))
    }
}

#[pymethods]
impl Server {
    /// Listens; a path must be free, or a socket that nobody listens on any more.
    #[staticmethod]
    fn bind(py: Python<'_>, at: &str) -> PyResult<Pending> {
        let address = address(py, at)?;
        Ok(Pending::new(async move { qmp::Server::bind(&address).await }, |py, server| {
            let server = Self { inner: Owned::new(Mutex::new(Some(Arc::new(server)))) };
            Ok(Py::new(py, server)?.into_any())
        }))
    }

    /// Where a peer has to connect to.
    #[getter]
    fn address(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.address().to_string())
    }

    /// Waits for a peer and begins a session with it. Where the system tells pids, `pid` alone is welcome.
    #[pyo3(signature = (negotiate, connect, command, pid=None))]
    fn accept(
        &self,
        py: Python<'_>,
        negotiate: bool,
        connect: f64,
        command: f64,
        pid: Option<i32>,
    ) -> PyResult<Pending> {
        let (server, (options, events)) = (self.get(py)?, options(negotiate, connect, command)?);
        let welcome = move |peer: Option<PeerCredentials>| {
            pid.is_none() || peer.and_then(|peer| peer.pid).is_none_or(|peer| Some(peer) == pid)
        };
        let session = async move {
            Ok::<_, qmp::Error>((qmp::Client::accept(&server, welcome, options).await?, events))
        };
        Ok(Pending::new(session, Client::give))
    }

    /// Stops listening, and removes the socket's file.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}
