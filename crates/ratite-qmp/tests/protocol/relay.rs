//! One session, many peers: each finds what a monitor of its own would be.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::Client;
use ratite_qmp::EventFilter;
use ratite_qmp::Options;
use ratite_qmp::Relay;
use ratite_qmp::Server;
use ratite_qmp::Socket;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::DuplexStream;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::peer::Folder;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::session_over;
use crate::peer::soon;

/// Somebody who uses the relay.
struct User<S> {
    stream: BufReader<S>,
}

impl User<DuplexStream> {
    /// One that has been greeted.
    async fn of(relay: &Relay) -> (Self, JoinHandle<()>) {
        let (socket, stream) = Socket::pair();
        let relay = relay.clone();
        let served = tokio::spawn(async move { relay.attend(socket).await });
        let mut user = Self { stream: BufReader::new(stream) };
        let greeting = user.line().await;
        assert!(greeting["QMP"]["version"]["qemu"]["major"].is_number(), "{greeting}");
        (user, served)
    }

    /// One that has negotiated.
    async fn ready(relay: &Relay) -> Self {
        let (mut user, _) = Self::of(relay).await;
        assert_eq!(user.ask(r#"{"execute": "qmp_capabilities"}"#).await, json!({"return": {}}));
        user
    }
}

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> User<S> {
    async fn say(&mut self, text: &str) {
        soon(self.stream.write_all(text.as_bytes())).await.unwrap();
    }

    async fn text(&mut self) -> String {
        let mut line = String::new();
        soon(self.stream.read_line(&mut line)).await.unwrap();
        line
    }

    async fn line(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("it ended: {text:?}"))
    }

    async fn ask(&mut self, text: &str) -> Value {
        self.say(text).await;
        self.line().await
    }

    /// All that comes until the connection ends.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _reset_is_an_end = soon(self.stream.read_to_end(&mut rest)).await;
        String::from_utf8(rest).unwrap()
    }
}

async fn relayed(options: Options) -> (Client, Relay, Peer) {
    let (client, qemu) = session(options).await;
    let relay = Relay::of(&client).unwrap();
    (client, relay, qemu)
}

#[tokio::test]
async fn a_peer_negotiates_before_anything_else_and_once() {
    let (_client, relay, _qemu) = relayed(Options::default()).await;
    let (mut user, _) = User::of(&relay).await;

    let early = user.ask(r#"{"execute": "query-status", "id": 1}"#).await;
    let odd =
        user.ask(r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["warp"]}, "id": 2}"#).await;
    let well =
        user.ask(r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}, "id": 3}"#).await;
    let again = user.ask(r#"{"execute": "qmp_capabilities", "id": 4}"#).await;

    assert_eq!((&early["error"]["class"], &early["id"]), (&json!("CommandNotFound"), &json!(1)));
    assert_eq!((&odd["error"]["class"], &odd["id"]), (&json!("GenericError"), &json!(2)));
    assert_eq!(well, json!({"return": {}, "id": 3}));
    assert_eq!((&again["error"]["class"], &again["id"]), (&json!("CommandNotFound"), &json!(4)));
}

#[tokio::test]
async fn each_peer_gets_its_own_reply_under_its_own_id() {
    let (client, relay, mut qemu) = relayed(in_band()).await;
    let (mut one, mut two) = (User::ready(&relay).await, User::ready(&relay).await);

    one.say(r#"{"execute": "a", "arguments": {"n": 1.50}, "id": "same"}"#).await;
    let first = qemu.command().await;
    two.say(r#"{"execute": "b", "id": "same"}"#).await;
    let second = qemu.command().await;
    let ours = tokio::spawn(async move { client.execute("c", ()).await });
    let third = qemu.command().await;
    qemu.say(&format!(r#"{{"return": [1e400, "b"], "id": {}}}"#, second["id"])).await;
    qemu.say(&format!(r#"{{"error": {{"class": "X", "desc": "no \"a\""}}, "id": {}}}"#, first["id"])).await;
    qemu.answer(&third, json!("c")).await;

    assert_eq!(first["arguments"], json!({"n": 1.5}));
    assert_eq!(two.text().await, "{\"return\": [1e400, \"b\"], \"id\": \"same\"}\r\n");
    assert_eq!(one.line().await, json!({"error": {"class": "X", "desc": "no \"a\""}, "id": "same"}));
    assert_eq!(soon(ours).await.unwrap().unwrap(), json!("c"));
}

#[tokio::test]
async fn replies_keep_the_order_of_their_commands() {
    let (_client, relay, qemu) = relayed(in_band()).await;
    let _echo = qemu.echo();
    let mut user = User::ready(&relay).await;

    let commands: Vec<String> =
        (0..100).map(|n| format!(r#"{{"execute": "x", "arguments": {{"n": {n}}}, "id": {n}}}"#)).collect();
    user.say(&commands.concat()).await;

    for n in 0..100 {
        assert_eq!(user.line().await, json!({"return": {"n": n}, "id": n}));
    }
}

#[tokio::test]
async fn events_come_to_every_peer_and_before_the_reply_that_follows_them() {
    let (_client, relay, mut qemu) = relayed(in_band()).await;
    let (mut one, mut two) = (User::ready(&relay).await, User::ready(&relay).await);
    let (mut deaf, _) = User::of(&relay).await;

    one.say(r#"{"execute": "stop"}"#).await;
    let stop = qemu.command().await;
    qemu.say(r#"{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}"#).await;
    qemu.answer(&stop, json!({})).await;

    assert_eq!(one.line().await["event"], "STOP");
    assert_eq!(one.line().await, json!({"return": {}}));
    assert_eq!(two.line().await["timestamp"], json!({"seconds": 1, "microseconds": 2}));
    // One that has not negotiated hears nothing.
    assert_eq!(deaf.ask(r#"{"execute": "qmp_capabilities"}"#).await, json!({"return": {}}));
}

#[tokio::test]
async fn out_of_band_overtakes_where_it_was_negotiated() {
    let (_client, relay, mut qemu) = relayed(Options::default()).await;
    let mut plain = User::ready(&relay).await;
    let (mut urgent, _) = User::of(&relay).await;
    urgent.ask(r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#).await;

    let refused = plain.ask(r#"{"exec-oob": "migrate-pause", "id": 1}"#).await;
    urgent.say(r#"{"execute": "slow", "id": "slow"}"#).await;
    let slow = qemu.command().await;
    urgent.say(r#"{"exec-oob": "quick", "id": "quick"}"#).await;
    let quick = qemu.command().await;
    qemu.answer(&quick, json!(1)).await;

    assert!(refused["error"]["desc"].as_str().unwrap().contains("oob"), "{refused}");
    assert_eq!((&slow["execute"], &quick["exec-oob"]), (&json!("slow"), &json!("quick")));
    assert_eq!(urgent.line().await, json!({"return": 1, "id": "quick"}));
    qemu.answer(&slow, json!(2)).await;
    assert_eq!(urgent.line().await, json!({"return": 2, "id": "slow"}));
}

#[tokio::test]
async fn a_session_without_oob_offers_none() {
    let (client, _qemu) = session(in_band()).await;
    let (socket, stream) = Socket::pair();
    let relay = Relay::of(&client).unwrap();
    let _served = tokio::spawn(async move { relay.attend(socket).await });

    let greeting = User { stream: BufReader::new(stream) }.line().await;

    assert_eq!(greeting["QMP"]["capabilities"], json!([]));
    assert_eq!(greeting["QMP"]["version"]["package"], "Debian");
}

#[tokio::test]
async fn what_is_no_message_is_told_and_the_connection_goes_on() {
    let (_client, relay, qemu) = relayed(in_band()).await;
    let _echo = qemu.echo();
    let mut user = User::ready(&relay).await;

    for garbage in
        ["hello\n", "}\n", "\u{ff}\n", "[1]\n", "{'execute': 1}\n", "{\"execute\": tru}\n", "\"a\n"]
    {
        let told = user.ask(garbage).await;
        assert_eq!(told["error"]["class"], "GenericError", "{garbage}: {told}");
        assert_eq!(told.get("id"), None, "{garbage}");
    }
    soon(user.stream.write_all(b"{\"execute\": \"\xff\"}\n")).await.unwrap();
    assert_eq!(user.line().await["error"]["class"], "GenericError");

    let well = user.ask(r#"{"execute": "x", "arguments": {"n": 1}, "id": 1}"#).await;

    assert_eq!(well, json!({"return": {"n": 1}, "id": 1}));
}

#[tokio::test]
async fn a_message_without_end_ends_its_connection_alone() {
    let (_client, relay, qemu) = relayed(in_band()).await;
    let _echo = qemu.echo();
    let mut other = User::ready(&relay).await;
    let (mut user, served) = User::of(&relay).await;

    user.stream.write_all(b"{\"execute\": \"").await.unwrap();
    let endless = async { while user.stream.get_mut().write_all(&[b'x'; 4096]).await.is_ok() {} };
    let (_, ended) = tokio::join!(soon(endless), soon(served));
    ended.unwrap();

    assert!(user.rest().await.contains("limit of 2097152 bytes"));
    assert_eq!(other.ask(r#"{"execute": "x", "arguments": {"n": 1}}"#).await, json!({"return": {"n": 1}}));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_hung_up_on_and_holds_nobody_up() {
    let (client, relay, mut qemu) = relayed(in_band()).await;
    let mut other = User::ready(&relay).await;
    let (mut slow, served) = User::of(&relay).await;
    slow.ask(r#"{"execute": "qmp_capabilities"}"#).await;
    let last = client.listen(EventFilter::named("LAST"));

    let padding = "x".repeat(100);
    for n in 0..40_000 {
        qemu.say(&format!(r#"{{"event": "E", "data": {{"n": {n}, "p": "{padding}"}}}}"#)).await;
        assert_eq!(other.line().await["data"]["n"], n);
    }
    qemu.say(r#"{"event": "LAST"}"#).await;

    soon(last.next(Duration::MAX)).await.unwrap();
    soon(served).await.unwrap();
    let read = slow.rest().await;
    // What it has got is whole up to the last message's end or its middle, and in order.
    assert!(read.starts_with(r#"{"event": "E", "data": {"n": 0,"#), "{}", &read[..60]);
    assert!(!read.contains("LAST"));
}

#[tokio::test]
async fn a_peer_that_goes_leaves_its_commands_to_nobody() {
    let (_client, relay, mut qemu) = relayed(in_band()).await;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let serving = relay.clone();
    let served = tokio::spawn(async move { serving.attend(ours).await });
    let mut gone = User { stream: BufReader::new(theirs) };
    gone.line().await;
    gone.ask(r#"{"execute": "qmp_capabilities"}"#).await;
    gone.say(r#"{"execute": "slow", "id": 1}{"execute": "never", "id": 2}"#).await;
    let slow = qemu.command().await;

    drop(gone);
    soon(served).await.unwrap();
    qemu.answer(&slow, json!("late")).await;

    let mut other = User::ready(&relay).await;
    other.say(r#"{"execute": "x", "id": 1}"#).await;
    let next = qemu.command().await;
    assert_eq!(next["execute"], "x");
    qemu.answer(&next, json!("soon")).await;
    assert_eq!(other.line().await, json!({"return": "soon", "id": 1}));
}

#[tokio::test]
async fn a_peer_that_only_ends_its_own_side_gets_its_replies() {
    let (_client, relay, qemu) = relayed(in_band()).await;
    let _echo = qemu.echo();
    let (mut user, served) = User::of(&relay).await;

    user.say(r#"{"execute": "qmp_capabilities"}{"execute": "x", "id": 1}{"execute": "y", "id": 2}"#).await;
    user.stream.shutdown().await.unwrap();

    let rest = user.rest().await;
    assert_eq!(rest.lines().count(), 3, "{rest}");
    assert!(rest.ends_with("{\"return\": null, \"id\": 2}\r\n"), "{rest}");
    soon(served).await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_session_is_the_end_of_its_peers_behind_what_it_brought() {
    let (_client, relay, mut qemu) = relayed(in_band()).await;
    let mut user = User::ready(&relay).await;
    let (mut unnegotiated, _) = User::of(&relay).await;
    user.say(r#"{"execute": "quit", "id": 1}{"execute": "late"}"#).await;
    let quit = qemu.command().await;

    qemu.answer(&quit, json!({})).await;
    qemu.say(r#"{"event": "SHUTDOWN"}"#).await;
    qemu.hang_up();

    let rest = user.rest().await;
    assert!(rest.contains("{\"return\": {}, \"id\": 1}\r\n"), "{rest}");
    assert!(rest.contains(r#""SHUTDOWN""#), "{rest}");
    assert_eq!(unnegotiated.rest().await, "");
}

#[tokio::test]
async fn a_relay_keeps_no_session_alive() {
    let (client, relay, mut qemu) = relayed(in_band()).await;
    let mut user = User::ready(&relay).await;

    drop(client);

    assert_eq!(qemu.next().await, None);
    assert_eq!(user.rest().await, "");
}

#[tokio::test]
async fn descriptors_travel_on_with_the_command_that_takes_them() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (client, qemu) = session_over(ours, theirs, in_band()).await;
    let qemu = qemu.into_stream();
    let relay = Relay::of(&client).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let _served = tokio::spawn(async move { relay.attend(ours).await });
    let mut user = User { stream: BufReader::new(theirs) };
    user.line().await;
    user.ask(r#"{"execute": "qmp_capabilities"}"#).await;
    let (reader, writer) = std::io::pipe().unwrap();

    let fds = [writer.as_fd()];
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(&fds).size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let text = br#"{"execute": "getfd", "arguments": {"fdname": "a"}, "id": 7}"#;
    let stream = user.stream.get_ref();
    rustix::net::sendmsg(stream, &[IoSlice::new(text)], &mut ancillary, SendFlags::empty()).unwrap();
    drop(writer);

    let (command, fds) = soon(crate::descriptors::receive(&qemu)).await;
    assert!(command.contains(r#""getfd""#), "{command}");
    let mut received = std::fs::File::from(fds.into_iter().next().unwrap());
    std::io::Write::write_all(&mut received, b"through").unwrap();
    drop(received);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut { reader }, &mut text).unwrap();
    // The relay has kept no copy: the pipe has ended.
    assert_eq!(text, "through");
}

#[tokio::test]
async fn a_server_serves_those_who_are_welcome_up_to_its_number() {
    let folder = Folder::new();
    let path = folder.join("qmp");
    let (_client, relay, qemu) = relayed(in_band()).await;
    let server = Server::bind(&Address::unix(&path)).await.unwrap();
    let mut next = 0;
    let welcome = move |peer: Option<ratite_qmp::PeerCredentials>| {
        next += 1;
        next > 1 && peer.is_some()
    };
    let serving = tokio::spawn(async move { relay.serve(server, welcome).await });
    let connect = async || User { stream: BufReader::new(UnixStream::connect(&path).await.unwrap()) };

    let mut unwelcome = connect().await;
    assert_eq!(unwelcome.rest().await, "");
    let mut users = Vec::new();
    for _ in 0..64 {
        let mut user = connect().await;
        assert!(user.line().await["QMP"].is_object());
        users.push(user);
    }
    let mut surplus = connect().await;
    assert!(surplus.rest().await.contains("64 peers are connected already"));
    drop(users.pop());
    qemu.hang_up();

    soon(serving).await.unwrap().unwrap();
    assert!(!path.exists());
    assert_eq!(users[0].rest().await, "");
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_is_let_in() {
    let folder = Folder::new();
    let path = folder.join("qmp");
    let server = Server::bind(&Address::unix(&path)).await.unwrap();

    // Nobody accepts yet.
    let mut crowd = Vec::new();
    for number in 0..64 {
        let connected = UnixStream::connect(&path).await;
        crowd.push(connected.unwrap_or_else(|error| panic!("{number}: {error}")));
    }

    let (_client, relay, qemu) = relayed(in_band()).await;
    let serving = tokio::spawn(async move { relay.serve(server, |_| true).await });
    for stream in crowd {
        assert!(User { stream: BufReader::new(stream) }.line().await["QMP"].is_object());
    }
    qemu.hang_up();
    soon(serving).await.unwrap().unwrap();
}
