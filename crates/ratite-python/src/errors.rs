//! From the errors of ratite to the exceptions of `ratite._errors`, with the evidence in attributes.

use std::error::Error;
use std::io;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ratite::ConsoleError;
use ratite::InputError;
use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::MachineError;
use ratite::ProcessExit;
use ratite::QtestError;
use ratite::ScreenError;
use ratite::ShellError;
use ratite::ShutdownError;
use ratite::ShutdownErrorKind;
use ratite::Tail;
use ratite::qmp;
use ratite::qmp::AgentError;
use ratite::qmp::Disconnect;
use ratite::qmp::ExecuteError;
use ratite::qmp::ListenError;
use ratite::qmp::Malformed;
use ratite::qmp::TimedOut;

use crate::console;
use crate::exit;
use crate::picture::Picture;
use crate::shell::ShellOutput;
use crate::values::seconds;

/// What can be raised in Python.
pub(crate) trait Raise {
    fn raise(self, py: Python<'_>) -> PyErr;
}

/// An attribute of an exception.
pub(crate) type Field<'py> = (&'static str, Bound<'py, PyAny>);

/// The exception `class` of `ratite._errors`.
pub(crate) fn raise<'py>(
    py: Python<'py>,
    class: &str,
    message: String,
    fields: impl IntoIterator<Item = PyResult<Field<'py>>>,
) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let error = py.import("ratite._errors")?.getattr(class)?.call1((message,))?;
        for field in fields {
            let (name, value) = field?;
            error.setattr(name, value)?;
        }
        Ok(PyErr::from_value(error))
    };
    make().unwrap_or_else(|error| error)
}

pub(crate) fn field<'py>(
    py: Python<'py>,
    name: &'static str,
    value: impl IntoPyObject<'py>,
) -> PyResult<Field<'py>> {
    Ok((name, value.into_bound_py_any(py)?))
}

pub(crate) fn bytes<'py>(py: Python<'py>, name: &'static str, tail: &Tail) -> PyResult<Field<'py>> {
    Ok((name, PyBytes::new(py, &tail.bytes).into_any()))
}

pub(crate) fn process_exit<'py>(py: Python<'py>, status: Option<ProcessExit>) -> PyResult<Field<'py>> {
    field(py, "exit", status.map(exit::ProcessExit::from))
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What the system said, as the `OSError` that Python would have raised itself.
pub(crate) fn raise_io(_py: Python<'_>, error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => error.into(),
    }
}

impl Raise for io::Error {
    fn raise(self, py: Python<'_>) -> PyErr {
        raise_io(py, self)
    }
}

impl Raise for PyErr {
    fn raise(self, _: Python<'_>) -> PyErr {
        self
    }
}

impl Raise for std::convert::Infallible {
    fn raise(self, _: Python<'_>) -> PyErr {
        match self {}
    }
}

impl Raise for LaunchError {
    fn raise(self, py: Python<'_>) -> PyErr {
        if let LaunchErrorKind::Config(error) = self.kind() {
            return raise(py, "ConfigError", chain(error), []);
        }
        let command = self.command_line().map(|line| line.words().to_vec()).unwrap_or_default();
        let error = raise(
            py,
            "LaunchError",
            // Its `Debug` is the report for people: causes, last words, command line.
            format!("{self:?}"),
            [
                field(py, "kind", launch_kind(self.kind())),
                field(py, "reason", chain(self.kind())),
                field(py, "command", command),
                field(py, "errno", system_error(&self)),
                process_exit(py, self.exit()),
                bytes(py, "log", self.log()),
            ],
        );
        if let LaunchErrorKind::MonitorAddress(cause) | LaunchErrorKind::Qmp(cause) = self.kind() {
            error.set_cause(py, Some(qmp_error(py, cause)));
        }
        error
    }
}

/// The number of what the system said, if it is at the bottom of it.
fn system_error(error: &LaunchError) -> Option<i32> {
    let mut source: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        source = cause.source();
    }
    None
}

fn launch_kind(kind: &LaunchErrorKind) -> &'static str {
    match kind {
        LaunchErrorKind::Config(_) => "config",
        LaunchErrorKind::NotFreezable(_) => "not-freezable",
        LaunchErrorKind::WorkFolder { .. } => "work-folder",
        LaunchErrorKind::Log { .. } => "log",
        LaunchErrorKind::MonitorAddress(_) => "monitor-address",
        LaunchErrorKind::Channel(_) => "channel",
        LaunchErrorKind::Spawn { .. } => "spawn",
        LaunchErrorKind::Exited(_) => "exited",
        LaunchErrorKind::TimedOut { .. } => "timed-out",
        LaunchErrorKind::Qmp(_) => "qmp",
        LaunchErrorKind::Console(_) => "console",
        _ => "other",
    }
}

impl Raise for ShutdownError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let kind = match self.kind() {
            ShutdownErrorKind::TimedOut { .. } => "timed-out",
            ShutdownErrorKind::Unclean(_) => "unclean",
            ShutdownErrorKind::Unkillable { .. } => "unkillable",
            _ => "other",
        };
        let exit = self.exit().cloned().map(exit::Exit::from);
        raise(py, "ShutdownError", self.to_string(), [field(py, "kind", kind), field(py, "exit", exit)])
    }
}

impl Raise for TimedOut {
    fn raise(self, py: Python<'_>) -> PyErr {
        let fields = [field(py, "what", &self.what), field(py, "limit", seconds(self.limit))];
        raise(py, "TimedOut", format!("no {} within {} s", self.what, seconds(self.limit)), fields)
    }
}

impl Raise for MachineError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        match self {
            Self::Launch(error) => error.raise(py),
            Self::Shutdown(error) => error.raise(py),
            Self::Command(error) => error.raise(py),
            Self::Event(error) => error.raise(py),
            Self::TimedOut(error) => error.raise(py),
            Self::Exited { exit, log, .. } => {
                raise(py, "MachineExited", message, [process_exit(py, Some(exit)), bytes(py, "log", &log)])
            }
            Self::NoMonitor { .. } => raise(py, "NoMonitor", message, []),
            _ => raise(py, "Error", message, []),
        }
    }
}

impl Raise for ExecuteError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        match self {
            Self::Refused { command, source } => raise(
                py,
                "CommandError",
                format!("QEMU refused `{command}`: {}", source.desc),
                [
                    field(py, "command", command),
                    field(py, "error_class", source.class),
                    field(py, "desc", source.desc),
                ],
            ),
            Self::TimedOut(error) => error.raise(py),
            Self::Disconnected { source, .. } => disconnected(py, message, &source),
            Self::Malformed { .. } => raise(py, "ProtocolError", message, []),
            Self::Unattributed { source, .. } => raise(
                py,
                "ProtocolError",
                message,
                [
                    field(py, "kind", "unattributed"),
                    field(py, "error_class", source.class),
                    field(py, "desc", source.desc),
                ],
            ),
            Self::Arguments { .. } => raise(py, "ArgumentsError", message, []),
            _ => raise(py, "Error", message, []),
        }
    }
}

impl Raise for AgentError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        match self {
            Self::NoAgent { limit, .. } => {
                let fields =
                    [field(py, "what", "answer of a guest agent"), field(py, "limit", seconds(limit))];
                raise(py, "NoAgent", message, fields)
            }
            Self::StillRuns { path, pid, limit } => {
                let what = format!("end of `{path}` in the guest");
                let fields =
                    [field(py, "what", what), field(py, "limit", seconds(limit)), field(py, "pid", pid)];
                raise(py, "StillRuns", message, fields)
            }
            Self::TimedOut(error) => error.raise(py),
            Self::Disabled { command, source }
            | Self::Unknown { command, source }
            | Self::Refused { command, source } => raise(
                py,
                "CommandError",
                message,
                [
                    field(py, "command", command),
                    field(py, "error_class", source.class),
                    field(py, "desc", source.desc),
                ],
            ),
            Self::Disconnected { source, .. } => disconnected(py, message, &source),
            Self::Malformed { .. } | Self::Monitor { .. } => raise(py, "ProtocolError", message, []),
            Self::Arguments { .. } => raise(py, "ArgumentsError", message, []),
            _ => raise(py, "Error", message, []),
        }
    }
}

fn disconnected(py: Python<'_>, message: String, why: &Disconnect) -> PyErr {
    match why {
        Disconnect::Malformed(malformed) => {
            let (kind, excerpt) = malformation(malformed);
            raise(py, "ProtocolError", message, [field(py, "kind", kind), field(py, "excerpt", excerpt)])
        }
        Disconnect::Io { source, .. } => {
            raise(py, "Disconnected", message, [field(py, "errno", source.raw_os_error())])
        }
        _ => raise(py, "Disconnected", message, []),
    }
}

/// What is wrong with what the peer sent, and the beginning of it.
fn malformation(malformed: &Malformed) -> (&'static str, &str) {
    match malformed {
        Malformed::NotUtf8 { excerpt, .. } => ("not-utf8", excerpt),
        Malformed::NotJson { excerpt, .. } => ("not-json", excerpt),
        Malformed::NotAnObject { excerpt } => ("not-an-object", excerpt),
        Malformed::UnexpectedShape { excerpt, .. } | Malformed::UnexpectedType { excerpt, .. } => {
            ("not-qmp", excerpt)
        }
        Malformed::TooLong { .. } => ("too-long", ""),
        Malformed::TooDeep { .. } => ("too-deep", ""),
        Malformed::Truncated { excerpt } => ("truncated", excerpt),
    }
}

impl Raise for ListenError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        match self {
            Self::Lagged { dropped } => raise(py, "Lagged", message, [field(py, "dropped", dropped)]),
            Self::TimedOut { wait, .. } => {
                let fields = [field(py, "what", wait.what), field(py, "limit", seconds(wait.limit))];
                raise(py, "TimedOut", message, fields)
            }
            Self::Disconnected(why) => disconnected(py, message, &why),
            _ => raise(py, "Error", message, []),
        }
    }
}

/// Why there is no QMP session.
fn qmp_error(py: Python<'_>, error: &qmp::Error) -> PyErr {
    let message = chain(error);
    match error {
        qmp::Error::Address(_) => raise(py, "AddressError", message, []),
        qmp::Error::Connect { source, .. } | qmp::Error::Bind { source, .. } => {
            raise(py, "ConnectError", message, [field(py, "errno", source.raw_os_error())])
        }
        qmp::Error::Greeting { .. } => raise(py, "GreetingError", message, []),
        qmp::Error::Negotiation(refusal) => raise(
            py,
            "NegotiationError",
            message,
            [field(py, "error_class", &refusal.class), field(py, "desc", &refusal.desc)],
        ),
        qmp::Error::Disconnected(why) => disconnected(py, message, why),
        qmp::Error::TimedOut(timed_out) => timed_out.clone().raise(py),
        _ => raise(py, "Error", message, []),
    }
}

impl Raise for qmp::Error {
    fn raise(self, py: Python<'_>) -> PyErr {
        qmp_error(py, &self)
    }
}

fn last<'py>(py: Python<'py>, tail: &Tail) -> PyResult<Field<'py>> {
    field(py, "tail", PyBytes::new(py, &tail.bytes))
}

impl Raise for ConsoleError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        match self {
            Self::TimedOut { ref what, limit, ref tail } => {
                let message = format!("no {what} within {} s", seconds(limit));
                let fields = [field(py, "what", what), field(py, "limit", seconds(limit)), last(py, tail)];
                raise(py, "TimedOut", message, fields)
            }
            Self::Ended { exit, ref tail, .. } => {
                raise(py, "ConsoleEnded", message, [process_exit(py, exit), last(py, tail)])
            }
            Self::Failure { ref pattern, found, ref tail, .. } => {
                let found = field(py, "match", console::Match::from(*found));
                raise(py, "ConsoleFailure", message, [field(py, "pattern", pattern), found, last(py, tail)])
            }
            Self::GuestPanicked { ref event, ref tail, .. } => {
                let event =
                    py.import("json").and_then(|json| json.call_method1("loads", (event.to_string(),)));
                let event = event.and_then(|event| field(py, "event", event));
                raise(py, "GuestPanicked", message, [event, last(py, tail)])
            }
            Self::Lagged { dropped } => raise(py, "Lagged", message, [field(py, "dropped", dropped)]),
            _ => raise(py, "ConsoleError", message, []),
        }
    }
}

impl Raise for ScreenError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        let picture = self.picture().cloned().map(|inner| Picture { inner });
        match self {
            Self::TimedOut { what, limit, why, .. } => {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                let message = format!("no {what} within {} s{why}", seconds(limit));
                let fields = [
                    field(py, "what", what),
                    field(py, "limit", seconds(limit)),
                    field(py, "picture", picture),
                ];
                raise(py, "TimedOut", message, fields)
            }
            Self::Command(error) => error.raise(py),
            _ => raise(py, "ScreenError", message, [field(py, "picture", picture)]),
        }
    }
}

impl Raise for InputError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        match self {
            Self::Command(error) => error.raise(py),
            _ => raise(py, "InputError", message, []),
        }
    }
}

impl Raise for ShellError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        let tail = |output: &str| Ok(("tail", PyBytes::new(py, output.as_bytes()).into_any()));
        match self {
            Self::TimedOut { wait, output } => {
                let message = format!("no {} within {} s", wait.what, seconds(wait.limit));
                let fields =
                    [field(py, "what", wait.what), field(py, "limit", seconds(wait.limit)), tail(&output)];
                raise(py, "TimedOut", message, fields)
            }
            Self::Ended { why, output } => {
                let error = why.raise(py);
                match error.value(py).setattr("tail", PyBytes::new(py, output.as_bytes())) {
                    Ok(()) => error,
                    Err(error) => error,
                }
            }
            Self::Refused { user, said } => {
                raise(py, "LoginRefused", message, [field(py, "user", user), field(py, "said", said)])
            }
            Self::Gone { output, .. } => raise(py, "ShellGone", message, [field(py, "output", output)]),
            Self::Failed { output, .. } => {
                let fields = [
                    field(py, "status", output.status),
                    field(py, "output", &output.output),
                    field(py, "result", ShellOutput::from(output.clone())),
                ];
                raise(py, "ShellFailed", message, fields)
            }
            Self::Untypable { .. } => raise(py, "ConfigError", message, []),
            Self::Console(error) => error.raise(py),
            _ => raise(py, "ShellError", message, []),
        }
    }
}

impl Raise for QtestError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        match self {
            Self::TimedOut(error) => error.raise(py),
            Self::Failed { answer, .. } => raise(py, "QtestError", message, [field(py, "answer", answer)]),
            Self::Disconnected { .. } => raise(py, "Disconnected", message, []),
            _ => raise(py, "QtestError", message, []),
        }
    }
}
