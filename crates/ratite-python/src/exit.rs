//! How a machine ended.

use std::ffi::OsString;
use std::time::UNIX_EPOCH;

use pyo3::prelude::*;
use ratite::Asked;

/// The status of a process that has ended.
#[pyclass(frozen, eq, module = "ratite")]
#[derive(PartialEq, Eq)]
pub(crate) struct ProcessExit(pub(crate) ratite::ProcessExit);

#[pymethods]
impl ProcessExit {
    /// The exit status; `None` for a process that a signal ended.
    #[getter]
    fn code(&self) -> Option<i32> {
        self.0.code()
    }

    /// The number of the signal that ended the process.
    #[getter]
    fn signal(&self) -> Option<i32> {
        self.0.signal()
    }

    /// The name of that signal, such as `SIGKILL`.
    #[getter]
    fn signal_name(&self) -> Option<&'static str> {
        self.0.signal_name()
    }

    /// Whether the kernel wrote a core dump.
    #[getter]
    fn core_dumped(&self) -> bool {
        self.0.core_dumped()
    }

    /// As `subprocess` has it: the exit status, or the negative number of the signal; `None` if it is unknown.
    #[getter]
    fn returncode(&self) -> Option<i32> {
        self.0.code().or_else(|| self.0.signal().map(|signal| -signal))
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<ProcessExit: {}>", self.0)
    }
}

/// How a machine ended.
#[pyclass(frozen, module = "ratite")]
pub(crate) struct Exit(pub(crate) ratite::Exit);

#[pymethods]
impl Exit {
    /// The process that ran: QEMU, or the wrapper if there was one.
    #[getter]
    fn pid(&self) -> u32 {
        self.0.pid
    }

    /// How the process ended.
    #[getter]
    fn status(&self) -> ProcessExit {
        ProcessExit(self.0.status)
    }

    /// Whether the process exited with status 0.
    #[getter]
    fn success(&self) -> bool {
        self.0.success()
    }

    /// Who wanted it: `us`, `us-by-force`, `time-over`, `guest`, `signal`, `nobody`.
    #[getter]
    fn asked(&self) -> &'static str {
        match self.0.asked {
            Asked::Us => "us",
            Asked::UsByForce => "us-by-force",
            Asked::TimeOver => "time-over",
            Asked::Guest => "guest",
            Asked::Signal => "signal",
            Asked::Nobody => "nobody",
        }
    }

    /// The `reason` of QEMU's last `SHUTDOWN` event, if it sent one.
    #[getter]
    fn shutdown_reason(&self) -> Option<&str> {
        self.0.shutdown_reason.as_deref()
    }

    /// What was run.
    #[getter]
    fn command(&self) -> Vec<OsString> {
        self.0.command_line.words().to_vec()
    }

    /// The end of what the process wrote to stdout and stderr.
    #[getter]
    fn log(&self) -> &[u8] {
        &self.0.log.bytes
    }

    /// How many bytes came before `log`.
    #[getter]
    fn log_omitted(&self) -> u64 {
        self.0.log.omitted
    }

    /// When the process was started, in seconds since the epoch.
    #[getter]
    fn started(&self) -> f64 {
        self.0.started.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }

    /// Seconds from the start of the process to its monitor being ready; 0 without a monitor.
    #[getter]
    fn launch_time(&self) -> f64 {
        self.0.launch_time.as_secs_f64()
    }

    /// Seconds from the start of the process to its end.
    #[getter]
    fn run_time(&self) -> f64 {
        self.0.run_time.as_secs_f64()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("<Exit: {}>", self.0)
    }
}
