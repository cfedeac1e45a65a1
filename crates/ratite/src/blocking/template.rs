//! The twins of [`crate::Template`], [`crate::Pool`] and [`crate::TemplateCache`].

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::blocking::machine::Machine;
use crate::blocking::wait::Background;
use crate::config::MachineConfig;
use crate::error::LaunchError;
use crate::error::LaunchErrorKind;
use crate::freeze::FreezeError;
use crate::manifest::TemplateError;
use crate::template::CacheError;
use crate::template::Making;
use crate::template::Place;
use crate::template::RamTransfer;
use crate::template::Spawn;
use crate::template::SpawnError;
use crate::template::StoreError;

impl Machine {
    /// Makes a template of this machine, as it is now, and ends it; see [`crate::Machine::freeze`].
    ///
    /// # Errors
    /// As there.
    pub fn freeze(&self) -> Result<Template, FreezeError> {
        let inner = self.background.wait("Machine::freeze", self.inner.freeze())?;
        Ok(Template { inner, background: self.background.clone() })
    }
}

/// A machine that was frozen, from which any number of machines can be made; see [`crate::Template`].
#[derive(Debug, Clone)]
pub struct Template {
    inner: crate::template::Template,
    background: Background,
}

impl Template {
    /// A template that was stored in this folder; see [`crate::Template::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, TemplateError> {
        let missing = |source| TemplateError::Missing { folder: folder.as_ref().to_owned(), source };
        let background = Background::start().map_err(missing)?;
        let inner = background.wait("Template::open", crate::template::Template::open(&folder))?;
        Ok(Self { inner, background })
    }

    /// [`TemplateCache::cached`] of [`TemplateCache::user`].
    ///
    /// # Errors
    /// As there.
    pub fn cached<F, E>(key: &str, config: &MachineConfig, boot: F) -> Result<Self, CacheError>
    where
        F: FnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        TemplateCache::user()?.cached(key, config, boot)
    }

    /// A machine that goes on where the template was frozen; see [`crate::Template::spawn`].
    ///
    /// # Errors
    /// As there.
    pub fn spawn(&self) -> Result<Machine, SpawnError> {
        self.spawn_with(&Spawn::new())
    }

    /// The same, as `spawn` says; see [`crate::Template::spawn_with`].
    ///
    /// # Errors
    /// As there.
    pub fn spawn_with(&self, spawn: &Spawn) -> Result<Machine, SpawnError> {
        let inner = self.background.wait("Template::spawn", self.inner.spawn_with(spawn))?;
        Ok(Machine { inner, background: self.background.clone() })
    }

    /// A pool of machines that are restored ahead; see [`crate::Template::pool`].
    ///
    /// # Errors
    /// As there.
    pub fn pool(&self, size: usize) -> Result<Pool, SpawnError> {
        self.pool_with(size, Spawn::new())
    }

    /// The same, each as `spawn` says; see [`crate::Template::pool_with`].
    ///
    /// # Errors
    /// As there.
    pub fn pool_with(&self, size: usize, spawn: Spawn) -> Result<Pool, SpawnError> {
        Ok(Pool { inner: self.inner.pool_with(size, spawn)?, background: self.background.clone() })
    }

    /// The same, and each machine is prepared before it stands ready; see [`crate::Template::prepared_pool`]. `prepare` may block: it has
    /// a thread to itself. When the pool goes, the machine is ended under it, which ends its waits.
    ///
    /// # Errors
    /// As there.
    pub fn prepared_pool<F, E>(&self, size: usize, spawn: Spawn, prepare: F) -> Result<Pool, SpawnError>
    where
        F: Fn(&Machine) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let background = self.background.clone();
        let inner = self.inner.prepared_pool(size, spawn, preparation(prepare, background.clone()))?;
        Ok(Pool { inner, background })
    }

    /// Moves a temporary template to where it stays; see [`crate::Template::store`].
    ///
    /// # Errors
    /// As there.
    pub fn store(self, path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let Self { inner, background } = self;
        let inner = background.wait("Template::store", inner.store(path))?;
        Ok(Self { inner, background })
    }

    /// How the RAM comes to the machines; see [`crate::Template::ram`].
    #[must_use]
    pub fn ram(&self) -> RamTransfer {
        self.inner.ram()
    }

    /// The folder that holds it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.inner.folder()
    }

    /// The template itself, for what needs no waiting.
    #[must_use]
    pub fn inner(&self) -> &crate::template::Template {
        &self.inner
    }
}

/// A pool's preparation out of one that blocks.
fn preparation<F, E>(
    prepare: F,
    background: Background,
) -> impl Fn(crate::machine::Machine) -> Preparing + Send + Sync + 'static
where
    F: Fn(&Machine) -> Result<(), E> + Send + Sync + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let prepare = Arc::new(prepare);
    move |inner| {
        let prepare = Arc::clone(&prepare);
        let machine = Machine { inner, background: background.clone() };
        Box::pin(async move {
            let prepared = spawn_blocking(move || prepare(&machine).map_err(Into::into));
            // A panic is told as an error, too.
            prepared.await.unwrap_or_else(|panic| Err(panic.into()))
        })
    }
}

type Preparing = Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send>>;

/// Machines that are started ahead; see [`crate::Pool`].
#[derive(Debug)]
pub struct Pool {
    inner: crate::template::Pool,
    background: Background,
}

impl Pool {
    /// A pool of plain machines; see [`MachineConfig::pool`].
    ///
    /// # Errors
    /// As there.
    pub fn of(config: &MachineConfig, size: usize) -> Result<Self, SpawnError> {
        let background = Background::start().map_err(SpawnError::Runtime)?;
        Ok(Self { inner: config.pool(size)?, background })
    }

    /// A pool of plain machines, each of which is prepared before it stands ready; see [`MachineConfig::prepared_pool`] and
    /// [`Template::prepared_pool`].
    ///
    /// # Errors
    /// As there.
    pub fn prepared<F, E>(config: &MachineConfig, size: usize, prepare: F) -> Result<Self, SpawnError>
    where
        F: Fn(&Machine) -> Result<(), E> + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let background = Background::start().map_err(SpawnError::Runtime)?;
        let inner = config.prepared_pool(size, preparation(prepare, background.clone()))?;
        Ok(Self { inner, background })
    }

    /// A machine that runs; see [`crate::Pool::take`].
    ///
    /// # Errors
    /// As there.
    pub fn take(&self) -> Result<Machine, SpawnError> {
        let inner = self.background.wait("Pool::take", self.inner.take())?;
        Ok(Machine { inner, background: self.background.clone() })
    }

    /// Waits until the pool is full; see [`crate::Pool::filled`].
    pub fn filled(&self) {
        self.background.wait("Pool::filled", self.inner.filled());
    }

    /// How many machines it holds at most.
    #[must_use]
    pub fn size(&self) -> usize {
        self.inner.size()
    }
}

/// A folder of templates with names; see [`crate::TemplateCache`], which also lists them.
#[derive(Debug, Clone)]
pub struct TemplateCache {
    inner: crate::template::TemplateCache,
    background: Background,
}

impl TemplateCache {
    /// The user's own; see [`crate::TemplateCache::user`].
    ///
    /// # Errors
    /// As there.
    pub fn user() -> Result<Self, CacheError> {
        Self::of(crate::template::TemplateCache::user()?)
    }

    /// This cache, without `async`.
    ///
    /// # Errors
    /// [`CacheError::Launch`] when the system gives no thread.
    pub fn of(cache: crate::template::TemplateCache) -> Result<Self, CacheError> {
        let background =
            Background::start().map_err(|error| LaunchError::new(LaunchErrorKind::Channel(error)))?;
        Ok(Self { inner: cache, background })
    }

    /// The template of `key` for this very machine, there already or made now; see [`crate::TemplateCache::cached`].
    ///
    /// # Errors
    /// As there.
    pub fn cached<F, E>(&self, key: &str, config: &MachineConfig, boot: F) -> Result<Template, CacheError>
    where
        F: FnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        match self.background.wait("TemplateCache::cached", self.inner.look(key, config))? {
            Place::Filled(inner) => Ok(self.template(inner)),
            Place::Empty(making) => self.make(*making, boot),
        }
    }

    /// Makes a template of this name; see [`crate::TemplateCache::create`].
    ///
    /// # Errors
    /// As there.
    pub fn create<F, E>(&self, name: &str, config: &MachineConfig, boot: F) -> Result<Template, CacheError>
    where
        F: FnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let making = self.background.wait("TemplateCache::create", self.inner.reserve(name, config))?;
        self.make(making, boot)
    }

    fn make<F, E>(&self, making: Making, boot: F) -> Result<Template, CacheError>
    where
        F: FnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let machine = Machine::launch(making.config())?;
        boot(&machine).map_err(|error| CacheError::Boot(error.into()))?;
        let inner = self.background.wait("Making::store", making.store(&machine.inner))?;
        Ok(self.template(inner))
    }

    /// The template of this name; see [`crate::TemplateCache::open`].
    ///
    /// # Errors
    /// As there.
    pub fn open(&self, name: &str) -> Result<Template, CacheError> {
        let inner = self.background.wait("TemplateCache::open", self.inner.open(name))?;
        Ok(self.template(inner))
    }

    /// Removes the template of this name; see [`crate::TemplateCache::remove`].
    ///
    /// # Errors
    /// As there.
    pub fn remove(&self, name: &str) -> Result<(), CacheError> {
        self.background.wait("TemplateCache::remove", self.inner.remove(name))
    }

    fn template(&self, inner: crate::template::Template) -> Template {
        Template { inner, background: self.background.clone() }
    }
}
