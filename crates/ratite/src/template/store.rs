//! Templates that stay: how one comes to its place whole or not at all, and how nobody removes one that is in use.

use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::runtime::aside;
use crate::template::Held;
use crate::template::Keeper;
use crate::template::Template;

/// Why a template was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else holds it, a clone or a pool, and would lose it.
    #[error("the template is held by somebody else, too, and cannot be moved")]
    Held(Template),
    /// There is something at that place.
    #[error("there is something at `{}` already", path.display())]
    Taken {
        /// The place.
        path: PathBuf,
        /// The template, which is where it was.
        template: Template,
    },
    /// The system refused.
    #[error("could not store the template at `{}`", path.display())]
    System {
        /// The place.
        path: PathBuf,
        /// What the system said; a place on another file system cannot be moved to.
        source: io::Error,
        /// The template, if it is where it was; else it is at its new place, perhaps not on the disk yet.
        template: Option<Template>,
    },
}

impl StoreError {
    /// The template, if it is where it was.
    #[must_use]
    pub fn template(&self) -> Option<&Template> {
        match self {
            Self::Held(template) | Self::Taken { template, .. } => Some(template),
            Self::System { template, .. } => template.as_ref(),
        }
    }
}

/// A mark on a stored template that it is in use, for as long as this lives; any number may have one at once.
#[derive(Debug)]
pub(super) struct Lease {
    _folder: File,
}

impl Lease {
    pub(super) fn take(template: &Path) -> io::Result<Self> {
        let folder = Self::locked(template, FlockOperation::LockShared)?;
        folder.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// `None` if the folder was removed or replaced by the one who had it before.
    fn locked(template: &Path, how: FlockOperation) -> io::Result<Option<Self>> {
        let folder = File::open(template)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&folder, how))?;
        let same = |there: Metadata, ours: Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
        let is_there =
            std::fs::metadata(template).is_ok_and(|it| folder.metadata().is_ok_and(|ours| same(it, ours)));
        Ok(is_there.then_some(Self { _folder: folder }))
    }

    /// The whole of it, if nobody has it in use.
    pub(super) fn alone(template: &Path) -> io::Result<Option<Self>> {
        match Self::locked(template, FlockOperation::NonBlockingLockExclusive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            outcome => outcome,
        }
    }
}

impl Template {
    /// Moves a temporary template to `path`, where it stays when this program is gone. `path` must not be there, and be on the file
    /// system of [`Template::folder`], which is that of the machine's base folder. It is on the disk when this returns
    /// (fsync(2)), and at no moment there by half.
    ///
    /// A template that is stored already is stored once more only under the same rules.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn store(self, path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let held = Arc::try_unwrap(self.0).map_err(|held| StoreError::Held(Self(held)))?;
        aside(move || move_to(held, &path)).await
    }
}

fn move_to(held: Held, path: &Path) -> Result<Template, StoreError> {
    let moved = std::path::absolute(path).and_then(|there| {
        rename(&held.path, &there)?;
        Ok(there)
    });
    let there = match moved {
        Ok(there) => there,
        Err(source) => {
            let (path, template) = (path.to_owned(), Template(Arc::new(held)));
            return Err(match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                    StoreError::Taken { path, template }
                }
                _ => StoreError::System { path, source, template: Some(template) },
            });
        }
    };
    let Held { manifest, keeper, below, .. } = held;
    // The folder around it, if it had one, is empty now.
    drop(keeper);
    let fault = |source| StoreError::System { path: path.to_owned(), source, template: None };
    let parent = there.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(fault)?;
    tracing::debug!(template = %there.display(), "a template is stored");
    let lease = Lease::take(&there).map_err(fault)?;
    Ok(Template(Arc::new(Held { path: there, manifest, keeper: Keeper::Stored(lease), below })))
}

/// Renames a template's folder once all that is in it is on the disk.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(from)?.sync_all()?;
    tracing::debug!(template = %from.display(), "a template is on the disk");
    let flags = rustix::fs::RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, flags) {
        // A file system that does not know how (NFS).
        Err(Errno::INVAL | Errno::NOSYS) if to.exists() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(Errno::INVAL | Errno::NOSYS) => std::fs::rename(from, to),
        outcome => Ok(outcome?),
    }
}
