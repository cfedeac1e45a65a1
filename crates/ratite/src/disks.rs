//! The disks that a machine's arguments let it write to, and the same arguments with other images in their place.
//!
//! Pure but for looking at the images.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use crate::arguments;
use crate::options::Options;
use crate::overlay::Image;

/// Why a machine cannot be made a template of, as far as its description tells.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotFreezable {
    /// A disk cannot be put under an overlay.
    #[error("the disk `{argument}` cannot be frozen: {reason}")]
    Disk {
        /// The argument that gives it.
        argument: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// An image could not be looked at.
    #[error("the image `{}` cannot be frozen", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What the system said, or what it is.
        source: io::Error,
    },
    /// Descriptors of this program are its alone.
    #[error("it was given descriptors of this program ({number} of them), which no other machine can have")]
    Descriptors {
        /// How many.
        number: usize,
    },
    /// Its RAM, or a part of it, is in a file that each machine of the same arguments would write to.
    #[error("its memory backend `{argument}` is a file that others share; leave out `share=on`")]
    SharedMemory {
        /// The argument that gives it.
        argument: String,
    },
    /// Nobody can ask it to save its state.
    #[error("it has no QMP monitor, over which its state is asked for")]
    NoMonitor,
    /// Its paths are relative to a folder that goes with it.
    #[error("its working folder is its work folder, which goes with it")]
    InWorkFolder,
    /// Of a block device nobody can tell later whether it is as it was.
    #[error("the image `{}` is no regular file, so nobody could tell later whether it has changed", path.display())]
    NotRegular {
        /// The image.
        path: PathBuf,
    },
}

/// A disk that the machine may write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// The place among the arguments at which it begins.
    pub(crate) place: usize,
    /// The image that the caller named.
    pub(crate) path: PathBuf,
    pub(crate) image: Image,
}

/// Options that are a `-drive` in short, and what the rest of that would be.
const SHORT: [(&str, &str); 9] = [
    ("hda", "index=0,media=disk"),
    ("hdb", "index=1,media=disk"),
    ("hdc", "index=2,media=disk"),
    ("hdd", "index=3,media=disk"),
    ("fda", "if=floppy,index=0"),
    ("fdb", "if=floppy,index=1"),
    ("sd", "if=sd"),
    ("mtdblock", "if=mtd"),
    ("pflash", "if=pflash"),
];

/// The disks of these arguments that can be written to; relative paths start from `folder`.
///
/// # Errors
/// [`NotFreezable`] for one that no overlay can be put on.
pub(crate) fn writable(arguments: &[OsString], folder: &Path) -> Result<Vec<Disk>, NotFreezable> {
    for (_, value) in arguments::given(arguments, "blockdev") {
        check_blockdev(value)?;
    }
    let drives = drives(arguments);
    drives.filter_map(|(words, options)| disk(words.start, &options, folder).transpose()).collect()
}

/// The `-drive`s among the arguments, with those that are written in short, and which words they are.
fn drives(arguments: &[OsString]) -> impl Iterator<Item = (Range<usize>, Options)> {
    let both = |place: usize| place..place + 2;
    let shortened = |rest: &str, file: &OsStr| Options::parse(OsStr::new(rest)).with("file", file);
    let long =
        arguments::given(arguments, "drive").map(move |(place, value)| (both(place), Options::parse(value)));
    let short = SHORT.iter().flat_map(move |(name, rest)| {
        arguments::given(arguments, name).map(move |(place, value)| (both(place), shortened(rest, value)))
    });
    let shortest = arguments::words_alone(arguments).into_iter();
    let shortest = shortest.map(move |place| (place..place + 1, shortened(ALONE, &arguments[place])));
    long.chain(short).chain(shortest)
}

/// What a word that stands alone would be behind `-drive`.
const ALONE: &str = "index=0,media=disk";

fn disk(place: usize, options: &Options, folder: &Path) -> Result<Option<Disk>, NotFreezable> {
    let is_read_only = ["readonly", "read-only"].iter().any(|key| options.is_on(key));
    if is_read_only || options.get("media").is_some_and(|media| media == "cdrom") {
        return Ok(None);
    }
    let refused = |reason: &str| NotFreezable::Disk {
        argument: options.text().to_string_lossy().into_owned(),
        reason: reason.into(),
    };
    let Some(file) = options.get("file").or_else(|| options.get("file.filename")) else { return Ok(None) };
    if has_protocol(file) {
        return Err(refused("it is no file of this system; add `readonly=on`, or leave it out"));
    }
    let path = folder.join(file);
    let fault = |source| NotFreezable::Image { path: path.clone(), source };
    if !std::fs::metadata(&path).map_err(fault)?.is_file() {
        return Err(NotFreezable::NotRegular { path });
    }
    let format = options.get("format").or_else(|| options.get("driver"));
    let format = format.map(|format| format.to_string_lossy().into_owned());
    let image = Image::look(&path, format.as_deref()).map_err(fault)?;
    Ok(Some(Disk { place, path, image }))
}

/// Whether QEMU would not take this for the name of a file: `nbd://…`, `json:…`, `fat:…`. What comes before a `:` is a
/// protocol, unless there is a `/` in it.
fn has_protocol(file: &OsStr) -> bool {
    let bytes = file.as_encoded_bytes();
    memchr::memchr2(b':', b'/', bytes).is_some_and(|at| bytes[at] == b':')
}

/// Only what cannot be written to may stand in a `-blockdev`: which of its nodes is the disk is for QEMU to say.
fn check_blockdev(value: &OsStr) -> Result<(), NotFreezable> {
    let text = value.to_string_lossy();
    let (is_read_only, driver) = match serde_json::from_str::<Value>(&text) {
        Ok(node) => (node["read-only"] == true, node["driver"].as_str().unwrap_or_default().to_owned()),
        Err(_) => {
            let options = Options::parse(value);
            let driver = options.get("driver").or_else(|| options.implied()).unwrap_or_default();
            (options.is_on("read-only"), driver.to_string_lossy().into_owned())
        }
    };
    if is_read_only || driver.starts_with("null-") {
        return Ok(());
    }
    let reason = "a `-blockdev` that can be written to; give the disk by `-drive`, or add `read-only=on` to each of its nodes";
    Err(NotFreezable::Disk { argument: text.into_owned(), reason: reason.into() })
}

/// The arguments with the image at `overlays` (qcow2) in place of each disk's own, and without `-snapshot`, which would
/// put a further one on top.
pub(crate) fn with_overlays(
    arguments: &[OsString],
    overlays: impl IntoIterator<Item = (usize, PathBuf)>,
) -> Vec<OsString> {
    let mut changed = arguments.to_vec();
    let drives: Vec<_> = drives(arguments).collect();
    let mut overlays: Vec<_> = overlays.into_iter().collect();
    // From the last on, so that each is where it was found.
    overlays.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    for (place, overlay) in overlays {
        let Some((words, options)) = drives.iter().find(|(words, _)| words.start == place) else { continue };
        let options =
            ["snapshot", "driver", "file.filename"].iter().fold(options.clone(), |it, key| it.without(key));
        let options = options.with("file", overlay).with("format", "qcow2").text();
        changed.splice(words.clone(), ["-drive".into(), options]);
    }
    changed.retain(|word| !arguments::is_option(word, "snapshot"));
    changed
}

/// Options whose files are written, and so are nothing that a machine depends on.
const WRITTEN: [&str; 12] = [
    "D", "pidfile", "chardev", "serial", "parallel", "debugcon", "monitor", "qmp", "trace", "name", "append",
    "object",
];

/// Every regular file that the arguments name, or that is in a folder of firmware (`-L`), or is named in a file of arguments
/// (`-readconfig`), and the files that disk images are made of besides: what a machine depends on besides its arguments.
/// Files that QEMU writes are left out.
pub(crate) fn named_files(arguments: &[OsString], folder: &Path) -> BTreeSet<PathBuf> {
    let mut names = Vec::new();
    let is_written = |place: usize| {
        let option = place.checked_sub(1).map(|before| &arguments[before]);
        option.is_some_and(|option| WRITTEN.iter().any(|name| arguments::is_option(option, name)))
    };
    for (_, argument) in arguments.iter().enumerate().filter(|(place, _)| !is_written(*place)) {
        names.push(argument.clone());
        names.extend(Options::parse(argument).values().map(OsStr::to_owned));
        if let Some(node) = argument.to_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            collect_texts(&node, &mut names);
        }
    }
    for (_, config) in arguments::given(arguments, "readconfig") {
        // `key = "value"`, a line each.
        let text = std::fs::read_to_string(folder.join(config)).unwrap_or_default();
        names.extend(text.lines().filter_map(|line| line.split('"').nth(1)).map(OsString::from));
    }
    for (_, firmware) in arguments::given(arguments, "L") {
        let entries = std::fs::read_dir(folder.join(firmware)).into_iter().flatten().flatten();
        names.extend(entries.map(|entry| entry.path().into_os_string()));
    }
    names.retain(|name| !name.is_empty());
    let mut found: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
    let mut files = BTreeSet::new();
    while let Some(path) = found.pop() {
        if is_regular(&path) && !files.contains(&path) {
            found.extend(parts(&path));
            files.insert(path);
        }
    }
    files
}

/// The other files that an image is made of.
fn parts(path: &Path) -> impl Iterator<Item = PathBuf> {
    let image = Image::look(path, None).ok();
    image.into_iter().flat_map(|image| image.backing.into_iter().chain(image.data))
}

/// An image and all that are below it, with the files that have their data.
///
/// # Errors
/// [`NotFreezable::Image`], with the one that cannot be looked at.
pub(crate) fn chain(path: &Path) -> Result<Vec<PathBuf>, NotFreezable> {
    let mut chain = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next.filter(|path| !chain.contains(path)) {
        let image = Image::look(&path, None);
        // What QEMU alone can measure has no image below it that ratite could put one on.
        let (below, data) = match image {
            Ok(image) => (image.backing, image.data),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => (None, None),
            Err(source) => return Err(NotFreezable::Image { path, source }),
        };
        next = below;
        chain.push(path);
        chain.extend(data);
    }
    Ok(chain)
}

fn is_regular(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

fn collect_texts(value: &Value, texts: &mut Vec<OsString>) {
    match value {
        Value::String(text) => texts.push(text.into()),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(members) => members.values().for_each(|value| collect_texts(value, texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.img", "b.img"] {
            std::fs::write(folder.path().join(name), [0; 1024]).unwrap();
        }
        folder
    }

    #[test]
    fn disks_that_can_be_written_to_are_found_and_replaced() {
        let folder = folder();
        let arguments = words(
            "-snapshot -drive file=a.img,format=raw,if=virtio,snapshot=on -hdb b.img \
             -drive file=b.img,readonly=on -cdrom b.img -S a.img -drive if=none,id=empty",
        );

        let disks = writable(&arguments, folder.path()).unwrap();

        assert_eq!(disks.iter().map(|disk| disk.place).collect::<Vec<_>>(), [1, 3, 10]);
        let overlays = disks.iter().map(|disk| (disk.place, PathBuf::from(format!("/o,{}", disk.place))));
        assert_eq!(
            with_overlays(&arguments, overlays),
            words(
                "-drive if=virtio,file=/o,,1,format=qcow2 -drive index=1,media=disk,file=/o,,3,format=qcow2 \
                 -drive file=b.img,readonly=on -cdrom b.img -S \
                 -drive index=0,media=disk,file=/o,,10,format=qcow2 -drive if=none,id=empty"
            ),
        );
    }

    #[test]
    fn disks_that_nobody_can_put_an_overlay_on_are_refused_by_name() {
        let folder = folder();
        let refusal = |line: &str| writable(&words(line), folder.path()).unwrap_err().to_string();

        assert!(refusal("-drive file=nbd://host/x,if=virtio").contains("`file=nbd://host/x,if=virtio`"));
        assert!(refusal("-blockdev driver=qcow2,node-name=d,file=f").contains("read-only=on"));
        assert!(refusal(r#"-blockdev {"driver":"raw","node-name":"d"}"#).contains("node-name"));
        assert!(refusal("-hda missing.img").contains("missing.img"));
        assert!(refusal("-hda /dev/null").contains("/dev/null"));
        let harmless = words(r#"-blockdev {"driver":"raw","read-only":true} -blockdev null-co,node-name=n"#);
        assert_eq!(writable(&harmless, folder.path()).unwrap(), []);
    }

    #[test]
    fn files_of_firmware_and_of_arguments_are_found() {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("firmware")).unwrap();
        std::fs::write(at("firmware/bios.bin"), "x").unwrap();
        std::fs::write(at("machine.cfg"), "[drive]\n  if = \"none\"\n  file = \"a.img\"\n").unwrap();

        let files = named_files(&words("-L firmware -readconfig machine.cfg"), folder.path());

        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            ["a.img", "firmware/bios.bin", "machine.cfg"].map(at)
        );
    }

    #[test]
    fn every_file_that_is_named_is_found_with_those_below_it() {
        let folder = folder();
        let below = folder.path().join("a.img");
        let image = Image::look(&below, None).unwrap();
        crate::overlay::create(&folder.path().join("top.qcow2"), &below, &image).unwrap();
        let arguments =
            words(r#"-kernel b.img -drive file=top.qcow2 -blockdev {"x":{"filename":"b.img"}} -m 64"#);

        let files = named_files(&arguments, folder.path());

        let names = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
        assert_eq!(names.collect::<Vec<_>>(), ["a.img", "b.img", "top.qcow2"]);
        assert_eq!(chain(&folder.path().join("top.qcow2")).unwrap().len(), 2);
        std::fs::remove_file(below).unwrap();
        assert!(chain(&folder.path().join("top.qcow2")).unwrap_err().to_string().contains("a.img"));
    }
}
