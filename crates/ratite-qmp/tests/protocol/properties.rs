//! Whatever the peer says, in whatever order and pieces: no panic, no hang, nobody else's reply.

use std::time::Duration;

use proptest::prelude::*;
use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::Disconnect;
use ratite_qmp::EventFilter;
use ratite_qmp::ExecuteError;
use ratite_qmp::ListenError;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use ratite_qmp::Reply;
use ratite_qmp::Socket;
use serde_json::Value;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::peer::GREETING;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::soon;

#[derive(Debug, Clone)]
enum Move {
    /// A command is asked for.
    Ask {
        oob: bool,
        patient: bool,
    },
    /// The oldest command that is still asked for is given up.
    GiveUp,
    /// The peer takes the next command, if one is there.
    Take,
    /// The peer answers one of the commands it took, perhaps not for the first time.
    Answer(prop::sample::Index),
    Refuse(prop::sample::Index),
    Event,
    /// An error that names no command.
    Lost,
    Stray(String),
    /// Time goes by.
    Wait,
    /// Bytes that end the connection, or not.
    Garbage(Vec<u8>),
    HangUp,
    Close,
}

fn any_move() -> impl Strategy<Value = Move> {
    let id = prop_oneof![
        "[1-9][0-9]{4,20}",
        Just("0".into()),
        Just("null".into()),
        "\"[a-z0-9]{0,3}\"",
        Just("[1]".into())
    ];
    prop_oneof![
        8 => (any::<bool>(), any::<bool>()).prop_map(|(oob, patient)| Move::Ask { oob, patient }),
        2 => Just(Move::GiveUp),
        8 => Just(Move::Take),
        6 => any::<prop::sample::Index>().prop_map(Move::Answer),
        2 => any::<prop::sample::Index>().prop_map(Move::Refuse),
        4 => Just(Move::Event),
        1 => Just(Move::Lost),
        2 => id.prop_map(Move::Stray),
        2 => Just(Move::Wait),
        1 => prop_oneof!["[{}\\[\\]\",:a-z\\\\ ]{1,12}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 1..8)]
            .prop_map(Move::Garbage),
        1 => Just(Move::HangUp),
        1 => Just(Move::Close),
    ]
}

/// Plays `moves`; every command must end, with its own reply or a reason. Where the peer did nothing wrong, it answers
/// the rest at the end, and every command that has time must have its reply.
async fn play(moves: Vec<Move>, options: Options) {
    let is_wrong = |step: &Move| matches!(step, Move::Garbage(_) | Move::HangUp | Move::Close | Move::Lost);
    let well = !moves.iter().any(is_wrong);
    let (client, peer) = session(options).await;
    let listener = client.listen(EventFilter::any());
    let mut peer = Some(peer);
    let (mut asked, mut taken) = (Vec::new(), Vec::new());
    let mut events = 0;
    for (number, step) in moves.into_iter().enumerate() {
        let text = match step {
            Move::Ask { oob, patient } => {
                let mut command = Command::new(number.to_string());
                if oob {
                    command = command.oob();
                }
                command = command.limit(Duration::from_secs(if patient { 36_000 } else { 1 }));
                let client = client.clone();
                let task = tokio::spawn(async move { client.send(command).await });
                asked.push(Asked { number, patient, task });
                continue;
            }
            Move::GiveUp => {
                if !asked.is_empty() {
                    asked.remove(0).task.abort();
                }
                continue;
            }
            Move::Take => {
                if let Some(peer) = &mut peer
                    && let Ok(Some(command)) =
                        tokio::time::timeout(Duration::from_millis(1), peer.next()).await
                {
                    taken.push(command);
                }
                continue;
            }
            Move::Wait => {
                tokio::time::advance(Duration::from_secs(2)).await;
                continue;
            }
            Move::HangUp => {
                peer = None;
                continue;
            }
            Move::Close => {
                soon(client.close()).await;
                continue;
            }
            Move::Garbage(bytes) => bytes,
            Move::Answer(_) | Move::Refuse(_) if taken.is_empty() => continue,
            Move::Answer(which) => {
                let command: &Value = which.get(&taken);
                json!({"return": name_of(command), "id": command["id"]}).to_string().into()
            }
            Move::Refuse(which) => {
                let command = which.get(&taken);
                json!({"error": {"class": "C", "desc": "d"}, "id": command["id"]}).to_string().into()
            }
            Move::Event => {
                events += 1;
                json!({"event": events.to_string()}).to_string().into()
            }
            Move::Lost => json!({"error": {"class": "C", "desc": "d"}}).to_string().into(),
            Move::Stray(id) => format!(r#"{{"return":{{}},"id":{id}}}"#).into_bytes(),
        };
        if let Some(peer) = &mut peer {
            peer.try_send(&text).await;
        }
    }
    if let (true, Some(mut peer)) = (well, peer) {
        for command in &taken {
            peer.answer(command, name_of(command)).await;
        }
        while let Ok(Some(command)) = tokio::time::timeout(Duration::from_millis(1), peer.next()).await {
            peer.answer(&command, name_of(&command)).await;
        }
        finish(asked, well).await;
    } else {
        finish(asked, false).await;
    }
    check_order(&listener).await;
    assert!(!matches!(client.ended(), Some(Disconnect::Runtime)));
}

/// A command's name, which is what the peer answers it with.
fn name_of(command: &Value) -> Value {
    let name = command.get("execute").or_else(|| command.get("exec-oob"));
    name.unwrap().clone()
}

/// A command that was asked for.
struct Asked {
    number: usize,
    patient: bool,
    task: JoinHandle<Result<Reply, ExecuteError>>,
}

/// Waits until every command has ended.
async fn finish(asked: Vec<Asked>, answered: bool) {
    for Asked { number, patient, task } in asked {
        let outcome = tokio::time::timeout(Duration::from_secs(72_000), task).await;
        match outcome.expect("a command hangs").unwrap() {
            Ok(reply) => {
                if let Some(text) = reply.return_text() {
                    assert_eq!(text, format!("\"{number}\""), "another command's reply");
                }
            }
            Err(ExecuteError::NoOob { .. }) => {}
            Err(error) => assert!(!(answered && patient), "{number}: {error}"),
        }
    }
}

/// Takes all events; they must come in the order in which they were sent.
async fn check_order(listener: &Listener) {
    let mut last = 0;
    loop {
        match listener.next(Duration::from_secs(1)).await {
            Ok(event) => {
                if let Ok(number) = event.name().parse::<u64>() {
                    assert!(number > last, "an event out of order");
                    last = number;
                }
            }
            Err(ListenError::Lagged { .. }) => panic!("an event was dropped"),
            Err(_) => return,
        }
    }
}

/// Bytes that begin like a session and go astray somewhere.
fn any_beginning() -> impl Strategy<Value = Vec<u8>> {
    let whole = format!("{GREETING}\r\n{{\"event\":\"A\"}}\r\n{{\"return\":{{}},\"id\":0}}\r\n");
    let change = (any::<prop::sample::Index>(), any::<u8>());
    (prop::collection::vec(change, 0..4), any::<prop::sample::Index>()).prop_map(move |(changes, end)| {
        let mut bytes = whole.clone().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(bytes.len() + 1));
        bytes
    })
}

/// Begins a session with a peer that says `bytes` and hangs up.
async fn begin(bytes: Vec<u8>) {
    let (socket, stream) = Socket::pair();
    let mut peer = Peer::new(stream);
    let client = tokio::spawn(Client::over(socket, Options::default()));
    peer.try_send(&bytes).await;
    peer.hang_up();

    if let Ok(client) = soon(client).await.unwrap() {
        soon(client.closed()).await;
    }
}

fn run(future: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_conversation_ends_well(moves in prop::collection::vec(any_move(), 0..40), oob: bool) {
        run(play(moves, if oob { Options::default() } else { in_band() }));
    }

    #[test]
    fn any_beginning_of_a_session_ends_well(bytes in any_beginning()) {
        run(begin(bytes));
    }
}
