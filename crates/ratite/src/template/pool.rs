//! Machines that are started ahead, so that whoever wants one waits for nothing but its resume.

mod source;

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::MachineConfig;
use crate::machine::Machine;
use crate::runtime::background;
use crate::template::Template;
use crate::template::spawn::Spawn;
use crate::template::spawn::SpawnError;
use source::Source;

/// Machines that are started ahead and stand still: each that is taken is followed by another one.
///
/// They are started and kept on the background runtime, as many at once as there are processors. Dropping the pool ends those
/// that nobody has taken; it never waits. What was taken is the taker's.
///
/// One machine after the other can also be *prepared* before anybody takes it ([`Template::prepared_pool`],
/// [`MachineConfig::prepared_pool`]): it runs until the pool's preparation is done, and stands still again until it is taken. What all
/// takers would do first is done by then: plug a network card in that no other machine has, log in, renew the guest's random
/// numbers. QEMU has then translated that part of the guest, too, which is what a restored machine's first answer waits for without
/// hardware acceleration.
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

/// A machine that is ready, or why it is not. Its place is free again when it is taken.
type Ready = (Result<Machine, SpawnError>, OwnedSemaphorePermit);

impl Pool {
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
            match self.source.hand_out(&machine).await {
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

impl Template {
    /// A pool of machines that are restored ahead, of which `size` stand ready; see [`Pool`].
    ///
    /// # Errors
    /// [`SpawnError::EmptyPool`] for a size of 0; [`SpawnError::Runtime`] when the system gives no thread. What is wrong with the
    /// template is told by [`Pool::take`].
    pub fn pool(&self, size: usize) -> Result<Pool, SpawnError> {
        self.pool_with(size, Spawn::new())
    }

    /// The same, each as `spawn` says.
    ///
    /// # Errors
    /// As [`Template::pool`].
    pub fn pool_with(&self, size: usize, spawn: Spawn) -> Result<Pool, SpawnError> {
        Pool::start(Source::of_template(self.clone(), spawn, None), size)
    }

    /// The same, and each machine is prepared before it stands ready.
    ///
    /// `prepare` runs on the background runtime, as often at once as there are processors, with a machine that runs, unless `spawn` has
    /// it [paused](Spawn::paused). It must not block; [`crate::blocking::Template::prepared_pool`] takes one that does. What it waits for
    /// is bounded by its own limits. The handle that it is given is lent: dropping it ends nothing, and the machine ends with the pool or
    /// with its taker, whoever else still has it. Events that come meanwhile are the preparation's, and so is what it reads of a console: the
    /// taker reads on behind that.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use ratite::{Machine, Spawn, Template};
    /// # async fn example(template: &Template) -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = template.prepared_pool(4, Spawn::new(), |machine: Machine| async move {
    ///     let console = machine.console().expect("the template has one");
    ///     console.write("mount -t tmpfs tmpfs /tmp && echo mounted\n").await?;
    ///     console.expect("\nmounted\r\n", Duration::from_secs(10)).await?;
    ///     console.expect("# ", Duration::from_secs(10)).await.map(drop)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Template::pool`]. That a preparation has failed, with `prepare`'s own error, is told by [`Pool::take`]
    /// ([`SpawnError::Prepare`]); the machine is ended.
    pub fn prepared_pool<F, P, E>(&self, size: usize, spawn: Spawn, prepare: F) -> Result<Pool, SpawnError>
    where
        F: Fn(Machine) -> P + Send + Sync + 'static,
        P: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Pool::start(Source::of_template(self.clone(), spawn, Some(source::preparation(prepare))), size)
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
        Pool::start(Source::of_config(self.clone(), None), size)
    }

    /// The same, and each machine is prepared before it stands ready: it boots and gets to where takers want it, say. See
    /// [`Template::prepared_pool`] for what `prepare` is and may do. The machines need a monitor, by which they are stopped.
    ///
    /// # Errors
    /// As [`MachineConfig::pool`].
    pub fn prepared_pool<F, P, E>(&self, size: usize, prepare: F) -> Result<Pool, SpawnError>
    where
        F: Fn(Machine) -> P + Send + Sync + 'static,
        P: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Pool::start(Source::of_config(self.clone(), Some(source::preparation(prepare))), size)
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
        let outcome = source.ready().await;
        // Counted first: whoever takes it counts it back.
        waiting.send_modify(|waiting| *waiting += 1);
        if ready.send((outcome, place)).is_err() {
            return;
        }
    }
}
