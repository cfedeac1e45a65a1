//! Machines that are booted once, frozen, and restored as often as somebody wants one.
//!
//! ```text
//! boot ─► Machine::freeze ─► Template ─┬─► spawn ─► Machine
//!                                      ├─► spawn ─► Machine       each with RAM and disks of its own
//!                                      └─► pool  ─► Machine …     started ahead
//! ```

mod cache;
mod pool;
mod spawn;
mod store;

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

pub use cache::CacheError;
pub use cache::Making;
pub use cache::Place;
pub use cache::TemplateCache;
pub use cache::TemplateEntry;
pub use pool::Pool;
pub use spawn::Spawn;
pub use spawn::SpawnError;
pub use store::StoreError;

use crate::body::Way;
use crate::frame::Below;
use crate::freeze;
use crate::freeze::FreezeError;
use crate::freeze::Frozen;
use crate::machine::Machine;
use crate::manifest::Manifest;
use crate::manifest::TemplateError;
use crate::runtime::aside;
use crate::work_folder::WorkFolder;
use store::Lease;

/// A machine that was frozen, from which any number of machines can be made that go on where it stopped.
///
/// Cheap to clone. One of [`Machine::freeze`] is temporary: its folder goes with the last clone, and with this program however
/// that ends. One that was stored stays; see [`Template::store`] and [`TemplateCache`].
#[derive(Debug, Clone)]
pub struct Template(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// The template's own folder.
    path: PathBuf,
    manifest: Manifest,
    keeper: Keeper,
    /// What its disks are on in turn: the template of the machine that was frozen, where that was restored itself.
    below: HeldBelow,
}

/// Held, not looked at.
struct HeldBelow(#[expect(dead_code, reason = "it is held, not read")] Option<Below>);

impl fmt::Debug for HeldBelow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldBelow")
    }
}

/// What keeps a template from going.
#[derive(Debug)]
enum Keeper {
    /// The folder around it, which goes with this.
    Temporary(#[expect(dead_code, reason = "it is held, not read")] WorkFolder),
    /// Others who would remove it see that it is in use.
    Stored(#[expect(dead_code, reason = "it is held, not read")] Lease),
}

/// How the RAM of a template comes to its machines.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RamTransfer {
    /// It is mapped from a file, and copied page by page as it is written to: the quickest way, and the one that takes the
    /// least memory.
    Mapped,
    /// It is read from QEMU's migration stream, all of it, for the reason that is told.
    Streamed {
        /// Why it is not mapped.
        because: String,
    },
    /// As streamed, but each page has its place in the file (QEMU's `mapped-ram`).
    Placed {
        /// Why it is not mapped.
        because: String,
    },
}

impl Machine {
    /// Makes a template of this machine, as it is now, and ends it: its RAM and its disks become the template's.
    ///
    /// It is stopped, its state is saved, and it is ended by force. Works for any machine with a monitor; one that was launched with
    /// [`crate::MachineConfig::freezable`] has its RAM where it is copied in one go, without QEMU, and disks of which no byte has to
    /// be moved. The folder is made in the machine's base folder.
    ///
    /// Bounded: each command by [`crate::Timeouts::command`], and so is the time in which nothing of the state comes. Needs no
    /// particular runtime. Whoever drops the future before it is done has a machine that goes on, in the background; in the last
    /// moment, when the machine is being ended already, neither is left.
    ///
    /// # Errors
    /// [`FreezeError`], with the device or the job that is to blame. The machine goes on as it was; what there is of a template is
    /// removed. One that stood still stands still, though QEMU may call that `postmigrate` from then on.
    pub async fn freeze(&self) -> Result<Template, FreezeError> {
        let Frozen { folder, path, manifest, below } = freeze::freeze(&self.running).await?;
        let below = HeldBelow(below);
        Ok(Template(Arc::new(Held { path, manifest, keeper: Keeper::Temporary(folder), below })))
    }
}

impl Template {
    /// A template that was stored in this folder, whole and of the QEMU that made it.
    ///
    /// A copy of a folder that was made elsewhere is read once, which takes some ten milliseconds for each 100 MB of RAM.
    ///
    /// # Errors
    /// [`TemplateError`], with the file that is missing or damaged.
    pub async fn open(folder: impl AsRef<Path>) -> Result<Self, TemplateError> {
        let folder = folder.as_ref();
        let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        aside(move || Self::open_here(path)).await
    }

    fn open_here(path: PathBuf) -> Result<Self, TemplateError> {
        // First, so that nobody removes what is just being looked at.
        let lease = Lease::take(&path);
        let lease = lease.map_err(|source| TemplateError::Missing { folder: path.clone(), source })?;
        let manifest = Manifest::read(&path)?.checked(&path)?;
        Ok(Self(Arc::new(Held { path, manifest, keeper: Keeper::Stored(lease), below: HeldBelow(None) })))
    }

    /// A machine that goes on where the template was frozen, with nothing but defaults; see [`Template::spawn_with`].
    ///
    /// # Errors
    /// As there.
    pub async fn spawn(&self) -> Result<Machine, SpawnError> {
        self.spawn_with(&Spawn::new()).await
    }

    /// A machine that goes on where the template was frozen.
    ///
    /// It shares with the template what it does not change, and neither the template nor any other machine sees what it changes.
    /// Its consoles, its monitor and its log are new and begin with the resume. A guest that was at a prompt is at a prompt: the line
    /// that stood on a console when it was frozen stands there, as read by the machine's own handle, and unread by a new
    /// [`crate::Console::reader`]. What
    /// harms in a twin is new: the generation id (`vmgenid`), the context id of a vsock device, and the wall clock of
    /// a guest whose agent answered when it was frozen. The guide tells what else a guest has to do.
    ///
    /// As [`crate::MachineConfig::launch`]: must be called within a tokio runtime, is bounded, and leaves nothing behind when it is
    /// cancelled.
    ///
    /// # Errors
    /// [`SpawnError`]: of the template, before QEMU is started; of QEMU, with its last words.
    pub async fn spawn_with(&self, spawn: &Spawn) -> Result<Machine, SpawnError> {
        let machine = self.restored(spawn).await?;
        spawn::resume(&machine, &self.0.manifest, spawn).await?;
        Ok(machine)
    }

    /// The same, standing still.
    async fn restored(&self, spawn: &Spawn) -> Result<Machine, SpawnError> {
        if !self.0.manifest.is_untouched(&self.0.path) {
            // They may have to be read.
            let held = Arc::clone(&self.0);
            aside(move || held.manifest.check(&held.path)).await?;
        }
        spawn::restore(&self.0.path, &self.0.manifest, spawn, self.0.clone()).await
    }

    /// How the RAM comes to the machines, and if not in the quickest way, why.
    #[must_use]
    pub fn ram(&self) -> RamTransfer {
        let because = self.0.manifest.because.clone().unwrap_or_default();
        match self.0.manifest.way {
            Way::Left => RamTransfer::Mapped,
            Way::Streamed => RamTransfer::Streamed { because },
            Way::Placed => RamTransfer::Placed { because },
        }
    }

    /// The folder that holds it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.path
    }

    /// When it was made, by the wall clock, in whole seconds.
    #[must_use]
    pub fn made(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.manifest.made)
    }

    /// The version of the QEMU that made it, as that says it.
    #[must_use]
    pub fn qemu_version(&self) -> &str {
        &self.0.manifest.qemu.version
    }

    /// The names of its consoles.
    pub fn consoles(&self) -> impl Iterator<Item = String> {
        self.0.manifest.body.recipe.config().consoles.into_iter().map(|console| console.name)
    }

    fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }
}
