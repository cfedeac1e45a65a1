//! The limits of `docs/guide/limits.md`: every call that waits ends at its limit, with a QEMU that is stopped, dead, silent
//! or flooding; limits of zero and of for ever are limits too. `limits_page.rs` sees that the page names every such call,
//! `limits_blocking.rs` to the calls without `async`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::future::pending;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::Monitor;
use ratite::Qtest;
use ratite::ShutdownErrorKind;
use ratite::Timeouts;
use ratite::WorkFolder;
use ratite::qmp::Address;
use ratite::qmp::Client;
use ratite::qmp::Command;
use ratite::qmp::Error;
use ratite::qmp::EventFilter;
use ratite::qmp::Options;
use ratite::qmp::Server;
use ratite::qmp::Socket;
use ratite::qmp::within;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use ratite_tests::waits::all_end;
use ratite_tests::waits::every_wait;
use rustix::net::AddressFamily;
use rustix::net::SocketType;
use rustix::net::bind;
use rustix::net::listen;
use rustix::net::socket;
use rustix::process::Signal;

/// No time at all, the shortest there is, and one that is over soon.
const SHORT: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(30)];

/// Command, console and qtest limits of `limit`.
fn limited(config: MachineConfig, limit: Duration) -> MachineConfig {
    config.timeouts(Timeouts { command: limit, console: limit, ..Timeouts::default() })
}

async fn stopped(config: MachineConfig) -> Arc<Machine> {
    let machine = Arc::new(config.launch().await.unwrap());
    send_signal(machine.pid(), Signal::STOP);
    machine
}

#[test]
fn every_wait_on_a_stopped_qemu_ends_at_its_limit() {
    play(async |stage| {
        for limit in SHORT {
            let config = stage.fake(&[]).console(ConsoleConfig::serial()).qtest();
            let machine = stopped(limited(config, limit)).await;

            let said = all_end(every_wait(&machine, limit)).await;

            let within = format!("within {limit:?}");
            for (name, words) in said {
                assert!(words.contains(&within), "{name}: {words}");
            }
            machine.kill().await.unwrap();
        }
    });
}

#[test]
fn every_wait_without_a_limit_ends_with_qemu_and_at_once_when_it_is_dead() {
    play(async |stage| {
        let config = stage.fake(&[]).console(ConsoleConfig::serial()).qtest();
        let machine = stopped(limited(config, Duration::MAX)).await;
        let waits = every_wait(&machine, Duration::MAX);
        let ended = machine.exited();
        let closed = machine.client().unwrap().closed();
        within(Duration::from_millis(200), "", pending::<()>()).await.unwrap_err();
        let over: Vec<_> =
            waits.iter().filter(|(_, wait)| wait.is_finished()).map(|(name, _)| name).collect();
        assert!(over.is_empty(), "ended while QEMU was only stopped: {over:?}");

        send_signal(machine.pid(), Signal::KILL);

        let mut said = all_end(waits).await;
        // The longest there is, and the shortest: what is known is told at once.
        for limit in SHORT.into_iter().chain([Duration::MAX]) {
            said.extend(all_end(every_wait(&machine, limit)).await);
        }
        for (name, words) in said {
            // The end of a stream is no error for who reads what is there.
            let is_read = matches!(name, "Console::read" | "Console::read_at_most" | "Console::ready");
            assert_eq!(words == "it succeeded", is_read, "{name}: {words}");
            assert!(!words.contains("within"), "{name}: {words}");
        }
        assert_eq!(within(AT_ONCE, "exit", ended).await.unwrap().signal(), Some(9));
        within(AT_ONCE, "end of the connection", closed).await.unwrap();
    });
}

#[test]
fn every_wait_on_a_qemu_that_is_silent_ends_at_its_limit() {
    play(async |stage| {
        for limit in SHORT {
            let commands = ["stop", "getfd", "add-fd", "query-status", "query-mice", "input-send-event"];
            let silent: Vec<String> = commands.map(|name| format!("never-answer={name}")).to_vec();
            let monitor = "never-answer=human-monitor-command";
            let words: Vec<&str> = silent.iter().map(String::as_str).chain([monitor]).collect();
            let config = stage.fake(&words).qtest();
            let config = config.console(ConsoleConfig::serial());
            let machine = Arc::new(limited(config, limit).launch().await.unwrap());

            let said = all_end(every_wait(&machine, limit)).await;

            for (name, words) in said {
                // The console and the clock of this one work.
                let works =
                    matches!(name, "Console::write" | "Console::send_line" | "Qtest::command" | "Qtest::raw");
                assert!(works || words.contains(&format!("within {limit:?}")), "{name}: {words}");
            }
        }
    });
}

#[test]
fn a_flood_prolongs_no_wait() {
    play(async |stage| {
        let limit = Duration::from_millis(200);
        let flooding = stage.fake(&["event-flood=0", "console-flood=0"]).console(ConsoleConfig::serial());
        let machine = flooding.launch().await.unwrap();
        let console = machine.console().unwrap();
        let listener = machine.listen(EventFilter::any()).unwrap();
        let other = EventFilter::named("NEVER");

        let start = Instant::now();
        let command = machine.qmp(Command::new("fake-never").limit(limit)).await.unwrap_err();
        let event = machine.event_wait(other.clone(), limit).await.unwrap_err();
        let any = machine.events_wait(&[other.clone(), other.clone()], limit).await.unwrap_err();
        let heard = listener.next_matching(&other, limit).await.unwrap_err();
        let text = console.expect("never", limit).await.unwrap_err();
        let took = start.elapsed();

        assert!(took < AT_ONCE, "{took:?}");
        assert!(command.to_string().starts_with("no reply to `fake-never` within 200ms"), "{command}");
        assert!(event.to_string().starts_with("no event `NEVER` within 200ms"), "{event}");
        assert!(any.to_string().contains("within 200ms"), "{any}");
        assert!(heard.to_string().starts_with("no event `NEVER` within 200ms"), "{heard}");
        assert!(text.to_string().starts_with("no `never` on the console within 200ms"), "{text}");
        within(AT_ONCE, "the stream", console.take_stream()).await.unwrap().unwrap();
        assert!(matches!(console.take_stream().await, Err(ConsoleError::Ended { .. })));
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_stream_is_handed_over_past_a_write_that_waits() {
    play(async |stage| {
        let config = stage.fake(&[]).console(ConsoleConfig::serial());
        let machine = stopped(limited(config, Duration::MAX)).await;
        let console = machine.console().unwrap().clone();
        let writing = tokio::spawn(async move { console.write(vec![b'x'; 8 << 20]).await });
        within(Duration::from_millis(100), "", pending::<()>()).await.unwrap_err();

        let stream = within(AT_ONCE, "the stream", machine.console().unwrap().take_stream()).await.unwrap();

        assert!(matches!(writing.await.unwrap(), Err(ConsoleError::Ended { .. })));
        drop(stream);
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_stopped_or_flooding_qemu_ends_when_its_time_is_over() {
    play(async |stage| {
        for words in [&[][..], &["event-flood=0", "console-flood=0", "ignore-quit"]] {
            for limit in SHORT {
                let config = || stage.fake(words).console(ConsoleConfig::serial());
                let (ending, waiting) = (stopped(config()).await, stopped(config()).await);
                if !words.is_empty() {
                    send_signal(ending.pid(), Signal::CONT);
                    send_signal(waiting.pid(), Signal::CONT);
                }

                let start = Instant::now();
                let ended = ending.shutdown(limit).await.unwrap_err();
                let waited = waiting.wait(limit).await.unwrap_err();

                assert!(start.elapsed() < AT_ONCE, "{words:?}, {limit:?}: {:?}", start.elapsed());
                for error in [ended, waited] {
                    assert_eq!(error.kind(), ShutdownErrorKind::TimedOut { grace: limit }, "{words:?}");
                }
            }
        }
    });
}

#[test]
fn an_end_without_a_limit_ends_with_qemu() {
    play(async |stage| {
        let unlimited = Timeouts { kill: Duration::MAX, ..Timeouts::default() };
        let config = stage.fake(&[]).timeouts(unlimited);
        let machine = stopped(config.clone()).await;
        let (ending, waiting) = (machine.clone(), machine.clone());
        let ending = tokio::spawn(async move { ending.shutdown(Duration::MAX).await.map_err(|e| e.kind()) });
        let waiting = tokio::spawn(async move { waiting.wait(Duration::MAX).await.map(|exit| exit.status) });
        within(Duration::from_millis(200), "", pending::<()>()).await.unwrap_err();
        assert!(!ending.is_finished() && !waiting.is_finished());

        send_signal(machine.pid(), Signal::KILL);

        let ended = within(AT_ONCE, "end", ending).await.unwrap().unwrap().unwrap_err();
        assert!(matches!(ended, ShutdownErrorKind::Unclean(exit) if exit.signal() == Some(9)), "{ended:?}");
        let waited = within(AT_ONCE, "end", waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(waited.signal(), Some(9));
        let killed = stopped(config).await;
        within(AT_ONCE, "kill", killed.kill()).await.unwrap().unwrap();
    });
}

#[test]
fn a_launch_ends_at_its_limit_however_qemu_is_reached() {
    play(async |stage| {
        let monitors = [
            Monitor::SocketPair,
            Monitor::Unix(stage.path("monitor")),
            Monitor::Tcp { host: "127.0.0.1".into(), port: 0 },
        ];
        for monitor in monitors {
            for limit in SHORT {
                for word in ["silent", "no-connect"] {
                    let timeouts = Timeouts { connect: limit, ..Timeouts::default() };
                    let config = stage.fake(&[word]).monitor(monitor.clone()).timeouts(timeouts);

                    let folder = WorkFolder::create(stage.base()).unwrap();
                    let failed = within(AT_ONCE, "launch", config.launch()).await.unwrap();
                    let there = within(AT_ONCE, "launch", config.launch_in(&folder)).await.unwrap();

                    for error in [failed, there].map(Result::unwrap_err) {
                        assert!(
                            matches!(error.kind(), LaunchErrorKind::TimedOut { limit: told } if *told == limit),
                            "{monitor:?}, {word}, {limit:?}: {error:?}"
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn a_launch_without_a_limit_ends_with_qemu() {
    play(async |stage| {
        for word in ["silent", "nego-silent", "half-greeting"] {
            let timeouts = Timeouts { connect: Duration::MAX, ..Timeouts::default() };
            let pid = stage.path(word);
            let written = format!("write-file={}", pid.display());
            let config = stage.fake(&[word, &written]).timeouts(timeouts);
            let launching = tokio::spawn(async move { config.launch().await.map(drop) });
            wait_until("QEMU runs", PATIENCE, || fs::read_to_string(&pid).is_ok_and(|pid| !pid.is_empty()));
            within(Duration::from_millis(100), "", pending::<()>()).await.unwrap_err();
            assert!(!launching.is_finished(), "{word}");

            send_signal(fs::read_to_string(&pid).unwrap().trim().parse().unwrap(), Signal::KILL);

            let failed = within(AT_ONCE, "launch", launching).await.unwrap().unwrap().unwrap_err();
            assert_eq!(failed.exit().and_then(ratite::ProcessExit::signal), Some(9), "{word}: {failed:?}");
        }
    });
}

#[test]
fn a_session_with_a_peer_that_says_nothing_ends_at_its_limit() {
    play(async |stage| {
        let address = Address::unix(stage.path("silent"));
        let server = Server::bind(&address).await.unwrap();
        let (ours, peer) = UnixStream::pair().unwrap();
        for limit in SHORT {
            let options = || Options::default().connect_limit(limit);

            let connected = Client::connect(&address, options()).await.map(drop);
            let over =
                Client::over(Socket::try_from(ours.try_clone().unwrap()).unwrap(), options()).await.map(drop);
            // Turned away: those of the connections above that are still in the queue.
            let accepted = Client::accept(&server, |_| false, options()).await.map(drop);
            let peers = server.accept(limit, |_| false).await.map(drop);

            for outcome in [connected, over, accepted, peers] {
                let error = outcome.unwrap_err();
                assert!(matches!(error, Error::TimedOut(_)), "{limit:?}: {error:?}");
            }
        }
        drop(peer);
    });
}

#[test]
fn a_host_that_does_not_answer_is_waited_for_as_long_as_was_said() {
    play(async |_stage| {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        listen(&listener, 0).unwrap();
        let port = std::net::TcpListener::from(listener.try_clone().unwrap()).local_addr().unwrap().port();
        let address = Address::tcp("127.0.0.1", port);
        // Once its queue is full, the kernel answers nobody any more.
        let mut queue = Vec::new();
        while let Ok(queued) = within(Duration::from_millis(200), "", Socket::connect(&address)).await {
            queue.push(queued.unwrap());
            assert!(queue.len() < 16, "the queue is never full");
        }

        for limit in SHORT {
            let options = Options::default().connect_limit(limit);
            let connected = within(AT_ONCE, "limit", Client::connect(&address, options)).await.unwrap();

            let error = connected.map(drop).unwrap_err();
            assert!(matches!(error, Error::TimedOut(_)), "{limit:?}: {error:?}");
        }
    });
}

#[test]
fn sessions_without_limits_end_with_their_peer() {
    play(async |stage| {
        let address = Address::unix(stage.path("silent"));
        let server = Server::bind(&address).await.unwrap();
        let options = || Options::default().connect_limit(Duration::MAX);
        let (ours, peer) = UnixStream::pair().unwrap();
        let connecting = tokio::spawn(async move { Client::connect(&address, options()).await.map(drop) });
        let over = tokio::spawn(Client::over(Socket::try_from(ours).unwrap(), options()));
        let accepted =
            within(AT_ONCE, "peer", server.accept(Duration::MAX, |_| true)).await.unwrap().unwrap();
        assert!(!connecting.is_finished() && !over.is_finished());

        drop((accepted, peer));

        let connected = within(AT_ONCE, "end", connecting).await.unwrap().unwrap();
        let over = within(AT_ONCE, "end", over).await.unwrap().unwrap().map(drop);
        for outcome in [connected, over] {
            assert!(matches!(outcome, Err(Error::Disconnected(_))), "{outcome:?}");
        }
    });
}

#[test]
fn a_session_is_closed_whatever_its_limit() {
    play(async |stage| {
        for limit in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let machine = stopped(limited(stage.fake(&[]), limit)).await;
            let client = machine.client().unwrap().clone();

            within(AT_ONCE, "close", client.close()).await.unwrap();

            within(AT_ONCE, "end", client.closed()).await.unwrap();
            machine.kill().await.unwrap();
        }
    });
}

#[test]
fn what_is_no_machines_has_the_limits_that_it_is_given() {
    play(async |_stage| {
        for limit in SHORT {
            let (ours, peer) = UnixStream::pair().unwrap();
            let console = Console::over(ours.try_clone().unwrap(), &ConsoleConfig::serial(), limit).unwrap();
            let (ours, silent) = UnixStream::pair().unwrap();
            let qtest = Qtest::over(Socket::try_from(ours).unwrap(), limit);

            let start = Instant::now();
            let written = console.write(vec![b'x'; 8 << 20]).await.unwrap_err();
            let read = console.read(limit).await.unwrap_err();
            let asked = qtest.command("clock_step").await.unwrap_err();

            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            for words in [written.to_string(), read.to_string(), asked.to_string()] {
                assert!(words.contains(&format!("within {limit:?}")), "{words}");
            }
            drop((peer, silent));
        }
    });
}

#[test]
fn a_flood_of_interrupts_prolongs_no_wait() {
    play(async |_stage| {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let limit = Duration::from_millis(200);
        let qtest = Qtest::over(Socket::try_from(ours).unwrap(), limit);
        let flood =
            std::thread::spawn(move || while peer.write_all(b"IRQ raise 1\nIRQ lower 1\n").is_ok() {});

        let start = Instant::now();
        let asked = qtest.command("clock_step").await.unwrap_err();
        let irq = qtest.wait_irq(2, true, limit).await.unwrap_err();

        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        for words in [asked.to_string(), irq.to_string()] {
            assert!(words.ends_with("within 200ms"), "{words}");
        }
        drop(qtest);
        tokio::task::spawn_blocking(|| flood.join().unwrap()).await.unwrap();
    });
}
