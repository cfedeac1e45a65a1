//! From the words of `ratite run` to a machine's configuration.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use ratite::ConsoleConfig;
use ratite::ExtraMonitor;
use ratite::MachineConfig;
use ratite::Timeouts;

use crate::args::ConsoleKind;
use crate::args::Run;
use crate::args::Words;
use crate::commands::run::screenshot;
use crate::copy::HISTORY;
use crate::qemu_args::FirstSerial;
use crate::qemu_args::first_serial;
use crate::report;
use crate::report::Failure;

/// Looks for the files that QEMU is to read, and for the place of those that are to be written, so that a wrong name is told before anything is started.
pub(super) fn check_files(run: &Run) -> Result<(), Failure> {
    let files =
        [("read the kernel", &run.hardware.kernel), ("read the initial file system", &run.hardware.initrd)];
    if let Some(file) = &run.ending.screenshot_on_exit {
        screenshot::check(file)?;
    }
    for (doing, path) in files {
        if let Some(path) = path {
            check_file(path).map_err(|source| Failure::File { doing, path: path.clone(), source })?;
        }
    }
    Ok(())
}

fn check_file(path: &Path) -> io::Result<()> {
    fs::File::open(path)?;
    match fs::metadata(path)?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(()),
    }
}

/// What is to be run, as far as the words alone tell.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) binary: OsString,
    /// The user's own arguments.
    arguments: Vec<OsString>,
    /// ratite's console, if there is to be one and it has room.
    console: Option<ConsoleConfig>,
}

impl Plan {
    pub(super) fn of(run: &Run) -> Result<Self, Failure> {
        let (binary, mut arguments) = run.binary_and_arguments();
        let console = console(run, &mut arguments)?;
        Ok(Self { binary, arguments, console })
    }

    /// The machine, with what was found out since: which accelerator it has, and where its console is recorded.
    pub(super) fn config(self, run: &Run, accelerator: Option<&str>, log: Option<&Path>) -> MachineConfig {
        let mut config = MachineConfig::new(self.binary);
        if run.hardware.screen || run.ending.screenshot_on_exit.is_some() {
            // QEMU would begin with a window, which nobody asked for.
            config = config.with_screen().args(["-display", "none"]);
        }
        if run.ending.screenshot_on_exit.is_some() {
            config = config.arg(screenshot::STAY);
        }
        config = config.args(run.hardware.arguments(accelerator)).args(self.arguments);
        config = surroundings(run, config).timeouts(timeouts(run));
        let Some(console) = self.console else { return config };
        let console = console.history(HISTORY);
        config.console(match log {
            Some(path) => console.log(path),
            None => console,
        })
    }
}

/// How long things may take: no longer than the whole run.
pub(super) fn timeouts(run: &Run) -> Timeouts {
    let limits = Timeouts::default();
    let limit = run.ending.limits.timeout.unwrap_or(limits.connect);
    Timeouts { connect: limits.connect.min(limit), ..limits }
}

/// The console, with what the user's own arguments say about it, which may change them.
fn console(run: &Run, arguments: &mut Vec<OsString>) -> Result<Option<ConsoleConfig>, Failure> {
    let kind = run.console.clone().unwrap_or_default();
    let serial = match kind {
        ConsoleKind::Serial => first_serial(arguments),
        _ => FirstSerial::Free,
    };
    if let FirstSerial::Terminal(at) = serial {
        arguments.drain(at..at + 2);
    }
    let (problem, hint) = match (&serial, kind.config()) {
        (FirstSerial::Taken(taken), _) => (
            format!("`-serial {taken}` has the first serial port, so there is no console to read"),
            "without `-serial`, `ratite run` has the console",
        ),
        (_, None) => (
            "with `--console none` there is no console to read".into(),
            "without the option it is the first serial port",
        ),
        (_, console) => return Ok(console),
    };
    if let Some(option) = run.needs_console() {
        return Err(Failure::Usage { problem, hint: format!("{hint}; `{option}` needs it") });
    }
    if let FirstSerial::Taken(taken) = serial {
        report::remark(&format!("`-serial {taken}` has the first serial port, so no console is shown"));
    }
    Ok(None)
}

/// What the user wants around the machine.
fn surroundings(run: &Run, mut config: MachineConfig) -> MachineConfig {
    for path in &run.around.qmp {
        config = config.extra_monitor(ExtraMonitor::Qmp(path.clone()));
    }
    if let Some(Words(words)) = &run.wrapper {
        config = config.wrapper(words);
    }
    if let Some(folder) = &run.around.log_folder {
        config = config.log_folder(folder);
    }
    if let Some(name) = &run.around.name {
        config = config.name(name).reachable();
    }
    if run.agent {
        config = config.agent();
    }
    if let Some(folder) = &run.base_folder {
        config = config.base_folder(folder);
    }
    config
}
