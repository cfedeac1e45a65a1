//! A guest agent, scripted by a test.

use std::pin::pin;

use ratite_qmp::Agent;
use ratite_qmp::Socket;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;

use crate::peer::poll_once;
use crate::peer::soon;

/// The guest's end of an agent's channel.
pub(crate) struct AgentPeer {
    stream: DuplexStream,
    unread: Vec<u8>,
}

/// An agent in memory, to which nobody has spoken yet.
pub(crate) fn agent() -> (Agent, AgentPeer) {
    let (socket, stream) = Socket::pair();
    (Agent::over(socket), AgentPeer { stream, unread: Vec::new() })
}

impl AgentPeer {
    /// The next line, as an agent reads it: what a sentinel ends is forgotten.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = line.rsplit(|&byte| byte == 0xff).next().unwrap();
                return std::str::from_utf8(line).unwrap().trim_end().to_owned();
            }
            let count = soon(self.stream.read_buf(&mut self.unread)).await.unwrap();
            assert!(
                count > 0,
                "the client closed in the middle of {:?}",
                self.unread.escape_ascii().to_string()
            );
        }
    }

    /// The next command, which is no synchronisation; those on the way to it are answered.
    pub(crate) async fn command(&mut self) -> Value {
        loop {
            let command: Value = serde_json::from_str(&self.line().await).unwrap();
            match command["execute"].as_str() {
                Some("guest-sync-delimited") => self.synchronise(&command["arguments"]["id"]).await,
                _ => return command,
            }
        }
    }

    /// The id of the next line, which is a synchronisation.
    pub(crate) async fn sync_id(&mut self) -> Value {
        let command: Value = serde_json::from_str(&self.line().await).unwrap();
        assert_eq!(command["execute"], "guest-sync-delimited");
        command["arguments"]["id"].clone()
    }

    /// Answers a synchronisation.
    pub(crate) async fn synchronise(&mut self, id: &Value) {
        self.send(format!("{{\"return\": {id}}}\n").as_bytes(), true).await;
    }

    /// Sends bytes as they are, with a sentinel before them or not.
    pub(crate) async fn send(&mut self, bytes: &[u8], sentinel: bool) {
        if sentinel {
            self.stream.write_all(&[0xff]).await.unwrap();
        }
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Takes the next command, which has to be `name`, answers it with `value`, and returns its arguments.
    pub(crate) async fn answer(&mut self, name: &str, value: Value) -> Value {
        let command = self.command().await;
        assert_eq!(command["execute"], name, "{command}");
        self.send(format!("{{\"return\": {value}}}\n").as_bytes(), false).await;
        command["arguments"].clone()
    }

    /// Takes the next command and refuses it.
    pub(crate) async fn refuse(&mut self, class: &str, desc: &str) {
        self.command().await;
        let error = serde_json::json!({ "error": { "class": class, "desc": desc } });
        self.send(format!("{error}\n").as_bytes(), false).await;
    }

    /// Whether something more has been sent to it.
    pub(crate) async fn has_unread(&mut self) -> bool {
        let read = pin!(self.stream.read_buf(&mut self.unread));
        poll_once(read).await.is_ready() || !self.unread.is_empty()
    }
}
