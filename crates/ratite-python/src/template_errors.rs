//! From the errors around templates to the exceptions of `ratite._errors`.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use pyo3::prelude::*;
use ratite::CacheError;
use ratite::FreezeError;
use ratite::MigrationError;
use ratite::SpawnError;
use ratite::StoreError;
use ratite::TemplateError;

use crate::errors::Raise;
use crate::errors::bytes;
use crate::errors::chain;
use crate::errors::field;
use crate::errors::process_exit;
use crate::errors::raise;
use crate::pool::Unprepared;

/// A template that is not to be had any more, for the reason that finishes "the template …".
pub(crate) fn not_there(py: Python<'_>, why: &str) -> PyErr {
    raise(py, "TemplateError", format!("the template {why}"), [field(py, "kind", "closed")])
}

/// The number of what the system said, if it is at the bottom of it.
fn errno(error: &dyn Error) -> Option<i32> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        source = cause.source();
    }
    None
}

impl Raise for TemplateError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let (kind, path) = match &self {
            Self::Missing { folder, .. } => ("missing", Some(folder)),
            Self::Unreadable { folder, .. } => ("unreadable", Some(folder)),
            Self::Gone { file, .. } => ("gone", Some(file)),
            Self::Size { file, .. } => ("size", Some(file)),
            Self::Changed { file } => ("changed", Some(file)),
            Self::OtherQemu { binary, .. } => ("other-qemu", Some(binary)),
            _ => ("other", None),
        };
        let fields =
            [field(py, "kind", kind), field(py, "path", path.map(text)), field(py, "errno", errno(&self))];
        raise(py, "TemplateError", chain(&self), fields)
    }
}

fn text(path: impl AsRef<Path>) -> std::ffi::OsString {
    path.as_ref().into()
}

/// Why a machine was not frozen, and the machine, which knows more if it has ended.
pub(crate) struct Unfrozen {
    pub(crate) source: FreezeError,
    pub(crate) machine: Arc<ratite::Machine>,
}

impl Raise for Unfrozen {
    fn raise(self, py: Python<'_>) -> PyErr {
        match &self.source {
            FreezeError::Exited(exit) => {
                let log = self.machine.log().tail(LAST_WORDS).unwrap_or_default();
                let fields = [process_exit(py, Some(*exit)), bytes(py, "log", &log)];
                raise(py, "MachineExited", chain(&self.source), fields)
            }
            _ => self.source.raise(py),
        }
    }
}

/// How much of the log an error carries.
const LAST_WORDS: usize = 8 << 10;

impl Raise for FreezeError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let (kind, reasons) = match &self {
            Self::NotFreezable(reason) => ("not-freezable", vec![chain(reason)]),
            Self::Blocked { reasons } => ("blocked", reasons.clone()),
            Self::BlockJob { job, .. } => ("block-job", vec![job.clone()]),
            Self::WritableDisk { disk, .. } => ("writable-disk", vec![disk.clone()]),
            Self::Save(MigrationError::Refused { words, .. } | MigrationError::Failed { words }) => {
                ("save", vec![words.clone()])
            }
            Self::Save(_) => ("save", Vec::new()),
            Self::Command(_) => ("command", Vec::new()),
            Self::Folder(_) => ("folder", Vec::new()),
            Self::Files { .. } => ("files", Vec::new()),
            Self::Exited(_) => ("exited", Vec::new()),
            Self::Unkillable(_) => ("unkillable", Vec::new()),
            _ => ("other", Vec::new()),
        };
        let fields =
            [field(py, "kind", kind), field(py, "reasons", reasons), field(py, "errno", errno(&self))];
        let error = raise(py, "FreezeError", chain(&self), fields);
        match self {
            Self::Command(cause) | Self::Save(MigrationError::Command(cause)) => {
                error.set_cause(py, Some(cause.raise(py)));
            }
            Self::Save(MigrationError::Silent(cause)) => error.set_cause(py, Some(cause.raise(py))),
            _ => {}
        }
        error
    }
}

impl Raise for SpawnError {
    fn raise(self, py: Python<'_>) -> PyErr {
        // Its `Debug` is the report for people: causes and last words.
        let message = format!("{self:?}");
        match self {
            Self::Template(error) => error.raise(py),
            Self::Launch(error) => error.raise(py),
            Self::Restore { exit, log, .. } => {
                let fields = [field(py, "kind", "restore"), process_exit(py, exit), bytes(py, "log", &log)];
                raise(py, "SpawnError", message, fields)
            }
            Self::NoConsole { .. } | Self::EmptyPool => raise(py, "ConfigError", message, []),
            Self::Resume(cause) => {
                let error = raise(py, "SpawnError", message, [field(py, "kind", "resume")]);
                error.set_cause(py, Some(cause.raise(py)));
                error
            }
            Self::Prepare(cause) => {
                let error = raise(py, "SpawnError", message, [field(py, "kind", "prepare")]);
                if let Ok(cause) = cause.downcast::<Unprepared>()
                    && let Unprepared::Raised(raised) = *cause
                {
                    error.set_cause(py, Some(raised.into_error()));
                }
                error
            }
            _ => raise(py, "SpawnError", message, []),
        }
    }
}

impl Raise for StoreError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let (kind, path) = match &self {
            Self::Held(_) => ("held", None),
            Self::Taken { path, .. } => ("taken", Some(path)),
            Self::System { path, .. } => ("system", Some(path)),
            _ => ("other", None),
        };
        let fields =
            [field(py, "kind", kind), field(py, "path", path.map(text)), field(py, "errno", errno(&self))];
        raise(py, "StoreError", chain(&self), fields)
    }
}

impl Raise for CacheError {
    fn raise(self, py: Python<'_>) -> PyErr {
        let message = chain(&self);
        let kind = match &self {
            Self::Name { .. } => "name",
            Self::Folder { .. } => "folder",
            Self::NoFolder => "no-folder",
            Self::Busy(_) => "busy",
            Self::Taken { .. } => "taken",
            Self::InUse { .. } => "in-use",
            Self::Key(_) => "key",
            _ => "other",
        };
        let fields = [field(py, "kind", kind), field(py, "errno", errno(&self))];
        match self {
            Self::Launch(error) => error.raise(py),
            Self::Freeze(error) => error.raise(py),
            Self::Store(error) => error.raise(py),
            Self::Template(error) => error.raise(py),
            Self::Busy(cause) => {
                let error = raise(py, "CacheError", message, fields);
                error.set_cause(py, Some(cause.raise(py)));
                error
            }
            _ => raise(py, "CacheError", message, fields),
        }
    }
}
