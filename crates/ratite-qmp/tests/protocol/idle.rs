//! A command that finds nothing under way is written and waited for in a shorter way; nobody may notice but by the time it takes.

use std::io::Read;
use std::pin::pin;
use std::sync::mpsc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use ratite_qmp::on_this_thread;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::runtime::RuntimeFlavor;

use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::poll_once;
use crate::peer::session_over;
use crate::peer::soon;

async fn session() -> (Client, Peer<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    session_over(ours, theirs, in_band()).await
}

/// Plays the same on a runtime of one thread and on one of several, which do this in different ways.
fn on_each_runtime<F: Future<Output = ()> + Send + 'static>(play: impl Fn() -> F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play());
    Runtime::new().unwrap().block_on(play());
    // As a task, whose wake-ups take other ways than those of the outermost future.
    let runtime = Runtime::new().unwrap();
    runtime.block_on(runtime.spawn(play())).unwrap();
}

#[test]
fn a_command_that_finds_nothing_under_way_is_written_at_once() {
    on_each_runtime(|| async {
        let (client, peer) = session().await;
        let mut command = pin!(client.execute("first", ()));

        assert!(poll_once(command.as_mut()).await.is_pending());

        let mut theirs = peer.into_stream();
        let mut bytes = [0; 64];
        let count = match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => theirs.into_std().unwrap().read(&mut bytes).unwrap(),
            // The connection's task may be having a turn on another thread, and then writes it.
            _ => soon(theirs.read(&mut bytes)).await.unwrap(),
        };
        assert_eq!(bytes[..count], *br#"{"execute":"first","id":1}"#);
    });
}

#[test]
fn others_are_served_though_the_one_who_began_is_not_polled() {
    on_each_runtime(|| async {
        let (client, mut peer) = session().await;
        let listener = client.listen(EventFilter::any());
        let mut neglected = pin!(client.execute("neglected", ()));
        assert!(poll_once(neglected.as_mut()).await.is_pending());
        let first = peer.command().await;

        peer.say(r#"{"event":"A"}"#).await;
        assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "A");
        let (answer, ()) = tokio::join!(soon(client.execute("another", ())), async {
            let second = peer.command().await;
            peer.answer(&second, json!("the other's")).await;
            peer.answer(&first, json!("his own")).await;
            peer.say(r#"{"event":"B"}"#).await;
        });

        assert_eq!(answer.unwrap(), "the other's");
        assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "B");
        assert_eq!(soon(neglected).await.unwrap(), "his own");
    });
}

#[test]
fn a_reply_that_came_with_the_hang_up_waits_for_its_caller() {
    on_each_runtime(|| async {
        let (client, mut peer) = session().await;
        let mut quit = pin!(client.execute("quit", ()));
        assert!(poll_once(quit.as_mut()).await.is_pending());
        let command = peer.command().await;

        peer.answer(&command, json!("bye")).await;
        peer.hang_up();
        soon(client.closed()).await;

        assert_eq!(soon(quit).await.unwrap(), "bye");
        assert!(client.execute("next", ()).await.unwrap_err().is_disconnected());
    });
}

#[test]
fn a_command_dropped_after_any_number_of_turns_leaves_the_next_one_its_own_reply() {
    on_each_runtime(|| async {
        for turns in 0..6 {
            let (client, mut peer) = session().await;
            let mut dropped = Box::pin(client.execute("dropped", ()));
            for _ in 0..turns {
                assert!(poll_once(dropped.as_mut()).await.is_pending());
                tokio::task::yield_now().await;
            }

            drop(dropped);

            let (answer, ()) = tokio::join!(soon(client.execute("next", ())), async {
                loop {
                    let command = peer.command().await;
                    peer.answer(&command, command["execute"].clone()).await;
                    if command["execute"] == "next" {
                        return;
                    }
                }
            });
            assert_eq!(answer.unwrap(), "next", "after {turns} turns");
        }
    });
}

#[test]
fn a_peer_that_answers_twice_answers_nobody_else() {
    on_each_runtime(|| async {
        let (client, mut peer) = session().await;
        let echo = tokio::spawn(async move {
            while let Some(command) = peer.next().await {
                let answer = json!({"return": command["arguments"], "id": command["id"]});
                // At once: after the first, the client may close.
                peer.say(&format!("{answer}\r\n{answer}")).await;
            }
        });

        for number in 0..200 {
            let said = json!({"number": number});
            assert_eq!(soon(client.execute("echo", &said)).await.unwrap(), said);
        }

        soon(client.close()).await;
        soon(echo).await.unwrap();
    });
}

#[test]
fn what_the_socket_does_not_take_at_once_is_written_later() {
    on_each_runtime(|| async {
        let (client, peer) = session().await;
        let blob = json!({"blob": "x".repeat(4 << 20)});
        let mut large = Box::pin(client.execute("large", &blob));
        assert!(poll_once(large.as_mut()).await.is_pending());
        let echo = peer.echo();

        assert_eq!(soon(large).await.unwrap(), blob);
        assert_eq!(soon(client.execute("small", &json!({"a": 1}))).await.unwrap(), json!({"a": 1}));

        drop(client);
        soon(echo).await.unwrap();
    });
}

#[test]
fn a_command_ends_at_its_limit_and_its_late_reply_finds_nobody() {
    on_each_runtime(|| async {
        let (client, mut peer) = session().await;
        let slow = client.send(Command::new("slow").limit(Duration::from_millis(5))).await;
        let late = peer.command().await;
        peer.answer(&late, json!("late")).await;

        let (next, ()) = tokio::join!(soon(client.execute("next", ())), async {
            let command = peer.command().await;
            peer.answer(&command, json!("in time")).await;
        });

        assert!(matches!(slow, Err(ExecuteError::TimedOut(_))));
        assert_eq!(next.unwrap(), "in time");
    });
}

/// A session whose peer is driven by another thread, as a thread finds it that has no runtime of its own.
struct Outside {
    runtime: Runtime,
    client: Client,
}

impl Outside {
    fn with_peer<F: Future<Output = ()> + Send>(
        play: impl FnOnce(Peer<UnixStream>) -> F + Send + 'static,
    ) -> Self {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            own.block_on(async {
                theirs.set_nonblocking(true).unwrap();
                let mut peer = Peer::new(UnixStream::from_std(theirs).unwrap());
                peer.settle().await;
                play(peer).await;
            });
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime
            .block_on(async { Client::over(Socket::try_from(ours).unwrap(), Options::default()).await })
            .unwrap();
        Self { runtime, client }
    }

    /// Executes a command as a thread does that would do nothing else; whether its answer came on this thread.
    fn execute(&self, name: &str) -> (Result<Value, ExecuteError>, bool) {
        self.wait(self.client.execute(name, ()))
    }

    fn wait<T>(&self, command: impl Future<Output = T>) -> (T, bool) {
        let mut command = pin!(command);
        let _within = self.runtime.enter();
        let mut nobody = Context::from_waker(Waker::noop());
        match on_this_thread(|| command.as_mut().poll(&mut nobody)) {
            Poll::Ready(outcome) => (outcome, true),
            Poll::Pending => (self.runtime.block_on(soon(command)), false),
        }
    }
}

#[test]
fn a_thread_that_waits_itself_gets_its_reply_and_others_their_events() {
    let outside = Outside::with_peer(|mut peer| async move {
        for _ in 0..100 {
            let command = peer.command().await;
            peer.say(r#"{"event":"A"}"#).await;
            let long = json!({"name": command["execute"], "blob": "x".repeat(100 << 10)});
            peer.answer(&command, long).await;
        }
        peer.next().await;
    });
    let listener = outside.client.listen(EventFilter::any());

    for number in 0..100 {
        let (outcome, _here) = outside.execute(&number.to_string());
        assert_eq!(outcome.unwrap()["name"], number.to_string());
        assert_eq!(listener.len(), number + 1);
    }
}

#[test]
fn a_thread_whose_reply_takes_long_gets_it_from_the_runtime() {
    let (answer, may_answer) = tokio::sync::oneshot::channel();
    let outside = Outside::with_peer(|mut peer| async move {
        let command = peer.command().await;
        may_answer.await.unwrap();
        peer.answer(&command, json!("at last")).await;
        peer.next().await;
    });

    let mut command = pin!(outside.client.execute("slow", ()));
    let within = outside.runtime.enter();
    let mut nobody = Context::from_waker(Waker::noop());
    assert!(on_this_thread(|| command.as_mut().poll(&mut nobody)).is_pending());
    drop(within);
    answer.send(()).unwrap();

    assert_eq!(outside.runtime.block_on(soon(command)).unwrap(), "at last");
}

#[test]
fn a_thread_that_waits_itself_is_told_of_the_end() {
    for answers in [0, 1] {
        let outside = Outside::with_peer(move |mut peer| async move {
            let command = peer.command().await;
            if answers > 0 {
                peer.answer(&command, json!("bye")).await;
            }
        });

        let (outcome, _here) = outside.execute("quit");

        match answers {
            0 => assert!(outcome.unwrap_err().is_disconnected()),
            _ => assert_eq!(outcome.unwrap(), "bye"),
        }
        assert!(outside.execute("next").0.unwrap_err().is_disconnected());
    }
}

#[test]
fn a_thread_that_waits_itself_does_not_hold_up_another_one() {
    let outside = Outside::with_peer(|mut peer| async move {
        let slow = peer.command().await;
        let quick = peer.command().await;
        peer.answer(&quick, json!("quick")).await;
        peer.answer(&slow, json!("slow")).await;
        peer.next().await;
    });

    std::thread::scope(|scope| {
        let slow = scope.spawn(|| outside.execute("slow").0);
        // Either comes first: the peer answers the second before the first.
        let quick = scope.spawn(|| outside.execute("quick").0);
        let answers = [slow.join().unwrap().unwrap(), quick.join().unwrap().unwrap()];
        assert!(answers.iter().any(|answer| answer == "quick"));
        assert!(answers.iter().any(|answer| answer == "slow"));
    });
}

/// The outcome of `work`, or a panic instead of a hang that no runtime's clock would end.
fn before_long<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (answer, outcome) = mpsc::channel();
    std::thread::spawn(move || answer.send(work()));
    outcome.recv_timeout(PATIENCE).expect("it hangs")
}

#[test]
fn a_thread_that_waits_itself_is_told_of_an_end_that_comes_with_a_long_reply() {
    for (sent, is_whole) in [(1500, true), (900, true), (1500, false)] {
        let (answer, may_answer) = tokio::sync::oneshot::channel();
        let (answered, is_answered) = mpsc::channel();
        let outside = Outside::with_peer(move |peer| async move {
            let mut stream = peer.into_stream();
            may_answer.await.unwrap();
            let reply = json!({"return": "x".repeat(sent), "id": 1}).to_string();
            let reply = &reply[..reply.len() - usize::from(!is_whole)];
            stream.write_all(reply.as_bytes()).await.unwrap();
            // It still reads: the command can be written.
            stream.shutdown().await.unwrap();
            answered.send(()).unwrap();
            Peer::new(stream).command().await;
        });
        answer.send(()).unwrap();
        is_answered.recv().unwrap();

        let (first, next) =
            before_long(move || (outside.execute("first").0, outside.execute("next").0.unwrap_err()));

        match is_whole {
            true => assert_eq!(first.unwrap(), "x".repeat(sent)),
            false => assert!(first.unwrap_err().is_disconnected()),
        }
        assert!(next.is_disconnected());
    }
}

#[test]
fn a_command_ends_at_its_limit_though_events_keep_coming() {
    for is_blocking in [true, false] {
        let outside = Outside::with_peer(|mut peer| async move {
            let command = peer.command().await;
            let mut stream = peer.into_stream();
            // Always more than the socket holds, and than can be read within the limit.
            let events = b"{\"event\":\"A\"}\r\n".repeat(1 << 16);
            for _ in 0..32 {
                if stream.write_all(&events).await.is_err() {
                    return;
                }
            }
            let mut peer = Peer::new(stream);
            peer.answer(&command, json!("late")).await;
            peer.next().await;
        });

        let outcome = before_long(move || {
            let command = Command::new("slow").limit(Duration::from_millis(5));
            let command = outside.client.send(command);
            if is_blocking { outside.wait(command).0 } else { outside.runtime.block_on(command) }
        });

        assert!(matches!(outcome, Err(ExecuteError::TimedOut(_))), "{is_blocking}: {outcome:?}");
    }
}
