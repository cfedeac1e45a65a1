//! What a connection costs this process in descriptors and memory, and that it gives all of it back.
//!
//! A program of its own, in which one test runs at a time, because both are counted for the whole process.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report, also in what they share")]

#[path = "protocol/peer.rs"]
#[expect(dead_code, reason = "the protocol's tests use the rest")]
mod peer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use ratite_qmp::Address;
use ratite_qmp::Client;
use ratite_qmp::Command;
use ratite_qmp::EventFilter;
use ratite_qmp::Limits;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use ratite_qmp::Server;
use ratite_qmp::Socket;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::peer::Folder;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session;
use crate::peer::session_over;
use crate::peer::soon;

/// Keeps the other tests of this program away.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The descriptors of this process, each with what it is.
fn descriptors() -> BTreeSet<(String, PathBuf)> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let described = entries.filter_map(|entry| {
        let entry = entry.unwrap();
        // The one that lists the folder is gone by the time it is looked at, or names the folder.
        let target = std::fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().into_string().unwrap();
        (!target.starts_with("/proc")).then_some((number, target))
    });
    described.collect()
}

/// The memory of this process that is in use, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: usize = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kib << 10
}

/// How much more memory is in use after `work` than before.
async fn growth(work: impl Future<Output = ()>) -> usize {
    let before = memory();
    work.await;
    memory().saturating_sub(before)
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

const MIB: usize = 1 << 20;

#[test]
fn connections_of_every_fate_leave_no_descriptor() {
    let _alone = alone();
    run(async {
        let folder = Folder::new();
        let before = descriptors();

        for turn in 0..50 {
            every_fate(&folder, turn).await;
        }

        for _ in 0..100 {
            // The tasks of dropped connections end when they have their turn.
            tokio::task::yield_now().await;
        }
        assert_eq!(descriptors(), before);
    });
}

/// Sessions that go well, that fail at each step, and that are closed in each way.
async fn every_fate(folder: &Folder, turn: u32) {
    let path = folder.join(&format!("{turn}.sock"));
    let server = Server::bind(&Address::unix(&path)).await.unwrap();
    let quick = || in_band().connect_limit(Duration::from_millis(1));

    let (client, peer) = tokio::join!(Client::accept(&server, |_| true, in_band()), async {
        let mut peer = Peer::new(UnixStream::connect(&path).await.unwrap());
        peer.settle().await;
        peer
    });
    let client = client.unwrap();
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let sent = client.send(Command::new("getfd").fd(file).limit(Duration::from_millis(1)));
    assert!(sent.await.is_err());
    match turn % 3 {
        0 => client.close().await,
        1 => peer.hang_up(),
        _ => drop(client.listen(EventFilter::any())),
    }
    drop(client);

    let silent = Client::connect(&Address::unix(&path), quick()).await;
    let turned_away = server.accept(Duration::from_millis(1), |_| false).await;
    let nobody = Client::accept(&server, |_| true, quick()).await;
    drop(server);
    let missing = Client::connect(&Address::unix(&path), quick()).await;
    assert!(silent.is_err() && turned_away.is_err() && nobody.is_err() && missing.is_err());

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let garbage = tokio::io::AsyncWriteExt::write_all(&mut theirs, b"garbage");
    let (refused, garbage) = tokio::join!(Client::over(ours, in_band()), garbage);
    assert!(refused.is_err() && garbage.is_ok());
}

#[test]
fn adopted_descriptors_are_given_back() {
    let _alone = alone();
    run(async {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = std::fs::File::open("Cargo.toml").unwrap();
        let before = descriptors();

        for _ in 0..50 {
            let number = std::os::fd::AsRawFd::as_raw_fd(&ours);
            drop(Socket::connect(&Address::Fd(number)).await.unwrap());
            let number = std::os::fd::AsRawFd::as_raw_fd(&file);
            assert!(Socket::connect(&Address::Fd(number)).await.is_err());
        }

        assert_eq!(descriptors(), before);
    });
}

#[test]
fn no_descriptor_of_a_connection_is_inherited() {
    let _alone = alone();
    run(async {
        let folder = Folder::new();
        let path = folder.join("q.sock");
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
        let before = descriptors();

        let adopted = Socket::connect(&Address::Fd(std::os::fd::AsRawFd::as_raw_fd(&ours))).await.unwrap();
        let unix = Server::bind(&Address::unix(&path)).await.unwrap();
        let tcp = Server::bind(&Address::tcp("127.0.0.1", 0)).await.unwrap();
        let dialled = Socket::connect(unix.address()).await.unwrap();
        let accepted = unix.accept(Duration::from_secs(5), |_| true).await.unwrap();
        let over_tcp = Socket::connect(tcp.address()).await.unwrap();
        let accepted_tcp = tcp.accept(Duration::from_secs(5), |_| true).await.unwrap();

        let new: Vec<_> = descriptors().difference(&before).cloned().collect();
        assert_eq!(new.len(), 7, "{new:?}");
        for (number, what) in new {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            assert_ne!(flags & 0o2_000_000, 0, "{} is inherited", what.display());
        }
        drop((adopted, dialled, accepted, over_tcp, accepted_tcp));
    });
}

#[test]
fn the_end_of_a_runtime_leaves_no_descriptor() {
    let _alone = alone();
    let before = descriptors();

    for _ in 0..10 {
        let kept = run(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let (client, peer) = session_over(ours, theirs, in_band()).await;
            drop(peer);
            client
        });
        assert!(kept.ended().is_some());
    }

    assert_eq!(descriptors(), before);
}

#[test]
fn a_message_of_64_mib_is_taken_once_and_its_memory_given_back() {
    let _alone = alone();
    run(async {
        let (client, mut peer) = session(in_band()).await;
        let listener = client.listen(EventFilter::any());
        let frame = r#"{"event":"A","data":""}"#.len();
        let start = Instant::now();

        let left = growth(async {
            let long = format!(r#"{{"event":"A","data":"{}"}}"#, "x".repeat((64 << 20) - frame));
            peer.say(&long).await;
            drop(long);
            let event = listener.next(peer::PATIENCE).await.unwrap();
            assert_eq!(event.text().len(), 64 << 20);
            drop(event);
            peer.say(r#"{"event":"B"}"#).await;
            assert_eq!(listener.next(peer::PATIENCE).await.unwrap().name(), "B");
        })
        .await;

        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
        assert!(left < 16 * MIB, "{} MiB are still in use", left / MIB);
    });
}

#[test]
fn the_memory_of_a_long_message_is_given_back_though_the_next_has_begun() {
    let _alone = alone();
    run(async {
        let (client, mut peer) = session(in_band()).await;
        let listener = client.listen(EventFilter::any());

        let left = growth(async {
            let long = format!(r#"{{"event":"{}"}}{{"ev"#, "x".repeat(48 << 20));
            peer.send(long.as_bytes()).await;
            drop(long);
            drop(listener.next(peer::PATIENCE).await.unwrap());
            for _ in 0..100 {
                // Each read ends within a message, so that the buffer is never empty.
                peer.send(br#"ent":"B"}{"ev"#).await;
                assert_eq!(listener.next(peer::PATIENCE).await.unwrap().name(), "B");
            }
        })
        .await;

        assert!(left < 16 * MIB, "{} MiB are still in use", left / MIB);
    });
}

#[test]
fn a_message_without_end_costs_no_more_than_the_limit_allows() {
    let _alone = alone();
    run(async {
        let limits = Limits { message: MIB, ..Limits::default() };
        let (client, mut peer) = session(in_band().limits(limits)).await;

        let used = growth(async {
            let mut stream_ended = false;
            while !stream_ended {
                peer.try_send(&[b'['; 1 << 10].repeat(64)).await;
                peer.try_send(br#"{"a":"#).await;
                stream_ended = client.ended().is_some();
            }
        })
        .await;

        assert!(used < 8 * MIB, "{} MiB were used", used / MIB);
    });
}

#[test]
fn a_flood_nobody_reads_costs_no_more_than_its_queue_holds() {
    let _alone = alone();
    run(async {
        let (client, mut peer) = session(in_band()).await;
        let (listener, subscription) = Listener::with_capacity(EventFilter::any(), 100);
        client.subscribe(subscription);
        let events = r#"{"event":"A","data":{"x":"yyyyyyyyyyyyyyyyyyyy"}}"#.repeat(1000);

        let used = growth(async {
            for _ in 0..200 {
                peer.send(events.as_bytes()).await;
            }
        })
        .await;

        assert!(listener.dropped() > 190_000);
        assert!(used < 4 * MIB, "{} MiB were used", used / MIB);
    });
}

#[test]
fn commands_that_a_blocked_peer_never_reads_leave_no_memory_once_they_are_given_up() {
    let _alone = alone();
    run(async {
        let (client, peer) = session(in_band()).await;
        let blob = || json!({"blob": "x".repeat(256 << 10)});
        let quick =
            |arguments| Command::new("x").arguments(arguments).unwrap().limit(Duration::from_millis(1));
        assert!(client.send(quick(blob())).await.is_err());

        let used = growth(async {
            for _ in 0..200 {
                assert!(client.send(quick(blob())).await.is_err());
            }
        })
        .await;

        assert!(used < 8 * MIB, "{} MiB are kept for 200 commands", used / MIB);
        drop(peer);
    });
}

#[test]
fn commands_that_are_never_answered_do_not_slow_the_next_ones_down() {
    let _alone = alone();
    run(async {
        let (client, mut peer) = session(Options::default()).await;
        let mut times = Vec::new();

        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..500 {
                let asked = peer::start(&client, "never answered");
                peer.command().await;
                asked.abort();
                assert!(asked.await.is_err());
            }
            times.push(start.elapsed());
        }

        // The quickest of some, so that what else the machine does matters less.
        let (first, last) = (times[..5].iter().min().unwrap(), times[15..].iter().min().unwrap());
        assert!(*last < *first * 4, "the first 500 took {first:?}, the last {last:?}");
    });
}

#[test]
fn listeners_that_come_and_go_without_an_event_leave_no_memory() {
    let _alone = alone();
    run(async {
        let (client, _peer) = session(in_band()).await;

        let used = growth(async {
            for _ in 0..200_000 {
                drop(client.listen(EventFilter::named("NEVER")));
            }
        })
        .await;

        assert!(used < 8 * MIB, "{} MiB are kept for 200000 listeners", used / MIB);
    });
}

#[test]
fn a_stranger_that_connects_again_and_again_costs_nothing() {
    let _alone = alone();
    run(async {
        let folder = Folder::new();
        let path = folder.join("q.sock");
        let server = Server::bind(&Address::unix(&path)).await.unwrap();
        let before = descriptors();

        for _ in 0..200 {
            let stranger = UnixStream::connect(&path).await.unwrap();
            assert!(soon(server.accept(Duration::from_millis(1), |_| false)).await.is_err());
            drop(stranger);
        }

        assert_eq!(descriptors(), before);
        drop(UnixListener::bind(folder.join("other.sock")).unwrap());
    });
}
