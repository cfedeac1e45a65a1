//! What is sent: names and arguments, and what cannot be.

use std::collections::HashMap;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::ExecuteError;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;

use crate::peer::in_band;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

/// Proves that `arguments` are refused before anything is sent.
async fn check_refused(client: &Client, arguments: impl Serialize) {
    let outcome = client.execute("x", arguments).await;
    assert!(matches!(outcome, Err(ExecuteError::Arguments { .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_compact_ascii_without_a_line_end() {
    let (client, peer) = session(in_band()).await;
    let mut stream = peer.into_stream();

    let asked = tokio::spawn(async move { client.execute("näme\n", json!({"clé": "☃ \u{1F600}"})).await });
    let mut bytes = vec![0; 1024];
    let count = soon(stream.read(&mut bytes)).await.unwrap();

    let text = String::from_utf8(bytes[..count].to_vec()).unwrap();
    assert_eq!(text, r#"{"execute":"n\u00e4me\n","arguments":{"cl\u00e9":"\u2603 \ud83d\ude00"},"id":1}"#);
    asked.abort();
}

#[tokio::test(start_paused = true)]
async fn no_arguments_are_left_out_of_the_message() {
    let (client, mut peer) = session(in_band()).await;

    let tasks = [json!(null), json!({})].map(|arguments| {
        let client = client.clone();
        tokio::spawn(async move { client.execute("x", arguments).await })
    });
    let _nothing = start(&client, "x");

    for _ in 0..3 {
        assert!(!peer.command().await.as_object().unwrap().contains_key("arguments"));
    }
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn arguments_arrive_as_they_were_given() {
    #[derive(Serialize)]
    struct Typed<'a> {
        #[serde(rename = "node-name")]
        node_name: &'a str,
        list: Vec<Option<u64>>,
        ratio: f64,
    }
    let (client, peer) = session(in_band()).await;
    peer.echo();

    let arguments =
        Typed { node_name: "a\"\\\u{0}\u{7f}\u{2028}", list: vec![None, Some(u64::MAX)], ratio: 0.1 };
    let echoed = client.execute("echo", arguments).await.unwrap();

    assert_eq!(
        echoed,
        json!({"node-name": "a\"\\\u{0}\u{7f}\u{2028}", "list": [null, u64::MAX], "ratio": 0.1})
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_object_is_refused_before_anything_is_sent() {
    let (client, mut peer) = session(in_band()).await;

    check_refused(&client, json!([1])).await;
    check_refused(&client, json!("{}")).await;
    check_refused(&client, 5).await;
    check_refused(&client, true).await;

    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn numbers_that_json_cannot_hold_are_refused_before_anything_is_sent() {
    let (client, mut peer) = session(in_band()).await;

    check_refused(&client, HashMap::from([("a", f64::NAN)])).await;
    check_refused(&client, HashMap::from([("a", vec![f32::NEG_INFINITY])])).await;
    check_refused(&client, HashMap::from([("a", Some(Some((1, f64::INFINITY))))])).await;

    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_json_cannot_hold_are_refused_before_anything_is_sent() {
    let (client, mut peer) = session(in_band()).await;

    check_refused(&client, HashMap::from([((1, 2), 3)])).await;
    check_refused(&client, HashMap::from([(Some(vec![1]), 3)])).await;

    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_command_leaves_the_next_one_intact() {
    let (client, mut peer) = session(in_band()).await;
    check_refused(&client, json!([])).await;

    let next = start(&client, "next");
    let command = peer.command().await;
    peer.answer(&command, json!(1)).await;

    assert_eq!(soon(next).await.unwrap().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_text_of_arguments_is_sent_as_it_is() {
    let (client, mut peer) = session(in_band()).await;
    let raw = serde_json::value::RawValue::from_string(r#"{"b":1,"a":18446744073709551615}"#.into()).unwrap();

    let asked = tokio::spawn(async move { client.send(Command::new("x").arguments(raw).unwrap()).await });
    let command: Value = peer.command().await;

    assert_eq!(command["arguments"], json!({"b": 1, "a": u64::MAX}));
    asked.abort();
}

#[tokio::test(start_paused = true)]
async fn text_that_qemu_cannot_read_is_refused_before_anything_is_sent() {
    let (client, mut peer) = session(in_band()).await;
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.into()).unwrap();

    check_refused(&client, raw(r#"{"a":"\ud800"}"#)).await;

    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_megabyte_of_arguments_arrives_whole() {
    let (client, peer) = session(in_band()).await;
    peer.echo();
    let blob = "x\n".repeat(256 << 10);

    let echoed: HashMap<String, String> = client.execute_as("echo", json!({"blob": blob})).await.unwrap();

    assert_eq!(echoed["blob"], blob);
}
