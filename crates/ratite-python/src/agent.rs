//! A guest's agent.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ratite::qmp;
use ratite::qmp::Address;
use ratite::qmp::AgentError;
use ratite::qmp::GuestExit;
use ratite::qmp::GuestOutput;
use ratite::qmp::GuestProgram;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use crate::errors::Raise;
use crate::errors::raise;
use crate::pending::Pending;
use crate::values::Owned;
use crate::values::limit;

/// A client of the agent in a guest.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Agent {
    inner: Owned<Mutex<Option<Arc<Line>>>>,
}

/// An agent that is connected to at its first command.
struct Line {
    address: Option<Address>,
    agent: OnceCell<qmp::Agent>,
}

impl Line {
    /// The agent, through a handle with this limit.
    async fn get(&self, limit: Duration) -> Result<qmp::Agent, Fault> {
        let connect = || async {
            let address = self.address.as_ref().expect("one that is not connected has an address");
            qmp::Agent::connect(address, limit).await
        };
        let agent = self.agent.get_or_try_init(connect).await.map_err(Fault::Connect)?;
        Ok(agent.with_limit(limit))
    }
}

/// Why an agent did not do something.
enum Fault {
    Connect(qmp::Error),
    Agent(AgentError),
}

impl Raise for Fault {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Connect(error) => error.raise(py),
            Self::Agent(error) => error.raise(py),
        }
    }
}

impl Agent {
    pub(crate) fn new(agent: qmp::Agent) -> Self {
        Self::over(Line { address: None, agent: OnceCell::new_with(Some(agent)) })
    }

    fn over(line: Line) -> Self {
        Self { inner: Owned::new(Mutex::new(Some(Arc::new(line)))) }
    }

    fn line(&self, py: Python<'_>) -> PyResult<Arc<Line>> {
        let line = self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).clone();
        line.ok_or_else(|| PyValueError::new_err("the agent was closed"))
    }

    /// What `work` does with the agent, as something to be waited for.
    fn pending<T: Send + 'static, F>(
        &self,
        py: Python<'_>,
        seconds: f64,
        work: impl FnOnce(qmp::Agent) -> F + Send + 'static,
        finish: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Pending>
    where
        F: Future<Output = Result<T, AgentError>> + Send,
    {
        let (line, limit) = (self.line(py)?, limit(seconds)?);
        let worked = async move { work(line.get(limit).await?).await.map_err(Fault::Agent) };
        Ok(Pending::new(worked, finish))
    }
}

#[pymethods]
impl Agent {
    /// The agent whose channel is at this address; it is connected to at the first command.
    #[staticmethod]
    fn at(py: Python<'_>, address: &str) -> PyResult<Self> {
        let address = address.parse().map_err(|error| qmp::Error::Address(error).raise(py))?;
        Ok(Self::over(Line { address: Some(address), agent: OnceCell::new() }))
    }

    /// Executes a command; its value as JSON text.
    fn execute(
        &self,
        py: Python<'_>,
        name: String,
        arguments: Option<String>,
        seconds: f64,
    ) -> PyResult<Pending> {
        let fault = |error: serde_json::Error| {
            raise(py, "ArgumentsError", format!("could not send the arguments of `{name}`: {error}"), [])
        };
        let arguments = arguments.map(RawValue::from_string).transpose().map_err(fault)?;
        let value = move |agent: qmp::Agent| async move {
            agent.execute_as::<Box<RawValue>>(&name, arguments).await.map(|value| value.get().to_owned())
        };
        self.pending(py, seconds, value, |py, text| Ok(text.into_pyobject(py)?.into_any().unbind()))
    }

    /// Runs a program: how it ended and what it wrote.
    #[expect(clippy::too_many_arguments, reason = "Python gives them their names")]
    fn exec(
        &self,
        py: Python<'_>,
        path: String,
        args: Vec<String>,
        env: Vec<(String, String)>,
        input: Option<Vec<u8>>,
        capture: bool,
        run: f64,
        seconds: f64,
    ) -> PyResult<Pending> {
        let mut program = GuestProgram::new(path).args(args);
        for (name, value) in &env {
            program = program.env(name, value);
        }
        if let Some(input) = input {
            program = program.input(input);
        }
        if !capture {
            program = program.without_output();
        }
        let run = limit(run)?;
        self.pending(py, seconds, move |agent| async move { agent.exec(&program, run).await }, ended)
    }

    /// The whole of a file.
    fn read_file(&self, py: Python<'_>, path: PathBuf, seconds: f64) -> PyResult<Pending> {
        let path = utf8(path)?;
        let read = move |agent: qmp::Agent| async move { agent.read_file(&path).await };
        self.pending(py, seconds, read, |py, bytes| Ok(PyBytes::new(py, &bytes).into_any().unbind()))
    }

    /// Makes `data` the content of a file.
    fn write_file(&self, py: Python<'_>, path: PathBuf, data: Vec<u8>, seconds: f64) -> PyResult<Pending> {
        let path = utf8(path)?;
        let write = move |agent: qmp::Agent| async move { agent.write_file(&path, &data).await };
        self.pending(py, seconds, write, |py, ()| Ok(py.None()))
    }

    /// Ends the connection, once what is under way has ended.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.inner.get(py)?.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}

/// An agent takes text alone for a path.
fn utf8(path: PathBuf) -> PyResult<String> {
    path.into_os_string().into_string().map_err(|path| PyValueError::new_err(format!("{path:?} is no text")))
}

fn ended(py: Python<'_>, output: GuestOutput) -> PyResult<Py<PyAny>> {
    let (code, signal) = match output.exit {
        GuestExit::Code(code) => (Some(code), None),
        GuestExit::Signal(signal) => (None, Some(signal)),
    };
    let (stdout, stderr) = (PyBytes::new(py, &output.stdout), PyBytes::new(py, &output.stderr));
    let parts = (code, signal, stdout, stderr, output.stdout_truncated, output.stderr_truncated);
    Ok(parts.into_pyobject(py)?.into_any().unbind())
}
