//! What one restored machine has for itself, and the steps by which it comes to run.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use ratite_qmp::Client;
use ratite_qmp::ExecuteError;
use ratite_qmp::Transcript;
use serde_json::Value;

use crate::body;
use crate::body::Restored;
use crate::body::Way;
use crate::config::ExtraMonitor;
use crate::config::MachineConfig;
use crate::config::Timeouts;
use crate::error::LaunchError;
use crate::error::write_report;
use crate::exit::ProcessExit;
use crate::exit::Tail;
use crate::frame::Below;
use crate::frame::Restoring;
use crate::freeze::version;
use crate::launch;
use crate::machine::Machine;
use crate::manifest;
use crate::manifest::Manifest;
use crate::manifest::TemplateError;
use crate::migration;
use crate::migration::MigrationError;
use crate::program;

/// Why no machine came of a template. Nothing is left behind.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The template is not as it was.
    #[error("the template cannot be used")]
    Template(#[from] TemplateError),
    /// QEMU did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// QEMU did not take the state.
    #[error("QEMU did not take the template's state{}", ended(*exit))]
    Restore {
        /// What went wrong.
        source: Box<MigrationError>,
        /// How QEMU ended, if it did.
        exit: Option<ProcessExit>,
        /// The end of what it wrote to stdout and stderr: its last words.
        log: Tail,
    },
    /// The console that was to have a log is not the template's.
    #[error("the template has no console {name:?}")]
    NoConsole {
        /// The name.
        name: String,
    },
    /// A command before the resume, or the resume itself, was refused.
    #[error("the restored machine could not be made to run")]
    Resume(#[source] Box<ExecuteError>),
    /// What its pool has every machine prepared with did not succeed; the machine was ended.
    #[error("the machine could not be prepared")]
    Prepare(#[source] Box<dyn Error + Send + Sync>),
    /// The machines of a pool have died, one after the other, before anybody could take them.
    #[error("{number} machines of the pool have died before anybody could take them")]
    Died {
        /// How many.
        number: usize,
    },
    /// A pool that is to hold nothing would never give anything.
    #[error("a pool of 0 machines has none to give")]
    EmptyPool,
    /// The background runtime is not to be had.
    #[error("the system gives no thread for it")]
    Runtime(#[source] io::Error),
}

impl fmt::Debug for SpawnError {
    /// A report for people, with QEMU's last words: it is what `unwrap` shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch(error) => error.fmt(f),
            Self::Restore { log, .. } => write_report(f, self, log),
            other => write_report(f, other, &Tail::default()),
        }
    }
}

fn ended(exit: Option<ProcessExit>) -> String {
    exit.map_or_else(String::new, |exit| format!(", and {exit}"))
}

/// What one restored machine has for itself. All of it may be left out.
///
/// ```
/// use ratite::Spawn;
///
/// let spawn = Spawn::new().name("guest-7").log_folder("/tmp/logs").console_log("console", "/tmp/logs/guest-7.txt");
/// ```
#[derive(Debug, Clone)]
#[must_use = "it spawns nothing by itself"]
pub struct Spawn {
    /// Everything that a plain machine has for itself, too.
    run: MachineConfig,
    console_logs: Vec<(String, PathBuf)>,
    vsock: Option<u32>,
    commands: Vec<(String, Value)>,
    paused: bool,
}

impl Default for Spawn {
    fn default() -> Self {
        Self {
            run: MachineConfig::new(""),
            console_logs: Vec::new(),
            vsock: None,
            commands: Vec::new(),
            paused: false,
        }
    }
}

impl Spawn {
    /// With nothing but defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine's name; see [`MachineConfig::name`].
    pub fn name(mut self, name: impl Into<std::ffi::OsString>) -> Self {
        self.run = self.run.name(name);
        self
    }

    /// Makes it reachable by its name; see [`MachineConfig::reachable`].
    pub fn reachable(mut self) -> Self {
        self.run = self.run.reachable();
        self
    }

    /// The folder in which its work folder is made, with its overlays; see [`MachineConfig::base_folder`].
    pub fn base_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.run = self.run.base_folder(folder);
        self
    }

    /// The folder for its log; see [`MachineConfig::log_folder`].
    pub fn log_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.run = self.run.log_folder(folder);
        self
    }

    /// Leaves its work folder behind; see [`MachineConfig::keep_folder`].
    pub fn keep_folder(mut self) -> Self {
        self.run = self.run.keep_folder();
        self
    }

    /// How long things may take; see [`Timeouts`]. [`Timeouts::command`] also bounds how long QEMU may take in nothing of the
    /// state.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.run = self.run.timeouts(timeouts);
        self
    }

    /// Lets other programs speak with it, beside this one; see [`MachineConfig::extra_monitor`].
    pub fn extra_monitor(mut self, monitor: ExtraMonitor) -> Self {
        self.run = self.run.extra_monitor(monitor);
        self
    }

    /// Shows every QMP message to `transcript`; see [`MachineConfig::transcript`].
    pub fn transcript(mut self, transcript: Transcript) -> Self {
        self.run = self.run.transcript(transcript);
        self
    }

    /// A file that gets every byte of the console of this name, from the resume on; see [`crate::ConsoleConfig::log`].
    pub fn console_log(mut self, console: impl Into<String>, path: impl AsRef<Path>) -> Self {
        self.console_logs.push((console.into(), path.as_ref().to_owned()));
        self
    }

    /// The context id of its vsock device; by default a number above 65535 that was drawn for it, since no two machines of a
    /// host can have the same.
    pub fn vsock_cid(mut self, cid: u32) -> Self {
        self.vsock = Some(cid);
        self
    }

    /// A QMP command to be executed when its state is there and before it runs, behind those already named: to give it a network
    /// device with an address of its own, say (`netdev_add`, `device_add`).
    ///
    /// `arguments` is a JSON object, `null` for none.
    pub fn command(mut self, name: impl Into<String>, arguments: Value) -> Self {
        self.commands.push((name.into(), arguments));
        self
    }

    /// Does not let it run: it stands still until somebody sends `cont`. The guest's clock is then the caller's to set, too
    /// ([`ratite_qmp::Agent::set_time`]).
    pub fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// For a machine that is made ahead, while nobody may drive the caller's runtime.
    pub(super) fn in_background(mut self) -> Self {
        self.run.in_background = true;
        self
    }

    /// The description of the machine: what the guest sees from the template, the rest from here.
    fn config(&self, manifest: &Manifest) -> Result<MachineConfig, SpawnError> {
        let mut config = manifest.body.recipe.config();
        for console in &mut config.consoles {
            let standing = manifest.standing.get(&console.name);
            console.standing = standing.map(|line| line.clone().into_bytes()).unwrap_or_default();
        }
        for (name, path) in &self.console_logs {
            let console = config.consoles.iter_mut().find(|console| console.name == *name);
            let console = console.ok_or_else(|| SpawnError::NoConsole { name: name.clone() })?;
            console.log = Some(path.clone());
        }
        let MachineConfig { name, reachable, in_background, base_folder, .. } = self.run.clone();
        let MachineConfig { log_folder, keep_folder, timeouts, transcript, extra_monitors, .. } =
            self.run.clone();
        Ok(MachineConfig {
            name,
            reachable,
            in_background,
            base_folder,
            log_folder,
            keep_folder,
            timeouts,
            transcript,
            extra_monitors,
            ..config
        })
    }
}

/// A machine with the template's state, which stands still.
pub(super) async fn restore(
    path: &Path,
    manifest: &Manifest,
    spawn: &Spawn,
    holder: Below,
) -> Result<Machine, SpawnError> {
    let config = spawn.config(manifest)?;
    let body = &manifest.body;
    let below = manifest.disks(path);
    let mapped = path.join(manifest::RAM);
    let ram = match manifest.way {
        Way::Left => Restored::Mapped(&mapped),
        Way::Streamed | Way::Placed => Restored::Streamed,
    };
    let vsock = spawn.vsock.or_else(|| body::has_vsock(&config.args).then(any_cid));
    let restoring = Restoring { body, ram, below: &below, vsock, holder };
    let machine = Machine::unserved(launch::launch(&config, None, Some(&restoring)).await?);
    let state = path.join(manifest::STATE);
    match load(&machine, manifest, &state, spawn.run.timeouts.command).await {
        Ok(()) => {
            // What was said of the state is nobody's news.
            drop(machine.take_events());
            Ok(machine)
        }
        Err(Fault::Other(error)) => Err(error.into()),
        Err(Fault::State(source)) => {
            // A QEMU that cannot take a state ends, and its words say more than ours.
            let exited = machine.running.process.ends_soon(SOON).await;
            let log = machine.log().tail(LAST_WORDS).unwrap_or_default();
            let _ended = machine.kill().await;
            Err(SpawnError::Restore {
                source: Box::new(source),
                exit: exited.map(|exited| exited.status),
                log,
            })
        }
    }
}

/// How long a QEMU that has refused a state is waited for.
const SOON: Duration = Duration::from_secs(1);

/// How much of the log an error carries.
const LAST_WORDS: usize = 8 << 10;

/// Why a state was not loaded.
enum Fault {
    State(MigrationError),
    Other(TemplateError),
}

async fn load(machine: &Machine, manifest: &Manifest, state: &Path, silence: Duration) -> Result<(), Fault> {
    let client = machine.client().map_err(|_| Fault::State(no_monitor()))?;
    // A script may start another QEMU each time.
    let is_program = || {
        let config = manifest.body.recipe.config();
        program::look_at(config.binary().as_ref(), config.search_path().as_deref()).kind
            == program::Kind::Program
    };
    let is_known = manifest.qemu.binary.is_some() && manifest.body.recipe.has_no_wrapper() && is_program();
    if !is_known {
        let reply: Value =
            client.execute("query-version", ()).await.map_err(|error| Fault::State(error.into()))?;
        let is = version(&reply);
        if is != manifest.qemu.version {
            let binary = manifest.body.recipe.config().binary().into();
            let version = manifest.qemu.version.clone();
            return Err(Fault::Other(TemplateError::OtherQemu { binary, version, is: Some(is) }));
        }
    }
    tokio::select! {
        biased;
        loaded = migration::load(client, manifest.way, state, silence) => loaded.map_err(Fault::State),
        _exited = machine.exited() => Err(Fault::State(MigrationError::Failed { words: "it ended".into() })),
    }
}

/// A machine with a body has a monitor: it could not have been frozen without.
fn no_monitor() -> MigrationError {
    MigrationError::Failed { words: "it has no monitor".into() }
}

/// Lets a restored machine run for the first time, as its caller wishes.
pub(super) async fn resume(machine: &Machine, manifest: &Manifest, spawn: &Spawn) -> Result<(), SpawnError> {
    let Ok(client) = machine.client() else { return Ok(()) };
    for (name, arguments) in &spawn.commands {
        let arguments =
            if arguments.is_null() { Value::Object(serde_json::Map::new()) } else { arguments.clone() };
        client.execute(name, arguments).await.map_err(refused)?;
    }
    if spawn.paused {
        machine.serve();
        return Ok(());
    }
    go_on(client).await?;
    machine.serve();
    set_clock(machine, manifest).await;
    Ok(())
}

/// Lets one run again that ran before.
pub(super) async fn resume_again(
    machine: &Machine,
    manifest: &Manifest,
    spawn: &Spawn,
) -> Result<(), SpawnError> {
    let Ok(client) = machine.client() else { return Ok(()) };
    if !spawn.paused {
        go_on(client).await?;
        set_clock(machine, manifest).await;
    }
    Ok(())
}

/// Lets a machine that stands still run.
pub(super) async fn go_on(client: &Client) -> Result<(), SpawnError> {
    client.execute("cont", ()).await.map(drop).map_err(refused)
}

/// The guest's clock stood still with the guest.
async fn set_clock(machine: &Machine, manifest: &Manifest) {
    let Some(agent) = machine.agent().filter(|_| manifest.agent_answers) else { return };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if let Err(error) = agent.clone().with_limit(CLOCK).set_time(now).await {
        tracing::warn!(%error, "the guest's clock stands where it was stopped");
    }
}

fn refused(error: ExecuteError) -> SpawnError {
    SpawnError::Resume(Box::new(error))
}

/// How long the agent in the guest may take to set its clock.
const CLOCK: Duration = Duration::from_secs(5);

/// A context id that hardly anybody has; the kernel refuses one that is taken (vsock(7)).
fn any_cid() -> u32 {
    let mut bytes = [0; 4];
    let _given = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_ne_bytes(bytes) % (0x7fff_ffff - 0x1_0000) + 0x1_0000
}
