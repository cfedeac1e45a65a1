//! Disk images that hold only what differs from another image: QEMU's qcow2, as its "docs/interop/qcow2" describes it.
//!
//! An overlay is written here and not by `qemu-img`, which is a package of its own, and which would take as long as a whole
//! restored machine.

use std::ffi::OsString;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::SeekFrom;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// What is to be known of an image to put another one on top of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Its format, as QEMU names it.
    pub(crate) format: String,
    /// How large a disk the guest sees, in bytes.
    pub(crate) size: u64,
    /// The image below it, if it is an overlay itself.
    pub(crate) backing: Option<PathBuf>,
    /// The file that has its contents, if it has not got them itself.
    pub(crate) data: Option<PathBuf>,
}

/// The first four bytes of a qcow2 image.
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// The beginnings of other formats, by which they are told from raw images.
const OTHERS: [(&[u8], &str); 6] = [
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"QED\0", "qed"),
    (b"<<< ", "vdi"),
];

impl Image {
    /// Looks at an image. What it does not know the beginning of is taken for a raw one, unless `format` says what it is.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::Unsupported`] for a format of which only QEMU knows the size.
    pub(crate) fn look(path: &Path, format: Option<&str>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD).read_to_end(&mut head)?;
        let seen = match head.starts_with(&MAGIC) {
            true => "qcow2",
            false => OTHERS.iter().find(|(magic, _)| head.starts_with(magic)).map_or("raw", |(_, name)| name),
        };
        match format.unwrap_or(seen) {
            "qcow2" if head.len() >= SHORTEST => {
                let at = |offset: usize| {
                    u64::from_be_bytes(head[offset..offset + 8].try_into().expect("eight bytes"))
                };
                let length = u32::from_be_bytes(head[16..20].try_into().expect("four bytes"));
                let backing = backing(&file, path, at(8), length)?;
                let data = data_file(&head, path);
                Ok(Self { format: "qcow2".into(), size: at(24), backing, data })
            }
            "qcow2" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too short for a qcow2 image")),
            "raw" => {
                // As QEMU does, in whole sectors. A block device's length is where its end is.
                let size = file.seek(SeekFrom::End(0))?.next_multiple_of(512);
                Ok(Self { format: "raw".into(), size, backing: None, data: None })
            }
            other => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it is a {other} image; overlays are made for raw and qcow2 images only"),
            )),
        }
    }
}

/// How much of an image is looked at, and how much of it a qcow2 image has at least.
const HEAD: u64 = 1 << 16;
const SHORTEST: usize = 72;

/// The file with the contents of an image that has them elsewhere ("external data file"), by the extension of its header.
fn data_file(head: &[u8], path: &Path) -> Option<PathBuf> {
    let word = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().expect("four bytes")));
    // The lower half of the features that a reader has to know, which there are from version 3 on.
    if word(4)? < 3 || word(76)? & EXTERNAL_DATA == 0 {
        return None;
    }
    let mut at = word(100)? as usize;
    loop {
        let (kind, length) = (word(at)?, word(at + 4)? as usize);
        match kind {
            0 => return None,
            DATA_FILE => {
                let name = head.get(at + 8..at + 8 + length)?;
                return Some(beside(path, name.to_vec()));
            }
            _ => at = (at + 8).checked_add(length)?.checked_next_multiple_of(8)?,
        }
    }
}

const EXTERNAL_DATA: u32 = 1 << 2;
const DATA_FILE: u32 = 0x4441_5441;

/// A relative name starts from the image's folder.
fn beside(image: &Path, name: Vec<u8>) -> PathBuf {
    image.parent().unwrap_or(Path::new("")).join(OsString::from_vec(name))
}

fn backing(image: &File, path: &Path, offset: u64, length: u32) -> io::Result<Option<PathBuf>> {
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    if length > LONGEST_NAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the name of its backing file is too long"));
    }
    let mut name = vec![0; length as usize];
    image.read_exact_at(&mut name, offset)?;
    Ok(Some(beside(path, name)))
}

/// The longest name of a backing file that the format has room for, in bytes.
const LONGEST_NAME: u32 = 1023;

/// The size of the pieces in which an overlay is kept.
const CLUSTER: u64 = 1 << 16;

/// How large a disk one entry of the first table stands for: a cluster full of addresses of clusters.
const PER_ENTRY: u64 = CLUSTER / 8 * CLUSTER;

/// The largest disk: the table with an entry for each part of it fills no more than 32 MiB (QEMU's limit).
const LARGEST: u64 = (32 << 20) / 8 * PER_ENTRY;

/// Makes an image at `path`, which must not be there, that is as `below` until somebody writes to it. Mode 0600.
///
/// # Errors
/// What the system said; a disk that is too large, a path that is too long.
pub(crate) fn create(path: &Path, below: &Path, image: &Image) -> io::Result<()> {
    let name = below.as_os_str().as_bytes();
    if name.len() > LONGEST_NAME as usize {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the path of the image below is longer than {LONGEST_NAME} bytes"),
        ));
    }
    if image.size > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the disk is larger than 2 PiB"));
    }
    let entries = image.size.div_ceil(PER_ENTRY).max(1);
    let table = (entries * 8).div_ceil(CLUSTER);
    let clusters = TABLE + table;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // What is not written is zeros: no cluster of the disk is here yet.
    file.set_len(clusters * CLUSTER)?;
    file.write_all_at(&header(name, &image.format, image.size, entries), 0)?;
    file.write_all_at(&(REFERENCES * CLUSTER).to_be_bytes(), REFERENCE_TABLE * CLUSTER)?;
    let counts: Vec<u8> = (0..clusters).flat_map(|_| 1_u16.to_be_bytes()).collect();
    file.write_all_at(&counts, REFERENCES * CLUSTER)
}

/// Which cluster has what, behind the header.
const REFERENCE_TABLE: u64 = 1;
const REFERENCES: u64 = 2;
const TABLE: u64 = 3;

/// The header of version 3, the format of the image below, and its name.
fn header(name: &[u8], format: &str, size: u64, entries: u64) -> Vec<u8> {
    let mut extensions = 0xe279_2aca_u32.to_be_bytes().to_vec();
    extensions.extend(length(format.len()).to_be_bytes());
    extensions.extend(format.as_bytes());
    extensions.resize(extensions.len().next_multiple_of(8), 0);
    extensions.extend([0; 8]);
    let mut header = MAGIC.to_vec();
    header.extend(3_u32.to_be_bytes());
    header.extend((u64::from(HEADER) + extensions.len() as u64).to_be_bytes());
    header.extend(length(name.len()).to_be_bytes());
    header.extend(CLUSTER.trailing_zeros().to_be_bytes());
    header.extend(size.to_be_bytes());
    // Not encrypted.
    header.extend(0_u32.to_be_bytes());
    header.extend(u32::try_from(entries).expect("the largest disk has fewer").to_be_bytes());
    header.extend((TABLE * CLUSTER).to_be_bytes());
    header.extend((REFERENCE_TABLE * CLUSTER).to_be_bytes());
    // One cluster of the reference table; no snapshots; no features of any kind.
    header.extend(1_u32.to_be_bytes());
    header.extend([0; 4 + 8 + 8 + 8 + 8]);
    // A reference count has two to the fourth bits.
    header.extend(4_u32.to_be_bytes());
    header.extend(HEADER.to_be_bytes());
    header.extend(extensions);
    header.extend(name);
    header
}

/// The length of the header without its extensions, in bytes.
const HEADER: u32 = 104;

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a name or a format is short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_tells_what_it_was_made_of() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        File::create(&below).unwrap().set_len((3 << 30) + 700).unwrap();
        let image = Image::look(&below, None).unwrap();
        let overlay = folder.path().join("overlay");

        create(&overlay, &below, &image).unwrap();

        assert_eq!(image, Image { format: "raw".into(), size: (3 << 30) + 1024, backing: None, data: None });
        let seen = Image::look(&overlay, None).unwrap();
        assert_eq!(
            seen,
            Image { format: "qcow2".into(), size: image.size, backing: Some(below), data: None }
        );
    }

    #[test]
    fn a_file_that_has_the_contents_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let mut bytes = header(b"", "raw", 4096, 1);
        bytes[79] = 4;
        let end = HEADER as usize + 16;
        assert_eq!(bytes[end..end + 8], [0; 8]);
        bytes.truncate(end);
        bytes.extend(DATA_FILE.to_be_bytes());
        bytes.extend(length("contents".len()).to_be_bytes());
        bytes.extend(b"contents");
        bytes.extend([0; 8]);
        std::fs::write(&image, &bytes).unwrap();

        assert_eq!(Image::look(&image, None).unwrap().data, Some(folder.path().join("contents")));
        bytes[79] = 0;
        std::fs::write(&image, &bytes).unwrap();
        assert_eq!(Image::look(&image, None).unwrap().data, None);
    }

    #[test]
    fn a_relative_name_starts_from_the_overlays_folder() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image { format: "raw".into(), size: 512, backing: None, data: None };
        let overlay = folder.path().join("overlay");

        create(&overlay, Path::new("below"), &image).unwrap();

        let backing = Image::look(&overlay, Some("qcow2")).unwrap().backing;
        assert_eq!(backing, Some(folder.path().join("below")));
    }

    #[test]
    fn formats_that_only_qemu_can_measure_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, b"KDMV....").unwrap();

        let error = Image::look(&image, None).unwrap_err();

        assert!(error.to_string().contains("vmdk"), "{error}");
        assert_eq!(Image::look(&image, Some("raw")).unwrap().size, 512);
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let image = Image { format: "raw".into(), size: 512, backing: None, data: None };
        let overlay = folder.path().join("overlay");
        std::fs::write(&overlay, "mine").unwrap();

        assert!(create(&overlay, Path::new("/below"), &image).is_err());
        assert_eq!(std::fs::read(&overlay).unwrap(), b"mine");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let overlay = folder.path().join("overlay");
        let image = |size| Image { format: "raw".into(), size, backing: None, data: None };

        assert!(create(&overlay, Path::new(&"x".repeat(1024)), &image(512)).is_err());
        assert!(create(&overlay, Path::new("/below"), &image(LARGEST + 1)).is_err());
        assert!(!overlay.exists());
    }
}
