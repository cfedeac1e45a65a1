//! A peer that does not read for a while, like a QEMU that is stopped.

use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::session_over;
use crate::peer::soon;
use crate::peer::start;

/// A command that is longer than any socket holds, so that its end waits until the peer reads.
fn long() -> Command {
    let blob = "x".repeat(1 << 20);
    Command::new("long").arguments(json!({"blob": blob})).unwrap()
}

/// Waits until `task` has been polled and everybody is idle.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

async fn time_out(client: &Client, command: Command) {
    let outcome = client.send(command.limit(Duration::from_secs(1))).await;
    assert!(matches!(outcome, Err(ExecuteError::TimedOut(_))), "{outcome:?}");
}

async fn check_usable(client: &Client, peer: &mut Peer) {
    let last = start(client, "last");
    let command = peer.command().await;
    assert_eq!(command["execute"], "last");
    peer.answer(&command, json!(1)).await;
    assert_eq!(soon(last).await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_begun_is_sent_whole_though_it_was_given_up() {
    let (client, mut peer) = session(in_band()).await;
    time_out(&client, long()).await;

    let command = peer.command().await;

    assert_eq!(command["execute"], "long");
    assert_eq!(command["arguments"]["blob"].as_str().unwrap().len(), 1 << 20);
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn commands_given_up_before_they_were_begun_are_never_sent() {
    let (client, mut peer) = session(in_band()).await;
    time_out(&client, long()).await;
    for n in 0..10 {
        time_out(&client, Command::new(n.to_string())).await;
    }

    assert_eq!(peer.command().await["execute"], "long");

    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_given_up_when_not_one_byte_could_be_written_is_never_sent() {
    let (client, mut peer) = session(in_band()).await;
    // Fills the 64 KiB between the two to the last byte.
    let envelope = r#"{"execute":"full","arguments":{"a":""},"id":1}"#.len();
    let blob = "x".repeat((64 << 10) - envelope);
    time_out(&client, Command::new("full").arguments(json!({"a": blob})).unwrap()).await;
    time_out(&client, Command::new("given up")).await;

    assert_eq!(peer.command().await["execute"], "full");

    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn out_of_band_commands_given_up_before_they_were_begun_are_never_sent() {
    let (client, mut peer) = session(Options::default()).await;
    time_out(&client, long()).await;
    for n in 0..10 {
        time_out(&client, Command::new(n.to_string()).oob()).await;
    }

    assert_eq!(peer.command().await["execute"], "long");

    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn commands_that_still_wait_are_sent_when_the_peer_reads_again() {
    let (client, mut peer) = session(in_band()).await;
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.send(long()).await.map(|_| ()) }
    });
    settle().await;
    let tasks: Vec<_> = (0..50).map(|n| start(&client, &n.to_string())).collect();
    settle().await;

    let command = peer.command().await;
    peer.answer(&command, json!({})).await;
    for n in 0..50 {
        let command = peer.command().await;
        assert_eq!(command["execute"], n.to_string());
        peer.answer(&command, json!(n)).await;
    }

    assert!(soon(first).await.unwrap().is_ok());
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(soon(task).await.unwrap().unwrap(), n);
    }
}

#[tokio::test(start_paused = true)]
async fn events_and_replies_still_come_while_the_peer_does_not_read() {
    let (client, mut peer) = session(in_band()).await;
    let listener = client.listen(EventFilter::any());
    let early = start(&client, "early");
    let command = peer.command().await;
    let _late = tokio::spawn({
        let client = client.clone();
        async move { client.send(long()).await }
    });
    settle().await;

    peer.say(r#"{"event":"STOP"}"#).await;
    peer.answer(&command, json!("early")).await;

    assert_eq!(soon(early).await.unwrap().unwrap(), "early");
    assert_eq!(listener.next(Duration::from_secs(1)).await.unwrap().name(), "STOP");
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_a_blocked_peer_can_be_closed() {
    let (client, peer) = session(in_band()).await;
    let long = tokio::spawn({
        let client = client.clone();
        async move { client.send(long()).await }
    });
    settle().await;

    soon(client.close()).await;

    assert!(soon(long).await.unwrap().unwrap_err().is_disconnected());
    drop(peer);
}

#[tokio::test]
async fn a_stopped_peer_on_a_real_socket_times_commands_out_and_recovers() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (client, mut peer) = session_over(ours, theirs, in_band()).await;
    let blob = "x".repeat(512 << 10);
    let long = Command::new("long").arguments(json!({"blob": blob})).unwrap();

    let outcome = client.send(long.limit(Duration::from_millis(20))).await;
    let given_up = client.send(Command::new("given up").limit(Duration::from_millis(20))).await;

    assert!(matches!(outcome, Err(ExecuteError::TimedOut(_))));
    assert!(matches!(given_up, Err(ExecuteError::TimedOut(_))));
    assert_eq!(peer.command().await["execute"], "long");
    let last = start(&client, "last");
    let command = peer.command().await;
    peer.answer(&command, json!(1)).await;
    assert_eq!(command["execute"], "last");
    assert_eq!(soon(last).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn the_descriptor_of_a_command_given_up_before_it_was_begun_is_closed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (client, _peer) = session_over(Socket::from(ours), theirs, in_band()).await;
    let blocking = tokio::spawn({
        let client = client.clone();
        let blob = "x".repeat(1 << 20);
        let long = Command::new("long").arguments(json!({"blob": blob})).unwrap();
        async move { client.send(long).await }
    });
    settle().await;
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
            .unwrap();
    let reader = pipe::Receiver::from_owned_fd(reader).unwrap();
    for name in ["first", "second"] {
        let fd = writer.try_clone().unwrap();
        let command = Command::new(name).fd(fd).limit(Duration::from_millis(20));
        assert!(client.send(command).await.is_err());
    }
    drop(writer);

    let closed = timeout(Duration::from_secs(2), async {
        let mut byte = [0];
        tokio::io::AsyncReadExt::read(&mut { reader }, &mut byte).await.unwrap()
    })
    .await;

    assert_eq!(closed, Ok(0), "somebody still holds the descriptor");
    blocking.abort();
}
