//! One sample as a process: started, waited for with a limit, its figures read.

use std::collections::BTreeMap;
use std::io;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use crate::scenario::Failure;

/// How long a sample may take. The slowest boots 32 guests at once, which takes a minute on two cores.
const LIMIT: Duration = Duration::from_secs(200);

/// What can do a contender's work.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    /// This program.
    Rust,
    /// An interpreter, and the script beside this workspace.
    Python { interpreter: PathBuf, script: PathBuf },
}

/// What a sample gave.
#[derive(Debug)]
pub(crate) enum Taken {
    Figures(BTreeMap<String, f64>),
    /// The contender has nothing for this scenario, and says why.
    Cannot(String),
}

impl Program {
    /// The interpreter that `YARDSTICK_PYTHON` names, if it does and the script is there.
    pub(crate) fn python() -> Option<Self> {
        let interpreter = std::env::var_os("YARDSTICK_PYTHON")?.into();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/sample.py");
        script.exists().then_some(Self::Python { interpreter, script })
    }

    /// Takes one sample.
    pub(crate) fn take(
        &self,
        scenario: &str,
        contender: &str,
        environment: &[(&'static str, PathBuf)],
    ) -> Result<Taken, Failure> {
        let mut command = match self {
            Self::Rust => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("sample");
                command
            }
            Self::Python { interpreter, script } => {
                let mut command = Command::new(interpreter);
                command.arg(script);
                command
            }
        };
        command.args([scenario, contender]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let text = output(command.spawn()?)?;
        read(&text).map_err(|error| format!("it printed {text:?}: {error}").into())
    }
}

fn read(text: &str) -> Result<Taken, Failure> {
    let object: BTreeMap<String, serde_json::Value> = serde_json::from_str(text.trim())?;
    if let Some(why) = object.get("cannot") {
        return Ok(Taken::Cannot(why.as_str().unwrap_or_default().to_owned()));
    }
    let number = |(key, value): (String, serde_json::Value)| {
        let value = value.as_f64().ok_or_else(|| format!("`{key}` is no number"))?;
        Ok((key, value))
    };
    object.into_iter().map(number).collect::<Result<_, Failure>>().map(Taken::Figures)
}

/// Waits for the end of `child`, and returns what it printed.
///
/// What it leaves behind may hold the pipe open: only what is in it when the child has ended is read.
fn output(mut child: Child) -> Result<String, Failure> {
    if !ends_within(&child, LIMIT)? {
        child.kill()?;
        child.wait()?;
        return Err(format!("it did not end within {} s", LIMIT.as_secs()).into());
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    let mut pipe = child.stdout.take().ok_or("its output is not piped")?;
    // SAFETY: the descriptor is open; what it does from now on is not to wait.
    if unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    let mut text = Vec::new();
    match pipe.read_to_end(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error.into()),
        _ => Ok(String::from_utf8(text)?),
    }
}

fn ends_within(child: &Child, limit: Duration) -> io::Result<bool> {
    // SAFETY: the child is ours and not reaped: the number is its.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut polled = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: it is one of what poll takes.
    match unsafe { libc::poll(&raw mut polled, 1, timeout) } {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}
