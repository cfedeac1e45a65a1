//! What comes before the machine runs: files are looked for, an accelerator is chosen, a folder is made, QEMU is started.

use std::ffi::OsStr;
use std::path::PathBuf;

use ratite::Accelerators;
use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::WorkFolder;
use ratite::qmp::within;

use crate::args::Accelerator;
use crate::args::Run;
use crate::commands::run::Clock;
use crate::commands::run::accelerator;
use crate::commands::run::accelerator::Choice;
use crate::commands::run::configure;
use crate::commands::run::configure::Plan;
use crate::progress::Progress;
use crate::records::Records;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;

/// What is to be launched.
#[derive(Debug)]
pub(super) struct Prepared {
    config: MachineConfig,
    /// The folder that is to be kept, if it is.
    folder: Option<WorkFolder>,
    /// What is to be recorded of it.
    pub(super) said: Vec<u8>,
}

/// Does all that is to be done before QEMU is started.
pub(super) async fn prepare(
    run: &Run,
    records: Option<Records>,
    progress: &Progress,
    clock: Clock,
    signals: &mut Signals,
) -> Result<Prepared, Failure> {
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
    let folder = run.keep.then(|| kept_folder(run)).transpose()?;
    let in_folder = folder.as_ref().map(|folder| folder.path().join("console.log"));
    let log = run.watching.log.as_ref().or(in_folder.as_ref());
    let config = plan.config(run, accelerator.as_deref(), log.map(PathBuf::as_path));
    Ok(Prepared { config, folder, said })
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
    let chosen = within(
        clock.left(),
        "accelerator",
        accelerator::choose(binary, Accelerators::LIMIT.min(clock.left()), progress),
    );
    let chosen = tokio::select! {
        biased;
        // What is being measured is dropped, and so ended.
        signal = signals.next() => return Err(Failure::Signal { signal, source: None }),
        chosen = chosen => chosen,
    };
    chosen.unwrap_or_else(|_| Err(not_launched(clock, None)))
}

/// Starts the machine.
pub(super) async fn launch(
    prepared: &Prepared,
    clock: Clock,
    signals: &mut Signals,
) -> Result<Machine, Failure> {
    let launch = async {
        match &prepared.folder {
            Some(folder) => prepared.config.launch_in(folder).await,
            None => prepared.config.launch().await,
        }
    };
    let launched = tokio::select! {
        biased;
        signal = signals.next() => return Err(Failure::Signal { signal, source: None }),
        launched = launch => launched,
    };
    launched.map_err(|error| match error.kind() {
        LaunchErrorKind::TimedOut { .. } if clock.left().is_zero() => not_launched(clock, Some(error)),
        _ => Failure::Launch(error),
    })
}

fn not_launched(clock: Clock, source: Option<LaunchError>) -> Failure {
    let what = "the machine was not launched".into();
    Failure::TimedOut { what, limit: clock.limit, source, exit: None, console: None }
}
