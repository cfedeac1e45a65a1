//! Bytes that no QEMU sends, or not like that.

use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Disconnect;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::Limits;
use ratite_qmp::ListenError;
use ratite_qmp::Malformed;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use serde_json::json;

use crate::peer::GREETING;
use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

/// Why the connection ends when the peer sends `bytes`; all who wait are told the same.
async fn ended_by(bytes: &[u8], limits: Limits) -> Malformed {
    let (client, mut peer) = session(in_band().limits(limits)).await;
    let listener = client.listen(EventFilter::any());
    let asked = start(&client, "x");
    peer.command().await;
    peer.send(bytes).await;

    let Disconnect::Malformed(why) = soon(client.closed()).await else {
        panic!("it ended by {:?}", client.ended())
    };
    match (soon(asked).await.unwrap(), listener.next(PATIENCE).await) {
        (
            Err(ExecuteError::Disconnected { source: Disconnect::Malformed(one), .. }),
            Err(ListenError::Disconnected(Disconnect::Malformed(two))),
        ) => assert!(one == why && two == why),
        other => panic!("{other:?}"),
    }
    assert_eq!(peer.next().await, None, "the connection is still open");
    why
}

fn limit_of(message: usize) -> Limits {
    Limits { message, ..Limits::default() }
}

async fn check_usable(client: &Client, peer: &mut Peer) {
    let asked = start(client, "x");
    let command = peer.command().await;
    peer.answer(&command, json!("well")).await;
    assert_eq!(soon(asked).await.unwrap().unwrap(), "well");
}

#[tokio::test(start_paused = true)]
async fn a_session_works_one_byte_at_a_time() {
    let (socket, stream) = Socket::pair();
    let mut peer = Peer::new(stream);
    let client = tokio::spawn(Client::over(socket, in_band()));
    let negotiation = r#"{"return": {}, "id": 0}"#;
    let event = r#"{"event": "é", "data": {"a\"}": "\\"}}"#;
    let reply = r#"{"return": "☃", "id": 1}"#;

    for byte in format!("{GREETING}\r\n{negotiation}\r\n{event}\r\n").bytes() {
        peer.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let client = soon(client).await.unwrap().unwrap();
    let asked = start(&client, "x");
    assert_eq!(peer.command().await["execute"], "qmp_capabilities");
    assert_eq!(peer.command().await["execute"], "x");
    for byte in reply.bytes() {
        peer.send(&[byte]).await;
        tokio::task::yield_now().await;
    }

    assert_eq!(soon(asked).await.unwrap().unwrap(), "☃");
}

#[tokio::test(start_paused = true)]
async fn messages_may_be_pretty_and_end_in_any_way() {
    let (client, mut peer) = session(in_band()).await;
    let listener = client.listen(EventFilter::any());

    for end in ["\r\n", "\n", "", "\n\n\n", " \t \r\r\n"] {
        let pretty = serde_json::to_string_pretty(&json!({"event": "A", "data": {"x": [1, {}]}})).unwrap();
        peer.send(format!("{pretty}{end}{{\"event\":\"B\"}}{end}").as_bytes()).await;

        assert_eq!(listener.next(PATIENCE).await.unwrap().text(), pretty);
        assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "B");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_ends_the_connection_and_is_quoted() {
    for (bytes, quoted) in [
        (&b"hello"[..], "hello"),
        (b"Segmentation fault\r\n{}", "Segmentation fault"),
        (b"[]", "[]"),
        (b"}", "}"),
        (b"null\n", "null"),
        (b"\0", "\\x00"),
        (b"\xff\xfe{}", "\\xff\\xfe{}"),
        (b"\xef\xbb\xbf{}", "\\xef\\xbb\\xbf{}"),
        (b"\x0c{}", "\\x0c{}"),
    ] {
        let why = ended_by(bytes, Limits::default()).await;

        assert_eq!(why, Malformed::NotAnObject { excerpt: quoted.into() });
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_no_json_ends_the_connection_and_is_quoted() {
    for text in [
        "{]",
        "{'event':'A'}",
        r#"{"event":"A",}"#,
        r#"{"event":NaN}"#,
        r#"{"event" "A"}"#,
        r#"{"return":{},"id":01}"#,
        "{\"event\":\"a\nb\"}",
        "{\"event\":\"a\0b\"}",
        r#"{"event":"\x41"}"#,
        r#"{"return":[}}"#,
        "{[[[[]]]]}",
    ] {
        let why = ended_by(text.as_bytes(), Limits::default()).await;

        let quoted = text.as_bytes().escape_ascii().to_string();
        assert!(matches!(&why, Malformed::NotJson { excerpt, .. } if *excerpt == quoted), "{text}: {why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_utf8_end_the_connection_and_are_quoted() {
    for (bytes, at) in [
        (&b"{\"event\":\"\xff\"}"[..], 10),
        (b"{\"event\":\"A\xc3\"}", 11),
        (b"{\"\xed\xa0\x80\":1}", 2),
        (b"{\"event\":\"A\", \xe9: 1}", 14),
    ] {
        let why = ended_by(bytes, Limits::default()).await;

        assert!(
            matches!(&why, Malformed::NotUtf8 { at: place, excerpt } if *place == at && excerpt.contains("\\x")),
            "{why:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_as_long_as_the_limit_is_taken_and_one_byte_more_is_not() {
    let event = |length: usize| {
        let frame = r#"{"event":""}"#.len();
        format!(r#"{{"event":"{}"}}"#, "x".repeat(length - frame))
    };
    let (client, mut peer) = session(in_band().limits(limit_of(1000))).await;
    let listener = client.listen(EventFilter::any());

    peer.say(&event(1000)).await;
    let taken = listener.next(PATIENCE).await.unwrap();
    peer.say(&event(1001)).await;

    assert_eq!(taken.text().len(), 1000);
    assert!(matches!(soon(client.closed()).await, Disconnect::Malformed(Malformed::TooLong { limit: 1000 })));
}

#[tokio::test(start_paused = true)]
async fn a_message_beyond_the_limit_ends_the_connection_before_it_is_complete() {
    let begun = format!(r#"{{"event":"{}"#, "x".repeat(1000));

    let why = ended_by(begun.as_bytes(), limit_of(1000)).await;

    assert_eq!(why, Malformed::TooLong { limit: 1000 });
}

#[tokio::test(start_paused = true)]
async fn messages_before_the_one_beyond_the_limit_are_delivered() {
    let (client, mut peer) = session(in_band().limits(limit_of(1000))).await;
    let listener = client.listen(EventFilter::any());

    let long = "x".repeat(2000);
    peer.say(&format!(r#"{{"event":"A"}}{{"event":"B"}}{{"event":"{long}"}}{{"event":"C"}}"#)).await;
    soon(client.closed()).await;

    let names: String = listener.take_all().iter().map(|event| event.name().to_owned()).collect();
    assert_eq!(names, "AB");
}

#[tokio::test(start_paused = true)]
async fn blanks_between_messages_count_for_no_limit() {
    let (client, mut peer) = session(in_band().limits(limit_of(1000))).await;

    peer.send(" \r\n\t".repeat(1 << 20).as_bytes()).await;

    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_nothing_takes_nothing_and_panics_nowhere() {
    let (socket, stream) = Socket::pair();
    let mut peer = Peer::new(stream);
    let mut limits = limit_of(0);
    limits.depth = 0;
    let client = tokio::spawn(Client::over(socket, Options::default().limits(limits)));

    peer.say(GREETING).await;

    assert!(soon(client).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn limits_without_an_end_do_not_overflow() {
    let mut limits = limit_of(usize::MAX);
    limits.depth = usize::MAX;
    let (client, mut peer) = session(in_band().limits(limits)).await;

    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_million_open_brackets_overflow_no_stack() {
    let mut bytes = b"{\"a\":".to_vec();
    bytes.resize(1_000_000, b'[');
    bytes.push(b'}');

    let (client, mut peer) = session(in_band()).await;
    peer.send(&bytes).await;
    peer.hang_up();

    assert!(matches!(soon(client.closed()).await, Disconnect::Malformed(Malformed::Truncated { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_event_nested_without_end_spoils_nothing_but_its_own_value() {
    let (client, mut peer) = session(in_band()).await;
    let filtered = client.listen(EventFilter::any().data(json!({"a": 1})));
    let all = client.listen(EventFilter::any());
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));

    peer.say(&format!(r#"{{"event":"A","data":{deep}}}"#)).await;
    let event = all.next(PATIENCE).await.unwrap();

    assert_eq!(event.data_text().unwrap(), deep);
    assert!(event.data().is_null() && event.message().is_null());
    assert!(filtered.is_empty());
    check_usable(&client, &mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_no_kind_is_dropped() {
    let (client, mut peer) = session(in_band()).await;

    for text in ["{}", r#"{"x":1}"#, r#"{"data":{},"timestamp":{}}"#, r#"{"id":1}"#, r#"{"id":[]}"#] {
        peer.say(text).await;
    }

    check_usable(&client, &mut peer).await;
}

#[tokio::test]
async fn a_hundred_thousand_bytes_one_at_a_time_take_linear_time() {
    let (client, mut peer) = session(in_band()).await;
    let asked = start(&client, "x");
    let id = peer.command().await["id"].clone();
    let text = format!(r#"{{"return":"{}","id":{id}}}"#, "x".repeat(100_000));

    let sent = tokio::time::timeout(Duration::from_secs(10), async {
        for byte in text.bytes() {
            peer.send(&[byte]).await;
            tokio::task::yield_now().await;
        }
    });

    assert!(sent.await.is_ok(), "it took too long");
    assert_eq!(soon(asked).await.unwrap().unwrap().as_str().unwrap().len(), 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_control_character_or_nul_that_is_escaped_is_text() {
    let (client, mut peer) = session(in_band()).await;
    let asked = start(&client, "x");
    let command = peer.command().await;

    peer.answer(&command, json!("a\u{0}\u{1b}\u{7f}b")).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), "a\u{0}\u{1b}\u{7f}b");
}
