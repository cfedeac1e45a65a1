//! Many commands on one connection: whose reply is whose, and what becomes of those that are given up.

use std::collections::HashSet;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::Error;
use ratite_qmp::ExecuteError;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use ratite_qmp::Server;
use ratite_qmp::Socket;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::peer::PATIENCE;
use crate::peer::in_band;
use crate::peer::poll_once;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

#[tokio::test(start_paused = true)]
async fn a_reply_finds_its_command_whatever_the_order() {
    let (client, mut peer) = session(in_band()).await;

    let tasks = ["a", "b", "c"].map(|name| start(&client, name));
    let mut commands = Vec::new();
    for _ in 0..3 {
        commands.push(peer.command().await);
    }
    for command in commands.iter().rev() {
        peer.answer(command, command["execute"].clone()).await;
    }

    for (task, name) in tasks.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(soon(task).await.unwrap().unwrap(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn commands_are_sent_in_the_order_they_were_asked() {
    let (client, mut peer) = session(in_band()).await;

    let _tasks: Vec<_> = (0..100).map(|n| start(&client, &n.to_string())).collect();

    for n in 0..100 {
        assert_eq!(peer.command().await["execute"], n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_from_many_tasks_get_their_own_replies() {
    let (client, peer) = session(Options::default()).await;
    let echo = peer.echo();

    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for turn in 0..50 {
                    let said = json!({"task": task, "turn": turn});
                    assert_eq!(client.execute("echo", &said).await.unwrap(), said);
                }
            })
        })
        .collect();

    for task in tasks {
        soon(task).await.unwrap();
    }
    drop(client);
    soon(echo).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_from_many_threads_get_their_own_replies() {
    let (client, peer) = session(in_band()).await;
    peer.echo();

    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let (client, runtime) = (client.clone(), tokio::runtime::Handle::current());
            std::thread::spawn(move || {
                for turn in 0..50 {
                    let said = json!({"thread": thread, "turn": turn});
                    assert_eq!(runtime.block_on(client.execute("echo", &said)).unwrap(), said);
                }
            })
        })
        .collect();

    for thread in threads {
        soon(tokio::task::spawn_blocking(|| thread.join())).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_in_flight_at_once_are_answered_in_reverse() {
    let (client, mut peer) = session(in_band()).await;

    let tasks: Vec<_> = (0..500).map(|n| start(&client, &n.to_string())).collect();
    let mut commands = Vec::new();
    while commands.len() < 500 {
        commands.push(peer.command().await);
    }
    while let Some(command) = commands.pop() {
        peer.answer(&command, command["execute"].clone()).await;
    }

    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(soon(task).await.unwrap().unwrap(), n.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn every_command_has_an_id_that_no_other_has() {
    let (client, mut peer) = session(in_band()).await;

    let _tasks: Vec<_> = (0..100).map(|_| start(&client, "x")).collect();

    let mut ids = HashSet::from([0]);
    for _ in 0..100 {
        let id = peer.command().await["id"].as_u64().unwrap();
        assert!(ids.insert(id), "{id} twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_to_a_timed_out_command_answers_nobody_else() {
    let (client, mut peer) = session(Options::default()).await;
    let slow = client.send(Command::new("slow").limit(Duration::from_secs(1))).await;
    let slow_command = peer.command().await;

    let quick = start(&client, "quick");
    let quick_command = peer.command().await;
    peer.answer(&slow_command, json!("the slow one's")).await;
    peer.answer(&quick_command, json!("the quick one's")).await;

    assert!(matches!(slow, Err(ExecuteError::TimedOut(_))));
    assert_eq!(soon(quick).await.unwrap().unwrap(), "the quick one's");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_command_leaves_the_next_one_intact() {
    let (client, mut peer) = session(Options::default()).await;
    let cancelled = start(&client, "cancelled");
    let cancelled_command = peer.command().await;

    cancelled.abort();
    let next = start(&client, "next");
    let next_command = peer.command().await;
    peer.answer(&cancelled_command, json!("late")).await;
    peer.answer(&next_command, json!("mine")).await;

    assert_eq!(soon(next).await.unwrap().unwrap(), "mine");
}

#[tokio::test(start_paused = true)]
async fn a_command_dropped_before_it_was_written_is_never_sent() {
    let (client, mut peer) = session(Options::default()).await;
    {
        let mut dropped = Box::pin(client.execute("dropped", ()));
        // Hands it to the connection, which has no turn before it is dropped.
        assert!(poll_once(dropped.as_mut()).await.is_pending());
    }

    let _next = start(&client, "next");

    assert_eq!(peer.command().await["execute"], "next");
    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_future_was_never_polled_is_never_sent() {
    let (client, mut peer) = session(Options::default()).await;

    drop(client.execute("never", ()));

    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_a_call_goes_before_the_default() {
    let (client, _peer) = session(Options::default().command_limit(Duration::from_secs(5))).await;
    let start = Instant::now();

    let outcome = client.send(Command::new("x").limit(Duration::from_secs(2))).await;

    let error = outcome.unwrap_err();
    assert_eq!(error.to_string(), "no reply to `x` within 2s");
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn the_default_limit_is_a_minute() {
    let (client, _peer) = session(Options::default()).await;
    let start = Instant::now();

    let outcome = client.execute("x", ()).await;

    assert!(matches!(outcome, Err(ExecuteError::TimedOut(_))));
    assert_eq!(start.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_changed_default_limit_holds_for_all_clones() {
    let (client, _peer) = session(Options::default()).await;
    let clone = client.clone();
    let start = Instant::now();

    client.set_command_limit(Duration::from_secs(7));
    let outcome = clone.execute("x", ()).await;

    assert!(matches!(outcome, Err(ExecuteError::TimedOut(_))));
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    assert_eq!(clone.command_limit(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_zero_limit_ends_at_once_and_sends_nothing() {
    let (client, mut peer) = session(Options::default()).await;
    let start = Instant::now();

    let outcome = client.send(Command::new("x").limit(Duration::ZERO)).await;

    assert!(matches!(outcome, Err(ExecuteError::TimedOut(_))));
    assert!(start.elapsed() <= Duration::from_millis(1));
    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_limit_waits_for_ever_without_overflow() {
    let (client, mut peer) = session(Options::default().command_limit(Duration::MAX)).await;
    let waiting = start(&client, "x");
    let command = peer.command().await;

    tokio::time::advance(Duration::from_secs(10 * 365 * 24 * 3600)).await;
    assert!(!waiting.is_finished());

    peer.answer(&command, json!(1)).await;
    assert_eq!(soon(waiting).await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_survives_any_number_of_timeouts() {
    let (client, mut peer) = session(Options::default().command_limit(Duration::from_millis(10))).await;

    let mut late = Vec::new();
    for _ in 0..200 {
        assert!(client.execute("slow", ()).await.is_err());
        late.push(peer.command().await);
    }
    for command in &late {
        peer.answer(command, json!("late")).await;
    }
    client.set_command_limit(PATIENCE);
    let last = start(&client, "last");
    let command = peer.command().await;
    peer.answer(&command, json!("in time")).await;

    assert_eq!(soon(last).await.unwrap().unwrap(), "in time");
}

#[tokio::test(start_paused = true)]
async fn a_command_cancelled_at_any_point_leaves_the_next_one_intact() {
    let (client, mut peer) = session(in_band()).await;

    for turns in 0..8 {
        let mut cancelled = Box::pin(client.execute("cancelled", ()));
        for _ in 0..turns {
            let _pending = poll_once(cancelled.as_mut()).await;
            tokio::task::yield_now().await;
        }
        drop(cancelled);
        let next = start(&client, "next");
        loop {
            let command = peer.command().await;
            peer.answer(&command, command["execute"].clone()).await;
            if command["execute"] == "next" {
                break;
            }
        }

        assert_eq!(soon(next).await.unwrap().unwrap(), "next", "after {turns} turns");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_comes_before_its_command_answers_nobody() {
    let (client, mut peer) = session(Options::default()).await;

    for id in 0..10 {
        peer.say(&format!(r#"{{"return":"too early","id":{id}}}"#)).await;
    }
    peer.hears_nothing().await;
    let asked = start(&client, "x");
    let command = peer.command().await;
    peer.answer(&command, json!("in time")).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), "in time");
}

#[tokio::test(start_paused = true)]
async fn a_reply_and_a_timeout_at_the_same_moment_are_one_outcome() {
    let (client, mut peer) = session(Options::default()).await;

    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.send(Command::new("x").limit(Duration::from_secs(1))).await }
    });
    let command = peer.command().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    peer.answer(&command, json!("just then")).await;
    let _either = soon(asked).await.unwrap();

    let next = start(&client, "next");
    let command = peer.command().await;
    peer.answer(&command, json!("next's")).await;
    assert_eq!(soon(next).await.unwrap().unwrap(), Value::from("next's"));
}

#[test]
fn everything_can_go_to_any_thread() {
    fn check<T: Send + Sync + 'static>() {}

    check::<Client>();
    check::<Command>();
    check::<Error>();
    check::<ExecuteError>();
    check::<Listener>();
    check::<Options>();
    check::<Server>();
    check::<Socket>();
}
