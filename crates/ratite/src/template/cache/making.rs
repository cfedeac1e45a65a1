//! The place of a template in a cache, and the right to fill it.

use std::error::Error;

use crate::config::MachineConfig;
use crate::machine::Machine;
use crate::runtime::background;
use crate::template::Template;
use crate::template::cache::CacheError;
use crate::template::cache::TemplateCache;
use crate::template::cache::lock::Lock;

/// The place of a template in a cache.
#[derive(Debug)]
pub enum Place {
    /// There it is.
    Filled(Template),
    /// It is to be made, by whoever has this.
    Empty(Box<Making>),
}

/// The right to make a template, and the duty: others wait until this is dropped.
#[derive(Debug)]
#[must_use = "others wait until this is dropped"]
pub struct Making {
    cache: TemplateCache,
    name: String,
    /// What it is found by, if not by its name.
    key: Option<String>,
    config: MachineConfig,
    _lock: Lock,
}

impl Making {
    pub(super) fn new(
        cache: TemplateCache,
        name: String,
        key: Option<String>,
        config: &MachineConfig,
        lock: Lock,
    ) -> Self {
        // In the same file system, so that the last step is a rename.
        let config = config.clone().freezable().base_folder(&cache.folder);
        Self { cache, name, key, config, _lock: lock }
    }

    /// What is to be launched, brought to where it is to be frozen, and given to [`Making::store`].
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Freezes the machine and stores the template in its place.
    ///
    /// # Errors
    /// [`CacheError::Freeze`], [`CacheError::Store`]; nothing is kept of a template that was not finished.
    pub async fn store(self, machine: &Machine) -> Result<Template, CacheError> {
        let path = self.cache.folder.join(&self.name);
        let template = machine.freeze().await?;
        // A task of its own: whoever goes away meanwhile is not to let others in before it is done.
        let runtime = background().map_err(|source| CacheError::Folder { path: path.clone(), source })?;
        let storing = runtime.spawn(async move {
            let stored = template.store(&path).await;
            if let (Ok(_), Some(key)) = (&stored, &self.key) {
                self.cache.drop_old_ones(key, &self.name).await;
            }
            stored
        });
        Ok(storing.await.expect("storing does not panic")?)
    }

    pub(super) async fn make<F, E>(self, boot: F) -> Result<Template, CacheError>
    where
        F: AsyncFnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let machine = self.config.launch().await?;
        boot(&machine).await.map_err(|error| CacheError::Boot(error.into()))?;
        self.store(&machine).await
    }
}
