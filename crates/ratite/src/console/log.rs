//! The file that gets every byte of a console.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::console::stamps::Stamps;

#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    file: File,
    stamps: Option<Stamps>,
}

impl LogFile {
    pub(super) fn create(path: &Path, stamped: bool) -> io::Result<Self> {
        // Non-blocking for what is no plain file: a pipe that nobody reads must hold up neither launch nor guest.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), file, stamps: stamped.then(Stamps::begin) })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stamps {
            None => self.file.write_all(bytes),
            Some(stamps) => self.file.write_all(&stamps.stamp(bytes)),
        }
    }
}
