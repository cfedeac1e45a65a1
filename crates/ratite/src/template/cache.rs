//! Templates with names, in a folder that all programs of a user share.
//!
//! ```text
//! FOLDER/NAME/        a template
//! FOLDER/NAME.lock    whoever makes, replaces or removes it holds this
//! FOLDER/.files/      what is known of the contents of kernels, images and the like, so that they are not read each time
//! FOLDER/qemu-machine-…   work folders of those who are just making one, and swept like any
//! ```

mod lock;
mod making;

use std::error::Error;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::SystemTime;

use ratite_qmp::TimedOut;
use ratite_qmp::within;

pub use making::Making;
pub use making::Place;

use crate::config::MachineConfig;
use crate::error::LaunchError;
use crate::freeze::FreezeError;
use crate::key;
use crate::machine::Machine;
use crate::manifest;
use crate::manifest::MANIFEST;
use crate::manifest::Manifest;
use crate::manifest::TemplateError;
use crate::runtime::aside;
use crate::template::Template;
use crate::template::store::Lease;
use crate::template::store::StoreError;
use lock::Lock;

/// Why there is no template of that name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The name cannot name a folder.
    #[error("{name:?} cannot name a template: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The folder is not to be had.
    #[error("could not use `{}`", path.display())]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No folder is known where templates could be.
    #[error(
        "there is no folder for templates: neither RATITE_CACHE nor XDG_CACHE_HOME nor HOME is an absolute path"
    )]
    NoFolder,
    /// Somebody else was making it, and did not come to an end.
    #[error("another program is still making the template")]
    Busy(#[source] TimedOut),
    /// There is one of that name.
    #[error("there is a template {name:?} already")]
    Taken {
        /// The name.
        name: String,
    },
    /// Somebody uses it.
    #[error("the template {name:?} is in use")]
    InUse {
        /// The name.
        name: String,
    },
    /// The machine to be frozen did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The caller's own part did not bring the machine to where it was to be frozen.
    #[error("the machine did not come to where it was to be frozen")]
    Boot(#[source] Box<dyn Error + Send + Sync>),
    /// The machine was not frozen.
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    /// The template was not stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The template is there, and cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// What the template depends on could not be read.
    #[error("could not read what the template depends on")]
    Key(#[source] io::Error),
}

/// A folder of templates with names, which all programs of a user share.
#[derive(Debug, Clone)]
pub struct TemplateCache {
    folder: PathBuf,
    patience: Duration,
}

/// What is known of a template of a cache without opening it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TemplateEntry {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub path: PathBuf,
    /// When it was made.
    pub made: SystemTime,
    /// When it was last opened.
    pub used: SystemTime,
    /// How much room it takes on the disk, in bytes.
    pub size: u64,
    /// The version of the QEMU that made it.
    pub qemu_version: String,
    /// What is wrong with it, if something is.
    pub damage: Option<String>,
}

/// How many templates of one key are kept: that of each of a few branches of somebody's work.
const KEPT: usize = 4;

/// How long another program may take to make a template, before one gives up waiting for it.
const PATIENCE: Duration = Duration::from_secs(600);

impl TemplateCache {
    /// The user's own: `ratite/templates` in `XDG_CACHE_HOME`, or in `.cache` of `HOME`; `templates` in `RATITE_CACHE`, where
    /// that is set.
    ///
    /// # Errors
    /// [`CacheError::NoFolder`].
    pub fn user() -> Result<Self, CacheError> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = absolute("RATITE_CACHE")
            .or_else(|| absolute("XDG_CACHE_HOME").map(|folder| folder.join("ratite")))
            .or_else(|| absolute("HOME").map(|folder| folder.join(".cache/ratite")));
        folder.map(|folder| Self::at(folder.join("templates"))).ok_or(CacheError::NoFolder)
    }

    /// The templates in this folder, which is made (mode 0700) when it is needed.
    #[must_use]
    pub fn at(folder: impl AsRef<Path>) -> Self {
        // A program that changes its working folder still means this one.
        let folder = std::path::absolute(&folder).unwrap_or_else(|_| folder.as_ref().to_owned());
        Self { folder, patience: PATIENCE }
    }

    /// The same; `limit` is how long a template that somebody else is making is waited for, 10 minutes by default.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The template of `key` for this very machine: the one that is there, or else one that is made now, by launching `config`
    /// as a machine that can be frozen, having `boot` bring it to where it is to be frozen, and freezing it.
    ///
    /// The machine is "this very" one if QEMU's binary is the same, and the description (but for what belongs to one run: names,
    /// folders, logs, limits), and the contents of all files that the arguments name, with those below disk images. With other
    /// accelerators than TCG the processor of the host counts, too. What `boot` does is not seen: a change of it wants
    /// another `key`. A template that is damaged is made anew.
    ///
    /// Many threads and programs may ask at once; one makes it, and the others wait for that. Of each key the last four templates are
    /// kept, as far as the older ones are not in use.
    ///
    /// # Errors
    /// [`CacheError`]; nothing is kept of a template that was not finished.
    pub async fn cached<F, E>(
        &self,
        key: &str,
        config: &MachineConfig,
        boot: F,
    ) -> Result<Template, CacheError>
    where
        F: AsyncFnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        match self.look(key, config).await? {
            Place::Filled(template) => Ok(template),
            Place::Empty(making) => making.make(boot).await,
        }
    }

    /// Makes a template of this name, of a machine of `config` that `boot` has brought to where it is to be frozen.
    ///
    /// # Errors
    /// [`CacheError`]; nothing is kept of a template that was not finished.
    pub async fn create<F, E>(
        &self,
        name: &str,
        config: &MachineConfig,
        boot: F,
    ) -> Result<Template, CacheError>
    where
        F: AsyncFnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.reserve(name, config).await?.make(boot).await
    }

    /// The first half of [`TemplateCache::cached`]: the template, or the right to make it.
    ///
    /// # Errors
    /// As there.
    pub async fn look(&self, key: &str, config: &MachineConfig) -> Result<Place, CacheError> {
        check_name(key)?;
        let digest = aside({
            let (key, config) = (key.to_owned(), config.clone());
            let notes = self.folder.join(NOTES);
            move || key::digest(&key, &config, &notes)
        });
        let digest = digest.await.map_err(CacheError::Key)?;
        let name = format!("{key}-{}", &digest[..DIGITS]);
        let path = self.folder.join(&name);
        if let Ok(template) = Template::open(&path).await {
            touch(&path);
            return Ok(Place::Filled(template));
        }
        let lock = self.lock(&name).await?;
        match Template::open(&path).await {
            // Somebody else has made it meanwhile.
            Ok(template) => return Ok(Place::Filled(template)),
            Err(error) if error.is_damage() => {
                tracing::debug!(%error, template = %path.display(), "a template is to be made");
                let fault = |source| CacheError::Folder { path: path.clone(), source };
                let _lease = match Lease::alone(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    lease => {
                        Some(lease.map_err(fault)?.ok_or_else(|| CacheError::InUse { name: name.clone() })?)
                    }
                };
                remove(&path).map_err(fault)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Place::Empty(Box::new(Making::new(self.clone(), name, Some(key.into()), config, lock))))
    }

    /// The first half of [`TemplateCache::create`]: the right to make a template of this name.
    ///
    /// # Errors
    /// As there.
    pub async fn reserve(&self, name: &str, config: &MachineConfig) -> Result<Making, CacheError> {
        check_name(name)?;
        let lock = self.lock(name).await?;
        let path = self.folder.join(name);
        // What is left of one that was being removed is nobody's.
        if path.join(MANIFEST).exists() || remove(&path).is_err() {
            return Err(CacheError::Taken { name: name.into() });
        }
        Ok(Making::new(self.clone(), name.into(), None, config, lock))
    }

    /// The template of this name.
    ///
    /// # Errors
    /// [`TemplateError`]; [`CacheError::Name`].
    pub async fn open(&self, name: &str) -> Result<Template, CacheError> {
        check_name(name)?;
        let path = self.folder.join(name);
        let template = Template::open(&path).await?;
        touch(&path);
        Ok(template)
    }

    /// All templates, by their names. Looks at each on the caller's thread: a few system calls for each of its files.
    ///
    /// # Errors
    /// [`CacheError::Folder`]; a folder that is not there has none.
    pub fn list(&self) -> Result<Vec<TemplateEntry>, CacheError> {
        let fault = |source| CacheError::Folder { path: self.folder.clone(), source };
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(fault)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(fault)?.path();
            // Also what is left of one whose removal was broken off.
            let is_state = || path.join(manifest::STATE).exists() || path.join(manifest::RAM).exists();
            if path.join(MANIFEST).exists() || is_state() {
                found.extend(entry_of(path));
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes the template of this name. Machines that were spawned from it go on.
    ///
    /// # Errors
    /// [`CacheError::InUse`] while some program holds it or is making it; [`TemplateError::Missing`] if there is none.
    pub async fn remove(&self, name: &str) -> Result<(), CacheError> {
        check_name(name)?;
        let path = self.folder.join(name);
        let in_use = || CacheError::InUse { name: name.into() };
        let fault = |source| CacheError::Folder { path: path.clone(), source };
        let missing = |source| TemplateError::Missing { folder: path.clone(), source };
        let _lease = Lease::alone(&path).map_err(missing)?.ok_or_else(in_use)?;
        let _lock = Lock::try_take(&self.lock_path(name)).map_err(fault)?.ok_or_else(in_use)?;
        remove(&path).map_err(fault)
    }

    /// Waits until nobody else makes or removes the template of this name.
    async fn lock(&self, name: &str) -> Result<Lock, CacheError> {
        let path = self.lock_path(name);
        let fault = |source| CacheError::Folder { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(fault)?;
        let there = path.clone();
        // A thread of its own waits. When nobody waits for it any more, what it gets it gives back at once.
        let taken = within(self.patience, "template", aside(move || Lock::take(&there))).await;
        taken.map_err(CacheError::Busy)?.map_err(fault)
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.lock"))
    }

    /// Removes what is left of `key` from earlier, beyond those that are kept.
    async fn drop_old_ones(&self, key: &str, newest: &str) {
        let is_of_key = |entry: &TemplateEntry| {
            entry.name.strip_prefix(key).and_then(|rest| rest.strip_prefix('-')).is_some_and(|digits| {
                digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
            })
        };
        let mut old = self.list().unwrap_or_default();
        old.retain(|entry| is_of_key(entry) && entry.name != newest);
        old.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        for entry in old.iter().skip(KEPT - 1) {
            if let Err(error) = self.remove(&entry.name).await {
                tracing::debug!(%error, template = entry.name, "an old template stays");
            }
        }
    }
}

/// Where what is known of files is noted. No template's name begins like this.
const NOTES: &str = ".files";

/// How many digits of a digest are in a name.
const DIGITS: usize = 16;

impl Template {
    /// [`TemplateCache::cached`] of [`TemplateCache::user`].
    ///
    /// ```no_run
    /// use ratite::{ConsoleConfig, Machine, MachineConfig, Template};
    /// use std::time::Duration;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = MachineConfig::new("qemu-system-x86_64")
    ///     .args(["-m", "256", "-kernel", "vmlinuz", "-initrd", "initrd.cpio", "-append", "console=ttyS0"])
    ///     .console(ConsoleConfig::serial());
    /// let shell = Template::cached("shell", &config, async |machine: &Machine| {
    ///     machine.console().expect("it was given one").expect("# ", Duration::from_secs(60)).await.map(drop)
    /// });
    /// let machine = shell.await?.spawn().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As there.
    pub async fn cached<F, E>(key: &str, config: &MachineConfig, boot: F) -> Result<Self, CacheError>
    where
        F: AsyncFnOnce(&Machine) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        TemplateCache::user()?.cached(key, config, boot).await
    }
}

fn entry_of(path: PathBuf) -> Option<TemplateEntry> {
    let name = path.file_name()?.to_str()?.to_owned();
    let used =
        std::fs::metadata(&path).and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let files = std::fs::read_dir(&path).into_iter().flatten().flatten();
    let size = files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum();
    let (made, qemu_version, damage) = match Manifest::read(&path) {
        Ok(manifest) => {
            let made = SystemTime::UNIX_EPOCH + Duration::from_secs(manifest.made);
            let damage = manifest.check(&path).err().map(|error| error.to_string());
            (made, manifest.qemu.version, damage)
        }
        Err(error) => (SystemTime::UNIX_EPOCH, String::new(), Some(error.to_string())),
    };
    Some(TemplateEntry { name, path, made, used, size, qemu_version, damage })
}

/// Notes that a template was used: its folder's time is when it was last opened.
fn touch(template: &Path) {
    let now = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
    };
    let _of_little_use = rustix::fs::utimensat(rustix::fs::CWD, template, &now, rustix::fs::AtFlags::empty());
}

/// Removes a template, or what is left of one: first what makes it one, so that nobody takes the rest for it. A folder in which
/// there is anything else is somebody's own, and stays as it is.
fn remove(template: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(template) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    if let Some(other) = entries.iter().find(|entry| !manifest::is_of_template(&entry.file_name())) {
        let reason = format!("`{}` in it is no part of a template", other.file_name().display());
        return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, reason));
    }
    let (first, rest): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.file_name() == MANIFEST);
    first.iter().chain(&rest).try_for_each(|entry| std::fs::remove_file(entry.path()))?;
    std::fs::remove_dir(template)
}

fn check_name(name: &str) -> Result<(), CacheError> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let reason = match name {
        "" => "it is empty",
        _ if name.len() > 200 => "it is longer than 200 bytes",
        _ if name.starts_with(['.', '-']) => "it begins with a `.` or a `-`",
        _ if !name.chars().all(is_of_name) => {
            "it holds something else than letters, digits, `.`, `_` and `-`"
        }
        _ if name.ends_with(".lock") => "it ends in `.lock`",
        _ => return Ok(()),
    };
    Err(CacheError::Name { name: name.into(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_folder_can_be_called() {
        for name in ["shell", "a.b_c-1", "S"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", "-x", "a/b", "a b", "x.lock", "ä", &"x".repeat(201)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn only_what_is_a_templates_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (template, other) = (folder.path().join("template"), folder.path().join("documents"));
        for (folder, names) in
            [(&template, ["state", "ram", "disk-12.qcow2"]), (&other, ["state", "ram", "letter"])]
        {
            std::fs::create_dir(folder).unwrap();
            names.iter().for_each(|name| std::fs::write(folder.join(name), "x").unwrap());
        }

        remove(&template).unwrap();
        let refusal = remove(&other).unwrap_err();

        assert!(!template.exists());
        assert!(refusal.to_string().contains("`letter`"), "{refusal}");
        assert_eq!(std::fs::read_dir(&other).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_templates() {
        let folder = tempfile::tempdir().unwrap();

        assert!(TemplateCache::at(folder.path().join("none")).list().unwrap().is_empty());
    }
}
