//! Greeting and negotiation, in all the ways they can go.

use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::Disconnect;
use ratite_qmp::Error;
use ratite_qmp::EventFilter;
use ratite_qmp::ListenError;
use ratite_qmp::Listener;
use ratite_qmp::Malformed;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use serde_json::Value;
use serde_json::json;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::peer::GREETING;
use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::poll_once;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

/// A client that is about to shake hands, and its peer.
fn dial(options: Options) -> (JoinHandle<Result<Client, Error>>, Peer<DuplexStream>) {
    let (socket, stream) = Socket::pair();
    (tokio::spawn(Client::over(socket, options)), Peer::new(stream))
}

/// What becomes of a client whose peer says `text` first and then hangs up.
async fn greeted_with(text: &str) -> Error {
    let (client, mut peer) = dial(Options::default());
    peer.send(text.as_bytes()).await;
    peer.hang_up();
    soon(client).await.unwrap().expect_err("the session began")
}

/// What becomes of a client whose peer answers the negotiation with `text` and then says nothing more, and when.
async fn negotiated_with(text: &str) -> (Result<Client, Error>, Duration) {
    let start = Instant::now();
    let (client, mut peer) = dial(Options::default().connect_limit(Duration::from_secs(5)));
    peer.say(GREETING).await;
    peer.command().await;
    peer.say(text).await;
    let outcome = soon(client).await.unwrap();
    (outcome, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn oob_is_asked_for_where_it_is_offered() {
    let (client, mut peer) = dial(Options::default());

    peer.say(GREETING).await;
    let negotiation = peer.command().await;
    peer.answer(&negotiation, json!({})).await;

    assert_eq!(negotiation["arguments"], json!({"enable": ["oob"]}));
    assert_eq!(soon(client).await.unwrap().unwrap().capabilities(), ["oob"]);
}

#[tokio::test(start_paused = true)]
async fn oob_is_not_asked_for_where_it_is_not_offered() {
    let (client, mut peer) = dial(Options::default());

    peer.say(r#"{"QMP":{"version":{},"capabilities":[]}}"#).await;
    let negotiation = peer.command().await;
    peer.answer(&negotiation, json!({})).await;

    assert_eq!(negotiation["arguments"], Value::Null);
    assert!(soon(client).await.unwrap().unwrap().capabilities().is_empty());
}

#[tokio::test(start_paused = true)]
async fn oob_that_nobody_wants_is_not_asked_for() {
    let (client, mut peer) = dial(Options::default().capabilities::<[&str; 0]>([]));

    peer.say(GREETING).await;
    let negotiation = peer.command().await;
    peer.answer(&negotiation, json!({})).await;

    assert_eq!(negotiation["arguments"], Value::Null);
    assert!(soon(client).await.unwrap().unwrap().capabilities().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_negotiation_has_an_id() {
    let (_client, mut peer) = dial(Options::default());

    peer.say(GREETING).await;

    assert!(peer.command().await["id"].is_u64());
}

#[tokio::test(start_paused = true)]
async fn the_greeting_can_be_read() {
    let (client, _peer) = session(Options::default()).await;

    let greeting = client.greeting().unwrap();

    assert_eq!(greeting.version.to_string(), "10.0.2 (Debian)");
    assert_eq!(greeting.capabilities, ["oob"]);
    assert_eq!(greeting.text(), GREETING);
}

#[tokio::test(start_paused = true)]
async fn events_during_the_negotiation_reach_a_listener_that_is_armed() {
    let (listener, subscription) = Listener::new(EventFilter::any());
    let (client, mut peer) = dial(Options::default().subscribe(subscription));

    peer.say(GREETING).await;
    peer.say(r#"{"event":"BEFORE"}"#).await;
    let negotiation = peer.command().await;
    peer.say(r#"{"event":"BETWEEN"}"#).await;
    peer.answer(&negotiation, json!({})).await;
    peer.say(r#"{"event":"AFTER"}"#).await;
    let _client = soon(client).await.unwrap().unwrap();

    for name in ["BEFORE", "BETWEEN", "AFTER"] {
        assert_eq!(listener.next(PATIENCE).await.unwrap().name(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_negotiation_keeps_the_peers_words() {
    let (outcome, _) =
        negotiated_with(r#"{"id":0,"error":{"class":"CommandNotFound","desc":"not today"}}"#).await;

    match outcome.unwrap_err() {
        Error::Negotiation(words) => assert_eq!(words.to_string(), "not today (CommandNotFound)"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_an_id_is_the_negotiations() {
    let (outcome, _) = negotiated_with(r#"{"error":{"class":"GenericError","desc":"no idea"}}"#).await;

    assert!(matches!(outcome, Err(Error::Negotiation(words)) if words.desc == "no idea"));
}

#[tokio::test(start_paused = true)]
async fn a_reply_to_something_else_does_not_end_the_negotiation() {
    let (client, mut peer) = dial(Options::default());

    peer.say(GREETING).await;
    let negotiation = peer.command().await;
    for id in ["7", r#""0""#, "[0]", "{}", "null", "-1", "0.0"] {
        peer.say(&format!(r#"{{"return":{{}},"id":{id}}}"#)).await;
        peer.say(&format!(r#"{{"error":{{"class":"C","desc":"d"}},"id":{id}}}"#)).await;
    }
    peer.say(r#"{"return":{}}"#).await;
    tokio::task::yield_now().await;

    assert!(!client.is_finished());
    peer.answer(&negotiation, json!({})).await;
    assert!(soon(client).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_neither_grants_nor_refuses_ends_the_negotiation_at_once() {
    for text in [r#"{"id":0}"#, r#"{"id":0,"error":5}"#, r#"{"id":0,"error":{"class":"C"}}"#] {
        let (outcome, took) = negotiated_with(text).await;

        assert!(outcome.is_err(), "{text} was taken as a grant");
        assert_eq!(took, Duration::ZERO, "{text} was waited upon: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_greeting_ends_the_negotiation() {
    let (outcome, took) = negotiated_with(GREETING).await;

    assert!(matches!(
        outcome,
        Err(Error::Disconnected(Disconnect::Malformed(Malformed::UnexpectedShape { .. })))
    ));
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_waited_for_as_long_as_was_said() {
    let start = Instant::now();
    let (client, _peer) = dial(Options::default().connect_limit(Duration::from_secs(3)));

    let outcome = client.await.unwrap();

    assert!(matches!(outcome, Err(Error::TimedOut(_))), "{outcome:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn the_connect_limit_counts_from_the_beginning_whatever_comes() {
    let start = Instant::now();
    let (client, mut peer) = dial(Options::default().connect_limit(Duration::from_secs(3)));
    peer.say(GREETING).await;
    let chatter = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            peer.say(r#"{"event":"TICK"}"#).await;
        }
    });

    let outcome = client.await.unwrap();

    assert!(matches!(outcome, Err(Error::TimedOut(_))), "{outcome:?}");
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    chatter.abort();
}

#[tokio::test(start_paused = true)]
async fn a_zero_connect_limit_ends_at_once() {
    let (socket, _stream) = Socket::pair();

    let outcome = Client::over(socket, Options::default().connect_limit(Duration::ZERO)).await;

    assert!(matches!(outcome, Err(Error::TimedOut(_))));
}

#[tokio::test(start_paused = true)]
async fn what_another_kind_of_server_says_is_quoted() {
    let error = greeted_with("SSH-2.0-OpenSSH_9.6\r\n").await;

    assert_eq!(error.to_string(), "the peer did not greet, it sent `SSH-2.0-OpenSSH_9.6`");
}

#[tokio::test(start_paused = true)]
async fn an_odd_greeting_is_refused_and_quoted() {
    for text in [
        r#"{"event":"STOP"}"#,
        r#"{"return":{}}"#,
        r#"{"QMP":5}"#,
        r#"{"QMP":{}}"#,
        r#"{"QMP":{"version":{}}}"#,
        r#"{"QMP":{"version":{},"capabilities":"oob"}}"#,
        r#"{"QMP":{"version":{},"capabilities":{"oob":true}}}"#,
        r#"{"QMP":{"version":[],"capabilities":null}}"#,
        r#"{"QMP":{"version":{"qemu":{"major":-1}},"capabilities":[]}}"#,
        r#"{"QMP":nonsense}"#,
        r#"{]"#,
    ] {
        let error = greeted_with(text).await;

        let quoted = text.escape_default().to_string();
        assert!(matches!(&error, Error::Greeting { got } if *got == quoted), "{text}: {error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_capability_that_is_unknown_or_no_string_is_passed_over() {
    let (client, mut peer) = dial(Options::default());

    peer.say(r#"{"QMP":{"version":{},"capabilities":["new",5,{"oob":1},"oob"]}}"#).await;
    let negotiation = peer.command().await;
    peer.answer(&negotiation, json!({})).await;

    assert_eq!(negotiation["arguments"], json!({"enable": ["oob"]}));
    assert!(soon(client).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_up_before_it_greets_is_told_as_such() {
    assert!(matches!(greeted_with("").await, Error::Disconnected(Disconnect::ByPeer)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_up_within_its_greeting_is_told_as_such() {
    assert!(matches!(
        greeted_with(r#"{"QMP": {"ver"#).await,
        Error::Disconnected(Disconnect::Malformed(Malformed::Truncated { excerpt })) if excerpt.contains("QMP")
    ));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_hangs_up_after_it_greeted_is_told_as_such() {
    assert!(matches!(greeted_with(GREETING).await, Error::Disconnected(Disconnect::ByPeer)));
}

#[tokio::test(start_paused = true)]
async fn a_session_without_handshake_sends_at_once() {
    let (client, mut peer) = dial(Options::default().without_handshake());
    let client = soon(client).await.unwrap().unwrap();

    let pong = tokio::spawn({
        let client = client.clone();
        async move { client.execute("guest-ping", ()).await }
    });
    let ping = peer.command().await;
    peer.answer(&ping, json!({})).await;

    assert_eq!(ping["execute"], "guest-ping");
    assert_eq!(soon(pong).await.unwrap().unwrap(), json!({}));
    assert!(client.greeting().is_none() && client.capabilities().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_closes_the_connection() {
    let (client, mut peer) = dial(Options::default());

    peer.say(r#"{"event":"STOP"}"#).await;

    assert!(soon(client).await.unwrap().is_err());
    assert_eq!(peer.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_handshake_closes_the_connection() {
    let (socket, stream) = Socket::pair();
    let mut peer = Peer::new(stream);
    let mut handshake = Box::pin(Client::over(socket, Options::default()));
    peer.say(GREETING).await;
    assert!(poll_once(handshake.as_mut()).await.is_pending());

    drop(handshake);

    assert_eq!(peer.command().await["execute"], "qmp_capabilities");
    assert_eq!(peer.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_ends_the_listeners_that_were_armed_for_it() {
    let (listener, subscription) = Listener::new(EventFilter::any());
    let (client, peer) = dial(Options::default().subscribe(subscription));
    peer.hang_up();
    assert!(soon(client).await.unwrap().is_err());

    let outcome = listener.next(Duration::from_secs(60)).await;

    assert!(
        matches!(outcome, Err(ListenError::Disconnected(_))),
        "the listener went on waiting: {outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_second_reply_to_the_negotiation_disturbs_nobody() {
    let (client, mut peer) = session(Options::default()).await;
    let status = start(&client, "query-status");
    let command = peer.command().await;

    peer.say(r#"{"return":"again","id":0}"#).await;
    peer.say(r#"{"error":{"class":"C","desc":"d"},"id":0}"#).await;
    peer.answer(&command, json!("running")).await;

    assert_eq!(soon(status).await.unwrap().unwrap(), "running");
}

#[tokio::test(start_paused = true)]
async fn a_greeting_after_the_handshake_ends_the_session() {
    let (client, mut peer) = session(Options::default()).await;

    peer.say(GREETING).await;

    assert!(matches!(soon(client.closed()).await, Disconnect::Malformed(Malformed::UnexpectedShape { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_is_foreseen_is_negotiated_before_the_greeting() {
    let (client, mut peer) = dial(Options::default().foreseen(["oob", "warp"]));

    let negotiation = peer.command().await;
    peer.say(GREETING).await;
    peer.answer(&negotiation, json!({})).await;

    assert_eq!(negotiation["arguments"], json!({"enable": ["oob"]}));
    let client = soon(client).await.unwrap().unwrap();
    assert_eq!(client.capabilities(), ["oob"]);
    peer.hears_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_offers_less_than_was_foreseen_is_asked_again() {
    for offers in [r#"["warp"]"#, "[]"] {
        let (client, mut peer) = dial(Options::default().foreseen(["oob"]));
        let foreseen = peer.command().await;
        peer.say(&GREETING.replace(r#"["oob"]"#, offers)).await;
        let refusal = json!({"error": {"class": "GenericError", "desc": "no oob"}, "id": foreseen["id"]});
        peer.say(&refusal.to_string()).await;

        let again = peer.command().await;
        peer.answer(&again, json!({})).await;

        assert_eq!(again["arguments"], Value::Null);
        let client = soon(client).await.unwrap().unwrap();
        assert!(client.capabilities().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_does_not_offer_is_not_on_though_it_was_foreseen_and_granted() {
    let (client, mut peer) = dial(Options::default().foreseen(["oob"]));
    let negotiation = peer.command().await;
    peer.say(&GREETING.replace(r#"["oob"]"#, "[]")).await;
    peer.answer(&negotiation, json!({})).await;

    assert!(soon(client).await.unwrap().unwrap().capabilities().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_what_was_foreseen_rightly_is_told() {
    let (client, mut peer) = dial(Options::default().foreseen(["oob"]));
    let negotiation = peer.command().await;
    peer.say(GREETING).await;
    let refusal = json!({"error": {"class": "GenericError", "desc": "not today"}, "id": negotiation["id"]});
    peer.say(&refusal.to_string()).await;

    let error = soon(client).await.unwrap().expect_err("it was refused");
    assert!(matches!(error, Error::Negotiation(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_what_was_foreseen_before_it_greets_is_understood() {
    let (client, mut peer) = dial(Options::default().foreseen(["oob"]));
    let negotiation = peer.command().await;
    peer.answer(&negotiation, json!({})).await;
    peer.say(GREETING).await;

    assert_eq!(soon(client).await.unwrap().unwrap().capabilities(), ["oob"]);
}

#[tokio::test]
async fn what_was_not_foreseen_is_on_all_the_same() {
    for foreseen in [&[][..], &["warp"]] {
        let (client, mut peer) = dial(Options::default().foreseen(foreseen.iter().copied()));
        peer.say(GREETING).await;
        let negotiation = peer.command().await;
        peer.answer(&negotiation, json!({})).await;

        assert_eq!(negotiation["arguments"], json!({"enable": ["oob"]}));
        assert_eq!(client.await.unwrap().unwrap().capabilities(), ["oob"]);
    }
}
