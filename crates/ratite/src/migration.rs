//! A machine's state, taken out of a QEMU and put into another one, as QEMU migrates it. Needs a QMP session and no machine.
//!
//! ```text
//! QEMU ─► socket pair ─► thread ─► file        file ─► thread ─► socket pair ─► QEMU
//! ```
//!
//! The state goes through a socket, since not every QEMU takes the descriptor of a file, and so a full disk is this
//! program's to notice.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::ListenError;
use ratite_qmp::Listener;
use ratite_qmp::TimedOut;
use ratite_qmp::within;
use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;

use crate::body::WAYS;
use crate::body::Way;

/// Why a state could not be saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// QEMU refused.
    #[error("QEMU refused `{command}`: {words}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's own words, which name the device that is to blame.
        words: String,
    },
    /// QEMU gave up.
    #[error("QEMU could not do it: {words}")]
    Failed {
        /// QEMU's own words.
        words: String,
    },
    /// The file could not be written, or not be read.
    #[error("the file of the state could not be used")]
    File(#[source] io::Error),
    /// A command had no answer.
    #[error(transparent)]
    Command(ExecuteError),
    /// The session ended.
    #[error(transparent)]
    Event(ListenError),
    /// Nothing happened for too long.
    #[error(transparent)]
    Silent(TimedOut),
}

impl From<ExecuteError> for MigrationError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Refused { command, source } => Self::Refused { command, words: source.desc },
            other => Self::Command(other),
        }
    }
}

/// What a QEMU has to know for a way.
fn capability(way: Way) -> Option<&'static str> {
    match way {
        Way::Left => Some("x-ignore-shared"),
        Way::Streamed => None,
        Way::Placed => Some("mapped-ram"),
    }
}

/// What a QEMU could do, and how it was set, before it was asked for its state.
#[derive(Debug)]
pub(crate) struct Before {
    capabilities: Vec<(String, bool)>,
    bandwidth: Option<u64>,
}

impl Before {
    pub(crate) async fn of(client: &Client) -> Result<Self, MigrationError> {
        let known: Value = client.execute("query-migrate-capabilities", ()).await?;
        let state = |it: &Value| Some((it["capability"].as_str()?.to_owned(), it["state"] == true));
        let capabilities = known.as_array().into_iter().flatten().filter_map(state).collect();
        let parameters: Value = client.execute("query-migrate-parameters", ()).await?;
        Ok(Self { capabilities, bandwidth: parameters["max-bandwidth"].as_u64() })
    }

    /// Whether this QEMU has a way for the RAM.
    pub(crate) fn knows(&self, way: Way) -> bool {
        capability(way).is_none_or(|name| self.capabilities.iter().any(|(it, _)| it == name))
    }

    /// What is to be set for this way, of what decides how RAM travels.
    fn for_way(&self, way: Way) -> Value {
        let wanted = |name: &str| name == EVENTS || Some(name) == capability(way);
        self.settings(|name, _| wanted(name))
    }

    /// How all of that was set.
    fn as_it_was(&self) -> Value {
        self.settings(|_, was| was)
    }

    fn settings(&self, state: impl Fn(&str, bool) -> bool) -> Value {
        let ours = |name: &str| name == EVENTS || WAYS.iter().any(|way| capability(*way) == Some(name));
        let known = self.capabilities.iter().filter(|(name, _)| ours(name));
        settings(known.map(|(name, was)| (name.as_str(), state(name, *was))))
    }
}

/// What stands in the way of saving this machine's state, in QEMU's words.
pub(crate) async fn obstacles(client: &Client) -> Result<Vec<String>, MigrationError> {
    let state: Value = client.execute("query-migrate", ()).await?;
    let reasons = state["blocked-reasons"].as_array().into_iter().flatten();
    Ok(reasons.filter_map(|reason| reason.as_str().map(str::to_owned)).collect())
}

/// Saves the state of a machine that stands still to a new file at `path`. Where that fails or is given up, [`undo`] has the
/// machine as it was.
///
/// Bounded by `silence` without any progress.
pub(crate) async fn save(
    client: &Client,
    way: Way,
    before: &Before,
    path: &Path,
    silence: Duration,
) -> Result<(), MigrationError> {
    let watched = client.listen(EventFilter::named("MIGRATION"));
    client.execute("migrate-set-capabilities", before.for_way(way)).await?;
    // Nothing else runs that would want some of it.
    client.execute("migrate-set-parameters", json!({ "max-bandwidth": UNBOUNDED })).await?;
    match way {
        Way::Placed => {
            client.execute("migrate", channel(path)?).await?;
            end(&watched, client, &AtomicU64::new(0), silence).await
        }
        Way::Left | Way::Streamed => save_stream(client, path, &watched, silence).await,
    }
}

/// A bandwidth that no memory reaches, in bytes a second.
const UNBOUNDED: u64 = 1 << 60;

/// Has QEMU go on as if nobody had asked for its state.
pub(crate) async fn undo(client: &Client, before: &Before, silence: Duration) -> Result<(), MigrationError> {
    let watched = client.listen(EventFilter::named("MIGRATION"));
    client.execute("migrate_cancel", ()).await?;
    let state: Value = client.execute("query-migrate", ()).await?;
    if UNDER_WAY.iter().any(|it| state["status"] == *it) {
        let _cancelled = end(&watched, client, &AtomicU64::new(0), silence).await;
    }
    client.execute("migrate-set-capabilities", before.as_it_was()).await?;
    if let Some(bandwidth) = before.bandwidth {
        client.execute("migrate-set-parameters", json!({ "max-bandwidth": bandwidth })).await?;
    }
    Ok(())
}

/// The states of a migration that is not over.
const UNDER_WAY: [&str; 6] = ["setup", "active", "device", "pre-switchover", "cancelling", "wait-unplug"];

/// The events by which QEMU tells how far it is.
const EVENTS: &str = "events";

fn settings<'a>(states: impl Iterator<Item = (&'a str, bool)>) -> Value {
    let states: Vec<_> = states.map(|(name, state)| json!({ "capability": name, "state": state })).collect();
    json!({ "capabilities": states })
}

/// What is set while a state is taken in, or taken back after that: a later migration is its owner's affair.
fn for_loading(way: Way, on: bool) -> Value {
    settings([EVENTS].into_iter().chain(capability(way)).map(|name| (name, on)))
}

async fn save_stream(
    client: &Client,
    path: &Path,
    watched: &Listener,
    silence: Duration,
) -> Result<(), MigrationError> {
    let file =
        File::options().write(true).create_new(true).mode(0o600).open(path).map_err(MigrationError::File)?;
    let (ours, theirs) = UnixStream::pair().map_err(MigrationError::File)?;
    let line = Line::new(ours);
    give(client, theirs).await?;
    let copied = line.copy_to(file).map_err(MigrationError::File)?;
    let asked = client.execute("migrate", json!({ "uri": URI })).await;
    if let Err(error) = asked {
        let _taken = client.execute("closefd", json!({ "fdname": NAME })).await;
        return Err(error.into());
    }
    let outcome = end(watched, client, &line.progress, silence).await;
    if outcome.is_err() {
        drop(line);
    }
    let copied = within(silence, "end of the state", copied).await.map_err(MigrationError::Silent)?;
    match (copied, outcome) {
        // The disk was full first, and QEMU noticed.
        (Ok(Err(error)), _) => Err(MigrationError::File(error)),
        (_, outcome) => outcome,
    }
}

fn channel(path: &Path) -> Result<Value, MigrationError> {
    let path = path.to_str().ok_or_else(|| {
        MigrationError::File(io::Error::new(
            io::ErrorKind::InvalidInput,
            "its path is no text, which QMP takes alone",
        ))
    })?;
    let file = json!({ "transport": "file", "filename": path, "offset": 0 });
    Ok(json!({ "channels": [{ "channel-type": "main", "addr": file }] }))
}

/// Puts the state in `path` into a QEMU that was started with `-incoming defer`. One that cannot take it ends by itself.
pub(crate) async fn load(
    client: &Client,
    way: Way,
    path: &Path,
    silence: Duration,
) -> Result<(), MigrationError> {
    let watched = client.listen(EventFilter::named("MIGRATION"));
    if way == Way::Placed {
        client.execute("migrate-set-capabilities", for_loading(way, true)).await?;
        client.execute("migrate-incoming", channel(path)?).await?;
        end(&watched, client, &AtomicU64::new(0), silence).await?;
    } else {
        load_stream(client, way, path, &watched, silence).await?;
    }
    client.execute("migrate-set-capabilities", for_loading(way, false)).await?;
    Ok(())
}

async fn load_stream(
    client: &Client,
    way: Way,
    path: &Path,
    watched: &Listener,
    silence: Duration,
) -> Result<(), MigrationError> {
    let file = File::open(path).map_err(MigrationError::File)?;
    let (ours, theirs) = UnixStream::pair().map_err(MigrationError::File)?;
    let line = Line::new(ours);
    let _copied = line.copy_from(file).map_err(MigrationError::File)?;
    // QEMU does them in this order, so there is no need to wait for each reply before the next is sent.
    let (set, given, asked) = tokio::join!(
        client.execute("migrate-set-capabilities", for_loading(way, true)),
        give(client, theirs),
        client.execute("migrate-incoming", json!({ "uri": URI })),
    );
    set?;
    given?;
    asked?;
    end(watched, client, &line.progress, silence).await
}

/// Gives QEMU its end of the line.
async fn give(client: &Client, fd: UnixStream) -> Result<(), ExecuteError> {
    let named = Command::new("getfd").arguments(json!({ "fdname": NAME }));
    let named = named.map_err(|source| ExecuteError::Arguments { command: "getfd".into(), source })?;
    match client.send(named.fd(fd)).await?.error() {
        None => Ok(()),
        Some(refusal) => Err(ExecuteError::Refused { command: "getfd".into(), source: refusal.clone() }),
    }
}

/// The name by which QEMU knows its end of the line.
const NAME: &str = "ratite-state";
const URI: &str = "fd:ratite-state";

/// Waits for QEMU's word that it is over; as long as something comes or goes.
async fn end(
    watched: &Listener,
    client: &Client,
    progress: &AtomicU64,
    silence: Duration,
) -> Result<(), MigrationError> {
    loop {
        let before = progress.load(Ordering::Relaxed);
        let event = match watched.next(silence).await {
            Ok(event) => event,
            Err(ListenError::TimedOut { .. }) if progress.load(Ordering::Relaxed) != before => continue,
            Err(ListenError::TimedOut { wait, .. }) => return Err(MigrationError::Silent(wait)),
            Err(error) => return Err(MigrationError::Event(error)),
        };
        match event.data()["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let state: Value = client.execute("query-migrate", ()).await.unwrap_or_default();
                let words = state["error-desc"].as_str().unwrap_or("it does not say why").to_owned();
                return Err(MigrationError::Failed { words });
            }
            _ => {}
        }
    }
}

/// Our end of the line to QEMU. Dropping it ends what goes over it, however far that is.
#[derive(Debug)]
struct Line {
    stream: UnixStream,
    /// How many bytes have passed.
    progress: Arc<AtomicU64>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ended = self.stream.shutdown(Shutdown::Both);
    }
}

impl Line {
    fn new(stream: UnixStream) -> Self {
        Self { stream, progress: Arc::default() }
    }

    /// Writes to `file` what QEMU sends, up to its end.
    fn copy_to(&self, file: File) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let stream = self.stream.try_clone()?;
        self.spawn("ratite-save", move |progress| {
            // With a full disk nobody reads any more, and QEMU is to know.
            copy(&stream, file, &progress).inspect_err(|_| drop(stream.shutdown(Shutdown::Both)))
        })
    }

    /// Sends all of `file`, and the end after it.
    fn copy_from(&self, file: File) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let stream = self.stream.try_clone()?;
        self.spawn("ratite-load", move |progress| {
            let copied = copy(file, &stream, &progress);
            let _ended = stream.shutdown(if copied.is_ok() { Shutdown::Write } else { Shutdown::Both });
            copied
        })
    }

    fn spawn<F>(&self, name: &str, work: F) -> io::Result<oneshot::Receiver<io::Result<()>>>
    where
        F: FnOnce(Arc<AtomicU64>) -> io::Result<()> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let progress = Arc::clone(&self.progress);
        thread::Builder::new().name(name.into()).spawn(move || drop(answer.send(work(progress))))?;
        Ok(outcome)
    }
}

/// How much is copied at once.
const PIECE: usize = 256 << 10;

fn copy(mut from: impl Read, mut to: impl Write, progress: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                to.write_all(&buffer[..length])?;
                progress.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
