//! What a machine is made of, so that the same machine can be made again: its description, its RAM, its disks.
//!
//! A machine that is to be frozen has its RAM in a file in memory and each disk under an overlay from its start on; one that
//! is restored has its RAM in the template's file, and overlays of its own.

mod recipe;

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::arguments;
use crate::config::MachineConfig;
use crate::config::Monitor;
use crate::config::WorkingFolder;
use crate::disks;
use crate::disks::Disk;
use crate::disks::NotFreezable;
use crate::memory::Memory;
use crate::options::Options;
use crate::options::doubled;
use crate::overlay;
use crate::overlay::Image;
pub(crate) use recipe::Recipe;

/// What a machine is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    pub(crate) recipe: Recipe,
    pub(crate) ram: Ram,
    /// The disks that it may write to, in the order in which they were found.
    pub(crate) disks: Vec<BodyDisk>,
    /// Whether ratite has given it the devices by which a restored guest learns that it is one.
    tells_generation: bool,
}

/// Where the RAM is, which QEMU has to be told in the same way each time: the backend's name is in the saved state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ram {
    /// In a backend of ratite's, of so many bytes.
    Ours { bytes: u64 },
    /// Wherever QEMU or the caller puts it, and why.
    Theirs { because: String },
}

/// How the RAM comes from one machine to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// It does not: it stays in the file that the first has had it in, and the next one maps that.
    Left,
    /// In the stream, with everything else.
    Streamed,
    /// In the file of the state, each page at its place (QEMU's `mapped-ram`).
    Placed,
}

/// All of them, the best first.
pub(crate) const WAYS: [Way; 3] = [Way::Left, Way::Placed, Way::Streamed];

/// A disk that the machine may write to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BodyDisk {
    /// The place among the caller's arguments at which it begins.
    place: usize,
    /// The image that the caller named, which stays as it is.
    pub(crate) path: PathBuf,
    format: String,
    size: u64,
}

/// The files that a machine has for itself, in its work folder and in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    /// The RAM, if it is in a file that the machine writes to.
    pub(crate) ram: Option<Memory>,
    /// The overlays, in the order of the disks.
    pub(crate) overlays: Vec<PathBuf>,
}

/// How a restored machine finds its RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored<'a> {
    /// In this file, of which it changes nothing.
    Mapped(&'a Path),
    /// In the stream with its state.
    Streamed,
}

/// The id of the backend that has the RAM.
pub(crate) const BACKEND: &str = "ratite-ram";

/// The number of the descriptor that leads a machine to its RAM.
pub(crate) const RAM_NUMBER: RawFd = 3;

/// What a PC has without being told: its default, by QEMU's documentation of `-m`.
const PC_RAM: u64 = 128 << 20;

impl Body {
    /// Of a machine that is to be frozen.
    ///
    /// # Errors
    /// [`NotFreezable`], with what stands in the way.
    pub(crate) fn freezable(config: &MachineConfig) -> Result<Self, NotFreezable> {
        check(config, config.fds.len())?;
        let folder = folder(config);
        let disks = disks::writable(&config.args, &folder)?;
        Ok(Self {
            recipe: Recipe::of(config, &folder),
            ram: ram(config),
            disks: disks.into_iter().map(BodyDisk::of).collect(),
            tells_generation: arguments::is_pc(config),
        })
    }

    /// Of a machine that was launched without a thought of freezing it, and that runs in `folder`. It had this many
    /// descriptors of its owner's.
    ///
    /// # Errors
    /// As [`Body::freezable`], but for its disks.
    pub(crate) fn plain(
        config: &MachineConfig,
        descriptors: usize,
        folder: &Path,
    ) -> Result<Self, NotFreezable> {
        check(config, descriptors)?;
        Ok(Self {
            recipe: Recipe::of(config, folder),
            ram: Ram::Theirs { because: "it was launched without `freezable`".into() },
            disks: Vec::new(),
            tells_generation: false,
        })
    }

    /// The arguments of the machine that is to be frozen, and its files. Overlays are made in `folder` with names that begin with
    /// `prefix`; the RAM has to be passed to it under [`RAM_NUMBER`].
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn begin(&self, folder: &Path, prefix: &str) -> io::Result<(Vec<OsString>, Files)> {
        let ram = match &self.ram {
            Ram::Ours { bytes } => Some(Memory::make(*bytes)?),
            Ram::Theirs { .. } => None,
        };
        let below = self.disks.iter().map(|disk| (disk.path.clone(), disk.image()));
        let overlays = put_overlays(below, folder, prefix)?;
        // By a name: QEMU takes no descriptor here, and would send the RAM of a backend without a name.
        let path = PathBuf::from(format!("/proc/self/fd/{RAM_NUMBER}"));
        let memory = ram.as_ref().map(|_| (path.as_path(), true));
        let arguments = self.arguments(&overlays, memory);
        Ok((arguments, Files { ram, overlays }))
    }

    /// The arguments of a restored machine, with overlays of its own in `folder` on the images `below`. It waits for its state
    /// (`-incoming defer`).
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn restored(
        &self,
        ram: Restored<'_>,
        below: &[PathBuf],
        folder: &Path,
        prefix: &str,
    ) -> io::Result<(Vec<OsString>, Files)> {
        let image = |size| Image { format: "qcow2".into(), size, backing: None, data: None };
        let below = below.iter().cloned().zip(self.disks.iter().map(|disk| image(disk.size)));
        let overlays = put_overlays(below, folder, prefix)?;
        let memory = match ram {
            Restored::Mapped(path) => Some((path, false)),
            Restored::Streamed => None,
        };
        let mut arguments = self.arguments(&overlays, memory);
        renew(&mut arguments, |device| device == "vmgenid", "guid", "auto");
        arguments.extend(["-incoming", "defer"].map(OsString::from));
        Ok((arguments, Files { ram: None, overlays }))
    }

    /// The caller's arguments between those for the RAM and those for the devices that are ratite's.
    fn arguments(&self, overlays: &[PathBuf], memory: Option<(&Path, bool)>) -> Vec<OsString> {
        let mut arguments = Vec::new();
        if let Ram::Ours { bytes } = self.ram {
            let backend = match memory {
                Some((path, shared)) => {
                    let mut backend =
                        OsString::from(format!("memory-backend-file,id={BACKEND},size={bytes},mem-path="));
                    backend.push(doubled(path.as_os_str()));
                    backend.push(if shared { ",share=on" } else { ",share=off" });
                    backend
                }
                None => format!("memory-backend-ram,id={BACKEND},size={bytes}").into(),
            };
            arguments.extend([
                "-object".into(),
                backend,
                "-machine".into(),
                format!("memory-backend={BACKEND}").into(),
            ]);
        }
        let places = self.disks.iter().map(|disk| disk.place);
        let theirs = disks::with_overlays(&self.recipe.arguments(), places.zip(overlays.iter().cloned()));
        let added = match self.tells_generation {
            true => generation_devices(&theirs),
            false => Vec::new(),
        };
        arguments.extend(theirs);
        arguments.extend(added);
        arguments
    }
}

/// Gives every vsock device this context id, by which the host knows the guest.
pub(crate) fn renew_vsock(arguments: &mut [OsString], cid: u32) {
    renew(arguments, |device| device.starts_with("vhost-vsock"), "guest-cid", &cid.to_string());
}

/// Whether there is a vsock device among the arguments.
pub(crate) fn has_vsock(arguments: &[OsString]) -> bool {
    devices(arguments).any(|(_, device)| device.starts_with("vhost-vsock"))
}

fn devices(arguments: &[OsString]) -> impl Iterator<Item = (usize, String)> {
    arguments::given(arguments, "device")
        .filter_map(|(place, value)| Some((place, arguments::device_type(value)?)))
}

fn renew(arguments: &mut [OsString], is_meant: impl Fn(&str) -> bool, key: &str, new: &str) {
    let places: Vec<_> =
        devices(arguments).filter(|(_, device)| is_meant(device)).map(|(place, _)| place + 1).collect();
    for place in places {
        let value = &arguments[place];
        let json = value.to_str().filter(|text| text.starts_with('{'));
        let changed = match json.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok()) {
            Some(mut device) => {
                device[key] = match new.parse::<u64>() {
                    Ok(number) => number.into(),
                    Err(_) => new.into(),
                };
                device.to_string().into()
            }
            None => Options::parse(value).with(key, new).text(),
        };
        arguments[place] = changed;
    }
}

/// The devices by which a restored guest learns that it is one, and finds randomness that no other has, unless the caller has
/// given them. At the end, where they take no place on the bus that another device was to have.
fn generation_devices(theirs: &[OsString]) -> Vec<OsString> {
    let mut added = Vec::new();
    if !arguments::has_device(theirs, &["vmgenid"]) {
        added.extend(["-device", "vmgenid,guid=auto"].map(OsString::from));
    }
    if !devices(theirs).any(|(_, device)| device.starts_with("virtio-rng")) {
        added.extend(["-device", "virtio-rng-pci"].map(OsString::from));
    }
    added
}

fn check(config: &MachineConfig, descriptors: usize) -> Result<(), NotFreezable> {
    match () {
        () if config.monitor == Monitor::Off => Err(NotFreezable::NoMonitor),
        () if descriptors > 0 => Err(NotFreezable::Descriptors { number: descriptors }),
        () if config.working_folder == WorkingFolder::Work => Err(NotFreezable::InWorkFolder),
        () => match arguments::shared_file(&config.args) {
            Some(backend) => Err(NotFreezable::SharedMemory { argument: backend }),
            None => Ok(()),
        },
    }
}

/// Where the machine's relative paths start.
fn folder(config: &MachineConfig) -> PathBuf {
    let folder = match &config.working_folder {
        WorkingFolder::At(folder) => std::path::absolute(folder),
        WorkingFolder::Callers | WorkingFolder::Work => std::env::current_dir(),
    };
    folder.unwrap_or_else(|_| "/".into())
}

fn ram(config: &MachineConfig) -> Ram {
    let gives_back = ["virtio-balloon", "virtio-mem"];
    let mut devices = devices(&config.args);
    if let Some((_, device)) = devices.find(|(_, device)| gives_back.iter().any(|it| device.starts_with(it)))
    {
        // QEMU gives pages back to the file itself, where others have them, too.
        return Ram::Theirs {
            because: format!("its device `{device}` would reach into the file under its RAM"),
        };
    }
    if arguments::has_memory_of_its_own(&config.args) {
        return Ram::Theirs { because: "its arguments put its RAM into backends of their own".into() };
    }
    let is_said = arguments::given(&config.args, "m").next().is_some();
    let size =
        arguments::memory_size(&config.args).or((!is_said && arguments::is_pc(config)).then_some(PC_RAM));
    match size {
        // QEMU rounds up what is no multiple of this.
        Some(size) if size % ALIGNED == 0 => Ram::Ours { bytes: size },
        Some(_) => Ram::Theirs { because: format!("the size of its RAM is no multiple of {ALIGNED} bytes") },
        None => Ram::Theirs { because: "its arguments do not say how much RAM it has (`-m`)".into() },
    }
}

/// What QEMU's sizes of RAM are multiples of.
const ALIGNED: u64 = 8192;

fn put_overlays(
    below: impl Iterator<Item = (PathBuf, Image)>,
    folder: &Path,
    prefix: &str,
) -> io::Result<Vec<PathBuf>> {
    let put = |(number, (below, image)): (usize, (PathBuf, Image))| {
        let path = folder.join(format!("{prefix}disk-{number}.qcow2"));
        let below = std::path::absolute(below)?;
        overlay::create(&path, &below, &image).map(|()| path)
    };
    below.enumerate().map(put).collect()
}

impl BodyDisk {
    fn of(disk: Disk) -> Self {
        let Disk { place, path, image } = disk;
        Self { place, path, format: image.format, size: image.size }
    }

    fn image(&self) -> Image {
        Image { format: self.format.clone(), size: self.size, backing: None, data: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pc() -> MachineConfig {
        MachineConfig::new("qemu-system-x86_64").machine_type("q35")
    }

    fn line(arguments: &[OsString]) -> String {
        arguments.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_freezable_machine_has_its_ram_in_a_file_and_overlays_on_its_disks() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        std::fs::write(&image, [0; 4096]).unwrap();
        let config = pc().args(["-m", "8", "-hda"]).arg(&image);
        let body = Body::freezable(&config).unwrap();

        let (begun, files) = body.begin(folder.path(), "0-").unwrap();

        let at = folder.path().display();
        assert_eq!(
            line(&begun),
            format!(
                "-object memory-backend-file,id=ratite-ram,size=8388608,mem-path=/proc/self/fd/3,share=on \
                 -machine memory-backend=ratite-ram -m 8 \
                 -drive index=0,media=disk,file={at}/0-disk-0.qcow2,format=qcow2 \
                 -device vmgenid,guid=auto -device virtio-rng-pci"
            ),
        );
        assert!(files.ram.is_some());
        assert_eq!(disks::chain(&files.overlays[0]).unwrap(), [files.overlays[0].clone(), image]);
    }

    #[test]
    fn a_restored_one_has_overlays_on_the_templates() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        std::fs::write(&image, [0; 4096]).unwrap();
        let config = pc().args(["-device", "vmgenid,guid=1-2", "-hda"]).arg(&image);
        let body = Body::freezable(&config).unwrap();

        let below = [PathBuf::from("/template/disk-0.qcow2")];
        let (restored, files) =
            body.restored(Restored::Mapped(Path::new("/template/ram")), &below, folder.path(), "7-").unwrap();

        let at = folder.path().display();
        assert_eq!(
            line(&restored),
            format!(
                "-object memory-backend-file,id=ratite-ram,size=134217728,mem-path=/template/ram,share=off \
                 -machine memory-backend=ratite-ram -device vmgenid,guid=auto \
                 -drive index=0,media=disk,file={at}/7-disk-0.qcow2,format=qcow2 \
                 -device virtio-rng-pci -incoming defer"
            ),
        );
        let seen = Image::look(&files.overlays[0], None).unwrap();
        assert_eq!((seen.size, seen.backing), (4096, Some(below[0].clone())));
    }

    #[test]
    fn ram_that_ratite_cannot_place_is_told_with_the_reason() {
        let because = |config: &MachineConfig| match Body::freezable(config).unwrap().ram {
            Ram::Theirs { because } => because,
            Ram::Ours { .. } => panic!("it was placed"),
        };

        assert!(because(&MachineConfig::new("qemu-system-arm")).contains("`-m`"));
        assert!(because(&pc().args(["-m", "1b"])).contains("multiple"));
        assert!(because(&pc().args(["-device", "virtio-balloon-pci"])).contains("virtio-balloon-pci"));
        assert!(because(&pc().args(["-machine", "memory-backend=x"])).contains("their own"));
        assert!(Body::plain(&pc(), 0, Path::new("/")).is_ok());
    }

    #[test]
    fn what_belongs_to_this_program_alone_is_refused() {
        let null = || std::fs::File::open("/dev/null").unwrap();
        let refusal = |config: MachineConfig| Body::freezable(&config).unwrap_err();

        assert!(matches!(refusal(pc().without_monitor()), NotFreezable::NoMonitor));
        assert!(matches!(refusal(pc().in_work_folder()), NotFreezable::InWorkFolder));
        let shared = ["-object", "memory-backend-file,id=m,size=1M,mem-path=/x,share=on"];
        assert!(matches!(refusal(pc().args(shared)), NotFreezable::SharedMemory { .. }));
        let passed = crate::config::PassedFd::at(null(), 9);
        assert!(matches!(refusal(pc().fd(passed)), NotFreezable::Descriptors { number: 1 }));
    }

    #[test]
    fn vsock_devices_get_the_id_in_both_ways_of_writing() {
        let mut arguments =
            ["-device", "vhost-vsock-pci,guest-cid=3", "-device", r#"{"driver":"vhost-vsock-pci"}"#]
                .map(OsString::from);
        assert!(has_vsock(&arguments));

        renew_vsock(&mut arguments, 77);

        assert_eq!(arguments[1], "vhost-vsock-pci,guest-cid=77");
        assert_eq!(arguments[3], r#"{"driver":"vhost-vsock-pci","guest-cid":77}"#);
    }

    #[test]
    fn a_body_comes_back_from_its_text() {
        let body = Body::freezable(&pc().args(["-m", "64"])).unwrap();

        let text = serde_json::to_string(&body).unwrap();

        let back: Body = serde_json::from_str(&text).unwrap();
        assert_eq!((back.ram, back.tells_generation), (Ram::Ours { bytes: 64 << 20 }, true));
    }
}
