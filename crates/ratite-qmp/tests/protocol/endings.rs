//! How a connection ends, and who is told what.

use std::io::Read;
use std::time::Duration;

use ratite_qmp::Disconnect;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::ListenError;
use ratite_qmp::Malformed;
use ratite_qmp::Options;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::peer::PATIENCE;
use crate::peer::in_band;
use crate::peer::poll_once;
use crate::peer::session;
use crate::peer::session_over;
use crate::peer::soon;
use crate::peer::start;

#[tokio::test(start_paused = true)]
async fn commands_in_flight_and_waiting_fail_at_once_when_the_peer_hangs_up() {
    let (client, mut peer) = session(Options::default()).await;
    let tasks: Vec<_> = (0..20).map(|_| start(&client, "x")).collect();
    for _ in 0..8 {
        peer.command().await;
    }
    let start = Instant::now();

    peer.hang_up();

    for task in tasks {
        match task.await.unwrap().unwrap_err() {
            ExecuteError::Disconnected { command, source: Disconnect::ByPeer } => assert_eq!(command, "x"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn commands_after_the_end_fail_at_once_with_its_reason() {
    let (client, mut peer) = session(Options::default()).await;
    peer.say("garbage").await;
    soon(client.closed()).await;
    let start = Instant::now();

    for _ in 0..3 {
        let outcome = client.execute("x", ()).await;

        assert!(
            matches!(
                &outcome,
                Err(ExecuteError::Disconnected {
                    source: Disconnect::Malformed(Malformed::NotAnObject { .. }),
                    ..
                })
            ),
            "{outcome:?}"
        );
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_came_with_the_hang_up_is_still_delivered() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());
    let quit = start(&client, "quit");
    let command = peer.command().await;

    peer.say(r#"{"event":"SHUTDOWN"}"#).await;
    peer.answer(&command, json!({})).await;
    peer.hang_up();

    assert_eq!(soon(quit).await.unwrap().unwrap(), json!({}));
    assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "SHUTDOWN");
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_said_before_it_hung_up_is_delivered_though_commands_cannot_be_written() {
    // About as many as a task may do steps before tokio makes it yield (128), so that it yields at each place.
    for count in [1, 64, 124, 125, 126, 127, 128, 200] {
        let (client, mut peer) = session(in_band()).await;
        let listener = client.listen(EventFilter::any());
        let _tasks: Vec<_> = (0..count).map(|_| start(&client, "x")).collect();

        // All at once, before the connection has a turn.
        let events: String = (0..2000).map(|n| format!("{{\"event\":\"{n}\"}}\r\n")).collect();
        peer.send(events.as_bytes()).await;
        peer.hang_up();
        let why = soon(client.closed()).await;

        assert_eq!(listener.len(), 2000, "with {count} commands, ended by {why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn closing_one_clone_fails_the_commands_of_all() {
    let (client, mut peer) = session(Options::default()).await;
    let clone = client.clone();
    let waiting = start(&clone, "x");
    peer.command().await;

    soon(client.close()).await;

    assert!(matches!(
        soon(waiting).await.unwrap(),
        Err(ExecuteError::Disconnected { source: Disconnect::ByUs, .. })
    ));
    assert!(matches!(clone.ended(), Some(Disconnect::ByUs)));
    assert!(clone.execute("x", ()).await.unwrap_err().is_disconnected());
    assert_eq!(peer.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn closing_twice_or_after_the_end_does_nothing() {
    let (client, peer) = session(Options::default()).await;
    peer.hang_up();

    soon(client.close()).await;
    soon(client.close()).await;

    assert!(client.ended().is_some());
}

#[tokio::test(start_paused = true)]
async fn many_closes_at_once_all_return() {
    let (client, _peer) = session(Options::default()).await;

    let closes: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.close().await })
        })
        .collect();

    for close in closes {
        soon(close).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn replies_after_the_close_find_no_reader() {
    let (client, mut peer) = session(Options::default()).await;
    let _waiting = start(&client, "x");
    peer.command().await;

    soon(client.close()).await;

    let mut stream = peer.into_stream();
    assert!(stream.write_all(b"{\"return\":{},\"id\":1}\r\n").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_client_closes_the_connection() {
    let (client, mut peer) = session(Options::default()).await;
    let clone = client.clone();
    let (listener, closed) = (client.listen(EventFilter::any()), client.closed());

    drop(client);
    peer.hears_nothing().await;
    drop(clone);

    assert_eq!(peer.next().await, None);
    assert!(matches!(soon(closed).await, Disconnect::ByUs));
    assert!(matches!(listener.next(PATIENCE).await, Err(ListenError::Disconnected(Disconnect::ByUs))));
}

#[tokio::test(start_paused = true)]
async fn a_connection_says_whether_and_why_it_ended() {
    let (client, peer) = session(Options::default()).await;
    assert!(client.ended().is_none());
    let mut closed = Box::pin(client.closed());
    assert!(poll_once(closed.as_mut()).await.is_pending());

    peer.hang_up();

    assert!(matches!(soon(closed).await, Disconnect::ByPeer));
    assert!(matches!(client.ended(), Some(Disconnect::ByPeer)));
}

#[tokio::test(start_paused = true)]
async fn half_a_message_at_the_end_is_told_to_those_who_wait() {
    let (client, mut peer) = session(Options::default()).await;
    let waiting = start(&client, "x");
    peer.command().await;

    peer.send(b"{\"return\": {\"a\": \"un").await;
    peer.hang_up();

    match soon(waiting).await.unwrap().unwrap_err() {
        ExecuteError::Disconnected {
            source: Disconnect::Malformed(Malformed::Truncated { excerpt }),
            ..
        } => assert!(excerpt.starts_with("{\\\"return"), "{excerpt}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_close_returns_the_socket_is_closed() {
    for round in 0..10 {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (client, peer) = session_over(ours, &mut theirs, in_band()).await;
        drop(peer);
        // So many that telling them all takes a while.
        let mut waiting: Vec<_> = (0..5_000).map(|_| Box::pin(client.execute("x", ()))).collect();
        for command in &mut waiting {
            assert!(poll_once(command.as_mut()).await.is_pending());
        }

        soon(client.close()).await;

        // Asked of the kernel itself: what the runtime knows of the socket may be behind.
        let mut theirs = theirs.into_std().unwrap();
        let mut bytes = vec![0; 64 << 10];
        let end = loop {
            match theirs.read(&mut bytes) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error.kind()),
            }
        };
        assert_eq!(end, Ok(()), "round {round}");
    }
}

#[test]
fn commands_fail_when_the_runtime_that_drove_the_connection_ends() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, mut peer) = runtime.block_on(session(Options::default()));
    let (listener, closed) = (client.listen(EventFilter::any()), client.closed());
    let waiting = std::thread::spawn({
        let client = client.clone();
        move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            own.block_on(client.execute("x", ()))
        }
    });
    runtime.block_on(peer.command());

    drop(runtime);

    let outcome = waiting.join().unwrap();
    assert!(
        matches!(outcome, Err(ExecuteError::Disconnected { source: Disconnect::Runtime, .. })),
        "{outcome:?}"
    );
    let own = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    own.block_on(async {
        assert!(matches!(soon(closed).await, Disconnect::Runtime));
        assert!(soon(client.execute("x", ())).await.unwrap_err().is_disconnected());
        assert!(matches!(listener.next(PATIENCE).await, Err(ListenError::Disconnected(Disconnect::Runtime))));
        soon(client.close()).await;
    });
}

#[tokio::test]
async fn a_peer_that_stops_sending_but_still_reads_has_ended_the_connection() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (client, peer) = session_over(ours, theirs, Options::default()).await;
    let mut theirs = peer.into_stream();

    theirs.shutdown().await.unwrap();

    assert!(matches!(soon(client.closed()).await, Disconnect::ByPeer));
    assert_eq!(soon(theirs.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_ends_with_commands_unread_has_closed_the_connection() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (client, peer) = session_over(ours, theirs, in_band()).await;
    let theirs = peer.into_stream();
    let tasks = [start(&client, "one"), start(&client, "two")];
    soon(theirs.readable()).await.unwrap();

    drop(theirs);

    for task in tasks {
        assert!(soon(task).await.unwrap().unwrap_err().is_disconnected());
    }
}
