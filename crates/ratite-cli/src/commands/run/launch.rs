//! What comes before the machine runs: files are looked for, an accelerator is chosen, a folder is made, QEMU is started.

use std::ffi::OsStr;
use std::path::PathBuf;

use ratite::Accelerators;
use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::Making;
use ratite::Spawn;
use ratite::SpawnError;
use ratite::Template;
use ratite::WorkFolder;
use ratite::qmp::within;

use crate::args::Accelerator;
use crate::args::Run;
use crate::commands::run::Clock;
use crate::commands::run::accelerator;
use crate::commands::run::accelerator::Choice;
use crate::commands::run::configure;
use crate::commands::run::configure::Plan;
use crate::commands::run::restore;
use crate::progress::Progress;
use crate::records::Records;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;
use crate::templates;

/// What is to be launched.
#[derive(Debug)]
pub(super) struct Prepared {
    start: Start,
    /// The folder that is to be kept, if it is.
    folder: Option<WorkFolder>,
    /// What is to be recorded of it.
    pub(super) said: Vec<u8>,
}

/// How it comes to be.
#[derive(Debug)]
enum Start {
    Booted(MachineConfig),
    /// Booted, to become a template; until that is taken.
    Made(Option<Making>),
    /// Restored. The template is held as long as its machine may run.
    Restored {
        name: String,
        template: Template,
        spawn: Spawn,
    },
}

impl Prepared {
    /// The right to make a template of it, once.
    pub(super) fn making(&mut self) -> Option<Making> {
        match &mut self.start {
            Start::Made(making) => making.take(),
            _ => None,
        }
    }
}

/// Does all that is to be done before QEMU is started.
pub(super) async fn prepare(
    run: &Run,
    records: Option<Records>,
    progress: &Progress,
    clock: Clock,
    signals: &mut Signals,
) -> Result<Prepared, Failure> {
    if let Some(name) = &run.from {
        progress.phase("looking at the template");
        return restored(run, name, clock, signals).await;
    }
    let plan = Plan::of(run)?;
    configure::check_files(run)?;
    let mut said = Vec::new();
    let accelerator = match &run.hardware.accel {
        None => None,
        Some(Accelerator::Named(name)) => Some(name.clone()),
        Some(Accelerator::Auto) => {
            let Choice { accelerator, why } = choose(&plan.binary, progress, clock, signals).await?;
            report::remark(&format!("`--accel auto` takes `{accelerator}`: {why}"));
            said.extend(records.map(|records| records.accelerator(&accelerator, &why)).unwrap_or_default());
            Some(accelerator)
        }
    };
    let (folder, log) = recorded(run)?;
    let config = plan.config(run, accelerator.as_deref(), log.as_deref());
    let start = match &run.making {
        None => Start::Booted(config),
        Some(making) => {
            progress.phase("waiting for its place");
            let cache = templates::cache()?;
            let reserved = async { cache.reserve(&making.name, &config).await.map_err(templates::failure) };
            Start::Made(Some(in_time(clock, signals, reserved).await?))
        }
    };
    Ok(Prepared { start, folder, said })
}

async fn restored(run: &Run, name: &str, clock: Clock, signals: &mut Signals) -> Result<Prepared, Failure> {
    restore::check(run)?;
    configure::check_files(run)?;
    let template = in_time(clock, signals, templates::open(name)).await?;
    let (folder, log) = recorded(run)?;
    let mut spawn = restore::spawn(run, name, &template, log.as_deref())?;
    if let Some(folder) = &folder {
        spawn = spawn.base_folder(folder.path()).keep_folder();
    }
    Ok(Prepared { start: Start::Restored { name: name.into(), template, spawn }, folder, said: Vec::new() })
}

/// What `work` comes to, unless the user ends it, or the time is over, before.
async fn in_time<T>(
    clock: Clock,
    signals: &mut Signals,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
        done = within(clock.left(), "machine", work) => done.unwrap_or_else(|_| Err(not_launched(clock, None))),
    }
}

/// The folder that is kept, if one is, and where the console is recorded.
fn recorded(run: &Run) -> Result<(Option<WorkFolder>, Option<PathBuf>), Failure> {
    let folder = run.ending.keep.then(|| kept_folder(run)).transpose()?;
    let in_folder = folder.as_ref().map(|folder| folder.path().join("console.log"));
    Ok((folder, run.watching.log.clone().or(in_folder)))
}

/// A folder that is left behind whatever comes.
fn kept_folder(run: &Run) -> Result<WorkFolder, Failure> {
    let base = run.base_folder.clone().unwrap_or_else(|| BASE.into());
    let folder = WorkFolder::create_kept(base).map_err(Failure::Launch)?;
    report::remark(&format!("the work folder is kept: {}", folder.path().display()));
    Ok(folder)
}

/// Where a work folder is made by default.
const BASE: &str = "/var/tmp";

async fn choose(
    binary: &OsStr,
    progress: &Progress,
    clock: Clock,
    signals: &mut Signals,
) -> Result<Choice, Failure> {
    let limit = Accelerators::LIMIT.min(clock.left());
    // What is being measured when the time is over is dropped, and so ended.
    in_time(clock, signals, accelerator::choose(binary, limit, progress)).await
}

/// Starts the machine.
pub(super) async fn launch(
    prepared: &Prepared,
    clock: Clock,
    signals: &mut Signals,
) -> Result<Machine, Failure> {
    let launch = async {
        match (&prepared.start, &prepared.folder) {
            (Start::Restored { name, template, spawn }, _) => {
                let spawned = within(clock.left(), "machine", template.spawn_with(spawn)).await;
                let spawned = spawned.map_err(|_| not_launched(clock, None))?;
                spawned.map_err(|error| match error {
                    SpawnError::Launch(error) => not_started(clock, error),
                    error => templates::not_spawned(name, error),
                })
            }
            (Start::Booted(config), Some(folder)) => {
                config.launch_in(folder).await.map_err(|error| not_started(clock, error))
            }
            (Start::Booted(config), None) => config.launch().await.map_err(|error| not_started(clock, error)),
            (Start::Made(Some(making)), _) => {
                making.config().launch().await.map_err(|error| not_started(clock, error))
            }
            (Start::Made(None), _) => unreachable!("it is taken once the machine runs"),
        }
    };
    tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
        launched = launch => launched,
    }
}

fn not_started(clock: Clock, error: LaunchError) -> Failure {
    match error.kind() {
        LaunchErrorKind::TimedOut { .. } if clock.left().is_zero() => not_launched(clock, Some(error)),
        _ => Failure::Launch(error),
    }
}

fn not_launched(clock: Clock, source: Option<LaunchError>) -> Failure {
    let what = "the machine was not launched".into();
    Failure::TimedOut { what, limit: clock.limit, source, exit: None, console: None }
}
