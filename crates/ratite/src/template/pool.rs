//! Machines that are started ahead, so that whoever wants one waits for nothing but its resume.

use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::MachineConfig;
use crate::launch;
use crate::machine::Machine;
use crate::runtime::background;
use crate::template::Template;
use crate::template::spawn;
use crate::template::spawn::Spawn;
use crate::template::spawn::SpawnError;

/// Machines that are started ahead and stand still: each that is taken is followed by another one.
///
/// They are started and kept on the background runtime, as many at once as there are processors. Dropping the pool ends those
/// that nobody has taken; it never waits. What was taken is the taker's.
#[derive(Debug)]
pub struct Pool {
    source: Arc<Source>,
    ready: Mutex<mpsc::UnboundedReceiver<Ready>>,
    /// How many wait in there.
    waiting: watch::Sender<usize>,
    size: usize,
    /// Those who start machines; they end with the pool.
    _workers: JoinSet<()>,
}

/// What the machines of a pool are made of.
#[derive(Debug)]
enum Source {
    Template(Template, Spawn),
    Config { config: MachineConfig, stands_still: bool },
}

/// A machine that is ready, or why it is not. Its place is free again when it is taken.
type Ready = (Result<Machine, SpawnError>, OwnedSemaphorePermit);

impl Source {
    /// A machine that stands still.
    async fn start(&self) -> Result<Machine, SpawnError> {
        match self {
            Self::Template(template, spawn) => template.restored(spawn).await,
            Self::Config { config, .. } => Ok(Machine::of(launch::launch(config, None, None).await?)),
        }
    }

    /// Lets it run.
    async fn resume(&self, machine: &Machine) -> Result<(), SpawnError> {
        match self {
            Self::Template(template, spawn) => spawn::resume(machine, template.manifest(), spawn).await,
            Self::Config { stands_still: true, .. } => Ok(()),
            Self::Config { .. } => match machine.client() {
                Ok(client) => spawn::go_on(client).await,
                // Nobody can have stopped it either.
                Err(_) => Ok(()),
            },
        }
    }
}

impl Pool {
    pub(super) fn of_template(template: Template, spawn: Spawn, size: usize) -> Result<Self, SpawnError> {
        Self::start(Source::Template(template, spawn.in_background()), size)
    }

    fn of_config(mut config: MachineConfig, size: usize) -> Result<Self, SpawnError> {
        config.in_background = true;
        let stands_still = config.args.iter().any(|word| word == "-S" || word == "--S");
        if !stands_still {
            config.args.insert(0, "-S".into());
        }
        Self::start(Source::Config { config, stands_still }, size)
    }

    fn start(source: Source, size: usize) -> Result<Self, SpawnError> {
        if size == 0 {
            return Err(SpawnError::EmptyPool);
        }
        let runtime = background().map_err(SpawnError::Runtime)?;
        let source = Arc::new(source);
        let room = Arc::new(Semaphore::new(size));
        let (sender, ready) = mpsc::unbounded_channel();
        let waiting = watch::Sender::new(0);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut workers = JoinSet::new();
        for _ in 0..processors.min(size) {
            let (source, room) = (Arc::clone(&source), Arc::clone(&room));
            workers.spawn_on(work(source, room, sender.clone(), waiting.clone()), &runtime);
        }
        Ok(Self { source, ready: Mutex::new(ready), waiting, size, _workers: workers })
    }

    /// A machine that runs: one that stood ready, with the wait for its resume alone, or the next one that is.
    ///
    /// Whoever asks first is served first. A machine that has died while it was waiting is passed over. Bounded by what bounds the
    /// start of a machine, times those who have asked before.
    ///
    /// # Errors
    /// [`SpawnError`]: why the machine that was to come could not be made; the next one is tried after that.
    pub async fn take(&self) -> Result<Machine, SpawnError> {
        // All that stood ready may have died; one that was made for this may not.
        for _ in 0..=self.size {
            let (outcome, place) = self.next().await;
            let machine = outcome?;
            if !machine.is_running() {
                tracing::warn!(pid = machine.pid(), "a machine of a pool has died before anybody took it");
                continue;
            }
            // Another one is begun when this one runs, so that it does not come in its way.
            match self.source.resume(&machine).await {
                // Its end is not known yet.
                Err(SpawnError::Resume(error)) if error.is_disconnected() => continue,
                outcome => outcome?,
            }
            drop(place);
            return Ok(machine);
        }
        Err(SpawnError::Died { number: self.size + 1 })
    }

    async fn next(&self) -> Ready {
        let mut ready = self.ready.lock().await;
        let next = ready.recv().await.expect("the workers live as long as the pool, and hold the other end");
        self.waiting.send_modify(|waiting| *waiting -= 1);
        next
    }

    /// Waits until the pool is full, or none of its places can be filled: for one who wants what is taken next to be there
    /// already. Bounded by what bounds the start of a machine.
    pub async fn filled(&self) {
        let mut waiting = self.waiting.subscribe();
        let _pool_is_there = waiting.wait_for(|waiting| *waiting >= self.size).await;
    }

    /// How many machines it holds at most.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
}

impl MachineConfig {
    /// A pool of machines of this configuration, started ahead with `-S`, of which `size` stand ready; each runs once it is taken,
    /// unless the arguments themselves have `-S`. See [`Pool`].
    ///
    /// # Errors
    /// [`SpawnError::EmptyPool`] for a size of 0; [`SpawnError::Runtime`] when the system gives no thread. What is wrong with the
    /// configuration is told by [`Pool::take`].
    pub fn pool(&self, size: usize) -> Result<Pool, SpawnError> {
        Pool::of_config(self.clone(), size)
    }
}

/// Fills the places of a pool as they become free. What failed takes a place, too, until it is told: nothing is tried again
/// before somebody wants it.
async fn work(
    source: Arc<Source>,
    room: Arc<Semaphore>,
    ready: mpsc::UnboundedSender<Ready>,
    waiting: watch::Sender<usize>,
) {
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        let outcome = source.start().await;
        // Counted first: whoever takes it counts it back.
        waiting.send_modify(|waiting| *waiting += 1);
        if ready.send((outcome, place)).is_err() {
            return;
        }
    }
}
