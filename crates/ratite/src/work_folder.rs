//! A folder for one run, made in the name of this program: its guard knows of it, and what dead programs left is swept.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::error::LaunchError;
use crate::error::LaunchErrorKind;
use crate::guard;
use crate::guard::OwnerMark;
use crate::process::start_tied;
use crate::procfs;
use crate::runtime::aside;
use crate::runtime::background;
use crate::runtime::pass;
use crate::workdir;
use crate::workdir::Workdir;

/// A work folder that is made before its machine, for what QEMU is to find there: disk images, sockets, firmware.
///
/// Has mode 0700 and a name that no other has. Cheap to clone. It is removed when the last clone is dropped and no machine
/// that was launched with it has yet to be; and however this program ends, by the guard or the next launch of any
/// program. In a process that was forked off this one, dropping it removes nothing.
#[derive(Debug, Clone)]
pub struct WorkFolder {
    folder: Arc<Workdir>,
    owner: OwnerMark,
}

impl WorkFolder {
    /// Makes a folder `qemu-machine-…` in `base`.
    ///
    /// # Errors
    /// [`LaunchErrorKind::WorkFolder`] with what the system said.
    pub fn create(base: impl AsRef<Path>) -> Result<Self, LaunchError> {
        Self::make(base.as_ref(), false)
    }

    /// The same, but the folder is left behind, for a look at what went wrong; its name is `qemu-machine-kept-…`.
    ///
    /// # Errors
    /// As [`WorkFolder::create`].
    pub fn create_kept(base: impl AsRef<Path>) -> Result<Self, LaunchError> {
        Self::make(base.as_ref(), true)
    }

    pub(crate) fn make(base: &Path, keep: bool) -> Result<Self, LaunchError> {
        // Absolute: the guard and the sweep do not share our current folder.
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        let fault = |source| LaunchError::new(LaunchErrorKind::WorkFolder { base: base.clone(), source });
        let owner = guard::enlist(&base, start_tied).map_err(fault)?;
        sweep_aside(&base);
        let keep = keep || std::env::var_os("RATITE_KEEP").is_some_and(|value| value == "1");
        let prefix = match keep {
            // The guard removes what bears the owner's mark; what is to be kept bears none.
            true => format!("{}kept-", guard::FOLDER_PREFIX),
            false => format!("{}{}-", guard::FOLDER_PREFIX, owner.as_str()),
        };
        let folder = Workdir::create(&base, &prefix, keep).map_err(fault)?;
        Ok(Self { folder: Arc::new(folder), owner })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it at once if this is its last holder and there is nothing in it that takes its time; what is left otherwise.
    pub(crate) fn settle(self) -> Option<Self> {
        let Self { folder, owner } = self;
        match Arc::try_unwrap(folder) {
            // Others need it yet.
            Err(_theirs) => None,
            Ok(mut folder) => match folder.settle() {
                true => None,
                false => Some(Self { folder: Arc::new(folder), owner }),
            },
        }
    }

    pub(crate) fn owner(&self) -> &OwnerMark {
        &self.owner
    }
}

/// How far apart sweeps of one base folder are at least.
const SWEEPS: Duration = Duration::from_millis(500);

/// When a base folder was swept last, or is to be next.
static SWEPT: Mutex<BTreeMap<PathBuf, Instant>> = Mutex::new(BTreeMap::new());

/// Sweeps what dead programs have left in `base`, beside the launch: at once, or together with what other launches want, a
/// moment after the last time.
fn sweep_aside(base: &Path) {
    let now = Instant::now();
    let pause = {
        let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
        swept.retain(|_, last| *last + SWEEPS > now);
        match swept.get_mut(base) {
            // One is still to come, and sees what this one would.
            Some(last) if *last > now => return,
            Some(last) => {
                *last += SWEEPS;
                *last - now
            }
            None => {
                swept.insert(base.to_owned(), now);
                Duration::ZERO
            }
        }
    };
    let Ok(runtime) = background() else { return };
    let base = base.to_owned();
    runtime.spawn(async move {
        // One sweep is to do for all who launch meanwhile.
        pass(pause).await;
        aside(move || sweep(&base)).await;
    });
}

fn sweep(base: &Path) {
    // Of an owner whose number means nothing here, only the lock tells whether it lives.
    let numbers_tell = procfs::is_ours();
    let is_alive = |pid, start| {
        numbers_tell
            && start != guard::UNKNOWN_START
            && procfs::start_time(pid).is_ok_and(|living| living == start)
    };
    workdir::sweep(base, guard::owner_in_folder_name, is_alive);
}
