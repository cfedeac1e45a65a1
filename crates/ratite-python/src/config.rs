//! What to run.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use ratite::ConsoleConfig;
use ratite::ExtraMonitor;
use ratite::MachineConfig;
use ratite::Monitor;
use ratite::PassedFd;
use ratite::Timeouts;
use ratite::qmp::Direction;
use ratite::qmp::Transcript;

use crate::gate;
use crate::machine::Machine;
use crate::pending::Pending;
use crate::values::duplicate;
use crate::values::limit;
use crate::work_folder::WorkFolder;

/// What to run, put together call by call.
#[pyclass(module = "ratite._core")]
pub(crate) struct Config {
    /// Taken while it is changed.
    inner: Option<MachineConfig>,
}

impl Config {
    pub(crate) fn new_of(inner: MachineConfig) -> Self {
        Self { inner: Some(inner) }
    }

    /// # Errors
    /// `RuntimeError` while somebody changes it.
    pub(crate) fn get(&self) -> PyResult<MachineConfig> {
        self.inner.clone().ok_or_else(|| PyRuntimeError::new_err("the configuration is being changed"))
    }

    fn change(&mut self, change: impl FnOnce(MachineConfig) -> MachineConfig) {
        self.inner = self.inner.take().map(change);
    }
}

#[pymethods]
impl Config {
    #[new]
    fn new(binary: OsString) -> Self {
        Self { inner: Some(MachineConfig::new(binary)) }
    }

    fn args(&mut self, words: Vec<OsString>) {
        self.change(|config| config.args(words));
    }

    fn wrapper(&mut self, words: Vec<OsString>) {
        self.change(|config| config.wrapper(words));
    }

    fn name(&mut self, name: OsString) {
        self.change(|config| config.name(name));
    }

    fn base_folder(&mut self, folder: PathBuf) {
        self.change(|config| config.base_folder(folder));
    }

    fn log_folder(&mut self, folder: PathBuf) {
        self.change(|config| config.log_folder(folder));
    }

    fn keep_folder(&mut self) {
        self.change(MachineConfig::keep_folder);
    }

    /// Sets a variable, or removes it.
    fn env(&mut self, name: OsString, value: Option<OsString>) {
        self.change(|config| match value {
            Some(value) => config.env(name, value),
            None => config.env_remove(name),
        });
    }

    fn working_folder(&mut self, folder: PathBuf) {
        self.change(|config| config.working_folder(folder));
    }

    fn in_work_folder(&mut self) {
        self.change(MachineConfig::in_work_folder);
    }

    fn machine_type(&mut self, machine_type: OsString) {
        self.change(|config| config.machine_type(machine_type));
    }

    fn accelerator(&mut self, accelerator: OsString) {
        self.change(|config| config.accelerator(accelerator));
    }

    fn with_screen(&mut self) {
        self.change(MachineConfig::with_screen);
    }

    fn without_monitor(&mut self) {
        self.change(MachineConfig::without_monitor);
    }

    fn monitor_at_path(&mut self, path: PathBuf) {
        self.change(|config| config.monitor(Monitor::Unix(path)));
    }

    fn monitor_at_port(&mut self, host: String, port: u16) {
        self.change(|config| config.monitor(Monitor::Tcp { host, port }));
    }

    /// A monitor for other programs: `null`, or `qmp` or `human` at a path.
    fn extra_monitor(&mut self, kind: &str, path: PathBuf) {
        let monitor = match kind {
            "qmp" => ExtraMonitor::Qmp(path),
            "human" => ExtraMonitor::Human(path),
            _ => ExtraMonitor::Null,
        };
        self.change(|config| config.extra_monitor(monitor));
    }

    /// Hands a copy of `fd` to QEMU, under `number`.
    fn fd(&mut self, fd: RawFd, number: RawFd) -> PyResult<()> {
        let passed = PassedFd::at(duplicate(fd)?, number);
        self.change(|config| config.fd(passed));
        Ok(())
    }

    /// Hands a copy of `fd` to QEMU, in its descriptor set `set`.
    fn fd_in_set(
        &mut self,
        fd: RawFd,
        set: u32,
        opaque: Option<OsString>,
        options: Option<OsString>,
    ) -> PyResult<()> {
        let mut passed = PassedFd::in_set(duplicate(fd)?, set);
        if let Some(text) = opaque {
            passed = passed.opaque(text);
        }
        if let Some(text) = options {
            passed = passed.options(text);
        }
        self.change(|config| config.fd(passed));
        Ok(())
    }

    /// Adds a console: a serial port, or a device of the type `device`, or, if there is a `port`, what that names on ratite's
    /// own virtio-serial bus or on `bus`: a virtio console for an empty one.
    #[expect(clippy::too_many_arguments, reason = "all that can be said of a console")]
    fn console(
        &mut self,
        name: Option<String>,
        device: Option<OsString>,
        port: Option<OsString>,
        bus: Option<OsString>,
        index: Option<u32>,
        history: usize,
        log: Option<PathBuf>,
        timestamps: bool,
    ) {
        let mut console = match (device, port) {
            (Some(device), _) => ConsoleConfig::device(device),
            (None, None) => ConsoleConfig::serial(),
            (None, Some(port)) if port.is_empty() => ConsoleConfig::virtconsole(),
            (None, Some(port)) => ConsoleConfig::virtserialport(port),
        };
        console = console.history(history);
        if let Some(name) = name {
            console = console.name(name);
        }
        if let Some(bus) = bus {
            console = console.bus(bus);
        }
        if let Some(index) = index {
            console = console.index(index);
        }
        if let Some(log) = log {
            console = console.log(log);
        }
        if timestamps {
            console = console.timestamps();
        }
        self.change(|config| config.console(console));
    }

    fn agent(&mut self) {
        self.change(MachineConfig::agent);
    }

    fn qtest(&mut self) {
        self.change(MachineConfig::qtest);
    }

    fn timeouts(&mut self, connect: f64, command: f64, console: f64, kill: f64) -> PyResult<()> {
        let timeouts = Timeouts {
            connect: limit(connect)?,
            command: limit(command)?,
            console: limit(console)?,
            kill: limit(kill)?,
        };
        self.change(|config| config.timeouts(timeouts));
        Ok(())
    }

    fn freezable(&mut self) {
        self.change(MachineConfig::freezable);
    }

    fn in_callers_process_group(&mut self) {
        self.change(MachineConfig::in_callers_process_group);
    }

    fn without_exit_with_parent(&mut self) {
        self.change(MachineConfig::without_exit_with_parent);
    }

    /// Calls `subscriber(direction, text)` for each QMP message; what it raises is shown and dropped.
    fn transcript(&mut self, subscriber: Py<PyAny>) {
        self.change(|config| config.transcript(transcript(subscriber)));
    }

    /// Starts the machine, in a folder of its own or one that was made ahead.
    fn launch(&self, py: Python<'_>, folder: Option<&WorkFolder>) -> PyResult<Pending> {
        let config = self.get()?;
        let folder = folder.map(|folder| folder.get(py)).transpose()?;
        let launched = async move {
            match folder {
                Some(folder) => config.launch_in(&folder).await,
                None => config.launch().await,
            }
        };
        Ok(Pending::new(launched, Machine::give))
    }
}

/// What shows each QMP message to `subscriber(direction, text)`.
pub(crate) fn transcript(subscriber: Py<PyAny>) -> Transcript {
    Transcript::new(move |entry| {
        let direction = match entry.direction {
            Direction::Sent => "sent",
            Direction::Received => "received",
        };
        let Some(_inside) = gate::enter() else { return };
        let _called = Python::try_attach(|py| {
            if let Err(error) = subscriber.call1(py, (direction, entry.text)) {
                error.write_unraisable(py, Some(subscriber.bind(py)));
            }
        });
    })
}
