//! From [`Running`] to a template's folder: the steps of freezing, and how each is undone.
//!
//! ```text
//! check ─► stop ─► state saved ─► disks moved ─► RAM copied ─► sealed ─► written down ─► the machine is ended ─► Frozen
//!            └────────┴──────────────┴──────────────┴───────────┴───────────┘ fails ─► all back ─► the machine goes on
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use ratite_qmp::Client;
use ratite_qmp::ExecuteError;
use ratite_qmp::within;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::arguments;
use crate::body;
use crate::body::Body;
use crate::body::Files;
use crate::body::Ram;
use crate::body::Way;
use crate::config::MachineConfig;
use crate::console::Console;
use crate::disks;
use crate::disks::NotFreezable;
use crate::error::LaunchError;
use crate::error::ShutdownError;
use crate::exit::ProcessExit;
use crate::frame::Below;
use crate::frame::Frame;
use crate::manifest;
use crate::manifest::Facts;
use crate::manifest::Manifest;
use crate::migration;
use crate::migration::Before;
use crate::migration::MigrationError;
use crate::running::Running;
use crate::runtime::aside;
use crate::runtime::background;
use crate::shutdown;
use crate::work_folder::WorkFolder;

/// Why a machine was not frozen. It goes on as it was, unless it had ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreezeError {
    /// Its description rules it out.
    #[error("the machine cannot be frozen")]
    NotFreezable(#[from] NotFreezable),
    /// A device is in the way: one that cannot migrate, a mounted 9p share, a device that was passed through.
    #[error("the machine cannot be frozen: {}", reasons.join("; "))]
    Blocked {
        /// The reasons, in QEMU's words, which name the device.
        reasons: Vec<String>,
    },
    /// A job on a disk runs.
    #[error("the machine cannot be frozen while the block job `{job}` ({kind}) runs")]
    BlockJob {
        /// The job's id, mostly that of its device.
        job: String,
        /// What it does: `commit`, `mirror`, `stream`, `backup`.
        kind: String,
    },
    /// A disk is written to that no overlay was put on at the start.
    #[error(
        "the machine writes to `{file}` by its disk `{disk}`; launch it with `MachineConfig::freezable`, which puts an overlay on each disk"
    )]
    WritableDisk {
        /// The disk, by its id or its device.
        disk: String,
        /// The image.
        file: String,
    },
    /// Its state could not be saved.
    #[error("the state of the machine could not be saved")]
    Save(#[source] MigrationError),
    /// A command that is needed for it failed.
    #[error("the machine could not be asked what is needed for freezing it")]
    Command(#[source] ExecuteError),
    /// The template's folder could not be made.
    #[error("no folder could be made for the template")]
    Folder(#[source] LaunchError),
    /// The template's files could not be written; the disk is full, most often.
    #[error("the template could not be written to `{}`", folder.display())]
    Files {
        /// The folder, which is gone.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A device was plugged in or out since the start, which a restored machine would not know of.
    #[error("the machine cannot be frozen: its device `{device}` was plugged {how} after its start")]
    HotPlugged {
        /// The device's id.
        device: String,
        /// `in` or `out`.
        how: &'static str,
    },
    /// Somebody else has let the machine go on while it was frozen.
    #[error("somebody has let the machine go on while it was being frozen")]
    WentOn,
    /// The machine has ended.
    #[error("the machine has ended: QEMU {0}")]
    Exited(ProcessExit),
    /// The machine could not be ended when all was done; there is no template.
    #[error("the machine is frozen, but could not be ended")]
    Unkillable(#[source] ShutdownError),
    /// The background runtime is not to be had.
    #[error("the system gives no thread for it")]
    Runtime(#[source] io::Error),
}

/// A machine that was frozen.
pub(crate) struct Frozen {
    /// Goes with its last holder.
    pub(crate) folder: WorkFolder,
    /// The template in it.
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
    /// What the template's disks are on in turn.
    pub(crate) below: Option<Below>,
}

/// The folder of the template, in a folder that is removed if we are.
const TEMPLATE: &str = "template";

/// Freezes a machine, and ends it. Whoever goes away meanwhile leaves a machine that goes on.
pub(crate) async fn freeze(running: &Arc<Running>) -> Result<Frozen, FreezeError> {
    let (answer, outcome) = oneshot::channel();
    let running = Arc::clone(running);
    // A task of its own: half a migration is nothing that a dropped future may leave behind.
    background().map_err(FreezeError::Runtime)?.spawn(run(running, answer));
    match outcome.await {
        Ok(outcome) => outcome,
        Err(_panicked) => {
            Err(FreezeError::Runtime(io::Error::other("the task that was to freeze it is gone")))
        }
    }
}

async fn run(running: Arc<Running>, mut answer: oneshot::Sender<Result<Frozen, FreezeError>>) {
    // Whoever has given up before may still be putting back what he has moved.
    let _turn = running.freezing.lock().await;
    let mut course = Course::default();
    let outcome = tokio::select! {
        biased;
        () = answer.closed() => None,
        outcome = course.go(&running) => Some(outcome),
    };
    let outcome = match outcome {
        Some(Ok(template)) if !answer.is_closed() => course.end(&running, template).await,
        Some(Err(error)) => {
            course.undo(&running).await;
            Err(error)
        }
        // Nobody wants it any more.
        Some(Ok(_)) | None => return course.undo(&running).await,
    };
    let _gone = answer.send(outcome);
}

/// How far it is, so that it can be undone.
#[derive(Debug, Default)]
struct Course {
    /// The folder that was made for the template. What was moved there has to be moved back before it goes.
    folder: Option<WorkFolder>,
    /// Whether the machine was stopped for this.
    stopped: bool,
    /// How QEMU was set before it was asked for its state.
    saving: Option<Before>,
    /// What was moved, and from where.
    moved: Vec<(PathBuf, PathBuf)>,
    /// What reads and seals the files, on a thread of its own.
    writing: Option<JoinHandle<io::Result<Manifest>>>,
}

impl Course {
    /// The template, in the folder that was made for it.
    async fn go(&mut self, running: &Running) -> Result<(PathBuf, Manifest), FreezeError> {
        if let Some(exited) = running.process.exited() {
            return Err(FreezeError::Exited(exited.status));
        }
        let client = &running.monitor.as_ref().ok_or(NotFreezable::NoMonitor)?.client;
        let (body, files) = match &running.frame {
            Frame::Made { body, files, .. } => (Body::clone(body), files.clone()),
            Frame::Plain { config, arguments, descriptors } => {
                let words = running.command_line.words();
                let args = words[words.len() - arguments..].to_vec();
                let config = &MachineConfig { args, ..MachineConfig::clone(config) };
                // Where it runs is where its paths start.
                let folder = std::fs::read_link(format!("/proc/{}/cwd", running.process.pid()));
                let folder = folder.unwrap_or_else(|_| "/".into());
                (Body::plain(config, *descriptors, &folder)?, Files::default())
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.steps(running, client, body, &files) => outcome,
            exited = running.process.wait() => Err(FreezeError::Exited(exited.status)),
        };
        match outcome {
            // A session that ends belongs to a process that is about to.
            Err(error) if error.is_disconnected() => match running.process.ends_soon(SOON).await {
                Some(exited) => Err(FreezeError::Exited(exited.status)),
                None => Err(error),
            },
            outcome => outcome,
        }
    }

    async fn steps(
        &mut self,
        running: &Running,
        client: &Client,
        body: Body,
        files: &Files,
    ) -> Result<(PathBuf, Manifest), FreezeError> {
        look_for_obstacles(client, files).await?;
        look_for_hot_plugged(client, running.command_line.words()).await?;
        let mut images = BTreeSet::new();
        for overlay in &files.overlays {
            images.extend(disks::chain(overlay)?.into_iter().skip(1));
        }
        images.extend(disks::named_files(&body.recipe.arguments(), &body.recipe.folder()));
        let before = Before::of(client).await.map_err(FreezeError::Save)?;
        let base = running.work_folder.parent().unwrap_or(Path::new("/var/tmp"));
        let (way, because) = way(client, &body, files, &before, base).await?;
        let agent_answers = match &running.agent {
            Some(agent) => within(AGENT, "agent", agent.ping()).await.is_ok_and(|outcome| outcome.is_ok()),
            None => false,
        };
        let folder = WorkFolder::make(base, false).map_err(FreezeError::Folder)?;
        let path = self.folder.insert(folder).path().join(TEMPLATE);
        let fault = |source| FreezeError::Files { folder: path.clone(), source };
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(fault)?;

        let status: Value = ask(client, "query-status", ()).await?;
        if status["running"] == true {
            self.stopped = true;
            ask(client, "stop", ()).await?;
        }
        tracing::debug!(pid = running.process.pid(), ?way, "a machine stands still to be frozen");
        let before = self.saving.insert(before);
        let state = path.join(manifest::STATE);
        let saved = migration::save(client, way, before, &state, running.timeouts.command).await;
        saved.map_err(|error| match error {
            MigrationError::File(source) => fault(source),
            other => FreezeError::Save(other),
        })?;
        tracing::debug!(state = %state.display(), "the state of a machine is saved");
        let version = version(&ask(client, "query-version", ()).await?);
        self.take(files, &path).map_err(fault)?;
        tracing::debug!(template = %path.display(), "a machine's disks are a template's");
        let last_line = |console: &Console| String::from_utf8_lossy(&console.last_line()).into_owned();
        let consoles = running.consoles.iter();
        let standing = consoles.map(|(name, console)| (name.clone(), last_line(console))).collect();
        let facts = Facts { body, way, because, version, agent_answers, standing };
        let there = path.clone();
        let ram = files.ram.clone().filter(|_| way == Way::Left);
        // What was written is read once more. It goes on when nobody waits for it any more, so it is not to be forgotten.
        let writing = tokio::spawn(aside(move || {
            ram.map_or(Ok(()), |ram| ram.copy_to(&there.join(manifest::RAM)))?;
            Manifest::write(&there, facts, images.into_iter().collect())
        }));
        let manifest =
            self.writing.insert(writing).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        self.writing = None;
        let manifest = manifest.map_err(fault)?;
        if ask(client, "query-status", ()).await?["running"] == true {
            return Err(FreezeError::WentOn);
        }
        tracing::debug!(template = %path.display(), "a template is written down");
        Ok((path, manifest))
    }

    /// Ends the machine, whose RAM and disks are the template's from here on.
    async fn end(self, running: &Running, template: (PathBuf, Manifest)) -> Result<Frozen, FreezeError> {
        let folder = self.folder.expect("a template is in a folder");
        let (path, manifest) = template;
        shutdown::kill(running).await.map_err(FreezeError::Unkillable)?;
        tracing::debug!(template = %path.display(), "a machine is frozen");
        let below = match &running.frame {
            Frame::Made { below, .. } => below.clone(),
            Frame::Plain { .. } => None,
        };
        Ok(Frozen { folder, path, manifest, below })
    }

    /// Moves the machine's own disks to the template.
    fn take(&mut self, files: &Files, to: &Path) -> io::Result<()> {
        for (number, from) in files.overlays.iter().enumerate() {
            let to = to.join(manifest::disk(number));
            std::fs::rename(from, &to)?;
            self.moved.push((from.clone(), to));
        }
        Ok(())
    }

    /// Has the machine go on as it was.
    async fn undo(mut self, running: &Running) {
        if let Some(writing) = self.writing.take() {
            // Not while the machine goes on.
            let _written_for_nobody = writing.await;
        }
        for (from, to) in self.moved.iter().rev() {
            if let Err(error) = std::fs::rename(to, from) {
                tracing::warn!(%error, file = %from.display(), "could not give a machine its disk back");
            }
        }
        let Some(monitor) = &running.monitor else { return };
        if let Some(before) = &self.saving
            && let Err(error) = migration::undo(&monitor.client, before, running.timeouts.command).await
        {
            tracing::debug!(%error, "could not undo a migration");
        }
        if self.stopped
            && let Err(error) = monitor.client.execute("cont", ()).await
        {
            tracing::warn!(%error, "could not let a machine go on that was not frozen");
        }
    }
}

/// How long a process whose session has ended is waited for.
const SOON: std::time::Duration = std::time::Duration::from_secs(1);

/// How long an agent may take to answer, to be counted as one that does.
const AGENT: std::time::Duration = std::time::Duration::from_millis(300);

impl FreezeError {
    fn is_disconnected(&self) -> bool {
        match self {
            Self::Command(error) | Self::Save(MigrationError::Command(error)) => error.is_disconnected(),
            Self::Save(MigrationError::Event(ratite_qmp::ListenError::Disconnected(_))) => true,
            _ => false,
        }
    }
}

async fn ask(client: &Client, command: &str, arguments: impl serde::Serialize) -> Result<Value, FreezeError> {
    client.execute(command, arguments).await.map_err(FreezeError::Command)
}

async fn look_for_obstacles(client: &Client, files: &Files) -> Result<(), FreezeError> {
    let jobs = ask(client, "query-block-jobs", ()).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(job) = jobs.as_array().and_then(|jobs| jobs.first()) {
        return Err(FreezeError::BlockJob { job: text(&job["device"]), kind: text(&job["type"]) });
    }
    let disks = ask(client, "query-block", ()).await?;
    for disk in disks.as_array().into_iter().flatten() {
        let medium = &disk["inserted"];
        let is_ours = |file: &Path| files.overlays.iter().any(|overlay| overlay == file);
        let is_null = medium["drv"].as_str().is_some_and(|driver| driver.starts_with("null-"));
        if medium.is_null()
            || medium["ro"] == true
            || is_null
            || medium["file"].as_str().is_some_and(|file| is_ours(Path::new(file)))
        {
            continue;
        }
        let names = [&disk["device"], &disk["qdev"], &medium["node-name"]];
        let name = names.iter().find_map(|name| name.as_str().filter(|name| !name.is_empty()));
        let disk = name.unwrap_or("without a name").to_owned();
        return Err(FreezeError::WritableDisk { disk, file: text(&medium["file"]) });
    }
    let reasons = migration::obstacles(client).await.map_err(FreezeError::Save)?;
    if reasons.is_empty() { Ok(()) } else { Err(FreezeError::Blocked { reasons }) }
}

/// Whether the devices that have an id are those of the command line.
async fn look_for_hot_plugged(client: &Client, words: &[OsString]) -> Result<(), FreezeError> {
    let there = ask(client, "qom-list", json!({ "path": "/machine/peripheral" })).await?;
    let is_device = |it: &&Value| it["type"].as_str().is_some_and(|kind| kind.starts_with("child<"));
    let there = there.as_array().into_iter().flatten().filter(is_device);
    let there: Vec<_> = there.filter_map(|it| it["name"].as_str()).map(str::to_owned).collect();
    let described = arguments::device_ids(words);
    let differs = |from: &[String], to: &[String]| from.iter().find(|id| !to.contains(id)).cloned();
    match (differs(&there, &described), differs(&described, &there)) {
        (Some(device), _) => Err(FreezeError::HotPlugged { device, how: "in" }),
        (None, Some(device)) => Err(FreezeError::HotPlugged { device, how: "out" }),
        (None, None) => Ok(()),
    }
}

/// How the RAM is to travel, and why not in the best way, to a folder in `base`.
async fn way(
    client: &Client,
    body: &Body,
    files: &Files,
    before: &Before,
    base: &Path,
) -> Result<(Way, Option<String>), FreezeError> {
    let because = match &body.ram {
        Ram::Theirs { because } => because.clone(),
        Ram::Ours { .. } if files.ram.is_none() => {
            "it is restored itself, and its RAM is a template's".into()
        }
        Ram::Ours { .. } if !before.knows(Way::Left) => {
            "this QEMU cannot leave shared RAM where it is".into()
        }
        Ram::Ours { .. } => {
            // What else is shared would be left out, too.
            let backends = ask(client, "query-memdev", ()).await?;
            let is_shared =
                |backend: &&Value| backend["share"] == true && backend["id"] != json!(body::BACKEND);
            match backends.as_array().into_iter().flatten().find(is_shared) {
                None => return Ok((Way::Left, None)),
                Some(backend) => format!("the memory backend {} is shared with others", backend["id"]),
            }
        }
    };
    // QEMU opens that file itself, by a name that QMP has to be told.
    let is_nameable = base.to_str().is_some();
    let way = if before.knows(Way::Placed) && is_nameable { Way::Placed } else { Way::Streamed };
    Ok((way, Some(because)))
}

/// A version as people write it, from the reply to `query-version`.
pub(crate) fn version(reply: &Value) -> String {
    let number = |name: &str| reply["qemu"][name].as_u64().unwrap_or_default();
    let package = reply["package"].as_str().unwrap_or_default().trim();
    let version = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
    if package.is_empty() { version } else { format!("{version} {package}") }
}
