//! The server's side of a session, scripted by a test, and what else the tests have in common.

use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::ExecuteError;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far longer than anything here takes; it only keeps a hang from lasting for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a QEMU 10.0 says first.
pub(crate) const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian"}, "capabilities": ["oob"]}}"#;

/// The server's end of a connection.
pub(crate) struct Peer<S = DuplexStream> {
    stream: S,
    unread: Vec<u8>,
}

/// A session in memory, ready for commands, with a peer that offers `oob`.
pub(crate) async fn session(options: Options) -> (Client, Peer) {
    let (socket, stream) = Socket::pair();
    session_over(socket, stream, options).await
}

/// A session over the two given ends.
pub(crate) async fn session_over<S: AsyncRead + AsyncWrite + Unpin>(
    socket: impl Into<Socket>,
    stream: S,
    options: Options,
) -> (Client, Peer<S>) {
    let mut peer = Peer::new(stream);
    let (client, ()) = tokio::join!(Client::over(socket, options), peer.settle());
    (client.unwrap(), peer)
}

/// Options that ask for no capability, so that any number of commands may be in flight.
pub(crate) fn in_band() -> Options {
    Options::default().capabilities::<[&str; 0]>([])
}

/// Begins a command in a task of its own.
pub(crate) fn start(client: &Client, name: &str) -> JoinHandle<Result<Value, ExecuteError>> {
    let (client, name) = (client.clone(), name.to_owned());
    tokio::spawn(async move { client.execute(&name, ()).await })
}

/// Polls `future` once, as somebody does who then turns to something else.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// The outcome of `future`, or a panic instead of a hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it hangs")
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// Greets and grants what the client negotiates.
    pub(crate) async fn settle(&mut self) {
        self.say(GREETING).await;
        let negotiation = self.command().await;
        assert_eq!(negotiation["execute"], "qmp_capabilities");
        self.answer(&negotiation, json!({})).await;
    }

    /// The next command.
    pub(crate) async fn command(&mut self) -> Value {
        self.next().await.expect("the client ended instead of sending a command")
    }

    /// The next command, or `None` when the client has ended the connection.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        soon(self.receive()).await
    }

    async fn receive(&mut self) -> Option<Value> {
        loop {
            let mut messages = serde_json::Deserializer::from_slice(&self.unread).into_iter();
            if let Some(Ok(message)) = messages.next() {
                let used = messages.byte_offset();
                self.unread.drain(..used);
                return Some(message);
            }
            // A reset is an end too: a client that closes with unread bytes causes one on a real socket.
            if self.stream.read_buf(&mut self.unread).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Proves that the client sends nothing more by itself; needs the paused clock, which moves only when all are idle.
    pub(crate) async fn hears_nothing(&mut self) {
        let heard = timeout(Duration::from_millis(1), self.receive()).await;
        assert!(heard.is_err(), "the client sent {heard:?}");
    }

    /// Sends `text` and a line end.
    pub(crate) async fn say(&mut self, text: &str) {
        self.send(format!("{text}\r\n").as_bytes()).await;
    }

    /// Sends `bytes` as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Sends `bytes` if the client is still there.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _client_is_gone = soon(self.stream.write_all(bytes)).await;
    }

    /// Answers `command` with `value`.
    pub(crate) async fn answer(&mut self, command: &Value, value: Value) {
        self.say(&json!({"return": value, "id": command["id"]}).to_string()).await;
    }

    /// Closes this end.
    pub(crate) fn hang_up(self) {
        drop(self.stream);
    }

    /// The stream itself, once the script is done with.
    pub(crate) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Peer<S> {
    /// Answers every command with its own arguments until the client ends the connection.
    pub(crate) fn echo(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            while let Some(command) = self.receive().await {
                self.answer(&command, command["arguments"].clone()).await;
            }
        })
    }
}

/// A folder that goes with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ratite-qmp-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.0);
    }
}
