//! Where the machines of a pool come from.
//!
//! ```text
//! started ─► stands still ─────────────────────────────────────────► handed out: runs
//!                 └─► runs ─► prepared ─► stopped, stands still ─────────┘
//! ```

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::MachineConfig;
use crate::launch;
use crate::machine::Machine;
use crate::template::Template;
use crate::template::spawn;
use crate::template::spawn::Spawn;
use crate::template::spawn::SpawnError;

/// What the machines of a pool are made of, and what is done with each before it stands ready.
pub(super) struct Source {
    origin: Origin,
    prepare: Option<Prepare>,
}

#[derive(Debug)]
enum Origin {
    Template(Template, Spawn),
    Config { config: MachineConfig, stands_still: bool },
}

pub(super) type Prepare = Arc<dyn Fn(Machine) -> Preparation + Send + Sync>;

type Preparation = Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send>>;

/// The caller's own part, as the pool holds it.
pub(super) fn preparation<F, P, E>(prepare: F) -> Prepare
where
    F: Fn(Machine) -> P + Send + Sync + 'static,
    P: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    Arc::new(move |machine| {
        let prepared = prepare(machine);
        Box::pin(async move { prepared.await.map_err(Into::into) })
    })
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Source {
    pub(super) fn of_template(template: Template, spawn: Spawn, prepare: Option<Prepare>) -> Self {
        Self { origin: Origin::Template(template, spawn.in_background()), prepare }
    }

    pub(super) fn of_config(mut config: MachineConfig, prepare: Option<Prepare>) -> Self {
        config.in_background = true;
        let stands_still = config.args.iter().any(|word| word == "-S" || word == "--S");
        if !stands_still {
            config.args.insert(0, "-S".into());
        }
        Self { origin: Origin::Config { config, stands_still }, prepare }
    }

    /// A machine that stands still, ready to be handed out.
    pub(super) async fn ready(&self) -> Result<Machine, SpawnError> {
        let machine = self.start().await?;
        let Some(prepare) = &self.prepare else { return Ok(machine) };
        self.resume(&machine).await?;
        // In a task of its own: a panic is the taker's to hear of, and not the end of the pool.
        let (prepare, lent) = (Arc::clone(prepare), machine.lent());
        let mut preparing = JoinSet::new();
        preparing.spawn(async move { prepare(lent).await });
        match preparing.join_next().await {
            Some(Ok(outcome)) => outcome.map_err(SpawnError::Prepare)?,
            Some(Err(panic)) => return Err(SpawnError::Prepare(panic.into())),
            None => unreachable!("one was spawned"),
        }
        // It may have ended meanwhile, which this tells.
        machine.cmd("stop", ()).await.map_err(|error| SpawnError::Prepare(error.into()))?;
        // The taker's begin with its resume.
        drop(machine.take_events());
        Ok(machine)
    }

    /// A machine that stands still, as it comes.
    async fn start(&self) -> Result<Machine, SpawnError> {
        match &self.origin {
            Origin::Template(template, spawn) => template.restored(spawn).await,
            Origin::Config { config, .. } => Ok(Machine::of(launch::launch(config, None, None).await?)),
        }
    }

    /// Lets one that is ready run, for its taker.
    pub(super) async fn hand_out(&self, machine: &Machine) -> Result<(), SpawnError> {
        match &self.origin {
            Origin::Template(template, spawn) if self.prepare.is_some() => {
                spawn::resume_again(machine, template.manifest(), spawn).await
            }
            _ => self.resume(machine).await,
        }
    }

    /// Lets it run for the first time.
    async fn resume(&self, machine: &Machine) -> Result<(), SpawnError> {
        match &self.origin {
            Origin::Template(template, spawn) => spawn::resume(machine, template.manifest(), spawn).await,
            Origin::Config { stands_still: true, .. } => Ok(()),
            Origin::Config { .. } => match machine.client() {
                Ok(client) => spawn::go_on(client).await,
                // Nobody can have stopped it either.
                Err(_) => Ok(()),
            },
        }
    }
}
