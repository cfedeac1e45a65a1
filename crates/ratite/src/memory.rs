//! The RAM of a machine that is to be frozen: a file in memory (memfd_create(2)), which takes no longer to write to than any
//! other memory, where a file on a disk has its file system asked at each new page.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use rustix::io::Errno;

use crate::seal::BLOCK;
use crate::seal::data_from;
use crate::seal::is_zero;

/// A file in memory. It goes with the last process that has it.
#[derive(Debug, Clone)]
pub(crate) struct Memory(Arc<File>);

impl Memory {
    /// So many bytes, all of them 0; nothing is taken of the system's memory for what nobody writes to.
    pub(crate) fn make(bytes: u64) -> io::Result<Self> {
        let make = |flags| rustix::fs::memfd_create("ratite-ram", MemfdFlags::CLOEXEC | flags);
        let made = match make(MemfdFlags::NOEXEC_SEAL) {
            // Linux before 6.3.
            Err(Errno::INVAL) => make(MemfdFlags::empty())?,
            made => made?,
        };
        let file = File::from(made);
        file.set_len(bytes)?;
        Ok(Self(Arc::new(file)))
    }

    /// One more descriptor of it.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// Writes what is in it to a new file at `path`, and leaves out what is 0. Mode 0600.
    pub(crate) fn copy_to(&self, path: &Path) -> io::Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let length = self.0.metadata()?.len();
        file.set_len(length)?;
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while let Some(data) = data_from(&self.0, at, length) {
            at = data - data % BLOCK as u64;
            let wanted = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..wanted];
            self.0.read_exact_at(piece, at)?;
            let mut place = 0;
            while place < wanted {
                place += run(&piece[place..], true);
                let data = run(&piece[place..], false);
                file.write_all_at(&piece[place..place + data], at + place as u64)?;
                place += data;
            }
            at += wanted as u64;
        }
        Ok(())
    }
}

/// How many bytes at the beginning are in blocks that are all 0, or that are not.
fn run(bytes: &[u8], zero: bool) -> usize {
    bytes.chunks(BLOCK).take_while(|block| is_zero(block) == zero).map(<[u8]>::len).sum()
}

/// How much is copied at once.
const PIECE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_copy_has_the_same_content_and_no_room_for_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("copy");
        let memory = Memory::make((9 << 20) + 4096).unwrap();
        for (place, text) in [(5000, "one"), ((1 << 20) - 2, "across"), (9 << 20, "last")] {
            memory.0.write_all_at(text.as_bytes(), place).unwrap();
        }
        memory.0.write_all_at(&[0; 1 << 20], 4 << 20).unwrap();

        memory.copy_to(&path).unwrap();

        let mut expected = vec![0; (9 << 20) + 4096];
        memory.0.read_exact_at(&mut expected, 0).unwrap();
        assert!(std::fs::read(&path).unwrap() == expected);
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20);
        assert!(memory.copy_to(&path).is_err(), "nothing is overwritten");
    }
}
