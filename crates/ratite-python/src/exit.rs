//! How a machine ended: plain data, which can be pickled and so comes through from another process.

use std::ffi::OsString;
use std::time::UNIX_EPOCH;

use pyo3::prelude::*;
use ratite::Asked;

/// The status of a process that has ended.
#[pyclass(frozen, eq, hash, module = "ratite")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ProcessExit {
    code: Option<i32>,
    signal: Option<i32>,
    signal_name: Option<String>,
    core_dumped: bool,
    text: String,
}

impl From<ratite::ProcessExit> for ProcessExit {
    fn from(exit: ratite::ProcessExit) -> Self {
        Self {
            code: exit.code(),
            signal: exit.signal(),
            signal_name: exit.signal_name().map(str::to_owned),
            core_dumped: exit.core_dumped(),
            text: exit.to_string(),
        }
    }
}

#[pymethods]
impl ProcessExit {
    #[new]
    #[pyo3(signature = (code, signal, signal_name, core_dumped, text))]
    fn new(
        code: Option<i32>,
        signal: Option<i32>,
        signal_name: Option<String>,
        core_dumped: bool,
        text: String,
    ) -> Self {
        Self { code, signal, signal_name, core_dumped, text }
    }

    /// The exit status; `None` for a process that a signal ended.
    #[getter]
    fn code(&self) -> Option<i32> {
        self.code
    }

    /// The number of the signal that ended the process.
    #[getter]
    fn signal(&self) -> Option<i32> {
        self.signal
    }

    /// The name of that signal, such as `SIGKILL`.
    #[getter]
    fn signal_name(&self) -> Option<&str> {
        self.signal_name.as_deref()
    }

    /// Whether the kernel wrote a core dump.
    #[getter]
    fn core_dumped(&self) -> bool {
        self.core_dumped
    }

    /// As `subprocess` has it: the exit status, or the negative number of the signal; `None` if it is unknown.
    #[getter]
    fn returncode(&self) -> Option<i32> {
        self.code.or_else(|| self.signal.map(|signal| -signal))
    }

    fn __str__(&self) -> &str {
        &self.text
    }

    fn __repr__(&self) -> String {
        format!("<ProcessExit: {}>", self.text)
    }

    /// For pickle.
    fn __getnewargs__(&self) -> (Option<i32>, Option<i32>, Option<&str>, bool, &str) {
        (self.code, self.signal, self.signal_name(), self.core_dumped, &self.text)
    }
}

/// How a machine ended.
#[pyclass(frozen, eq, module = "ratite")]
#[derive(PartialEq)]
pub(crate) struct Exit {
    pid: u32,
    status: ProcessExit,
    asked: String,
    shutdown_reason: Option<String>,
    command: Vec<OsString>,
    log: Vec<u8>,
    log_omitted: u64,
    /// When the process was started, how long until its monitor was ready, and until its end.
    times: (f64, f64, f64),
}

impl From<ratite::Exit> for Exit {
    fn from(exit: ratite::Exit) -> Self {
        let started = exit.started.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self {
            pid: exit.pid,
            status: exit.status.into(),
            asked: asked(exit.asked).to_owned(),
            shutdown_reason: exit.shutdown_reason,
            command: exit.command_line.words().to_vec(),
            log: exit.log.bytes,
            log_omitted: exit.log.omitted,
            times: (started, exit.launch_time.as_secs_f64(), exit.run_time.as_secs_f64()),
        }
    }
}

fn asked(asked: Asked) -> &'static str {
    match asked {
        Asked::Us => "us",
        Asked::UsByForce => "us-by-force",
        Asked::TimeOver => "time-over",
        Asked::Guest => "guest",
        Asked::Signal => "signal",
        Asked::Nobody => "nobody",
    }
}

#[pymethods]
impl Exit {
    #[new]
    #[pyo3(signature = (pid, status, asked, shutdown_reason, command, log, log_omitted, times))]
    #[expect(clippy::too_many_arguments, reason = "as many as it has attributes")]
    fn new(
        pid: u32,
        status: &ProcessExit,
        asked: String,
        shutdown_reason: Option<String>,
        command: Vec<OsString>,
        log: Vec<u8>,
        log_omitted: u64,
        times: (f64, f64, f64),
    ) -> Self {
        Self { pid, status: status.clone(), asked, shutdown_reason, command, log, log_omitted, times }
    }

    /// The process that ran: QEMU, or the wrapper if there was one.
    #[getter]
    fn pid(&self) -> u32 {
        self.pid
    }

    /// How the process ended.
    #[getter]
    fn status(&self) -> ProcessExit {
        self.status.clone()
    }

    /// Whether the process exited with status 0.
    #[getter]
    fn success(&self) -> bool {
        self.status.code == Some(0)
    }

    /// Who wanted it: `us`, `us-by-force`, `time-over`, `guest`, `signal`, `nobody`.
    #[getter]
    fn asked(&self) -> &str {
        &self.asked
    }

    /// The `reason` of QEMU's last `SHUTDOWN` event, if it sent one.
    #[getter]
    fn shutdown_reason(&self) -> Option<&str> {
        self.shutdown_reason.as_deref()
    }

    /// What was run.
    #[getter]
    fn command(&self) -> Vec<OsString> {
        self.command.clone()
    }

    /// The end of what the process wrote to stdout and stderr.
    #[getter]
    fn log(&self) -> &[u8] {
        &self.log
    }

    /// How many bytes came before `log`.
    #[getter]
    fn log_omitted(&self) -> u64 {
        self.log_omitted
    }

    /// When the process was started, in seconds since the epoch.
    #[getter]
    fn started(&self) -> f64 {
        self.times.0
    }

    /// Seconds from the start of the process to its monitor being ready; 0 without a monitor.
    #[getter]
    fn launch_time(&self) -> f64 {
        self.times.1
    }

    /// Seconds from the start of the process to its end.
    #[getter]
    fn run_time(&self) -> f64 {
        self.times.2
    }

    fn __str__(&self) -> String {
        match &self.shutdown_reason {
            Some(reason) => format!("QEMU {} ({reason})", self.status.text),
            None => format!("QEMU {}", self.status.text),
        }
    }

    fn __repr__(&self) -> String {
        format!("<Exit: {}>", self.__str__())
    }

    /// For pickle.
    #[expect(clippy::type_complexity, reason = "the arguments of `new`")]
    fn __getnewargs__(
        &self,
    ) -> (u32, ProcessExit, &str, Option<&str>, Vec<OsString>, &[u8], u64, (f64, f64, f64)) {
        (
            self.pid,
            self.status(),
            &self.asked,
            self.shutdown_reason(),
            self.command(),
            &self.log,
            self.log_omitted,
            self.times,
        )
    }
}
