//! Visitors of a guest agent: each finds an agent of his own, and none keeps the others from theirs.

use std::time::Duration;

use ratite_qmp::Agent;
use ratite_qmp::AgentError;
use ratite_qmp::ShutdownMode;
use ratite_qmp::Socket;
use ratite_qmp::within;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::agent_peer::agent;
use crate::peer::soon;

/// One who is served, as his own end of the connection.
fn visit(agent: &Agent) -> (DuplexStream, JoinHandle<()>) {
    let (socket, theirs) = Socket::pair();
    let agent = agent.clone();
    (theirs, tokio::spawn(async move { agent.attend(socket, b"").await }))
}

/// One who is served, as an agent of his own.
fn visitor(agent: &Agent) -> Agent {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let agent = agent.clone();
    tokio::spawn(async move { agent.attend(ours, b"").await });
    Agent::over(theirs)
}

fn start(agent: &Agent, name: &str) -> JoinHandle<Result<Value, AgentError>> {
    let (agent, name) = (agent.clone(), name.to_owned());
    tokio::spawn(async move { agent.execute(&name, ()).await })
}

/// The next of what a visitor is sent, with the sentinel before it if there is one.
async fn line(stream: &mut DuplexStream) -> Vec<u8> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(soon(stream.read_u8()).await.unwrap());
    }
    line.truncate(line.len() - 2);
    line
}

async fn ask(stream: &mut DuplexStream, words: impl AsRef<[u8]>) {
    soon(stream.write_all(words.as_ref())).await.unwrap();
}

#[tokio::test]
async fn commands_reach_the_agent_and_replies_come_back_as_they_are() {
    let (agent, mut peer) = agent();
    let (mut raw, _served) = visit(&agent);

    ask(&mut raw, r#"{"execute": "guest-x", "arguments": {"a": "ä", "n": 1e1}, "id": {"b":  [1]}}"#).await;
    let id = peer.sync_id().await;
    peer.synchronise(&id).await;
    assert_eq!(peer.line().await, r#"{"execute":"guest-x","arguments":{"a": "ä", "n": 1e1}}"#);
    peer.send(b"{\"return\": {\"k\":  [1.50, \"\\u0041\"]}}\n", false).await;
    assert_eq!(line(&mut raw).await, br#"{"return": {"k":  [1.50, "\u0041"]}, "id": {"b":  [1]}}"#);

    ask(&mut raw, b"{\"execute\": \"guest-y\"}\n").await;
    peer.refuse("CommandNotFound", "no \"such\" thing").await;
    assert_eq!(
        line(&mut raw).await,
        br#"{"error": {"class": "CommandNotFound", "desc": "no \"such\" thing"}}"#
    );
}

#[tokio::test]
async fn a_synchronisation_is_answered_without_asking_an_agent_that_is_there() {
    let (agent, mut peer) = agent();
    let first = start(&agent, "guest-a");
    peer.answer("guest-a", json!(1)).await;
    soon(first).await.unwrap().unwrap();
    let (mut raw, _served) = visit(&agent);

    ask(&mut raw, b"\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":7}}\n").await;
    assert_eq!(line(&mut raw).await, b"\xff{\"return\": 7}");
    ask(&mut raw, b"{\"execute\":\"guest-sync\",\"arguments\":{\"id\":-8},\"id\":1}\n").await;
    assert_eq!(line(&mut raw).await, b"{\"return\": -8, \"id\": 1}");
    assert!(!peer.has_unread().await);

    // One that is none is for the agent to refuse.
    ask(&mut raw, b"{\"execute\":\"guest-sync\",\"arguments\":{\"id\":\"x\"}}\n").await;
    peer.refuse("GenericError", "odd").await;
    assert_eq!(line(&mut raw).await, br#"{"error": {"class": "GenericError", "desc": "odd"}}"#);
}

#[tokio::test]
async fn what_is_no_command_is_refused_in_its_turn_and_changes_nothing() {
    let (agent, mut peer) = agent();
    let (mut raw, _served) = visit(&agent);
    let many = format!("{{\"execute\":\"x\",\"arguments\":{{\"a\":[{}1]}}}}", "1,".repeat(1 << 20));
    let refused: [(&[u8], &str); 7] = [
        (b"hello\n", "could not read a message"),
        (b"{\"execute\": 1}\n", "has to be a string"),
        (b"{\"exec-oob\": \"guest-ping\"}\n", "out of band"),
        (b"{\"execute\": \"x\", \"arguments\": {\"a\": \"\\ufffe\"}}\n", "U+FFFE"),
        (b"{\"execute\": 'x'}\n", "could not read a message"),
        (b"{\"execute\": \"\xc3\x28\"}\n", "could not read a message"),
        (many.as_bytes(), "besides its strings"),
    ];

    for (words, reason) in refused {
        ask(&mut raw, words).await;
        let told = String::from_utf8(line(&mut raw).await).unwrap();
        assert!(told.contains("GenericError") && told.contains(reason), "{told}");
    }

    ask(&mut raw, b"noise{\"execute\":\"guest-half\xff{\"execute\":\"guest-whole\"}\n").await;
    peer.answer("guest-whole", json!({})).await;
    // The noise was given up by what came behind it.
    assert_eq!(line(&mut raw).await, b"{\"return\": {}}");
}

#[tokio::test]
async fn visitors_and_the_owner_take_turns() {
    let (agent, mut peer) = agent();
    let visitors: Vec<Agent> = (0..3).map(|_| visitor(&agent)).collect();
    let mut asked: Vec<_> =
        visitors.iter().enumerate().map(|(n, visitor)| (n, start(visitor, &format!("guest-{n}")))).collect();
    asked.push((9, start(&agent, "guest-9")));

    for _ in 0..4 {
        let command = peer.command().await;
        // Nobody else's is begun before this one has its reply.
        assert!(!peer.has_unread().await);
        let number = command["execute"].as_str().unwrap().trim_start_matches("guest-").to_owned();
        peer.send(format!("{{\"return\": {number}}}\n").as_bytes(), false).await;
    }

    for (number, asked) in asked {
        assert_eq!(soon(asked).await.unwrap().unwrap(), number);
    }
}

#[tokio::test]
async fn one_who_goes_while_his_command_is_under_way_holds_nobody_up() {
    let (agent, mut peer) = agent();
    let rude = visitor(&agent);
    let asked = start(&rude, "guest-slow");
    assert_eq!(peer.command().await["execute"], "guest-slow");

    asked.abort();
    drop(rude);
    drop(asked.await);

    let next = start(&agent, "guest-next");
    let id = peer.sync_id().await;
    // The late reply is nobody's.
    peer.send(b"{\"return\": \"slow\"}\n", false).await;
    peer.synchronise(&id).await;
    peer.answer("guest-next", json!("next")).await;
    assert_eq!(soon(next).await.unwrap().unwrap(), "next");
}

#[tokio::test]
async fn one_who_gives_up_gets_no_late_reply() {
    let (agent, mut peer) = agent();
    let hasty = visitor(&agent);
    let brief = hasty.with_limit(Duration::from_millis(100));
    let asked = tokio::spawn(async move { brief.execute("guest-slow", ()).await });
    assert_eq!(peer.command().await["execute"], "guest-slow");
    let error = soon(asked).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no reply to `guest-slow` within 100ms");

    let next = start(&hasty, "guest-next");
    let id = peer.sync_id().await;
    peer.send(b"{\"return\": \"slow\"}\n", false).await;
    peer.synchronise(&id).await;
    peer.answer("guest-next", json!("next")).await;

    assert_eq!(soon(next).await.unwrap().unwrap(), "next");
}

#[tokio::test(start_paused = true)]
async fn where_no_agent_is_everybody_learns_that() {
    let (agent, mut peer) = agent();
    let all = [visitor(&agent), visitor(&agent), agent.clone()];
    let asked: Vec<_> = all
        .iter()
        .map(|one| {
            let one = one.with_limit(Duration::from_secs(20));
            tokio::spawn(async move { one.ping().await })
        })
        .collect();

    for asked in asked {
        let error = asked.await.unwrap().unwrap_err();
        assert!(matches!(error, AgentError::NoAgent { heard: None, .. }), "{error:?}");
    }

    // It comes late, and is found by who waits for it.
    let waiting = start(&all[0].with_limit(Duration::from_secs(3600)), "guest-ping");
    within(Duration::from_secs(60), "", std::future::pending::<()>()).await.unwrap_err();
    peer.answer("guest-ping", json!({})).await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_that_is_busy_for_somebody_else_is_there() {
    let (agent, mut peer) = agent();
    let busy = start(&agent, "guest-slow");
    assert_eq!(peer.command().await["execute"], "guest-slow");

    let other = visitor(&agent);
    let error = other.with_limit(Duration::from_millis(100)).ping().await.unwrap_err();

    assert_eq!(error.to_string(), "no reply to `guest-ping` within 100ms");
    peer.send(b"{\"return\": 1}\n", false).await;
    assert_eq!(soon(busy).await.unwrap().unwrap(), 1);
    let again = start(&other, "guest-again");
    // What was given up may have come to its turn meanwhile.
    while peer.command().await["execute"] != "guest-again" {}
    peer.send(b"{\"return\": {}}\n", false).await;
    soon(again).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_command_without_a_reply_is_over_with_the_agents_silence_its_refusal_or_its_end() {
    let (agent, mut peer) = agent();
    let other = visitor(&agent);
    let down = || {
        let other = other.clone();
        tokio::spawn(async move { other.shutdown(ShutdownMode::Halt).await })
    };

    let asked = down();
    assert_eq!(peer.command().await, json!({"execute": "guest-shutdown", "arguments": {"mode": "halt"}}));
    let id = peer.sync_id().await;
    peer.synchronise(&id).await;
    soon(asked).await.unwrap().unwrap();

    let asked = down();
    peer.refuse("GenericError", "not today").await;
    let error = soon(asked).await.unwrap().unwrap_err();
    assert_eq!(error.refusal().unwrap().desc, "not today");

    let asked = down();
    peer.command().await;
    drop(peer);
    soon(asked).await.unwrap().unwrap();
    let error = other.ping().await.unwrap_err();
    assert!(matches!(error, AgentError::Disconnected { .. }), "{error:?}");
}

#[tokio::test]
async fn one_who_has_said_all_gets_his_last_replies() {
    let (agent, mut peer) = agent();
    let (mut raw, served) = visit(&agent);

    ask(&mut raw, b"{\"execute\":\"guest-a\"}{\"execute\":\"guest-b\"}").await;
    raw.shutdown().await.unwrap();
    peer.answer("guest-a", json!(1)).await;
    peer.answer("guest-b", json!(2)).await;

    let mut all = Vec::new();
    soon(raw.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"{\"return\": 1}\r\n{\"return\": 2}\r\n");
    soon(served).await.unwrap();
}

#[tokio::test]
async fn what_was_read_before_is_part_of_it() {
    let (agent, mut peer) = agent();
    let (socket, mut raw) = Socket::pair();
    let serving = agent.clone();
    tokio::spawn(async move { serving.attend(socket, b"{\"execute\":\"gue").await });

    ask(&mut raw, b"st-a\"}").await;

    peer.answer("guest-a", json!(1)).await;
    assert_eq!(line(&mut raw).await, b"{\"return\": 1}");
}

#[tokio::test]
async fn one_who_does_not_read_holds_nobody_up_and_is_not_read_from_for_ever() {
    let (agent, mut peer) = agent();
    let (mut idle, _served) = visit(&agent);
    let long = "x".repeat(1 << 20);
    ask(&mut idle, b"{\"execute\":\"guest-long\"}").await;
    peer.answer("guest-long", json!(long)).await;

    // Of what he sends yet a bounded part is taken; a pair holds 64 KiB.
    let mut taken = 0;
    let flood = vec![b"{\"execute\":\"guest-x\"}".as_slice(); 1000].concat();
    while let Ok(count) = within(Duration::from_millis(300), "", idle.write(&flood)).await {
        taken += count.unwrap();
        assert!(taken < 1 << 20, "{taken} bytes were taken");
    }
    let next = start(&agent, "guest-next");
    peer.answer("guest-next", json!(1)).await;
    assert_eq!(soon(next).await.unwrap().unwrap(), 1);
    assert_eq!(line(&mut idle).await.len(), long.len() + "{\"return\": \"\"}".len());
    // And now he comes to his turn.
    peer.answer("guest-x", json!(2)).await;
    assert_eq!(line(&mut idle).await, b"{\"return\": 2}");
}

#[tokio::test]
async fn a_message_that_is_too_long_is_told_and_is_the_end() {
    let (agent, mut peer) = agent();
    let other = visitor(&agent);
    let fits = tokio::spawn({
        let other = other.clone();
        async move { other.execute("guest-x", json!({ "a": "x".repeat(5 << 20) })).await }
    });
    let text = peer.answer("guest-x", json!(1)).await;
    assert_eq!(text["a"].as_str().unwrap().len(), 5 << 20);
    assert_eq!(soon(fits).await.unwrap().unwrap(), 1);

    let error = other.execute("guest-x", json!({ "a": "x".repeat(33 << 20) })).await.unwrap_err();

    assert!(error.refusal().unwrap().desc.contains("33554432"), "{error:?}");
    assert!(matches!(other.ping().await.unwrap_err(), AgentError::Disconnected { .. }));
    assert!(!peer.has_unread().await);
}

#[tokio::test(start_paused = true)]
async fn a_command_without_an_answer_has_an_end() {
    let (agent, mut peer) = agent();
    let (mut raw, _served) = visit(&agent);
    ask(&mut raw, b"{\"execute\":\"guest-slow\"}").await;
    assert_eq!(peer.command().await["execute"], "guest-slow");

    let mut told = Vec::new();
    while !told.ends_with(b"\n") {
        told.push(raw.read_u8().await.unwrap());
    }

    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!(told["error"]["desc"], "no reply to `guest-slow` within 600s");
}
