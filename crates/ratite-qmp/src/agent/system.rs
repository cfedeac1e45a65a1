//! What the agent tells of the guest, and does to it.

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::agent::Agent;
use crate::agent::AgentError;

/// What an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct AgentInfo {
    /// Its version, that of the QEMU it was made from.
    pub version: String,
    /// Every command it has, in the order in which it tells them.
    #[serde(rename = "supported_commands")]
    pub commands: Vec<AgentCommand>,
}

/// A command that an agent has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub struct AgentCommand {
    /// Its name.
    pub name: String,
    /// Whether it can be used: the agent's configuration and its state may forbid it.
    pub enabled: bool,
    /// Whether it has a reply when it succeeds.
    #[serde(default = "yes")]
    pub success_response: bool,
}

/// Before QEMU 1.7 an agent does not say.
fn yes() -> bool {
    true
}

impl AgentInfo {
    /// The command of that name, if the agent has it.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&AgentCommand> {
        self.commands.iter().find(|command| command.name == name)
    }
}

/// Whether the guest's file systems are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FsState {
    /// They can be written to.
    Thawed,
    /// Whoever writes to them waits.
    Frozen,
}

/// What became of the free blocks of one file system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Trimmed {
    /// Where it is mounted.
    pub path: String,
    /// How many bytes were given back.
    pub trimmed: Option<u64>,
    /// The shortest run of free bytes that was.
    pub minimum: Option<u64>,
    /// Why nothing was.
    pub error: Option<String>,
}

/// How a guest is to go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Down, and the power off.
    PowerDown,
    /// Down, and the power left on.
    Halt,
    /// Down, and up again.
    Reboot,
}

/// Where a guest is to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuspendMode {
    /// On its disk, with the power off.
    Disk,
    /// In its memory. Without `wakeup-suspend-support` of QMP's `query-current-machine` it never wakes up.
    Ram,
    /// In both.
    Hybrid,
}

/// A network interface of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub struct GuestInterface {
    /// Its name in the guest.
    pub name: String,
    /// Its MAC address, if it has one.
    pub hardware_address: Option<String>,
    /// Its addresses.
    #[serde(rename = "ip-addresses", default)]
    pub addresses: Vec<GuestAddress>,
}

/// An IP address of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct GuestAddress {
    /// The address, as text.
    #[serde(rename = "ip-address")]
    pub address: String,
    /// How many of its bits name the network.
    pub prefix: u8,
    /// `ipv4` or `ipv6`.
    #[serde(rename = "ip-address-type")]
    pub kind: String,
}

impl Agent {
    /// Waits until the agent has answered.
    ///
    /// # Errors
    /// [`AgentError::NoAgent`] when it has not within the limit.
    pub async fn ping(&self) -> Result<(), AgentError> {
        self.execute_as::<Value>("guest-ping", ()).await.map(drop)
    }

    /// The agent's version, and its commands.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn info(&self) -> Result<AgentInfo, AgentError> {
        self.execute_as("guest-info", ()).await
    }

    /// The guest's network interfaces.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn interfaces(&self) -> Result<Vec<GuestInterface>, AgentError> {
        self.execute_as("guest-network-get-interfaces", ()).await
    }

    /// Whether the guest's file systems are frozen.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn fs_status(&self) -> Result<FsState, AgentError> {
        self.execute_as("guest-fsfreeze-status", ()).await
    }

    /// Freezes the guest's file systems, for a consistent snapshot of its disks; how many there are.
    ///
    /// Until [`Agent::fs_thaw`] whoever writes in the guest waits, and the agent refuses most other commands. Freezing
    /// may take longer than 30 s on a busy guest: see [`Agent::with_limit`]. If it timed out, thaw.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn fs_freeze(&self) -> Result<u64, AgentError> {
        self.execute_as("guest-fsfreeze-freeze", ()).await
    }

    /// Thaws the guest's file systems; how many were frozen.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn fs_thaw(&self) -> Result<u64, AgentError> {
        self.execute_as("guest-fsfreeze-thaw", ()).await
    }

    /// Gives the free blocks of the guest's file systems back to the host, in runs of at least `minimum` bytes.
    ///
    /// # Errors
    /// [`AgentError`]; what went wrong with one file system alone stands in its [`Trimmed::error`].
    pub async fn fs_trim(&self, minimum: u64) -> Result<Vec<Trimmed>, AgentError> {
        #[derive(Deserialize)]
        struct Response {
            #[serde(default)]
            paths: Vec<Trimmed>,
        }
        let Response { paths } = self.execute_as("guest-fstrim", json!({ "minimum": minimum })).await?;
        Ok(paths)
    }

    /// Asks the guest to go down.
    ///
    /// Returns once the agent has begun it, or has gone, or has said nothing for 5 s. When the guest is down is
    /// QEMU's to tell: the event `SHUTDOWN`, and the machine's end.
    ///
    /// # Errors
    /// [`AgentError`], when the agent says that it could not.
    pub async fn shutdown(&self, mode: ShutdownMode) -> Result<(), AgentError> {
        let mode = match mode {
            ShutdownMode::PowerDown => "powerdown",
            ShutdownMode::Halt => "halt",
            ShutdownMode::Reboot => "reboot",
        };
        self.execute_as::<Value>("guest-shutdown", json!({ "mode": mode })).await.map(drop)
    }

    /// Asks the guest to sleep. Returns as [`Agent::shutdown`] does; that it sleeps is told by the event `SUSPEND` or
    /// `SUSPEND_DISK`.
    ///
    /// # Errors
    /// [`AgentError`], when the agent says that it could not.
    pub async fn suspend(&self, mode: SuspendMode) -> Result<(), AgentError> {
        let command = match mode {
            SuspendMode::Disk => "guest-suspend-disk",
            SuspendMode::Ram => "guest-suspend-ram",
            SuspendMode::Hybrid => "guest-suspend-hybrid",
        };
        self.execute_as::<Value>(command, ()).await.map(drop)
    }

    /// The guest's clock, as the time since 1970-01-01 in UTC.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn time(&self) -> Result<Duration, AgentError> {
        self.execute_as("guest-get-time", ()).await.map(Duration::from_nanos)
    }

    /// Sets the guest's clock to a time since 1970-01-01 in UTC, as after a pause or a migration.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn set_time(&self, time: Duration) -> Result<(), AgentError> {
        let nanoseconds = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.execute_as::<Value>("guest-set-time", json!({ "time": nanoseconds })).await.map(drop)
    }
}
