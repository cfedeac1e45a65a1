//! Files of the guest, read and written piece by piece.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde_json::Value;
use serde_json::json;
use tokio::runtime::Handle;

use crate::agent::Agent;
use crate::agent::AgentError;
use crate::malformed::Malformed;

/// A file that the agent has open in the guest.
///
/// Dropped without [`GuestFile::close`], it is closed in the background, if a runtime and the agent let it.
#[derive(Debug)]
pub struct GuestFile {
    agent: Agent,
    handle: i64,
    is_open: bool,
    is_written: bool,
}

/// How much is asked for, or sent, at once. It costs a third more on the wire, and an agent does nothing else meanwhile.
const PIECE: usize = 256 << 10;

/// How long closing a file may take that nobody waits for.
const LAST_CLOSE: Duration = Duration::from_secs(5);

impl Agent {
    /// Opens a file of the guest; `mode` is that of fopen(3): `r`, `w` (over what is there), `a` (behind it), `r+`, …
    ///
    /// Cancelled, it leaves no file open, unless its limit comes first.
    ///
    /// # Errors
    /// [`AgentError::Refused`] with the guest's reason.
    pub async fn open_file(&self, path: &str, mode: &str) -> Result<GuestFile, AgentError> {
        let agent = self.clone();
        let arguments = json!({ "path": path, "mode": mode });
        // In a task of its own, so that a file whose handle nobody waits for any more is closed again.
        let opening = tokio::spawn(async move {
            let handle = agent.execute_as("guest-file-open", arguments).await?;
            Ok(GuestFile { agent, handle, is_open: true, is_written: false })
        });
        match opening.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime on its way out cancels it, and then nothing is waited for.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// The whole of a file of the guest. Each piece of 256 KiB has this handle's limit.
    ///
    /// # Errors
    /// As [`Agent::open_file`].
    pub async fn read_file(&self, path: &str) -> Result<Vec<u8>, AgentError> {
        let mut file = self.open_file(path, "r").await?;
        let mut bytes = Vec::new();
        while let Some(piece) = file.read().await? {
            bytes.extend(piece);
        }
        file.close().await?;
        Ok(bytes)
    }

    /// Makes `bytes` the content of a file of the guest, which is made if need be. Each piece of 256 KiB has this
    /// handle's limit.
    ///
    /// # Errors
    /// As [`Agent::open_file`]; the file may hold a beginning of `bytes` then.
    pub async fn write_file(&self, path: &str, bytes: &[u8]) -> Result<(), AgentError> {
        let mut file = self.open_file(path, "w").await?;
        file.write(bytes).await?;
        file.close().await
    }
}

impl GuestFile {
    /// The same file, with another limit for each of its commands than that of the agent's handle.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.agent = self.agent.with_limit(limit);
        self
    }

    /// The next piece, up to 256 KiB; `None` at the end.
    ///
    /// # Errors
    /// [`AgentError`]. What a cancelled or failed read took is lost: the file's place may be behind it.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        #[derive(Deserialize)]
        struct Piece {
            #[serde(rename = "buf-b64")]
            bytes: Base64,
            eof: bool,
        }
        let arguments = json!({ "handle": self.handle, "count": PIECE });
        let Piece { bytes: Base64(bytes), eof } = self.agent.execute_as("guest-file-read", arguments).await?;
        match (bytes.is_empty(), eof) {
            (false, _) => Ok(Some(bytes)),
            (true, true) => Ok(None),
            (true, false) => Err(nothing_done("guest-file-read")),
        }
    }

    /// Writes all of `bytes`, in pieces of 256 KiB. Cancelled, it has written a beginning of them.
    ///
    /// # Errors
    /// [`AgentError`]; a beginning of `bytes` may be written.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        #[derive(Deserialize)]
        struct Written {
            count: usize,
        }
        self.is_written = true;
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE)];
            let arguments = json!({ "handle": self.handle, "buf-b64": STANDARD.encode(piece) });
            let Written { count } = self.agent.execute_as("guest-file-write", arguments).await?;
            if count == 0 {
                return Err(nothing_done("guest-file-write"));
            }
            rest = &rest[count.min(piece.len())..];
        }
        Ok(())
    }

    /// Closes the file; what was written is in it then.
    ///
    /// # Errors
    /// [`AgentError`], also for what could not be written after all.
    pub async fn close(mut self) -> Result<(), AgentError> {
        let handle = json!({ "handle": self.handle });
        if self.is_written {
            // What the guest's disk does not take is told while the file is open, and can be closed.
            self.agent.execute_as::<Value>("guest-file-flush", &handle).await?;
        }
        self.agent.execute_as::<Value>("guest-file-close", &handle).await?;
        self.is_open = false;
        Ok(())
    }
}

/// An agent waits until it can read or write something, or fails. Who asked one that does neither again would ask for ever.
fn nothing_done(command: &str) -> AgentError {
    let source = Malformed::shape(r#"{"count": 0, …}"#, "nothing was read or written, and it is not the end");
    AgentError::Malformed { command: command.to_owned(), source }
}

impl Drop for GuestFile {
    fn drop(&mut self) {
        let Some(runtime) = Handle::try_current().ok().filter(|_| self.is_open) else { return };
        let (agent, handle) = (self.agent.with_limit(LAST_CLOSE), self.handle);
        runtime.spawn(async move {
            let closed = agent.execute_as::<Value>("guest-file-close", json!({ "handle": handle })).await;
            if let Err(error) = closed {
                tracing::debug!(%error, handle, "a file of the guest stays open");
            }
        });
    }
}

/// Bytes that are base64 in a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}
