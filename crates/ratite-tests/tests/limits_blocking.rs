//! The limits of `docs/guide/limits.md` without `async`: the twins of all calls that wait end as those do.

use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use ratite::ConsoleConfig;
use ratite::LaunchErrorKind;
use ratite::ProcessExit;
use ratite::ShutdownErrorKind;
use ratite::Timeouts;
use ratite::WorkFolder;
use ratite::blocking::Client;
use ratite::blocking::Console;
use ratite::blocking::Machine;
use ratite::blocking::Qtest;
use ratite::blocking::Server;
use ratite::qmp::Address;
use ratite::qmp::Error;
use ratite::qmp::Options;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use ratite_tests::waits::SUCCEEDED;
use ratite_tests::waits::every_blocking_wait;
use rustix::process::Signal;

/// No time at all, the shortest there is, and one that is over soon.
const SHORT: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(30)];

/// A machine with everything, stopped, whose own limits are `limit`.
fn stopped(stage: &Stage, limit: Duration) -> Machine {
    let timeouts = Timeouts { command: limit, console: limit, ..Timeouts::default() };
    let config = stage.fake(&[]).console(ConsoleConfig::serial()).qtest().timeouts(timeouts);
    let machine = Machine::launch(&config).expect("it launches");
    send_signal(machine.pid(), Signal::STOP);
    machine
}

#[track_caller]
fn check_at_once(start: Instant) {
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn every_wait_on_a_stopped_qemu_ends_at_its_limit() {
    play_blocking(|stage| {
        for limit in SHORT {
            let machine = stopped(stage, limit);

            let start = Instant::now();
            let said = every_blocking_wait(&machine, limit, || {});
            let client = machine.client().unwrap();
            client.close();

            check_at_once(start);
            for (name, words) in said {
                assert!(words.contains(&format!("within {limit:?}")), "{name}: {words}");
            }
            machine.kill().unwrap();
        }
    });
}

#[test]
fn every_wait_without_a_limit_ends_with_qemu_and_at_once_when_it_is_dead() {
    play_blocking(|stage| {
        let machine = stopped(stage, Duration::MAX);

        let start = Instant::now();
        let mut said =
            every_blocking_wait(&machine, Duration::MAX, || send_signal(machine.pid(), Signal::KILL));
        for limit in SHORT.into_iter().chain([Duration::MAX]) {
            said.extend(every_blocking_wait(&machine, limit, || {}));
        }

        check_at_once(start);
        for (name, words) in said {
            // The end of a stream is no error for who reads what is there.
            let is_read = matches!(name, "Console::read" | "Console::read_at_most" | "Console::ready");
            assert_eq!(words == SUCCEEDED, is_read, "{name}: {words}");
            assert!(!words.contains("within"), "{name}: {words}");
        }
        machine.client().unwrap().close();
        assert_eq!(machine.wait(Duration::MAX).unwrap().status.signal(), Some(9));
    });
}

#[test]
fn a_launch_and_an_end_last_as_long_as_was_said() {
    play_blocking(|stage| {
        for limit in SHORT {
            let start = Instant::now();
            let timeouts = Timeouts { connect: limit, ..Timeouts::default() };
            let failed = Machine::launch(&stage.fake(&["silent"]).timeouts(timeouts)).unwrap_err();
            let folder = WorkFolder::create(stage.base()).unwrap();
            let there = Machine::launch_in(&stage.fake(&["silent"]).timeouts(timeouts), &folder).unwrap_err();
            drop(folder);
            let ended = stopped(stage, limit).shutdown(limit).unwrap_err();
            let waited = stopped(stage, limit).wait(limit).unwrap_err();
            let stream = stopped(stage, limit).console().unwrap().take_stream();

            check_at_once(start);
            for error in [failed, there] {
                assert!(matches!(error.kind(), LaunchErrorKind::TimedOut { limit: told } if *told == limit));
            }
            for error in [ended, waited] {
                assert_eq!(error.kind(), ShutdownErrorKind::TimedOut { grace: limit });
            }
            drop(stream.unwrap());
        }
    });
}

#[test]
fn a_session_with_a_peer_that_says_nothing_ends_at_its_limit() {
    play_blocking(|stage| {
        let address = Address::unix(stage.path("silent"));
        let server = Server::bind(&address).unwrap();
        let (ours, peer) = UnixStream::pair().unwrap();
        for limit in SHORT {
            let options = || Options::default().connect_limit(limit);
            let start = Instant::now();

            let connected = Client::connect(&address, options()).map(drop);
            let over = Client::over(ours.try_clone().unwrap(), options()).map(drop);
            // Turned away: those of the connections above that are still in the queue.
            let accepted = Client::accept(&server, |_| false, options()).map(drop);

            check_at_once(start);
            for outcome in [connected, over, accepted] {
                let error = outcome.unwrap_err();
                assert!(matches!(error, Error::TimedOut(_)), "{limit:?}: {error:?}");
            }
        }
        drop(peer);
    });
}

#[test]
fn what_is_no_machines_has_the_limits_that_it_is_given() {
    play_blocking(|_stage| {
        for limit in SHORT {
            let (ours, peer) = UnixStream::pair().unwrap();
            let console = Console::over(ours, &ConsoleConfig::serial(), limit).unwrap();
            let (ours, silent) = UnixStream::pair().unwrap();
            let qtest = Qtest::over(ours, limit).unwrap();

            let start = Instant::now();
            let written = console.write(vec![b'x'; 8 << 20]).unwrap_err();
            let read = console.read(limit).unwrap_err();
            let asked = qtest.command("clock_step").unwrap_err();

            check_at_once(start);
            for words in [written.to_string(), read.to_string(), asked.to_string()] {
                assert!(words.contains(&format!("within {limit:?}")), "{words}");
            }
            drop((peer, silent));
        }
    });
}

#[test]
fn the_blocking_waits_for_an_end_have_limits() {
    play_blocking(|stage| {
        let machine = Machine::launch(&stage.fake(&[])).unwrap();
        let client = machine.client().unwrap();
        for limit in SHORT {
            assert_eq!(machine.exited(limit), None);
            assert_eq!(client.closed(limit).map(|end| end.to_string()), None);
        }

        send_signal(machine.pid(), Signal::KILL);

        let start = Instant::now();
        assert_eq!(machine.exited(Duration::MAX).and_then(ProcessExit::signal), Some(9));
        assert!(client.closed(Duration::MAX).is_some());
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert_eq!(machine.wait(PATIENCE).unwrap().status.signal(), Some(9));
    });
}
