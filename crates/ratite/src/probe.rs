//! Asks a QEMU binary what it can do, before it is started for good.
//!
//! Answers are kept for as long as the program runs and the file stays the same.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use ratite_qmp::within;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::config::MachineConfig;
use crate::exit::ProcessExit;
use crate::process::Process;
use crate::process::Spawn;
use crate::program;

/// How long a binary may take to print its help.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether `binary` has `-run-with exit-with-parent=on` (QEMU 10.2 and later), by which QEMU ends with its parent.
///
/// A binary that cannot be asked has not.
pub(crate) async fn exits_with_parent(config: &MachineConfig) -> bool {
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
    match ask(&identity.path, &["-help"], config.timeouts.connect.min(LIMIT)).await {
        Ok(help) => {
            let answer = memchr::memmem::find(&help.said, b"exit-with-parent").is_some();
            let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            known.get_or_insert_default().insert(identity, answer);
            answer
        }
        // Not to be kept: it may answer the next time.
        Err(error) => {
            tracing::debug!(?error, binary = %identity.path.display(), "could not ask a binary for its help");
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

/// What a binary has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) exit: ProcessExit,
    /// What it wrote to stdout and stderr.
    pub(crate) said: Vec<u8>,
}

/// Why a binary has not answered.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// It could not be started.
    Spawn(io::Error),
    /// It was not through in time.
    TimedOut,
    /// It says more than any QEMU would.
    TooMuch,
    /// The system has not let it be heard.
    System(io::Error),
}

/// What `binary` prints when it is started with these arguments. One that is not through in time, or that prints without
/// end, is killed.
pub(crate) async fn ask(binary: &Path, question: &[&str], limit: Duration) -> Result<Answer, Unanswered> {
    let (ours, theirs) = StdUnixStream::pair().map_err(Unanswered::System)?;
    ours.set_nonblocking(true).map_err(Unanswered::System)?;
    let mut stream = UnixStream::from_std(ours).map_err(Unanswered::System)?;
    let spawn = Spawn {
        launch: None,
        program: binary.into(),
        arguments: question.iter().map(Into::into).collect(),
        environment: Vec::new(),
        working_folder: None,
        output: OwnedFd::from(theirs).into(),
        fds: Vec::new(),
        own_group: true,
        mark: None,
        announce: |_, _| {},
        estate: Box::new(()),
    };
    let answer = async {
        // It is killed when its handle drops.
        let process = Process::spawn(spawn).await.map_err(Unanswered::Spawn)?;
        let mut said = Vec::new();
        tokio::select! {
            heard = hear(&mut stream, &mut said) => heard?,
            // Something that it has left behind may hold the stream open.
            _exited = process.wait() => {
                within(REST, "rest", hear(&mut stream, &mut said)).await.unwrap_or(Ok(()))?;
            }
        }
        Ok(Answer { exit: process.wait().await.status, said })
    };
    within(limit, "answer", answer).await.unwrap_or(Err(Unanswered::TimedOut))
}

/// The most that a binary may say: ten times the `-help` of a QEMU.
const MOST: usize = 1 << 20;

/// How long what a process has said may take to arrive when it has ended.
const REST: Duration = Duration::from_millis(200);

async fn hear(stream: &mut UnixStream, said: &mut Vec<u8>) -> Result<(), Unanswered> {
    while stream.read_buf(said).await.map_err(Unanswered::System)? > 0 {
        if said.len() > MOST {
            return Err(Unanswered::TooMuch);
        }
    }
    Ok(())
}
