//! What one machine is made of: its body, with the files that are this machine's alone.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::body;
use crate::body::Body;
use crate::body::Files;
use crate::body::Restored;
use crate::config::MachineConfig;
use crate::config::PassedFd;
use crate::error::LaunchError;
use crate::error::LaunchErrorKind;
use crate::memory::Memory;

/// What the machine was made of, for one who wants to make it again.
pub(crate) enum Frame {
    /// Its description without what takes the most room: the arguments, which are the last words of its command line, and
    /// the descriptors.
    Plain { config: Box<MachineConfig>, arguments: usize, descriptors: usize },
    /// Of a body, with files of its own; `below` is what its disks are on, if that could go.
    Made { body: Box<Body>, files: Files, below: Option<Below> },
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { config, .. } => config.fmt(f),
            Self::Made { body, .. } => body.fmt(f),
        }
    }
}

/// What holds the files under a machine's disks: the template that it was made of.
pub(crate) type Below = Arc<dyn Any + Send + Sync>;

/// A machine that is to wait for the state of another one.
pub(crate) struct Restoring<'a> {
    pub(crate) body: &'a Body,
    pub(crate) ram: Restored<'a>,
    /// The images below its disks.
    pub(crate) below: &'a [PathBuf],
    /// The context id of its vsock device, if it has one.
    pub(crate) vsock: Option<u32>,
    pub(crate) holder: Below,
}

/// What the machine is made of: with files in its work folder, if it can be frozen or is restored.
pub(crate) fn make<'a>(
    config: &'a MachineConfig,
    restoring: Option<&Restoring<'_>>,
    work_folder: &Path,
    number: u64,
) -> Result<(Cow<'a, MachineConfig>, Frame), LaunchError> {
    // Another machine may be in the same folder.
    let prefix = format!("{number}-");
    let (body, made) = match restoring {
        None if config.freezable => {
            let refused = |source| LaunchError::new(LaunchErrorKind::NotFreezable(source));
            let body = Body::freezable(config).map_err(refused)?;
            let made = body.begin(work_folder, &prefix);
            (body, made)
        }
        None => {
            let (arguments, descriptors) = (config.args.len(), config.fds.len());
            // What the caller has lent is given back when the session ends: a transcript may hold the machine itself.
            let described =
                MachineConfig { args: Vec::new(), fds: Vec::new(), transcript: None, ..config.clone() };
            let frame = Frame::Plain { config: Box::new(described), arguments, descriptors };
            return Ok((Cow::Borrowed(config), frame));
        }
        Some(Restoring { body, ram, below, vsock, .. }) => {
            let made = body.restored(*ram, below, work_folder, &prefix);
            let renewed = made.map(|(mut arguments, files)| {
                vsock.iter().for_each(|cid| body::renew_vsock(&mut arguments, *cid));
                (arguments, files)
            });
            ((*body).clone(), renewed)
        }
    };
    let fault = |source| LaunchError::new(LaunchErrorKind::Files { folder: work_folder.to_owned(), source });
    let (args, files) = made.map_err(fault)?;
    let ram = files.ram.as_ref().map(Memory::descriptor);
    let below = restoring.filter(|_| !files.overlays.is_empty()).map(|it| Arc::clone(&it.holder));
    let frame = Frame::Made { body: Box::new(body), files, below };
    let mut config = MachineConfig { args, ..config.clone() };
    if let Some(ram) = ram {
        config.fds.push(PassedFd::at(ram.map_err(fault)?, body::RAM_NUMBER));
    }
    Ok((Cow::Owned(config), frame))
}
