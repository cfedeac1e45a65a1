//! What a template's folder holds, and whether it still does.
//!
//! ```text
//! FOLDER/template.json   this; written last, so that a folder without it is no template
//! FOLDER/state           what QEMU has said of the devices, and of the RAM unless that is in:
//! FOLDER/ram
//! FOLDER/disk-0.qcow2    and so on: what was written to each disk, on top of the caller's image
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

use crate::body::Body;
use crate::body::Way;
use crate::program;
use crate::seal::Broken;
use crate::seal::Seal;

/// What is wrong with a template. QEMU was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// There is none, or it was not finished.
    #[error("there is no template in `{}`", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its description cannot be read.
    #[error("the template in `{}` cannot be read: {reason}", folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file or a folder that it needs is gone.
    #[error("`{}`, which the template needs, is gone", file.display())]
    Gone {
        /// The file: the template's own, or an image below its disks.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is shorter or longer than it was.
    #[error("`{}` has {is} bytes, and had {was} when the template was made", file.display())]
    Size {
        /// The file.
        file: PathBuf,
        /// How long it was, in bytes.
        was: u64,
        /// How long it is.
        is: u64,
    },
    /// A file has another content.
    #[error("`{}` has changed since the template was made", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// It was made by another QEMU.
    #[error("the template was made by QEMU {version}, and `{}` is another one{}", binary.display(), now(is.as_deref()))]
    OtherQemu {
        /// The binary that is there now.
        binary: PathBuf,
        /// The version that made the template.
        version: String,
        /// The version that is there, if it came to be asked.
        is: Option<String>,
    },
}

impl TemplateError {
    /// Whether the template itself is no good, so that another one may take its place; not if it only could not be read now.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Missing { source, .. } | Self::Gone { source, .. } => {
                [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&source.kind())
            }
            Self::Unreadable { .. } | Self::Size { .. } | Self::Changed { .. } | Self::OtherQemu { .. } => {
                true
            }
        }
    }
}

fn now(is: Option<&str>) -> String {
    is.map_or_else(String::new, |version| format!(": {version}"))
}

/// The kind of folder that is written here. One of another kind is not read.
const FORMAT: u32 = 1;

/// The names of the files.
pub(crate) const MANIFEST: &str = "template.json";
pub(crate) const STATE: &str = "state";
pub(crate) const RAM: &str = "ram";

/// The file of disk `number`.
pub(crate) fn disk(number: usize) -> String {
    format!("disk-{number}.qcow2")
}

/// Whether a file of this name is one of a template's, or was on its way to be its description.
pub(crate) fn is_of_template(name: &OsStr) -> bool {
    let is_disk = |name: &str| {
        let number = name.strip_prefix("disk-").and_then(|rest| rest.strip_suffix(".qcow2"));
        number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
    };
    name.to_str().is_some_and(|name| {
        [MANIFEST, STATE, RAM].contains(&name) || is_disk(name) || name.starts_with(".tmp")
    })
}

/// What a template's folder holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    /// When it was made, in seconds since 1970.
    pub(crate) made: u64,
    pub(crate) qemu: Qemu,
    pub(crate) body: Body,
    pub(crate) way: Way,
    /// Why not by the best way, if so.
    pub(crate) because: Option<String>,
    /// Whether the agent in the guest answered just before.
    pub(crate) agent_answers: bool,
    /// What stood in the last line of each console.
    pub(crate) standing: BTreeMap<String, String>,
    state: Seal,
    ram: Option<Seal>,
    disks: Vec<Seal>,
    /// The images below the disks, and what else the arguments name, as they were.
    images: Vec<(PathBuf, Seal)>,
}

/// The QEMU that made it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Qemu {
    pub(crate) version: String,
    /// The binary, if it could be found.
    pub(crate) binary: Option<(PathBuf, Seal)>,
}

/// What is said of a template besides its files.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) body: Body,
    pub(crate) way: Way,
    pub(crate) because: Option<String>,
    pub(crate) version: String,
    pub(crate) agent_answers: bool,
    pub(crate) standing: BTreeMap<String, String>,
}

impl Manifest {
    /// Seals the files in `folder`, and writes what they are.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn write(folder: &Path, facts: Facts, images: Vec<PathBuf>) -> io::Result<Self> {
        let Facts { body, way, because, version, agent_answers, standing } = facts;
        let seal = |name: &str| Seal::of(&folder.join(name));
        let ram = (way == Way::Left).then(|| seal(RAM)).transpose()?;
        let disks = (0..body.disks.len()).map(|number| seal(&disk(number))).collect::<io::Result<_>>()?;
        let images = images.into_iter().map(|path| Ok((path.clone(), Seal::light(&path)?)));
        let images = images.collect::<io::Result<_>>()?;
        let binary =
            binary(&body).map(|path| Ok::<_, io::Error>((path.clone(), Seal::of(&path)?))).transpose()?;
        let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let state = seal(STATE)?;
        let qemu = Qemu { version, binary };
        let manifest = Self {
            format: FORMAT,
            made,
            qemu,
            body,
            way,
            because,
            agent_answers,
            standing,
            state,
            ram,
            disks,
            images,
        };
        manifest.put(folder)?;
        Ok(manifest)
    }

    /// Reads what is in `folder`.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub(crate) fn read(folder: &Path) -> Result<Self, TemplateError> {
        let missing = |source| TemplateError::Missing { folder: folder.to_owned(), source };
        let text = std::fs::read(folder.join(MANIFEST)).map_err(missing)?;
        let unreadable = |reason: String| TemplateError::Unreadable { folder: folder.to_owned(), reason };
        /// What every kind of template says of itself.
        #[derive(Deserialize)]
        struct Kind {
            format: u32,
        }
        match serde_json::from_slice::<Kind>(&text) {
            Ok(Kind { format: FORMAT }) => {}
            Ok(Kind { format }) => {
                return Err(unreadable(format!("it is of format {format}, and this ratite knows {FORMAT}")));
            }
            Err(error) => return Err(unreadable(error.to_string())),
        }
        serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))
    }

    /// Whether everything is there as it was.
    ///
    /// # Errors
    /// [`TemplateError`], naming what is not.
    pub(crate) fn check(&self, folder: &Path) -> Result<(), TemplateError> {
        let working = self.body.recipe.folder();
        if !working.is_dir() {
            return Err(TemplateError::Gone { file: working, source: io::ErrorKind::NotADirectory.into() });
        }
        if let Some((_, seal)) = &self.qemu.binary {
            self.check_binary(seal)?;
        }
        check_file(&folder.join(STATE), &self.state)?;
        if let Some(seal) = &self.ram {
            check_file(&folder.join(RAM), seal)?;
        }
        for (number, seal) in self.disks.iter().enumerate() {
            check_file(&folder.join(disk(number)), seal)?;
        }
        self.images.iter().try_for_each(|(path, seal)| check_file(path, seal))
    }

    /// Whether no file was touched since it was sealed, as far as times tell: that is known without reading any.
    pub(crate) fn is_untouched(&self, folder: &Path) -> bool {
        let own = [(STATE.to_owned(), Some(&self.state)), (RAM.to_owned(), self.ram.as_ref())];
        let disks = self.disks.iter().enumerate().map(|(number, seal)| (disk(number), Some(seal)));
        let mut own =
            own.into_iter().chain(disks).filter_map(|(name, seal)| Some((folder.join(name), seal?)));
        let is_same_qemu = |seal: &Seal| binary(&self.body).is_some_and(|path| seal.is_untouched(&path));
        self.qemu.binary.as_ref().is_none_or(|(_, seal)| is_same_qemu(seal))
            && own.all(|(path, seal)| seal.is_untouched(&path))
            && self.images.iter().all(|(path, seal)| seal.is_untouched(path))
            && self.body.recipe.folder().is_dir()
    }

    /// The same, with seals that are known without being read from now on: a copy of a template has files of its own.
    ///
    /// # Errors
    /// As [`Manifest::check`].
    pub(crate) fn checked(mut self, folder: &Path) -> Result<Self, TemplateError> {
        self.check(folder)?;
        let again = |seal: &mut Seal, path: &Path| seal.renew(path);
        let mut is_new = again(&mut self.state, &folder.join(STATE));
        is_new |= self.ram.as_mut().is_some_and(|seal| again(seal, &folder.join(RAM)));
        for (number, seal) in self.disks.iter_mut().enumerate() {
            is_new |= again(seal, &folder.join(disk(number)));
        }
        for (path, seal) in &mut self.images {
            is_new |= again(seal, path);
        }
        if let (Some((_, seal)), Some(path)) = (&mut self.qemu.binary, binary(&self.body)) {
            is_new |= again(seal, &path);
        }
        if is_new && let Err(error) = self.put(folder) {
            tracing::debug!(%error, "a copied template has to be read the next time, too");
        }
        Ok(self)
    }

    /// Writes it down, whole or not at all.
    fn put(&self, folder: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        io::Write::write_all(&mut file, &text)?;
        file.persist(folder.join(MANIFEST)).map_err(|error| error.error)?;
        Ok(())
    }

    fn check_binary(&self, seal: &Seal) -> Result<(), TemplateError> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let named = || PathBuf::from(self.body.recipe.config().binary());
        let binary =
            binary(&self.body).ok_or_else(|| TemplateError::Gone { file: named(), source: missing() })?;
        match seal.check(&binary) {
            Ok(()) => Ok(()),
            Err(Broken::Gone(source)) => Err(TemplateError::Gone { file: binary, source }),
            Err(Broken::Size { .. } | Broken::Changed) => {
                Err(TemplateError::OtherQemu { binary, version: self.qemu.version.clone(), is: None })
            }
        }
    }

    /// The files of the template and the images below its disks.
    pub(crate) fn disks(&self, folder: &Path) -> Vec<PathBuf> {
        (0..self.disks.len()).map(|number| folder.join(disk(number))).collect()
    }
}

/// The binary of a machine, where it is now.
fn binary(body: &Body) -> Option<PathBuf> {
    let config = body.recipe.config();
    let found = program::find(config.binary().as_ref(), config.search_path().as_deref())?;
    Some(body.recipe.folder().join(found))
}

fn check_file(path: &Path, seal: &Seal) -> Result<(), TemplateError> {
    let file = path.to_owned();
    seal.check(path).map_err(|broken| match broken {
        Broken::Gone(source) => TemplateError::Gone { file, source },
        Broken::Size { was, is } => TemplateError::Size { file, was, is },
        Broken::Changed => TemplateError::Changed { file },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MachineConfig;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;
    use tempfile::TempDir;

    /// A template of a "QEMU" in the same folder, with a disk on top of an image.
    fn template() -> (TempDir, Manifest) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["qemu", STATE, RAM, "image"] {
            std::fs::write(at(name), vec![7; 4096]).unwrap();
        }
        std::fs::write(at("disk-0.qcow2"), "overlay").unwrap();
        let config = MachineConfig::new(at("qemu")).args(["-m", "64", "-hda"]).arg(at("image"));
        let body = Body::freezable(&config).unwrap();
        let facts = Facts {
            body,
            way: Way::Left,
            because: None,
            version: "7.2.22".into(),
            agent_answers: false,
            standing: BTreeMap::new(),
        };
        let manifest = Manifest::write(folder.path(), facts, vec![at("image")]).unwrap();
        (folder, manifest)
    }

    #[test]
    fn a_template_comes_back_as_it_was_written() {
        let (folder, manifest) = template();

        let read = Manifest::read(folder.path()).unwrap();

        assert!(read.check(folder.path()).is_ok());
        assert_eq!(serde_json::to_string(&read).unwrap(), serde_json::to_string(&manifest).unwrap());
        assert_eq!(read.disks(folder.path()), [folder.path().join("disk-0.qcow2")]);
    }

    #[test]
    fn whatever_is_damaged_is_named() {
        for name in [STATE, RAM, "image", "disk-0.qcow2"] {
            let (folder, manifest) = template();
            let file = OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
            file.write_all_at(b"x", 5).unwrap();
            let told = manifest.check(folder.path()).unwrap_err();
            assert!(matches!(&told, TemplateError::Changed { file } if file.ends_with(name)), "{told}");

            file.set_len(3).unwrap();
            let told = manifest.check(folder.path()).unwrap_err();
            assert!(matches!(&told, TemplateError::Size { is: 3, .. }), "{told}");

            std::fs::remove_file(folder.path().join(name)).unwrap();
            let told = manifest.check(folder.path()).unwrap_err();
            assert!(matches!(&told, TemplateError::Gone { file, .. } if file.ends_with(name)), "{told}");
        }
    }

    #[test]
    fn another_qemu_is_told_from_the_one_that_made_it() {
        let (folder, manifest) = template();
        std::fs::write(folder.path().join("qemu"), "a newer one").unwrap();

        let told = manifest.check(folder.path()).unwrap_err();

        assert!(matches!(&told, TemplateError::OtherQemu { .. }), "{told}");
        assert!(told.to_string().contains("made by QEMU 7.2.22"), "{told}");
    }

    #[test]
    fn what_is_no_template_of_this_kind_is_refused() {
        let (folder, _) = template();
        let manifest = folder.path().join(MANIFEST);
        let refusal = |text: &str| {
            std::fs::write(&manifest, text).unwrap();
            Manifest::read(folder.path()).unwrap_err().to_string()
        };

        assert!(refusal("{\"format\": 99}").contains("format 99"));
        assert!(refusal("{\"format\": 1}").contains("cannot be read"));
        assert!(refusal("{\"for").contains("cannot be read"));
        std::fs::remove_file(&manifest).unwrap();
        assert!(matches!(Manifest::read(folder.path()), Err(TemplateError::Missing { .. })));
    }
}
