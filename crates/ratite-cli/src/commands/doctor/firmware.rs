//! Firmware, as the JSON descriptors tell that come with it (QEMU's docs/interop/firmware.json).
//!
//! All folders count, the files in the order of their names. A file hides one of the same name in a more general folder; an
//! empty one hides it altogether.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;

use crate::commands::doctor::Finding;
use crate::commands::doctor::State;
use crate::commands::doctor::programs::target;
use crate::mending::Distribution;
use crate::mending::Need;

/// Where descriptors are: the distribution's, the administrator's, the user's.
pub(super) fn folders() -> Vec<PathBuf> {
    let of_home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = config.or_else(of_home).map(|config| config.join("qemu/firmware"));
    ["/usr/share/qemu/firmware", "/etc/qemu/firmware"].map(PathBuf::from).into_iter().chain(own).collect()
}

/// What the descriptors in these folders tell; the more special folder comes later.
pub(super) fn look(folders: &[PathBuf], here: Option<Distribution>) -> Vec<Finding> {
    let files = descriptors(folders);
    if files.is_empty() {
        let says = "no descriptors: a guest that boots by UEFI needs its firmware given by hand";
        let install = here.and_then(|here| here.install(Need::Firmware(target())));
        return vec![Finding::new("firmware", "UEFI", State::Warning, says).mend(install)];
    }
    files.iter().map(|file| about(file, here)).collect()
}

/// The descriptors that take effect, by their names.
fn descriptors(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for folder in folders {
        let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
            by_name.insert(file.file_name().unwrap_or_default().to_owned(), file);
        }
    }
    let hides = |file: &PathBuf| fs::metadata(file).is_ok_and(|found| found.len() == 0);
    by_name.into_values().filter(|file| !hides(file)).collect()
}

#[derive(Debug, Deserialize)]
struct Descriptor {
    description: String,
    #[serde(rename = "interface-types")]
    interfaces: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
}

/// How it gets into the guest. The files are where the kind of mapping has them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    filename: Option<PathBuf>,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
}

#[derive(Debug, Deserialize)]
struct FlashFile {
    filename: PathBuf,
}

impl Mapping {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let flash = [&self.executable, &self.nvram_template].into_iter().flatten().map(|file| &file.filename);
        self.filename.iter().chain(flash).map(PathBuf::as_path)
    }
}

fn about(file: &Path, here: Option<Distribution>) -> Finding {
    let finding = |state, says: String| Finding::new("firmware", file.to_string_lossy(), state, says);
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return finding(State::Warning, format!("cannot be read: {error}")),
    };
    let descriptor: Descriptor = match serde_json::from_str(&text) {
        Ok(descriptor) => descriptor,
        Err(error) => return finding(State::Warning, format!("is no descriptor: {error}")),
    };
    let targets: Vec<_> = descriptor.targets.iter().map(|target| target.architecture.as_str()).collect();
    let missing: Vec<_> = descriptor.mapping.files().filter(|file| !file.exists()).collect();
    let what =
        format!("{} ({}, {})", descriptor.description, descriptor.interfaces.join(" "), targets.join(" "));
    match missing.first() {
        None => finding(State::Ok, what),
        Some(missing) => {
            let install = targets.first().and_then(|target| here?.install(Need::Firmware(target)));
            finding(State::Warning, format!("{what}: `{}` is not there", missing.display())).mend(install)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(description: &str, file: &Path) -> String {
        let mapping = format!(
            r#"{{"device": "flash", "executable": {{"filename": "{}", "format": "raw"}}}}"#,
            file.display()
        );
        format!(
            r#"{{"description": "{description}", "interface-types": ["uefi"], "mapping": {mapping},
                "targets": [{{"architecture": "x86_64", "machines": ["pc-*"]}}], "features": [], "tags": []}}"#
        )
    }

    #[test]
    fn the_more_special_descriptor_counts_and_an_empty_one_hides() {
        let root = tempfile::tempdir().unwrap();
        let folders = ["usr", "etc", "own", "missing"].map(|name| root.path().join(name));
        folders[..3].iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let put =
            |folder: usize, name: &str, text: &str| fs::write(folders[folder].join(name), text).unwrap();
        let there = root.path().join("code.fd");
        fs::write(&there, "").unwrap();
        put(0, "60-b.json", &descriptor("distribution's", &there));
        put(0, "50-a.json", &descriptor("hidden", &there));
        put(0, "README", "");
        put(1, "60-b.json", &descriptor("administrator's", &there));
        put(2, "50-a.json", "");
        put(2, "70-c.json", &descriptor("own", Path::new("/nonexistent/code.fd")));

        let findings = look(&folders, Some(Distribution::Debian));

        let shown: Vec<_> = findings.iter().map(|it| (it.state, it.says.as_str())).collect();
        let expected = [
            (State::Ok, "administrator's (uefi, x86_64)"),
            (State::Warning, "own (uefi, x86_64): `/nonexistent/code.fd` is not there"),
        ];
        assert_eq!(shown, expected);
        assert_eq!(findings[1].mend.as_deref(), Some("sudo apt install ovmf"));
    }

    #[test]
    fn what_is_no_descriptor_is_told() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("1.json"), "{}").unwrap();

        let findings = look(&[folder.path().to_owned()], None);

        assert!(findings[0].says.starts_with("is no descriptor: missing field"), "{findings:?}");
    }

    #[test]
    fn where_there_is_none_the_command_that_installs_it_is_told() {
        let [finding] = &look(&[], Some(Distribution::Fedora))[..] else { panic!() };

        assert_eq!(finding.state, State::Warning);
    }
}
