//! A guest agent's line: no reply is taken for another one's, whatever came before, and no wait is without an end.

use std::pin::pin;
use std::time::Duration;

use ratite_qmp::Agent;
use ratite_qmp::AgentError;
use ratite_qmp::Disconnect;
use ratite_qmp::ShutdownMode;
use ratite_qmp::SuspendMode;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::agent_peer::agent;
use crate::peer::poll_once;
use crate::peer::soon;

fn start(agent: &Agent, name: &str) -> JoinHandle<Result<Value, AgentError>> {
    let (agent, name) = (agent.clone(), name.to_owned());
    tokio::spawn(async move { agent.execute(&name, ()).await })
}

#[tokio::test]
async fn a_command_is_a_line_without_an_id() {
    let (agent, mut peer) = agent();
    let asked = tokio::spawn({
        let agent = agent.clone();
        async move { agent.execute("guest-x", json!({ "a": "ä" })).await }
    });

    let id = peer.sync_id().await;
    peer.synchronise(&id).await;
    assert_eq!(peer.line().await, r#"{"execute":"guest-x","arguments":{"a":"\u00e4"}}"#);
    peer.send(b"{\"return\": [1]}\n", false).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), json!([1]));
}

#[tokio::test]
async fn a_line_in_order_is_synchronised_once() {
    let (agent, mut peer) = agent();
    let asked = start(&agent, "guest-a");
    peer.answer("guest-a", json!(1)).await;
    soon(asked).await.unwrap().unwrap();

    let asked = start(&agent, "guest-b");

    assert_eq!(peer.line().await, r#"{"execute":"guest-b"}"#);
    peer.send(b"{\"return\": 2}", false).await;
    assert_eq!(soon(asked).await.unwrap().unwrap(), 2);
}

#[tokio::test]
async fn whatever_comes_before_the_synchronisation_is_skipped() {
    let before: [&[u8]; 8] = [
        b"",
        b"{\"return\": 13}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"stale\"}}\n",
        b"{\"return\": \"half a mess",
        b"login: \x00\x1b[31m garbage }}}",
        b"\xff\xff\xff",
        b"\xff{\"return\": 13}\n\xff{\"error\": {}}\n\xff{\"return\": {\"a\"",
        b"\xffnoise\xff{\"event\": \"X\"}",
        b"\xff{\"return\": \"\xc3\x28\"}\n",
    ];
    for before in before {
        let (agent, mut peer) = agent();
        let asked = start(&agent, "guest-a");
        let id = peer.sync_id().await;

        peer.send(before, false).await;
        peer.synchronise(&id).await;

        peer.answer("guest-a", json!("mine")).await;
        assert_eq!(soon(asked).await.unwrap().unwrap(), "mine", "{}", before.escape_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_is_no_other_commands() {
    let (agent, mut peer) = agent();
    let late = agent.with_limit(Duration::from_secs(3));
    let asked = start(&late, "guest-slow");
    assert_eq!(peer.command().await["execute"], "guest-slow");
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "no reply to `guest-slow` within 3s");

    let asked = start(&agent, "guest-b");
    let id = peer.sync_id().await;
    peer.send(b"{\"return\": \"slow\"}\n", false).await;
    peer.synchronise(&id).await;
    peer.answer("guest-b", json!("b")).await;

    assert_eq!(asked.await.unwrap().unwrap(), "b");
}

#[tokio::test]
async fn a_cancelled_command_leaves_the_next_one_intact() {
    let (agent, mut peer) = agent();
    let cancelled = start(&agent, "guest-a");
    peer.command().await;
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());

    let asked = start(&agent, "guest-b");
    let id = peer.sync_id().await;
    peer.send(b"{\"return\": \"a\"}\n", false).await;
    peer.synchronise(&id).await;

    peer.answer("guest-b", json!("b")).await;
    assert_eq!(soon(asked).await.unwrap().unwrap(), "b");
}

#[tokio::test]
async fn half_a_command_is_ended_by_the_next_synchronisation() {
    let (agent, mut peer) = agent();
    // More than the pair holds: the rest of it is never written.
    let long = json!({ "x": "y".repeat(200 << 10) });
    {
        let mut given_up = pin!(agent.execute("guest-long", long));
        assert!(poll_once(given_up.as_mut()).await.is_pending());
        let id = peer.sync_id().await;
        peer.synchronise(&id).await;
        assert!(poll_once(given_up.as_mut()).await.is_pending());
    }

    let asked = start(&agent, "guest-b");

    peer.answer("guest-b", json!("b")).await;
    assert_eq!(soon(asked).await.unwrap().unwrap(), "b");
}

#[tokio::test]
async fn what_came_unasked_has_the_next_command_synchronise() {
    let (agent, mut peer) = agent();
    let asked = start(&agent, "guest-a");
    peer.answer("guest-a", json!(1)).await;
    soon(asked).await.unwrap().unwrap();

    peer.send(b"{\"return\": \"nobody asked\"}\n", false).await;
    let asked = start(&agent, "guest-b");

    let id = peer.sync_id().await;
    peer.synchronise(&id).await;
    peer.answer("guest-b", json!("b")).await;
    assert_eq!(soon(asked).await.unwrap().unwrap(), "b");
}

#[tokio::test]
async fn a_synchronisations_late_reply_is_no_commands_reply() {
    let (agent, mut peer) = agent();
    let asked = start(&agent, "guest-a");
    peer.command().await;

    peer.send(b"{\"return\": 77}\n", true).await;
    peer.send(b"{\"return\": \"a\"}\n", false).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), "a");
}

#[tokio::test]
async fn a_synchronisation_of_the_callers_own_has_its_reply() {
    let (agent, mut peer) = agent();
    let asked = tokio::spawn(async move { agent.execute("guest-sync-delimited", json!({ "id": 5 })).await });
    let id = peer.sync_id().await;
    peer.synchronise(&id).await;

    assert_eq!(peer.sync_id().await, 5);
    peer.synchronise(&json!(5)).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), 5);
}

#[tokio::test]
async fn commands_take_turns_in_their_order() {
    let (agent, mut peer) = agent();
    let first = start(&agent, "guest-1");
    peer.command().await;
    let waiting: Vec<_> = ["guest-2", "guest-3"].map(|name| start(&agent, name)).into();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!peer.has_unread().await);

    peer.send(b"{\"return\": 1}\n", false).await;
    peer.answer("guest-2", json!(2)).await;
    peer.answer("guest-3", json!(3)).await;

    soon(first).await.unwrap().unwrap();
    for asked in waiting {
        soon(asked).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_agent_is_told_at_the_limit() {
    let (agent, _peer) = agent();

    let error = agent.with_limit(Duration::from_secs(7)).ping().await.unwrap_err();

    assert!(
        matches!(&error, AgentError::NoAgent { limit, heard: None, .. } if *limit == Duration::from_secs(7))
    );
    assert!(
        error.to_string().starts_with("no guest agent answered within 7s: in the guest, qemu-guest-agent")
    );
    assert!(error.is_timed_out());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_late_is_found() {
    let (agent, mut peer) = agent();
    let asked = start(&agent, "guest-a");
    let lost = [peer.sync_id().await, peer.sync_id().await, peer.sync_id().await];
    assert!(lost[0] != lost[1] && lost[1] != lost[2]);

    // It answers all of them, as one whose channel has kept them.
    for id in &lost {
        peer.synchronise(id).await;
    }

    peer.answer("guest-a", json!(1)).await;
    assert_eq!(asked.await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_talks_but_is_no_agent_is_quoted() {
    let (agent, mut peer) = agent();
    peer.send(b"debian login: ", false).await;

    let error = agent.with_limit(Duration::from_secs(1)).ping().await.unwrap_err();

    assert!(error.to_string().contains("within 1s, only `debian login: ` came: "), "{error}");
}

#[tokio::test]
async fn a_monitor_is_told_at_once() {
    let (agent, mut peer) = agent();
    peer.send(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n", false).await;

    let error = soon(agent.ping()).await.unwrap_err();

    assert!(matches!(error, AgentError::Monitor { .. }), "{error:?}");
    assert_eq!(error.to_string(), "the peer is a QMP monitor, not a guest agent");
}

#[tokio::test]
async fn the_end_of_the_connection_is_told_to_all() {
    let (agent, mut peer) = agent();
    let first = start(&agent, "guest-1");
    let second = start(&agent, "guest-2");
    peer.command().await;

    drop(peer);

    for asked in [first, second] {
        let error = soon(asked).await.unwrap().unwrap_err();
        assert!(matches!(error, AgentError::Disconnected { source: Disconnect::ByPeer, .. }), "{error:?}");
    }
    assert!(matches!(soon(agent.ping()).await, Err(AgentError::Disconnected { .. })));
}

#[tokio::test]
async fn a_refusal_is_told_apart_by_what_it_means() {
    let (agent, mut peer) = agent();
    let refusals = [
        ("GenericError", "no such file", "the guest agent refused `guest-x`"),
        (
            "CommandNotFound",
            "The command guest-x has not been found",
            "the guest agent does not have `guest-x`",
        ),
        (
            "CommandNotFound",
            "Command guest-x has been disabled: frozen",
            "the guest agent has `guest-x` disabled",
        ),
        (
            "GenericError",
            "The command guest-x has been disabled for this instance",
            "the guest agent has `guest-x` disabled",
        ),
    ];
    for (class, desc, text) in refusals {
        let asked = start(&agent, "guest-x");
        peer.refuse(class, desc).await;

        let error = soon(asked).await.unwrap().unwrap_err();

        assert_eq!((error.to_string().as_str(), error.refusal().unwrap().desc.as_str()), (text, desc));
    }
}

#[tokio::test]
async fn a_garbled_reply_fails_its_command_alone() {
    let (agent, mut peer) = agent();
    let replies: [&[u8]; 4] =
        [b"what?\n", b"{\"return\": }\n", b"{\"return\": \"\xc3\x28\"}\n", b"{\"error\": 5}\n"];
    for reply in replies {
        let asked = start(&agent, "guest-x");
        peer.command().await;
        peer.send(reply, false).await;

        let error = soon(asked).await.unwrap().unwrap_err();

        assert!(matches!(error, AgentError::Malformed { .. }), "{error:?}");
        let asked = start(&agent, "guest-y");
        peer.answer("guest-y", json!("y")).await;
        assert_eq!(soon(asked).await.unwrap().unwrap(), "y", "{}", reply.escape_ascii());
    }
}

#[tokio::test]
async fn a_reply_of_many_megabytes_is_taken_and_one_beyond_the_limit_is_not() {
    let (agent, mut peer) = agent();
    let asked = start(&agent, "guest-x");
    peer.command().await;
    let long = "x".repeat(8 << 20);
    peer.send(format!("{{\"return\": \"{long}\"}}\n").as_bytes(), false).await;
    assert_eq!(soon(asked).await.unwrap().unwrap().as_str().unwrap().len(), 8 << 20);

    let asked = start(&agent, "guest-y");
    peer.command().await;
    let flood = tokio::spawn(async move {
        peer.send(b"{\"return\": \"", false).await;
        for _ in 0..65 {
            peer.send(&vec![b'x'; 1 << 20], false).await;
        }
        peer
    });
    let error = soon(asked).await.unwrap().unwrap_err();
    assert!(matches!(error, AgentError::Malformed { .. }), "{error:?}");

    // The rest of it is skipped, and the line is in order again.
    let asked = start(&agent, "guest-z");
    let mut peer = soon(flood).await.unwrap();
    peer.answer("guest-z", json!("z")).await;
    assert_eq!(soon(asked).await.unwrap().unwrap(), "z");
}

#[tokio::test]
async fn a_shutdown_has_succeeded_when_the_agent_is_done_with_it_or_gone() {
    let (agent, mut peer) = agent();
    let asked = tokio::spawn({
        let agent = agent.clone();
        async move { agent.shutdown(ShutdownMode::Reboot).await }
    });
    let command = peer.command().await;
    assert_eq!(command, json!({ "execute": "guest-shutdown", "arguments": { "mode": "reboot" } }));
    let id = peer.sync_id().await;
    peer.synchronise(&id).await;
    soon(asked).await.unwrap().unwrap();

    let asked = start(&agent, "guest-shutdown");
    peer.command().await;
    drop(peer);
    assert_eq!(soon(asked).await.unwrap().unwrap(), Value::Null);
}

#[tokio::test]
async fn a_shutdown_that_the_guest_cannot_do_is_refused() {
    let (agent, mut peer) = agent();
    let asked = tokio::spawn({
        let agent = agent.clone();
        async move { agent.suspend(SuspendMode::Ram).await }
    });
    peer.refuse("GenericError", "Guest suspend is not supported").await;
    let id = peer.sync_id().await;
    peer.synchronise(&id).await;

    let error = soon(asked).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the guest agent refused `guest-suspend-ram`");

    let asked = start(&agent, "guest-b");
    peer.answer("guest-b", json!("b")).await;
    assert_eq!(soon(asked).await.unwrap().unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_falls_silent_has_gone_to_sleep() {
    let (agent, mut peer) = agent();
    let asked = tokio::spawn({
        let agent = agent.clone();
        async move { agent.suspend(SuspendMode::Disk).await }
    });
    assert_eq!(peer.command().await["execute"], "guest-suspend-disk");

    asked.await.unwrap().unwrap();

    let error = agent.with_limit(Duration::from_secs(1)).ping().await.unwrap_err();
    assert!(matches!(error, AgentError::NoAgent { .. }), "{error:?}");
}
