//! What a reply may look like, and what its command's caller gets.

use std::collections::BTreeMap;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::ExecuteError;
use ratite_qmp::Limits;
use ratite_qmp::Malformed;
use ratite_qmp::Options;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

/// The outcome of a command whose reply has `members` beside its id.
async fn replied_with(client: &Client, peer: &mut Peer, members: &str) -> Result<Value, ExecuteError> {
    let asked = start(client, "x");
    let id = peer.command().await["id"].clone();
    let comma = if members.is_empty() { "" } else { "," };
    peer.say(&format!(r#"{{{members}{comma}"id":{id}}}"#)).await;
    soon(asked).await.unwrap()
}

/// Proves that the connection still does its work.
async fn check_usable(client: &Client, peer: &mut Peer) {
    let outcome = replied_with(client, peer, r#""return":"still here""#).await;
    assert_eq!(outcome.unwrap(), "still here");
}

#[tokio::test(start_paused = true)]
async fn a_value_comes_as_a_value_as_a_type_and_as_text() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Status {
        running: bool,
        status: String,
    }
    let (client, mut peer) = session(in_band()).await;

    let texts = tokio::spawn(async move {
        for _ in 0..3 {
            let id = peer.command().await["id"].clone();
            peer.say(&format!(r#"{{"return": {{"running":true,  "status":"running"}}, "id": {id}}}"#)).await;
        }
    });
    let value = client.execute("query-status", ()).await.unwrap();
    let typed: Status = client.execute_as("query-status", ()).await.unwrap();
    let text = client.execute_text("query-status", ()).await.unwrap();

    assert_eq!(value, json!({"running": true, "status": "running"}));
    assert!(typed.running && typed.status == "running");
    assert_eq!(text, r#"{"running":true,  "status":"running"}"#);
    soon(texts).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_raw_reply_is_what_arrived_refusal_or_not() {
    let (client, mut peer) = session(in_band()).await;

    let asked = tokio::spawn(async move { client.send(Command::new("x")).await });
    peer.command().await;
    peer.say(r#"{"id": 1, "error": {"class": "GenericError", "desc": "no", "extra": 1}}"#).await;
    let reply = soon(asked).await.unwrap().unwrap();

    assert_eq!(reply.text(), r#"{"id": 1, "error": {"class": "GenericError", "desc": "no", "extra": 1}}"#);
    assert_eq!(reply.error().unwrap().desc, "no");
    assert_eq!(reply.return_text(), None);
    assert_eq!(reply.message().unwrap()["error"]["extra"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_its_class_and_words() {
    let (client, mut peer) = session(in_band()).await;

    let error = replied_with(
        &client,
        &mut peer,
        r#""error":{"class":"DeviceNotFound","desc":"Device 'd\u00e4' not found"}"#,
    )
    .await
    .unwrap_err();

    let words = error.refusal().unwrap();
    assert_eq!((words.class.as_str(), words.desc.as_str()), ("DeviceNotFound", "Device 'dä' not found"));
    assert_eq!(error.to_string(), "QEMU refused `x`");
}

#[tokio::test(start_paused = true)]
async fn an_error_beside_a_return_is_an_error() {
    let (client, mut peer) = session(in_band()).await;

    let outcome =
        replied_with(&client, &mut peer, r#""return":1,"error":{"class":"GenericError","desc":"no"}"#).await;

    assert!(matches!(outcome, Err(ExecuteError::Refused { source, .. }) if source.desc == "no"));
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_without_value_or_error_fails_its_command_only() {
    let (client, mut peer) = session(in_band()).await;

    for members in ["", r#""returns":1"#, r#""error":null"#, r#""error":"no""#, r#""error":{"desc":"no"}"#] {
        let outcome = replied_with(&client, &mut peer, members).await;

        assert!(
            matches!(outcome, Err(ExecuteError::Malformed { source: Malformed::UnexpectedShape { .. }, .. })),
            "{members}: {outcome:?}"
        );
    }
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_null_value_is_a_value() {
    let (client, mut peer) = session(in_band()).await;

    let outcome = replied_with(&client, &mut peer, r#""return":null"#).await;

    assert_eq!(outcome.unwrap(), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_type_fails_its_command_only() {
    let (client, mut peer) = session(in_band()).await;

    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.execute_as::<BTreeMap<String, bool>>("x", ()).await }
    });
    let command = peer.command().await;
    peer.answer(&command, json!({"a": 5})).await;
    let outcome = soon(asked).await.unwrap();

    assert!(matches!(outcome, Err(ExecuteError::Malformed { command, .. }) if command == "x"));
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn integers_of_64_bits_stay_exact_both_ways() {
    let (client, peer) = session(in_band()).await;
    peer.echo();
    let numbers = json!({"most": u64::MAX, "least": i64::MIN, "odd": (1_u64 << 53) + 1});

    let value = client.execute("echo", &numbers).await.unwrap();
    let typed: BTreeMap<String, i128> = client.execute_as("echo", &numbers).await.unwrap();

    assert_eq!(value, numbers);
    assert_eq!(typed["most"], i128::from(u64::MAX));
    assert_eq!(typed["least"], i128::from(i64::MIN));
}

#[tokio::test(start_paused = true)]
async fn a_reply_with_an_unknown_or_odd_id_is_dropped() {
    let (client, mut peer) = session(in_band()).await;
    let asked = start(&client, "x");
    let command = peer.command().await;

    for id in [
        "99",
        "-1",
        "1.0",
        "1e0",
        r#""1""#,
        "[1]",
        r#"{"id":1}"#,
        "null",
        "true",
        "18446744073709551616",
        "1e999",
        r#""\ud800""#,
    ] {
        peer.say(&format!(r#"{{"return":"not mine","id":{id}}}"#)).await;
        peer.say(&format!(r#"{{"error":{{"class":"C","desc":"not mine"}},"id":{id}}}"#)).await;
    }
    peer.say(r#"{"return":"nobody's"}"#).await;
    peer.say("{}").await;
    peer.answer(&command, json!("mine")).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), "mine");
}

#[tokio::test(start_paused = true)]
async fn the_second_reply_to_one_id_is_dropped() {
    let (client, mut peer) = session(in_band()).await;
    let asked = start(&client, "x");
    let command = peer.command().await;

    peer.answer(&command, json!("first")).await;
    peer.answer(&command, json!("second")).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), "first");
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_without_an_id_is_told_to_all_that_are_in_flight() {
    let (client, mut peer) = session(in_band()).await;
    let (one, two) = (start(&client, "one"), start(&client, "two"));
    let (_, late) = (peer.command().await, peer.command().await);

    peer.say(r#"{"error":{"class":"GenericError","desc":"JSON parse error"}}"#).await;
    peer.answer(&late, json!("late")).await;

    for (task, name) in [(one, "one"), (two, "two")] {
        match soon(task).await.unwrap().unwrap_err() {
            ExecuteError::Unattributed { command, source } => {
                assert_eq!((command.as_str(), source.desc.as_str()), (name, "JSON parse error"));
            }
            other => panic!("{other:?}"),
        }
    }
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_without_an_id_while_nobody_waits_disturbs_nobody() {
    let (client, mut peer) = session(in_band()).await;

    peer.say(r#"{"error":{"class":"GenericError","desc":"JSON parse error"}}"#).await;

    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn an_odd_error_without_an_id_is_told_to_all_that_are_in_flight() {
    let (client, mut peer) = session(in_band()).await;
    let asked = start(&client, "x");
    peer.command().await;
    let start = tokio::time::Instant::now();

    peer.say(r#"{"error":{"desc":"JSON parse error"}}"#).await;
    let outcome = asked.await.unwrap();

    assert!(outcome.is_err());
    assert_eq!(start.elapsed(), std::time::Duration::ZERO, "it waited: {outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn nesting_as_deep_as_qemu_allows_is_read() {
    let (client, mut peer) = session(in_band()).await;
    for depth in [127, 128, 129, 1024, 2048] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));

        let outcome = replied_with(&client, &mut peer, &format!(r#""return":{deep}"#)).await;

        assert_eq!(outcome.unwrap().to_string(), deep, "{depth} levels");
    }
}

#[tokio::test(start_paused = true)]
async fn nesting_beyond_the_limit_fails_its_command_only_and_its_text_can_be_had() {
    let (client, mut peer) = session(in_band()).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));

    let outcome = replied_with(&client, &mut peer, &format!(r#""return":{deep}"#)).await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.execute_text("x", ()).await }
    });
    let id = peer.command().await["id"].clone();
    peer.say(&format!(r#"{{"return":{deep},"id":{id}}}"#)).await;

    assert!(matches!(
        outcome,
        Err(ExecuteError::Malformed { source: Malformed::TooDeep { limit: 2048 }, .. })
    ));
    assert_eq!(soon(asked).await.unwrap().unwrap(), deep);
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_depth_limit_holds_to_the_level_however_small() {
    let limits = Limits { depth: 3, ..Limits::default() };
    let (client, mut peer) = session(Options::default().limits(limits)).await;

    let within = replied_with(&client, &mut peer, r#""return":[[[]]]"#).await;
    let beyond = replied_with(&client, &mut peer, r#""return":[[[[]]]]"#).await;

    assert!(within.is_ok(), "{within:?}");
    assert!(
        matches!(beyond, Err(ExecuteError::Malformed { source: Malformed::TooDeep { limit: 3 }, .. })),
        "{beyond:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lone_surrogate_fails_its_command_only_and_its_text_can_be_had() {
    let (client, mut peer) = session(in_band()).await;

    let outcome = replied_with(&client, &mut peer, r#""return":{"a":"\ud800","b":1}"#).await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.execute_text("x", ()).await }
    });
    let id = peer.command().await["id"].clone();
    peer.say(&format!(r#"{{"return":{{"a":"\ud800"}},"id":{id}}}"#)).await;

    assert!(matches!(outcome, Err(ExecuteError::Malformed { .. })));
    assert_eq!(soon(asked).await.unwrap().unwrap(), r#"{"a":"\ud800"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_further_member_of_a_reply_does_not_matter() {
    let (client, mut peer) = session(in_band()).await;

    for further in
        [r#""x":[{"id":9}]"#, r#""data":1"#, r#""timestamp":{"seconds":0}"#, r#""QMP":{}"#, r#""":0"#]
    {
        let outcome = replied_with(&client, &mut peer, &format!(r#""return":1,{further}"#)).await;

        assert_eq!(outcome.expect(further), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_further_member_whose_name_is_no_unicode_does_not_matter() {
    let (client, mut peer) = session(in_band()).await;

    let outcome = replied_with(&client, &mut peer, r#""return":1,"\ud800":0"#).await;

    assert_eq!(outcome.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_order_and_repetition_of_members_do_not_matter() {
    let (client, mut peer) = session(in_band()).await;
    let asked = start(&client, "x");
    let id = peer.command().await["id"].clone();

    peer.say(&format!(r#"{{"id":77,"return":"not this","\u0069d":{id},"return":"this"}}"#)).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), "this");
}
