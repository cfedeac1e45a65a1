//! Descriptors that travel with their command.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::Options;
use ratite_qmp::Reply;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;
use rustix::pipe::PipeFlags;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::Interest;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::poll_once;
use crate::peer::session;
use crate::peer::session_over;
use crate::peer::soon;
use crate::peer::start;

/// A session over a Unix socket, and the peer's end of it.
async fn unix_session(options: Options) -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (client, peer) = session_over(ours, theirs, options).await;
    (client, peer.into_stream())
}

/// What one `recvmsg` brings: text and descriptors.
pub(crate) async fn receive(stream: &UnixStream) -> (String, Vec<OwnedFd>) {
    let mut bytes = vec![0; 64 << 10];
    let mut fds = Vec::new();
    let receive = stream.async_io(Interest::READABLE, || {
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let got = rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        Ok(got.bytes)
    });
    let count = soon(receive).await.unwrap();
    (String::from_utf8(bytes[..count].to_vec()).unwrap(), fds)
}

fn send(client: &Client, command: Command) -> JoinHandle<Result<Reply, ExecuteError>> {
    let client = client.clone();
    tokio::spawn(async move { client.send(command).await })
}

/// A pipe: its reading end tells when nobody has the writing end any more.
fn pipe() -> (pipe::Receiver, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    (pipe::Receiver::from_owned_fd(reader).unwrap(), writer)
}

/// Proves that nobody has the writing end any more.
async fn check_closed(mut reader: pipe::Receiver) {
    let end = timeout(Duration::from_secs(2), reader.read(&mut [0])).await;
    assert_eq!(end.expect("somebody still has the descriptor").unwrap(), 0);
}

fn inode(fd: impl AsFd) -> u64 {
    rustix::fs::fstat(fd).unwrap().st_ino
}

#[tokio::test]
async fn a_descriptor_travels_with_its_command() {
    let (client, stream) = unix_session(in_band()).await;
    let file = File::open("Cargo.toml").unwrap();
    let command = Command::new("getfd").arguments(json!({"fdname": "f"})).unwrap();

    let asked = send(&client, command.fd(file.try_clone().unwrap()));
    let (text, fds) = receive(&stream).await;

    assert_eq!(text, r#"{"execute":"getfd","arguments":{"fdname":"f"},"id":1}"#);
    assert_eq!(fds.len(), 1);
    assert_eq!(inode(&fds[0]), inode(&file));
    asked.abort();
}

#[tokio::test]
async fn our_copy_is_closed_once_it_was_sent() {
    let (client, stream) = unix_session(in_band()).await;
    let (reader, writer) = pipe();

    let asked = send(&client, Command::new("getfd").fd(writer));
    let (_, fds) = receive(&stream).await;
    drop(fds);

    check_closed(reader).await;
    asked.abort();
}

#[tokio::test]
async fn each_descriptor_arrives_with_its_own_command() {
    let (client, stream) = unix_session(in_band()).await;
    let files = ["Cargo.toml", "src/lib.rs"].map(|path| File::open(path).unwrap());

    let tasks = [
        send(&client, Command::new("plain")),
        send(&client, Command::new("first").fd(files[0].try_clone().unwrap())),
        send(&client, Command::new("plain")),
        send(&client, Command::new("second").fd(files[1].try_clone().unwrap())),
        send(&client, Command::new("plain")),
    ];
    let mut text = String::new();
    while text.matches("execute").count() < 5 {
        let (part, fds) = receive(&stream).await;
        text += &part;

        // The kernel ends a read behind the message that carried descriptors, so each read has those of one at most.
        for (fd, (name, file)) in fds.iter().zip(
            [("first", &files[0]), ("second", &files[1])].iter().filter(|(name, _)| part.contains(*name)),
        ) {
            assert_eq!(inode(fd), inode(file), "{name}");
        }
        assert_eq!(fds.len(), part.matches("first").count() + part.matches("second").count());
    }

    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn as_many_descriptors_as_the_kernel_takes_travel_at_once() {
    let (client, stream) = unix_session(in_band()).await;
    let file = File::open("Cargo.toml").unwrap();
    let command = (0..253).fold(Command::new("x"), |command, _| command.fd(file.try_clone().unwrap()));

    let asked = send(&client, command);
    let (_, fds) = receive(&stream).await;

    assert_eq!(fds.len(), 253);
    asked.abort();
}

#[tokio::test]
async fn more_descriptors_than_the_kernel_takes_fail_their_command_only() {
    let (client, stream) = unix_session(in_band()).await;
    let mut peer = Peer::new(stream);
    let file = File::open("Cargo.toml").unwrap();
    let other = start(&client, "other");
    let other_command = peer.command().await;
    let command = (0..254).fold(Command::new("x"), |command, _| command.fd(file.try_clone().unwrap()));

    let outcome = soon(client.send(command)).await;
    peer.answer(&other_command, json!("well")).await;

    assert!(outcome.is_err());
    let other = soon(other).await.unwrap();
    assert!(matches!(&other, Ok(Value::String(text)) if text == "well"), "{other:?}");
}

#[tokio::test]
async fn the_descriptor_of_a_long_command_is_sent_once() {
    let (client, stream) = unix_session(in_band()).await;
    let blob = json!({"blob": "x".repeat(2 << 20)});
    let (reader, writer) = pipe();

    let asked = send(&client, Command::new("x").arguments(blob).unwrap().fd(writer));
    let (mut bytes, mut received) = (0, Vec::new());
    while bytes < 2 << 20 {
        let (part, fds) = receive(&stream).await;
        bytes += part.len();
        received.extend(fds);
    }

    assert_eq!(received.len(), 1);
    drop(received);
    check_closed(reader).await;
    asked.abort();
}

#[tokio::test]
async fn a_descriptor_travels_out_of_band() {
    let (client, stream) = unix_session(Options::default()).await;
    let (_reader, writer) = pipe();

    let asked = send(&client, Command::new("getfd").oob().fd(writer));
    let (text, fds) = receive(&stream).await;

    assert!(text.contains("exec-oob") && fds.len() == 1);
    asked.abort();
}

#[tokio::test]
async fn memory_carries_no_descriptor() {
    let (client, mut peer) = session(in_band()).await;
    let (reader, writer) = pipe();

    let outcome = soon(client.send(Command::new("getfd").fd(writer))).await;

    assert!(matches!(outcome, Err(ExecuteError::NoDescriptors { command }) if command == "getfd"));
    check_closed(reader).await;
    let next = start(&client, "next");
    let command = peer.command().await;
    peer.answer(&command, json!(1)).await;
    assert_eq!(command["execute"], "next");
    assert!(soon(next).await.unwrap().is_ok());
}

#[tokio::test]
async fn tcp_carries_no_descriptor() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (theirs, _) = listener.accept().await.unwrap();
    let (client, _peer) = session_over(ours, theirs, in_band()).await;
    let (reader, writer) = pipe();

    let outcome = soon(client.send(Command::new("getfd").fd(writer))).await;

    assert!(matches!(outcome, Err(ExecuteError::NoDescriptors { .. })));
    check_closed(reader).await;
}

#[tokio::test]
async fn the_descriptor_of_a_command_that_was_not_sent_is_closed() {
    let (client, _stream) = unix_session(in_band()).await;
    let (reader, writer) = pipe();

    {
        let mut given_up = Box::pin(client.send(Command::new("getfd").fd(writer)));
        assert!(poll_once(given_up.as_mut()).await.is_pending());
    }

    check_closed(reader).await;
}

#[tokio::test]
async fn the_descriptor_of_a_command_after_the_end_is_closed() {
    let (client, mut stream) = unix_session(in_band()).await;
    stream.shutdown().await.unwrap();
    soon(client.closed()).await;
    let (reader, writer) = pipe();

    let outcome = soon(client.send(Command::new("getfd").fd(writer))).await;

    assert!(outcome.unwrap_err().is_disconnected());
    check_closed(reader).await;
}

#[tokio::test]
async fn descriptors_that_the_peer_sends_are_not_kept() {
    let (client, stream) = unix_session(in_band()).await;
    let (reader, writer) = pipe();
    let listener = client.listen(EventFilter::any());

    soon(stream.async_io(Interest::WRITABLE, || {
        let fds = [writer.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let bytes = std::io::IoSlice::new(br#"{"event":"A"}"#);
        Ok(rustix::net::sendmsg(&stream, &[bytes], &mut ancillary, rustix::net::SendFlags::empty())?)
    }))
    .await
    .unwrap();
    drop(writer);

    assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "A");
    check_closed(reader).await;
}
