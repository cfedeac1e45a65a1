//! The server's side of a QMP connection, said line by line by a test.
//!
//! Blocking, for a thread of its own beside the client under test. No read waits longer than 10 s, so that a
//! broken client fails its test instead of stopping it.

use std::collections::VecDeque;
use std::io;
use std::io::IoSliceMut;
use std::io::Write;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::net::recvmsg;
use serde_json::Deserializer;
use serde_json::Value;
use serde_json::json;

/// A QMP server that says what it is told to.
#[derive(Debug)]
pub struct ScriptedQmp {
    stream: UnixStream,
    unread: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl ScriptedQmp {
    /// Plays the server on `stream`, which becomes blocking.
    ///
    /// # Panics
    /// If the stream refuses its settings.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        stream.set_nonblocking(false).expect("a socket can be made blocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket has a write timeout");
        Self { stream, unread: Vec::new(), descriptors: VecDeque::new() }
    }

    /// Makes a pair, plays `script` on one end in a thread, and returns the other end for the client.
    ///
    /// Join the thread, so that a failure of the script is a failure of the test.
    ///
    /// # Panics
    /// If no pair can be made.
    pub fn play<T: Send + 'static>(
        script: impl FnOnce(ScriptedQmp) -> T + Send + 'static,
    ) -> (UnixStream, JoinHandle<T>) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        (theirs, thread::spawn(move || script(Self::new(ours))))
    }

    /// Writes `text` as it is.
    ///
    /// # Panics
    /// If the client is gone or takes nothing for 10 s.
    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    /// Writes `bytes` as they are.
    ///
    /// # Panics
    /// If the client is gone or takes nothing for 10 s.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            panic!("the client did not take {} bytes: {error}", bytes.len());
        }
    }

    /// Writes `bytes`, and leaves it to the caller what it means that the client is gone.
    ///
    /// # Errors
    /// What the socket says.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one message on a line of its own, ended as QEMU does.
    ///
    /// # Panics
    /// As [`send_bytes`](Self::send_bytes).
    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.send_text(&format!("{message}\r\n"));
    }

    /// Greets as QEMU 9.9.9 with out-of-band execution.
    ///
    /// # Panics
    /// As [`send_bytes`](Self::send_bytes).
    #[track_caller]
    pub fn greet(&mut self) {
        let version = json!({ "qemu": { "micro": 9, "minor": 9, "major": 9 }, "package": "scripted" });
        self.send(&json!({ "QMP": { "version": version, "capabilities": ["oob"] } }));
    }

    /// Reads the next command, whether or not anything stands between it and its neighbours.
    ///
    /// # Panics
    /// If the client says something else, closes the connection, or says nothing for 10 s.
    #[track_caller]
    pub fn read_command(&mut self) -> Value {
        self.try_read_command().expect("the client closed the connection instead of sending a command")
    }

    /// Reads the next command; `None` if the client has closed the connection.
    ///
    /// # Panics
    /// If the client says something else, or says nothing for 10 s.
    #[track_caller]
    pub fn try_read_command(&mut self) -> Option<Value> {
        loop {
            let mut values = Deserializer::from_slice(&self.unread).into_iter::<Value>();
            match values.next() {
                Some(Ok(command)) => {
                    let end = values.byte_offset();
                    self.unread.drain(..end);
                    assert!(command.is_object(), "the client sent {command} instead of a command");
                    return Some(command);
                }
                Some(Err(error)) if !error.is_eof() => {
                    panic!("the client sent no JSON ({error}): {:?}", String::from_utf8_lossy(&self.unread));
                }
                // Not yet whole.
                Some(Err(_)) | None => {}
            }
            if !self.read_more() {
                assert!(
                    self.unread.trim_ascii().is_empty(),
                    "the client closed the connection inside of a command: {:?}",
                    String::from_utf8_lossy(&self.unread)
                );
                return None;
            }
        }
    }

    /// Reads until the client closes the connection, and returns the commands that came before.
    ///
    /// # Panics
    /// As [`try_read_command`](Self::try_read_command).
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.try_read_command()).collect()
    }

    /// The descriptors that have come along with what was read, oldest first.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        self.descriptors.drain(..).collect()
    }

    /// Answers `command` with `value`, under its id.
    ///
    /// # Panics
    /// As [`send_bytes`](Self::send_bytes).
    #[track_caller]
    pub fn reply(&mut self, command: &Value, value: impl Into<Value>) {
        self.send(&with_id(command, json!({ "return": value.into() })));
    }

    /// Refuses `command`, under its id.
    ///
    /// # Panics
    /// As [`send_bytes`](Self::send_bytes).
    #[track_caller]
    pub fn error(&mut self, command: &Value, class: &str, desc: &str) {
        self.send(&with_id(command, json!({ "error": { "class": class, "desc": desc } })));
    }

    /// Sends an event, always with the same timestamp.
    ///
    /// # Panics
    /// As [`send_bytes`](Self::send_bytes).
    #[track_caller]
    pub fn event(&mut self, name: &str, data: impl Into<Value>) {
        let timestamp = json!({ "seconds": 1_700_000_000, "microseconds": 5 });
        self.send(&json!({ "event": name, "data": data.into(), "timestamp": timestamp }));
    }

    /// Greets, reads `qmp_capabilities`, and accepts it.
    ///
    /// Returns that command, for tests that look at what the client wants.
    ///
    /// # Panics
    /// If the client sends another command; and as [`read_command`](Self::read_command).
    #[track_caller]
    pub fn handshake(&mut self) -> Value {
        self.greet();
        let command = self.read_command();
        assert_eq!(command["execute"], "qmp_capabilities", "the client began with {command}");
        self.reply(&command, json!({}));
        command
    }

    /// Reads a command that must be `name`, and returns it.
    ///
    /// # Panics
    /// If it is another; and as [`read_command`](Self::read_command).
    #[track_caller]
    pub fn expect_command(&mut self, name: &str) -> Value {
        let command = self.read_command();
        let said = command.get("execute").or_else(|| command.get("exec-oob"));
        assert_eq!(said, Some(&Value::from(name)), "the client sent {command}");
        command
    }

    /// Says nothing more, but goes on listening.
    pub fn close_writing(&mut self) {
        // A client that is gone already has no use for it.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes the connection.
    pub fn close(self) {
        drop(self);
    }

    /// Reads once; `false` at the end.
    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let message = loop {
            match recvmsg(&self.stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => break message,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => panic!("the client has sent nothing for {PATIENCE:?}"),
                // What the client left unread makes its end a reset.
                Err(Errno::CONNRESET) => return false,
                Err(error) => panic!("reading from the client: {error}"),
            }
        };
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                self.descriptors.extend(rights);
            }
        }
        self.unread.extend_from_slice(&bytes[..message.bytes]);
        message.bytes > 0
    }
}

fn with_id(command: &Value, mut message: Value) -> Value {
    if let Some(id) = command.get("id") {
        message["id"] = id.clone();
    }
    message
}

/// How long a script waits for the client.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::BufRead;
    use std::io::BufReader;

    use crate::orphans::exclusive;

    #[test]
    fn commands_need_nothing_between_them() {
        let _alone = exclusive();
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(br#"{"execute":"a"}{"execute":"b","id":[1]} {"exec"#).unwrap();
        client.write_all(br#"ute":"c"}"#).unwrap();
        drop(client);

        let commands = ScriptedQmp::new(server).read_to_end();

        assert_eq!(
            commands,
            [json!({ "execute": "a" }), json!({ "execute": "b", "id": [1] }), json!({ "execute": "c" }),]
        );
    }

    #[test]
    fn answers_carry_the_id_of_their_command() {
        let _alone = exclusive();
        let (client, script) = ScriptedQmp::play(|mut qmp| {
            let command = qmp.read_command();
            qmp.reply(&command, json!({}));
            qmp.error(&command, "GenericError", "no");
            qmp.event("STOP", json!({}));
            qmp.close();
        });
        (&client).write_all(br#"{"execute":"a","id":{"x":1}}"#).unwrap();

        let lines: Vec<_> = BufReader::new(client).lines().map(Result::unwrap).collect();

        script.join().unwrap();
        assert_eq!(lines[0], r#"{"id":{"x":1},"return":{}}"#);
        assert_eq!(lines[1], r#"{"error":{"class":"GenericError","desc":"no"},"id":{"x":1}}"#);
        assert!(lines[2].starts_with(r#"{"data":{},"event":"STOP""#));
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_handshake_ends_with_the_acceptance() {
        let _alone = exclusive();
        let (client, script) = ScriptedQmp::play(|mut qmp| qmp.handshake());
        (&client).write_all(br#"{"execute":"qmp_capabilities","id":1}"#).unwrap();

        let lines: Vec<_> = BufReader::new(client).lines().map(Result::unwrap).collect();

        assert_eq!(script.join().unwrap()["id"], 1);
        assert!(lines[0].starts_with(r#"{"QMP":"#), "{lines:?}");
        assert_eq!(lines[1], r#"{"id":1,"return":{}}"#);
    }
}
