//! Asks a QEMU binary what it can do, before it is started for good.
//!
//! Answers are kept for as long as the program runs and the file stays the same.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use ratite_qmp::within;

use crate::config::MachineConfig;
use crate::process::Process;
use crate::process::Spawn;
use crate::program;

/// How long a binary may take to print its help.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether `binary` has `-run-with exit-with-parent=on` (QEMU 10.2 and later), by which QEMU ends with its parent.
///
/// A binary that cannot be asked has not.
pub(crate) async fn exits_with_parent(config: &MachineConfig, scratch: &Path) -> bool {
    static KNOWN: Mutex<Option<HashMap<Identity, bool>>> = Mutex::new(None);
    let Some(identity) =
        program::find(config.binary.as_ref(), config.search_path().as_deref()).and_then(Identity::of)
    else {
        return false;
    };
    let known =
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get(&identity).copied();
    if let Some(known) = known {
        return known;
    }
    match help(&identity.path, scratch, config.timeouts.connect.min(LIMIT)).await {
        Ok(help) => {
            let answer = memchr::memmem::find(&help, b"exit-with-parent").is_some();
            let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            known.get_or_insert_default().insert(identity, answer);
            answer
        }
        // Not to be kept: it may answer the next time.
        Err(error) => {
            tracing::debug!(%error, binary = %identity.path.display(), "could not ask a binary for its help");
            false
        }
    }
}

/// A file as it is now: another one at the same path, or a newer one, is another identity.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(path: PathBuf) -> Option<Self> {
        let metadata = std::fs::metadata(&path).ok()?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { path, device: metadata.dev(), inode: metadata.ino(), changed })
    }
}

/// What `binary -help` prints.
async fn help(binary: &Path, scratch: &Path, limit: Duration) -> io::Result<Vec<u8>> {
    let path = scratch.join("help.txt");
    // Not opened a second time to be read: the umask may have taken even the owner's permissions away.
    let mut output = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    let spawn = Spawn {
        program: binary.into(),
        arguments: vec!["-help".into()],
        environment: Vec::new(),
        working_folder: None,
        output: output.try_clone()?,
        fds: Vec::new(),
        own_group: true,
        mark: None,
        announce: |_, _| {},
        estate: Box::new(()),
    };
    let process = Process::spawn(spawn).await?;
    // One that hangs is killed when its handle drops.
    within(limit, "help", process.wait()).await.map_err(io::Error::other)?;
    std::fs::remove_file(&path)?;
    let mut help = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut help)?;
    Ok(help)
}
