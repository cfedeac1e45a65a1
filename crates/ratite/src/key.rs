//! What a template depends on, as a digest: the QEMU, the description, and the files that it names.

use std::fs::DirBuilder;
use std::io;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use crate::arguments;
use crate::body::Recipe;
use crate::config::MachineConfig;
use crate::config::WorkingFolder;
use crate::disks;
use crate::program;
use crate::seal::Digest;
use crate::seal::Seal;

/// A digest of all that a template of this machine depends on, and of `key`, which is the caller's. Reads the files, unless
/// `notes`, a folder, knows them.
///
/// # Errors
/// What the system said of a file; a QEMU that is not to be found.
pub(crate) fn digest(key: &str, config: &MachineConfig, notes: &Path) -> io::Result<String> {
    let folder = match &config.working_folder {
        WorkingFolder::At(folder) => std::path::absolute(folder)?,
        WorkingFolder::Callers | WorkingFolder::Work => std::env::current_dir()?,
    };
    let binary = program::find(config.binary.as_ref(), config.search_path().as_deref());
    let binary = binary.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no `{}`", config.binary.display()))
    })?;
    // Where it stands does not matter; what the paths lead to does.
    let recipe = serde_json::to_string(&Recipe::of(config, Path::new("")))?;
    let mut texts = vec![FORMAT.to_owned(), key.to_owned(), recipe];
    texts.push(content(&folder.join(binary), notes)?);
    for file in files(config, &folder) {
        texts.push(content(&file, notes)?);
    }
    let named = config.accelerators.iter().map(|it| it.to_string_lossy().into_owned());
    let named: Vec<_> = named.chain(arguments::accelerators(&config.args)).collect();
    if named.is_empty() || named.iter().any(|it| !is_independent(it)) {
        texts.push(processor());
    }
    Ok(Digest::of_texts(texts.iter().map(String::as_bytes)).as_str().to_owned())
}

/// What this digest is made of; to be changed with it.
const FORMAT: &str = "ratite template 1";

fn content(path: &Path, notes: &Path) -> io::Result<String> {
    let note = notes.join(Digest::of_texts([path.as_os_str().as_encoded_bytes()]).as_str());
    let noted = std::fs::read(&note).ok().and_then(|text| serde_json::from_slice::<Seal>(&text).ok());
    if let Some(digest) = noted.as_ref().and_then(|seal| seal.known(path)) {
        return Ok(digest.as_str().to_owned());
    }
    let named = |error: io::Error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display()));
    let seal = Seal::of(path).map_err(named)?;
    if seal.is_settled()
        && let Err(error) = write(&note, &seal)
    {
        tracing::debug!(%error, file = %path.display(), "it has to be read the next time, too");
    }
    Ok(seal.digest().map(|digest| digest.as_str().to_owned()).unwrap_or_default())
}

/// Notes what a file was, whole or not at all.
fn write(note: &Path, seal: &Seal) -> io::Result<()> {
    let folder = note.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if std::fs::read_dir(folder)?.count() >= NOTES {
        // Of files that are long gone, most likely.
        std::fs::remove_dir_all(folder)?;
        DirBuilder::new().mode(0o700).create(folder)?;
    }
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec(seal)?)?;
    file.persist(note).map_err(|error| error.error)?;
    Ok(())
}

/// How many files are noted, of some hundred bytes each.
const NOTES: usize = 1000;

/// The files that the description names, in the order of their paths.
fn files(config: &MachineConfig, folder: &Path) -> Vec<PathBuf> {
    disks::named_files(&config.args, folder).into_iter().collect()
}

/// Whether a machine under this accelerator is the same on every host.
fn is_independent(accelerator: &str) -> bool {
    let kind = accelerator.split(',').next().unwrap_or_default();
    ["tcg", "qtest"].contains(&kind)
}

/// What tells this host's processor from others: the kind of the first, with what it can do.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let telling = ["vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU "];
    let first = told.lines().take_while(|line| !line.is_empty());
    first.filter(|line| telling.iter().any(|name| line.starts_with(name))).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_template_depends_on_changes_the_digest() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["qemu", "kernel", "disk"] {
            std::fs::write(at(name), name).unwrap();
        }
        let digest = |key: &str, config: &MachineConfig| digest(key, config, &at("notes"));
        let drive = format!("file={},format=raw", at("disk").display());
        let config = MachineConfig::new(at("qemu")).accelerator("tcg");
        let config = config.arg("-kernel").arg(at("kernel")).args(["-drive", &drive]);
        let first = digest("key", &config).unwrap();

        let of_one_run = config.clone().name("x").log_folder("/logs").reachable().keep_folder();
        assert_eq!(digest("key", &of_one_run).unwrap(), first);

        let mut seen = vec![first];
        let mut is_new = |digest: String| {
            assert!(!seen.contains(&digest));
            seen.push(digest);
        };
        is_new(digest("other", &config).unwrap());
        is_new(digest("key", &config.clone().arg("-S")).unwrap());
        is_new(digest("key", &config.clone().env("A", "1")).unwrap());
        is_new(digest("key", &config.clone().accelerator("kvm")).unwrap());
        for name in ["qemu", "kernel", "disk"] {
            std::fs::write(at(name), "another one").unwrap();
            is_new(digest("key", &config).unwrap());
        }
    }

    #[test]
    fn a_qemu_that_is_not_there_is_told() {
        let error = digest("key", &MachineConfig::new("/none/such"), Path::new("/none")).unwrap_err();

        assert!(error.to_string().contains("/none/such"), "{error}");
    }
}
