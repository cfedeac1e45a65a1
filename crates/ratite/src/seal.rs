//! What a file was when it was made: its size and times, by which it is known again without being read, and a digest of its
//! content for one that was copied since.

use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;
use twox_hash::XxHash3_128;

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seal {
    stamp: Stamp,
    /// Of the content; `None` where it was too dear.
    digest: Option<Digest>,
}

/// How large a file may be to be read for a digest while somebody waits.
const SOON_READ: u64 = 256 << 20;

/// Longer than a file system's clock takes to go on.
const CLOCK_TICKS: Duration = Duration::from_millis(100);

/// How a file that was sealed differs from what it was.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It is not there, or cannot be read.
    Gone(io::Error),
    /// It is shorter or longer.
    Size { was: u64, is: u64 },
    /// It has the same size, and another content, as far as can be told.
    Changed,
}

impl Seal {
    /// Seals a file, which is read for that.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // Before it is read: whoever writes to it meanwhile breaks the seal.
        let stamp = Stamp::of(&file.metadata()?);
        Ok(Self { stamp, digest: Some(Digest::of(&file)?) })
    }

    /// Seals a file; with a digest only where that is soon made.
    pub(crate) fn light(path: &Path) -> io::Result<Self> {
        match std::fs::metadata(path)?.len() <= SOON_READ {
            true => Self::of(path),
            false => Self::without_reading(path),
        }
    }

    /// Whether the file was left alone for so long that its next change will have another time.
    pub(crate) fn is_settled(&self) -> bool {
        let (seconds, nanoseconds) = self.stamp.changed;
        let changed = Duration::new(seconds.unsigned_abs(), u32::try_from(nanoseconds).unwrap_or_default());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(changed) > CLOCK_TICKS
    }

    /// Whether this is the very file, which nobody has written to since, by its times alone.
    pub(crate) fn is_untouched(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }

    /// Seals a file by its size and times alone.
    pub(crate) fn without_reading(path: &Path) -> io::Result<Self> {
        Ok(Self { stamp: Stamp::of(&std::fs::metadata(path)?), digest: None })
    }

    /// The digest that was made, if this is the very file, which nobody has written to since.
    pub(crate) fn known(&self, path: &Path) -> Option<&Digest> {
        let stamp = Stamp::of(&std::fs::metadata(path).ok()?);
        self.digest.as_ref().filter(|_| stamp == self.stamp)
    }

    /// The digest that was made.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether the file is as it was: the very file, which nobody has written to since, or one of the same content.
    pub(crate) fn check(&self, path: &Path) -> Result<(), Broken> {
        let metadata = std::fs::metadata(path).map_err(Broken::Gone)?;
        if metadata.len() != self.stamp.size {
            return Err(Broken::Size { was: self.stamp.size, is: metadata.len() });
        }
        if Stamp::of(&metadata) == self.stamp {
            return Ok(());
        }
        let digest = self.digest.as_ref().ok_or(Broken::Changed)?;
        let is_same = File::open(path).and_then(|file| Digest::of(&file)).map_err(Broken::Gone)? == *digest;
        is_same.then_some(()).ok_or(Broken::Changed)
    }

    /// Takes a file of the same content for the one that was sealed; whether it is another one.
    pub(crate) fn renew(&mut self, path: &Path) -> bool {
        match std::fs::metadata(path).map(|metadata| Stamp::of(&metadata)) {
            Ok(stamp) if stamp != self.stamp => {
                self.stamp = stamp;
                true
            }
            _ => false,
        }
    }
}

/// What changes when somebody writes to a file, or puts another one in its place: no program can set `changed` back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// 128 bits that two different contents have only by a chance that nobody meets (XXH3; no protection against somebody who
/// looks for two such contents).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest(String);

/// How much is read at once.
const PIECE: usize = 1 << 20;

impl Digest {
    /// Of a file from its beginning on. Holes are not read; a block of zeros counts as a hole does.
    pub(crate) fn of(mut file: &File) -> io::Result<Self> {
        let mut hash = XxHash3_128::new();
        let length = file.metadata()?.len();
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while let Some(data) = data_from(file, at, length) {
            at = data - data % PIECE as u64;
            file.seek(SeekFrom::Start(at))?;
            let wanted = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..wanted];
            file.read_exact(piece)?;
            for block in piece.chunks(BLOCK) {
                if !is_zero(block) {
                    hash.write(&at.to_le_bytes());
                    hash.write(block);
                }
                at += block.len() as u64;
            }
        }
        hash.write(&length.to_le_bytes());
        Ok(Self::finished(&hash))
    }

    /// Of a few texts, each of them whole.
    pub(crate) fn of_texts<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = XxHash3_128::new();
        for text in texts {
            hash.write(&(text.len() as u64).to_le_bytes());
            hash.write(text);
        }
        Self::finished(&hash)
    }

    fn finished(hash: &XxHash3_128) -> Self {
        Self(format!("{:032x}", hash.finish_128()))
    }

    /// As 32 digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The unit in which zeros are left out: a page of most processors.
pub(crate) const BLOCK: usize = 4096;

pub(crate) fn is_zero(block: &[u8]) -> bool {
    // A comparison of memory, which is quick in a program without optimisations, too.
    block == &[0; BLOCK][..block.len()]
}

/// Where the next data of a file begins. A file system that knows no holes has data everywhere.
pub(crate) fn data_from(file: &File, at: u64, length: u64) -> Option<u64> {
    if at >= length {
        return None;
    }
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => Some(data),
        Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;

    fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn a_file_is_known_again_until_somebody_writes_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "file", b"0123456789");
        let seal = Seal::of(&path).unwrap();
        assert!(seal.check(&path).is_ok());

        File::options().write(true).open(&path).unwrap().write_all(b"x").unwrap();
        assert!(matches!(seal.check(&path), Err(Broken::Changed)));
        std::fs::write(&path, "01234").unwrap();
        assert!(matches!(seal.check(&path), Err(Broken::Size { was: 10, is: 5 })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(seal.check(&path), Err(Broken::Gone(_))));
    }

    #[test]
    fn a_copy_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "file", b"0123456789");
        let copy = file(folder.path(), "copy", b"0123456789");

        assert!(Seal::of(&path).unwrap().check(&copy).is_ok());
        assert!(matches!(Seal::without_reading(&path).unwrap().check(&copy), Err(Broken::Changed)));
    }

    #[test]
    fn holes_and_zeros_are_the_same_and_places_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let content = |places: &[u64]| {
            let path = folder.path().join(format!("{places:?}"));
            let file = File::create(&path).unwrap();
            file.set_len(9 << 20).unwrap();
            places.iter().for_each(|place| file.write_all_at(b"x", *place).unwrap());
            path
        };
        let sparse = content(&[5 << 20]);
        let full = file(folder.path(), "full", &std::fs::read(&sparse).unwrap());
        let other = content(&[(5 << 20) + 4096]);

        let digest = |path: &Path| Digest::of(&File::open(path).unwrap()).unwrap();
        assert_eq!(digest(&sparse), digest(&full));
        assert_ne!(digest(&sparse), digest(&other));
    }
}
