//! Out of band: what overtakes what, and how many commands wait on this side.

use std::time::Duration;

use ratite_qmp::Command;
use ratite_qmp::ExecuteError;
use ratite_qmp::Options;
use serde_json::Value;
use serde_json::json;

use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

/// Takes `count` commands without an answer.
async fn take(peer: &mut Peer, count: usize) -> Vec<Value> {
    let mut commands = Vec::new();
    while commands.len() < count {
        commands.push(peer.command().await);
    }
    commands
}

#[tokio::test(start_paused = true)]
async fn an_out_of_band_command_says_so() {
    let (client, mut peer) = session(Options::default()).await;

    let asked = tokio::spawn(async move { client.send(Command::new("migrate-pause").oob()).await });
    let command = peer.command().await;
    peer.answer(&command, json!({})).await;

    assert_eq!(command["exec-oob"], "migrate-pause");
    assert!(command.get("execute").is_none() && command["id"].is_u64());
    assert!(soon(asked).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_out_of_band_command_overtakes_the_ninth_that_waits() {
    let (client, mut peer) = session(Options::default()).await;
    let tasks: Vec<_> = (0..20).map(|n| start(&client, &n.to_string())).collect();
    let in_flight = take(&mut peer, 8).await;
    peer.hears_nothing().await;

    let urgent = tokio::spawn({
        let client = client.clone();
        async move { client.send(Command::new("urgent").oob()).await }
    });
    let command = peer.command().await;
    peer.answer(&command, json!({})).await;

    assert_eq!(command["exec-oob"], "urgent");
    assert!(soon(urgent).await.unwrap().is_ok());
    for command in &in_flight {
        peer.answer(command, json!({})).await;
    }
    assert_eq!(take(&mut peer, 8).await[0]["execute"], "8");
    drop(tasks);
}

#[tokio::test(start_paused = true)]
async fn each_reply_lets_one_more_command_go() {
    let (client, mut peer) = session(Options::default()).await;
    let tasks: Vec<_> = (0..10).map(|n| start(&client, &n.to_string())).collect();
    let in_flight = take(&mut peer, 8).await;

    peer.answer(&in_flight[5], json!({})).await;

    assert_eq!(peer.command().await["execute"], "8");
    peer.hears_nothing().await;
    drop(tasks);
}

#[tokio::test(start_paused = true)]
async fn without_oob_no_command_waits_for_another() {
    let (client, mut peer) = session(in_band()).await;

    let _tasks: Vec<_> = (0..20).map(|n| start(&client, &n.to_string())).collect();

    assert_eq!(take(&mut peer, 20).await[19]["execute"], "19");
}

#[tokio::test(start_paused = true)]
async fn commands_that_are_given_up_make_room_for_those_that_wait() {
    let (client, mut peer) = session(Options::default()).await;
    let short = |name: &str| Command::new(name).limit(Duration::from_secs(1));
    let given_up: Vec<_> = (0..8)
        .map(|_| {
            let (client, command) = (client.clone(), short("stuck"));
            tokio::spawn(async move { client.send(command).await })
        })
        .collect();
    take(&mut peer, 8).await;
    let ninth = start(&client, "ninth");
    peer.hears_nothing().await;

    for stuck in given_up {
        assert!(matches!(stuck.await.unwrap(), Err(ExecuteError::TimedOut(_))));
    }

    // Asked for at the beginning with a limit of 60 s, and there has been room for it since the first second.
    let sent = tokio::time::timeout(Duration::from_secs(1), peer.command()).await;
    assert_eq!(sent.expect("the ninth command still waits")["execute"], "ninth");
    ninth.abort();
}

#[tokio::test(start_paused = true)]
async fn cancelled_commands_make_room_for_those_that_wait() {
    let (client, mut peer) = session(Options::default()).await;
    let stuck: Vec<_> = (0..8).map(|_| start(&client, "stuck")).collect();
    take(&mut peer, 8).await;
    let _ninth = start(&client, "ninth");
    peer.hears_nothing().await;

    stuck.iter().for_each(tokio::task::JoinHandle::abort);

    let sent = tokio::time::timeout(Duration::from_secs(1), peer.command()).await;
    assert_eq!(sent.expect("the ninth command still waits")["execute"], "ninth");
}

#[tokio::test(start_paused = true)]
async fn out_of_band_commands_take_no_place_of_those_in_band() {
    let (client, mut peer) = session(Options::default()).await;
    for _ in 0..20 {
        let client = client.clone();
        tokio::spawn(async move { client.send(Command::new("urgent").oob()).await });
    }
    take(&mut peer, 20).await;

    let _tasks: Vec<_> = (0..8).map(|_| start(&client, "usual")).collect();

    assert!(take(&mut peer, 8).await.iter().all(|command| command["execute"] == "usual"));
}

#[tokio::test(start_paused = true)]
async fn out_of_band_without_the_capability_is_refused_and_not_sent() {
    let (client, mut peer) = session(in_band()).await;

    let outcome = soon(client.send(Command::new("urgent").oob())).await;

    assert!(matches!(outcome, Err(ExecuteError::NoOob { command }) if command == "urgent"));
    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_without_an_id_leaves_the_commands_that_wait_alone() {
    let (client, mut peer) = session(Options::default()).await;
    let tasks: Vec<_> = (0..9).map(|n| start(&client, &n.to_string())).collect();
    take(&mut peer, 8).await;

    peer.say(r#"{"error":{"class":"GenericError","desc":"JSON parse error"}}"#).await;
    let ninth = peer.command().await;
    peer.answer(&ninth, json!("well")).await;

    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(soon(task).await.unwrap());
    }
    assert_eq!(outcomes.pop().unwrap().unwrap(), "well");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(ExecuteError::Unattributed { .. }))));
}
