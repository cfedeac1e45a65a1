//! The transcript: what it sees, and what it can break.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::Direction;
use ratite_qmp::EventFilter;
use ratite_qmp::ListenError;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use ratite_qmp::Transcript;
use serde_json::Value;
use serde_json::json;

use crate::peer::GREETING;
use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

type Noted = Arc<Mutex<Vec<(Direction, Instant, String)>>>;

/// Options whose transcript goes to the list.
fn noting() -> (Options, Noted) {
    let noted = Noted::default();
    let transcript = Transcript::new({
        let noted = noted.clone();
        move |entry| {
            noted.lock().unwrap().push((entry.direction, entry.at, entry.text.to_owned()));
        }
    });
    (in_band().transcript(transcript), noted)
}

#[tokio::test(start_paused = true)]
async fn every_message_is_seen_in_the_order_of_the_wire() {
    let (options, noted) = noting();
    let (client, mut peer) = session(options).await;

    let asked = start(&client, "x");
    let command = peer.command().await;
    peer.say(r#"{"event": "A"}"#).await;
    peer.say(r#"{"return":"stray","id":"unknown"}"#).await;
    peer.answer(&command, json!(1)).await;
    soon(asked).await.unwrap().unwrap();

    let noted = noted.lock().unwrap();
    let seen: Vec<_> = noted.iter().map(|(direction, _, text)| (*direction, text.as_str())).collect();
    assert_eq!(
        seen,
        [
            (Direction::Received, GREETING),
            (Direction::Sent, r#"{"execute":"qmp_capabilities","id":0}"#),
            (Direction::Received, r#"{"id":0,"return":{}}"#),
            (Direction::Sent, r#"{"execute":"x","id":1}"#),
            (Direction::Received, r#"{"event": "A"}"#),
            (Direction::Received, r#"{"return":"stray","id":"unknown"}"#),
            (Direction::Received, r#"{"id":1,"return":1}"#),
        ]
    );
    assert!(noted.is_sorted_by_key(|(_, at, _)| *at));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_commands_each_is_seen_once_before_its_reply() {
    let (options, noted) = noting();
    let (client, peer) = session(options).await;
    peer.echo();

    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.execute("echo", json!({"a": "x".repeat(1000)})).await })
        })
        .collect();
    for task in tasks {
        soon(task).await.unwrap().unwrap();
    }

    let noted = noted.lock().unwrap();
    let place = |wanted: Direction, id: u64| -> Vec<usize> {
        let is_it = |(direction, _, text): &(Direction, Instant, String)| {
            let id_of = serde_json::from_str::<Value>(text).unwrap()["id"].clone();
            *direction == wanted && id_of == id
        };
        (0..noted.len()).filter(|at| is_it(&noted[*at])).collect()
    };
    for id in 1..=50 {
        let (sent, received) = (place(Direction::Sent, id), place(Direction::Received, id));
        assert!(sent.len() == 1 && received.len() == 1 && sent < received, "{id}");
    }
    assert!(noted.is_sorted_by_key(|(_, at, _)| *at));
}

#[tokio::test(start_paused = true)]
async fn a_message_written_in_many_pieces_is_seen_once() {
    let (options, noted) = noting();
    let (client, mut peer) = session(options).await;
    let blob = "x".repeat(1 << 20);

    let asked = tokio::spawn(async move { client.execute("x", json!({"blob": blob})).await });
    let command = peer.command().await;
    peer.answer(&command, json!(1)).await;
    soon(asked).await.unwrap().unwrap();

    let noted = noted.lock().unwrap();
    let long = noted.iter().filter(|(_, _, text)| text.len() > 1 << 20).count();
    assert_eq!(long, 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_never_sent_is_not_seen() {
    let (options, noted) = noting();
    let (client, _peer) = session(options).await;
    let before = noted.lock().unwrap().len();

    let zero = client.send(Command::new("x").limit(Duration::ZERO)).await;
    let odd = client.execute("x", 5).await;
    let oob = client.send(Command::new("x").oob()).await;

    assert!(zero.is_err() && odd.is_err() && oob.is_err());
    assert_eq!(noted.lock().unwrap().len(), before);
}

#[tokio::test(start_paused = true)]
async fn garbage_that_is_complete_is_seen_before_it_ends_the_connection() {
    let (options, noted) = noting();
    let (client, mut peer) = session(options).await;

    peer.say("{nonsense}").await;
    soon(client.closed()).await;

    assert_eq!(noted.lock().unwrap().last().unwrap().2, "{nonsense}");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_ends_the_connection_and_nobody_hangs() {
    let transcript = Transcript::new(|entry| assert!(!entry.text.contains("BOMB"), "as planned"));
    let (client, mut peer) = session(in_band().transcript(transcript)).await;
    let listener = client.listen(EventFilter::any());
    let asked = start(&client, "x");
    peer.command().await;

    peer.say(r#"{"event":"A"}"#).await;
    peer.say(r#"{"event":"BOMB"}"#).await;

    assert!(soon(asked).await.unwrap().unwrap_err().is_disconnected());
    soon(client.closed()).await;
    assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "A");
    assert!(matches!(listener.next(PATIENCE).await, Err(ListenError::Disconnected(_))));
    assert!(soon(client.execute("x", ())).await.unwrap_err().is_disconnected());
    soon(client.close()).await;
    assert_eq!(peer.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_at_a_command_ends_the_connection_and_nobody_hangs() {
    let transcript = Transcript::new(|entry| assert!(!entry.text.contains("BOMB"), "as planned"));
    let (client, mut peer) = session(in_band().transcript(transcript)).await;

    let outcome = soon(client.execute("BOMB", ())).await;

    assert!(outcome.unwrap_err().is_disconnected());
    while peer.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_at_the_greeting_fails_the_session_and_closes_it() {
    let (socket, stream) = Socket::pair();
    let mut peer = Peer::new(stream);
    let transcript = Transcript::new(|_| panic!("as planned"));
    let client = tokio::spawn(Client::over(socket, Options::default().transcript(transcript)));

    peer.say(GREETING).await;

    let outcome = soon(client).await;
    assert!(outcome.is_err() || outcome.unwrap().is_err());
    assert_eq!(peer.next().await, None);
}
