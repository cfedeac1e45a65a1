//! The limits of `docs/guide/limits.md` on machines of other programs: every call ends at its limit when nobody answers.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::process;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ratite::blocking;
use ratite::qmp::Address;
use ratite::qmp::Agent;
use ratite::qmp::Options;
use ratite::qmp::Relay;
use ratite::qmp::Server;
use ratite::qmp::Socket;
use ratite::qmp::within;
use ratite::reach;
use ratite::reach::ReachError;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::apart::apart;
use ratite_tests::scenario::apart::machines;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::play;
use rustix::fs::FlockOperation;

/// What looks like a machine `mute`, to which one can connect, and which never answers.
struct Mute {
    /// Held, not used.
    _lock: File,
    control: UnixListener,
    _qmp: UnixListener,
}

impl Mute {
    fn new() -> Self {
        let folder = machines().join("mute");
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder).unwrap();
        fs::write(folder.join("lock"), process::id().to_string()).unwrap();
        let lock = File::open(folder.join("lock")).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        let listen = |name| UnixListener::bind(folder.join(name)).unwrap();
        Self { _lock: lock, control: listen("control"), _qmp: listen("qmp") }
    }
}

#[test]
fn every_wait_for_a_machine_that_never_answers_ends_at_its_limit() {
    apart("every_wait_for_a_machine_that_never_answers_ends_at_its_limit", || {
        let _mute = Mute::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let clock = tokio::time::Instant::now;
            let seconds = Duration::from_secs;
            let check = |start: tokio::time::Instant, limit: Duration, error: ReachError| {
                let took = start.elapsed();
                assert!(matches!(error, ReachError::TimedOut(_)), "{error:?}");
                assert_says(&error, &["no word from the machine `mute` on "]);
                assert!(took >= limit && took < limit + Duration::from_millis(5), "{took:?}: {error}");
                assert_says(&error, &[&format!("within {limit:?}"), "the machine `mute`"]);
            };

            let start = clock();
            assert_eq!(reach::list().await.unwrap(), []);
            assert_eq!(start.elapsed().as_secs(), 5);
            let mute = reach::attach("mute").await.unwrap();
            let start = clock();
            check(start, seconds(5), mute.facts().await.unwrap_err());
            let start = clock();
            check(start, seconds(5), mute.console(None, 0).await.unwrap_err());
            let start = clock();
            check(start, seconds(5), mute.log(None, true).await.unwrap_err());
            let start = clock();
            check(start, seconds(7), mute.agent(seconds(7)).await.unwrap_err());
            let start = clock();
            check(start, seconds(80), mute.shutdown(seconds(10)).await.unwrap_err());
            let start = clock();
            check(start, seconds(70), mute.kill().await.unwrap_err());
            for limit in [Duration::ZERO, Duration::from_millis(30), seconds(86_400)] {
                let start = clock();
                check(start, limit, mute.wait(limit).await.unwrap_err());
            }
            let start = clock();
            let silent = mute.qmp(Options::default().connect_limit(seconds(2))).await.unwrap_err();
            assert_says(&silent, &["could not speak QMP with the machine `mute`", "within 2s"]);
            assert_eq!(start.elapsed().as_secs(), 2);
        });
    });
}

#[test]
fn every_blocking_wait_for_a_machine_that_never_answers_ends_at_its_limit() {
    apart("every_blocking_wait_for_a_machine_that_never_answers_ends_at_its_limit", || {
        let mute = Mute::new();
        let remote = blocking::reach::attach("mute").unwrap();
        let start = Instant::now();
        let limit = Duration::from_millis(30);

        let said = thread::scope(|scope| {
            let remote = &remote;
            let waits = [
                scope.spawn(|| {
                    assert_eq!(blocking::reach::list().unwrap(), []);
                    "within 5s".to_owned()
                }),
                scope.spawn(|| chain(&remote.facts().unwrap_err())),
                scope.spawn(|| chain(&remote.console(None, 0).unwrap_err())),
                scope.spawn(|| chain(&remote.log(None, true).unwrap_err())),
                scope.spawn(move || chain(&remote.wait(limit).unwrap_err())),
                scope.spawn(move || chain(&remote.agent(limit).unwrap_err())),
                scope.spawn(move || chain(&remote.qmp(Options::default().connect_limit(limit)).unwrap_err())),
            ];
            waits.map(|wait| wait.join().unwrap())
        });

        for said in &said[..4] {
            assert!(said.contains("within 5s"), "{said}");
        }
        for said in &said[4..] {
            assert!(said.contains("within 30ms"), "{said}");
        }
        assert!(start.elapsed() < Duration::from_secs(5) + AT_ONCE);
        // What would take longer ends early with the program that is asked.
        let hangs_up = thread::spawn(move || {
            while let Ok((mut stream, _)) = mute.control.accept() {
                let mut asked = [0; 100];
                let count = stream.read(&mut asked).unwrap_or(0);
                if asked[..count].starts_with(b"{\"open\":\"kill\"") {
                    return;
                }
            }
        });
        let stopped = remote.shutdown(Duration::from_secs(3600)).unwrap_err();
        let killed = remote.kill().unwrap_err();
        hangs_up.join().unwrap();
        for error in [stopped, killed] {
            assert!(matches!(error, ReachError::Gone { .. }), "{error:?}");
            assert_says(&error, &["ended before it could tell how it ended"]);
        }
    });
}

#[test]
fn a_relay_serves_for_as_long_as_its_session_lasts() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let relay = Relay::of(machine.client().unwrap()).unwrap();
        let server = Server::bind(&Address::unix(stage.path("qmp"))).await.unwrap();
        let (ours, _theirs) = Socket::pair();
        let serving = tokio::spawn({
            let relay = relay.clone();
            async move { relay.serve(server, |_| true).await }
        });
        let attending = tokio::spawn(async move { relay.attend(ours).await });
        machine.cmd("query-status", ()).await.unwrap();
        assert!(!serving.is_finished() && !attending.is_finished());

        machine.kill().await.unwrap();

        within(AT_ONCE, "end", attending).await.unwrap().unwrap();
        within(AT_ONCE, "end", serving).await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_visitor_of_an_agent_is_attended_until_he_goes_or_the_channel_ends() {
    play(async |_stage| {
        for goes in [true, false] {
            let (channel, guest) = UnixStream::pair().unwrap();
            let agent = Agent::over(Socket::try_from(channel).unwrap());
            let (theirs, visitor) = UnixStream::pair().unwrap();
            let theirs = Socket::try_from(theirs).unwrap();
            let attending = tokio::spawn(async move { agent.attend(theirs, b"").await });
            let waiting = Agent::over(Socket::try_from(visitor).unwrap());
            waiting.with_limit(Duration::from_millis(50)).ping().await.unwrap_err();
            assert!(!attending.is_finished());

            let _other = if goes { (drop(waiting), Err(guest)) } else { (drop(guest), Ok(waiting)) };

            within(AT_ONCE, "end", attending).await.unwrap().unwrap();
        }
    });
}
