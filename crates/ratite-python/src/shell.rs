//! A guest's shell, driven over its console.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ratite::Login;
use ratite::ShellError;
use ratite::qmp::within;
use tokio::sync::Mutex;

use crate::console::Console;
use crate::console::Wanted;
use crate::console::patterns;
use crate::pending::Pending;
use crate::values::Owned;
use crate::values::limit;

/// A shell in a guest.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Shell {
    /// Locked by the call that drives it.
    inner: Owned<Arc<Mutex<ratite::Shell>>>,
}

fn made(py: Python<'_>, shell: ratite::Shell) -> PyResult<Py<PyAny>> {
    let shell = Shell { inner: Owned::new(Arc::new(Mutex::new(shell))) };
    Ok(Py::new(py, shell)?.into_any())
}

#[pymethods]
impl Shell {
    /// Takes the shell that runs on a console, or is about to.
    #[staticmethod]
    fn attach(py: Python<'_>, console: &Console, seconds: f64) -> PyResult<Pending> {
        let (console, limit) = (console.get(py)?.clone(), limit(seconds)?);
        let attached = async move { ratite::Shell::attach(&console, limit).await };
        Ok(Pending::new(attached, made))
    }

    /// Logs in, and takes the shell. The prompts are those of login, password, refusal and shell, where they are not the common ones.
    #[staticmethod]
    fn login(
        py: Python<'_>,
        console: &Console,
        user: String,
        password: Option<String>,
        prompts: [Option<Wanted>; 4],
        seconds: f64,
    ) -> PyResult<Pending> {
        let (console, limit) = (console.get(py)?.clone(), limit(seconds)?);
        let mut login = Login::new(user);
        if let Some(password) = password {
            login = login.password(password);
        }
        let set = [Login::login_prompt, Login::password_prompt, Login::refusal, Login::shell_prompt];
        for (set, prompt) in set.into_iter().zip(prompts) {
            for pattern in patterns(py, prompt.into_iter().collect())? {
                login = set(login, pattern);
            }
        }
        let entered = async move { ratite::Shell::login(&console, &login, limit).await };
        Ok(Pending::new(entered, made))
    }

    /// Runs a command and waits for its end; with `check`, a status other than 0 is an error.
    fn run(&self, py: Python<'_>, command: String, check: bool, seconds: f64) -> PyResult<Pending> {
        let (shell, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let ran = async move {
            let mut shell = turn(&shell, limit).await?;
            if check { shell.check(&command, limit).await } else { shell.run(&command, limit).await }
        };
        Ok(Pending::new(ran, |py, output| Ok(Py::new(py, ShellOutput::from(output))?.into_any())))
    }

    /// Ends what runs, with Ctrl-C, and waits until the shell answers again.
    fn interrupt(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        let (shell, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let interrupted = async move { turn(&shell, limit).await?.interrupt(limit).await };
        Ok(Pending::new(interrupted, |py, ()| Ok(py.None())))
    }
}

/// Waits until no other thread or task drives the shell.
async fn turn(
    shell: &Mutex<ratite::Shell>,
    limit: std::time::Duration,
) -> Result<tokio::sync::MutexGuard<'_, ratite::Shell>, ShellError> {
    let turn = within(limit, "end of the shell's other command", shell.lock()).await;
    turn.map_err(|wait| ShellError::TimedOut { wait, output: String::new() })
}

/// What a command has brought.
#[pyclass(frozen, eq, hash, module = "ratite")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct ShellOutput {
    output: String,
    data: Vec<u8>,
    status: i32,
    dropped: u64,
}

impl From<ratite::ShellOutput> for ShellOutput {
    fn from(output: ratite::ShellOutput) -> Self {
        Self { output: output.output, data: output.bytes, status: output.status, dropped: output.dropped }
    }
}

#[pymethods]
impl ShellOutput {
    #[new]
    fn new(output: String, data: Vec<u8>, status: i32, dropped: u64) -> Self {
        Self { output, data, status, dropped }
    }

    /// What it printed, as plain text.
    #[getter]
    fn output(&self) -> &str {
        &self.output
    }

    /// What it printed, as the terminal brought it: lines end with ``\r\n``.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.data)
    }

    /// Its exit status.
    #[getter]
    fn status(&self) -> i32 {
        self.status
    }

    /// How many bytes of the console were dropped meanwhile: the output is not complete then.
    #[getter]
    fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether the status is 0.
    #[getter]
    fn success(&self) -> bool {
        self.status == 0
    }

    /// What it printed, as plain text.
    fn __str__(&self) -> &str {
        &self.output
    }

    fn __repr__(&self) -> String {
        format!("<ShellOutput status={} {:?}>", self.status, self.output)
    }

    /// For pickle.
    fn __getnewargs__(&self) -> (&str, &[u8], i32, u64) {
        (&self.output, &self.data, self.status, self.dropped)
    }
}
