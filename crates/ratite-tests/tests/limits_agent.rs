//! The limits of `docs/guide/limits.md` of a guest agent, with and without `async`: every call ends at its limit when
//! nobody answers, and at once when nobody is there any more.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ratite::blocking;
use ratite::qmp::Agent;
use ratite::qmp::GuestProgram;
use ratite::qmp::ShutdownMode;
use ratite::qmp::Socket;
use ratite::qmp::SuspendMode;
use ratite::qmp::within;
use ratite_tests::guest_agent::GuestAgent;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::waits::Wait;
use ratite_tests::waits::all_end;
use rustix::process::Signal;
use serde_json::Value;

/// No time at all, the shortest there is, and one that is over soon.
const SHORT: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(30)];

/// Every wait on an agent, each in a task of its own.
fn every_wait(agent: &Agent, limit: Duration) -> Vec<Wait> {
    let agent = Arc::new(agent.with_limit(limit));
    macro_rules! waits {
        ($agent:ident: $($name:literal => $wait:expr,)*) => {
            vec![$(($name, {
                let $agent = $agent.clone();
                tokio::spawn(async move { $wait.await.err().map(|error| chain(&error)) })
            })),*]
        };
    }
    waits! { agent:
        "Agent::execute" => agent.execute("guest-ping", ()),
        "Agent::execute_as" => agent.execute_as::<Value>("guest-ping", ()),
        "Agent::ping" => agent.ping(),
        "Agent::info" => agent.info(),
        "Agent::interfaces" => agent.interfaces(),
        "Agent::fs_status" => agent.fs_status(),
        "Agent::fs_freeze" => agent.fs_freeze(),
        "Agent::fs_thaw" => agent.fs_thaw(),
        "Agent::fs_trim" => agent.fs_trim(0),
        "Agent::time" => agent.time(),
        "Agent::set_time" => agent.set_time(Duration::ZERO),
        "Agent::shutdown" => agent.shutdown(ShutdownMode::Halt),
        "Agent::suspend" => agent.suspend(SuspendMode::Ram),
        "Agent::open_file" => agent.open_file("/f", "r"),
        "Agent::read_file" => agent.read_file("/f"),
        "Agent::write_file" => agent.write_file("/f", b"x"),
        "Agent::exec" => agent.exec(&GuestProgram::new("x"), limit),
    }
}

/// The same without `async`, each on a thread of its own; what each says.
fn every_blocking_wait(agent: &blocking::Agent, limit: Duration) -> Vec<(&'static str, String)> {
    let agent = &agent.with_limit(limit);
    macro_rules! waits {
        ($scope:ident: $($name:literal => $wait:expr,)*) => {
            vec![$(($name, $scope.spawn(move || chain(&$wait.err().expect("nobody answers"))))),*]
        };
    }
    thread::scope(|scope| {
        let waits = waits! { scope:
            "Agent::execute" => agent.execute("guest-ping", ()),
            "Agent::execute_as" => agent.execute_as::<Value>("guest-ping", ()),
            "Agent::ping" => agent.ping(),
            "Agent::info" => agent.info(),
            "Agent::interfaces" => agent.interfaces(),
            "Agent::fs_status" => agent.fs_status(),
            "Agent::fs_freeze" => agent.fs_freeze(),
            "Agent::fs_thaw" => agent.fs_thaw(),
            "Agent::fs_trim" => agent.fs_trim(0),
            "Agent::time" => agent.time(),
            "Agent::set_time" => agent.set_time(Duration::ZERO),
            "Agent::shutdown" => agent.shutdown(ShutdownMode::Halt),
            "Agent::suspend" => agent.suspend(SuspendMode::Ram),
            "Agent::open_file" => agent.open_file("/f", "r"),
            "Agent::read_file" => agent.read_file("/f"),
            "Agent::write_file" => agent.write_file("/f", b"x"),
            "Agent::exec" => agent.exec(&GuestProgram::new("x"), limit),
        };
        waits.into_iter().map(|(name, wait)| (name, wait.join().unwrap())).collect()
    })
}

#[test]
fn every_wait_for_a_silent_agent_ends_at_its_limit() {
    play(async |_stage| {
        for limit in SHORT {
            let (ours, _silent) = UnixStream::pair().unwrap();
            let agent = Agent::over(Socket::try_from(ours).unwrap());

            let said = all_end(every_wait(&agent, limit)).await;

            for (name, words) in said {
                assert!(words.contains(&format!("within {limit:?}")), "{name}: {words}");
            }
        }
    });
}

#[test]
fn every_wait_without_a_limit_ends_with_the_channel_and_at_once_when_it_is_gone() {
    play(async |_stage| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let agent = Agent::over(Socket::try_from(ours).unwrap());
        let waits = every_wait(&agent, Duration::MAX);
        within(Duration::from_millis(200), "", std::future::pending::<()>()).await.unwrap_err();
        assert!(waits.iter().all(|(_, wait)| !wait.is_finished()));

        drop(theirs);

        let mut said = all_end(waits).await;
        said.extend(all_end(every_wait(&agent, Duration::MAX)).await);
        for (name, words) in said {
            assert!(words.contains("the peer closed the connection"), "{name}: {words}");
        }
    });
}

#[test]
fn every_blocking_wait_ends_as_its_twin_does() {
    play_blocking(|_stage| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let agent = blocking::Agent::over(ours).unwrap();
        for limit in SHORT {
            let start = Instant::now();
            let said = every_blocking_wait(&agent, limit);

            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            for (name, words) in said {
                assert!(words.contains(&format!("within {limit:?}")), "{name}: {words}");
            }
        }

        drop(theirs);

        for (name, words) in every_blocking_wait(&agent, Duration::MAX) {
            assert!(words.contains("the peer closed the connection"), "{name}: {words}");
        }
    });
}

#[test]
fn a_file_of_an_agent_that_falls_silent_ends_at_its_limit() {
    play(async |stage| {
        for limit in SHORT {
            let real = GuestAgent::start();
            let agent = Agent::connect(&real.address(), PATIENCE).await.unwrap();
            let path = stage.path("file");
            let hasty = agent.with_limit(limit);
            let mut files = Vec::new();
            for _ in 0..3 {
                files.push(agent.open_file(path.to_str().unwrap(), "w").await.unwrap().with_limit(limit));
            }
            real.signal(Signal::STOP);

            let start = Instant::now();
            let mut said = vec![hasty.ping().await.unwrap_err().to_string()];
            said.push(files[0].read().await.unwrap_err().to_string());
            said.push(files[1].write(b"x").await.unwrap_err().to_string());
            said.push(files.pop().unwrap().close().await.unwrap_err().to_string());

            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            for words in said {
                assert!(words.contains(&format!("within {limit:?}")), "{words}");
            }
            real.signal(Signal::CONT);
            drop(files);
            agent.ping().await.unwrap();
        }
    });
}

#[test]
fn a_blocking_file_of_an_agent_that_falls_silent_ends_at_its_limit() {
    play_blocking(|stage| {
        let limit = Duration::from_millis(30);
        let real = GuestAgent::start();
        let agent = blocking::Agent::connect(&real.address(), PATIENCE).unwrap();
        let path = stage.path("file");
        let open = || agent.open_file(path.to_str().unwrap(), "w").unwrap().with_limit(limit);
        let (mut read, mut written, closed) = (open(), open(), open());
        real.signal(Signal::STOP);

        let said = [
            read.read().unwrap_err().to_string(),
            written.write(b"x").unwrap_err().to_string(),
            closed.close().unwrap_err().to_string(),
        ];

        for words in said {
            assert!(words.contains("within 30ms"), "{words}");
        }
        real.signal(Signal::CONT);
        agent.ping().unwrap();
    });
}

/// A socket on which no more connections are taken: its queue is full.
fn full(stage: &Stage) -> (std::path::PathBuf, UnixListener, Vec<UnixStream>) {
    let path = stage.path("full");
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None);
    let socket = socket.unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let first = UnixStream::connect(&path).unwrap();
    (path, socket.into(), vec![first])
}

#[test]
fn a_channel_that_takes_no_connection_is_told_at_the_limit() {
    play(async |stage| {
        let (path, _socket, _queue) = full(stage);
        let limit = Duration::from_millis(30);

        let address = ratite::qmp::Address::unix(&path);
        let outcome = within(AT_ONCE, "end", Agent::connect(&address, limit)).await.unwrap();

        // A Unix socket says so at once; TCP is waited for.
        let words = outcome.unwrap_err().to_string();
        assert!(words.contains("within 30ms") || words.contains("could not connect"), "{words}");
    });
}
