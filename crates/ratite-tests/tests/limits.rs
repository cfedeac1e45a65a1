//! The limits of `docs/guide/limits.md`: every call that waits ends at its limit, with a QEMU that is stopped, dead, silent
//! or flooding; limits of zero and of for ever are limits too; and the page names every such call.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::future::pending;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
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
use ratite::blocking;
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
use ratite_tests::scenario::chain;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use rustix::net::AddressFamily;
use rustix::net::SocketType;
use rustix::net::bind;
use rustix::net::listen;
use rustix::net::socket;
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

/// No time at all, the shortest there is, and one that is over soon.
const SHORT: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(30)];

/// Every wait on `machine`, each in a task of its own: what its error says, or nothing if it succeeded.
fn every_wait(machine: &Arc<Machine>, limit: Duration) -> Vec<(&'static str, JoinHandle<Option<String>>)> {
    macro_rules! waits {
        ($machine:ident: $($name:literal => $wait:expr,)*) => {
            vec![$(($name, {
                let $machine = $machine.clone();
                tokio::spawn(async move { $wait.await.err().map(|error| chain(&error)) })
            })),*]
        };
    }
    let other = || EventFilter::named("NEVER");
    waits! { machine:
        "Machine::cmd" => machine.cmd("stop", ()),
        "Machine::cmd_as" => machine.cmd_as::<Value>("stop", ()),
        "Machine::qmp" => machine.qmp(Command::new("stop").limit(limit)),
        "Machine::send_fd" => machine.send_fd("null", File::open("/dev/null").unwrap()),
        "Machine::event_wait" => machine.event_wait(other(), limit),
        "Machine::events_wait" => machine.events_wait(&[other(), other()], limit),
        "Machine::next_event" => machine.next_event(limit),
        "Client::execute" => machine.client().unwrap().execute("stop", ()),
        "Client::execute_as" => machine.client().unwrap().execute_as::<Value>("stop", ()),
        "Client::execute_text" => machine.client().unwrap().execute_text("stop", ()),
        "Client::send" => machine.client().unwrap().send(Command::new("stop")),
        "Listener::next" => machine.listen(other()).unwrap().next(limit),
        "Listener::next_matching" => machine.listen(other()).unwrap().next_matching(&other(), limit),
        "Console::read" => machine.console().unwrap().read(limit),
        "Console::read_at_most" => machine.console().unwrap().read_at_most(1, limit),
        "Console::expect" => machine.console().unwrap().expect("never", limit),
        "Console::write" => machine.console().unwrap().write(vec![b'x'; 8 << 20]),
        "Qtest::command" => machine.qtest().unwrap().command("clock_step"),
        "Qtest::raw" => machine.qtest().unwrap().raw("clock_step"),
        "Qtest::wait_irq" => machine.qtest().unwrap().wait_irq(1, true, limit),
    }
}

/// Each of them ends at once.
async fn all_end(waits: Vec<(&'static str, JoinHandle<Option<String>>)>) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    for (name, wait) in waits {
        let outcome = within(AT_ONCE, name, wait).await.unwrap().unwrap();
        said.push((name, outcome.unwrap_or_else(|| "it succeeded".into())));
    }
    said
}

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

        let alive = all_end(waits).await;
        let dead = all_end(every_wait(&machine, Duration::MAX)).await;
        for (name, words) in alive.into_iter().chain(dead) {
            // The end of a stream is no error for who reads what is there.
            let is_read = matches!(name, "Console::read" | "Console::read_at_most");
            assert_eq!(words == "it succeeded", is_read, "{name}: {words}");
            assert!(!words.contains("within"), "{name}: {words}");
        }
        assert_eq!(within(AT_ONCE, "exit", ended).await.unwrap().signal(), Some(9));
        within(AT_ONCE, "end of the connection", closed).await.unwrap();
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
        let event = machine.event_wait(other.clone(), limit).await.unwrap_err();
        let heard = listener.next_matching(&other, limit).await.unwrap_err();
        let text = console.expect("never", limit).await.unwrap_err();
        let took = start.elapsed();

        assert!(took < AT_ONCE, "{took:?}");
        assert!(event.to_string().starts_with("no event `NEVER` within 200ms"), "{event}");
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

                    let failed = within(AT_ONCE, "launch", config.launch()).await.unwrap().unwrap_err();

                    assert!(
                        matches!(failed.kind(), LaunchErrorKind::TimedOut { limit: told } if *told == limit),
                        "{monitor:?}, {word}, {limit:?}: {failed:?}"
                    );
                }
            }
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
fn the_blocking_waits_for_an_end_have_limits() {
    play_blocking(|stage| {
        let machine = blocking::Machine::launch(&stage.fake(&[])).unwrap();
        let client = machine.client().unwrap();
        for limit in SHORT {
            assert_eq!(machine.exited(limit), None);
            assert_eq!(client.closed(limit).map(|end| end.to_string()), None);
        }

        send_signal(machine.pid(), Signal::KILL);

        let start = Instant::now();
        assert_eq!(machine.exited(Duration::MAX).and_then(ratite::ProcessExit::signal), Some(9));
        assert!(client.closed(Duration::MAX).is_some());
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert_eq!(machine.wait(PATIENCE).unwrap().status.signal(), Some(9));
    });
}

#[test]
fn the_page_names_every_call_that_waits_and_no_other() {
    let page = read("docs/guide/limits.md");
    let named: BTreeSet<&str> = page.lines().flat_map(calls_of_row).collect();
    let sources = ["crates/ratite/src", "crates/ratite-qmp/src"].map(|folder| functions(Path::new(folder)));
    let functions: Vec<Function> = sources.into_iter().flatten().collect();
    let twins: BTreeSet<String> = blocking_waits();

    let exists = |name: &str| functions.iter().any(|function| function.name == name);
    let gone: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(gone.is_empty(), "docs/guide/limits.md names what is not there: {gone:?}");
    let waits = functions.iter().filter(|function| function.waits).map(|function| &function.name);
    let missing: BTreeSet<_> = waits.chain(&twins).filter(|name| !named.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/guide/limits.md does not name: {missing:?}");
    let idle = |name: &&&str| !functions.iter().any(|function| function.waits && function.name == **name);
    let idle: Vec<_> = named.iter().filter(idle).collect();
    assert!(idle.is_empty(), "docs/guide/limits.md names what does not wait: {idle:?}");
    assert!(named.len() > 30 && twins.len() > 20, "{named:?} {twins:?}");
}

/// A public function: `Type::name`, or `name` alone.
struct Function {
    name: String,
    waits: bool,
}

/// The calls in the first cell of a row that has a limit in its second.
fn calls_of_row(line: &str) -> Vec<&str> {
    let cells: Vec<&str> = line.split(" | ").collect();
    match (cells.len(), line.strip_prefix("| `")) {
        (4, Some(_)) => cells[0].split('`').skip(1).step_by(2).collect(),
        _ => Vec::new(),
    }
}

/// The public functions in the files of a folder, not in those of its folders.
fn functions(folder: &Path) -> Vec<Function> {
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|file| file.is_file()).map(|file| fs::read_to_string(file).unwrap());
    texts.flat_map(|text| functions_of(&text)).collect()
}

fn functions_of(text: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut owner = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("impl") {
            let head = rest.rsplit(" for ").next().unwrap_or(rest).trim_start();
            owner = head.chars().take_while(|c| c.is_alphanumeric()).collect();
        }
        let indented = line.starts_with("    ");
        let Some(rest) = line.trim_start().strip_prefix("pub ") else { continue };
        let (is_async, rest) = rest.strip_prefix("async ").map_or((false, rest), |rest| (true, rest));
        let Some(rest) = rest.strip_prefix("fn ") else { continue };
        let name: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
        found.push(Function {
            name: if indented { format!("{owner}::{name}") } else { name },
            waits: is_async || rest.contains("-> impl Future"),
        });
    }
    found
}

/// What the blocking types say that they wait for.
fn blocking_waits() -> BTreeSet<String> {
    let files = fs::read_dir(root().join("crates/ratite/src/blocking")).unwrap();
    let texts = files.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let waits = |text: String| -> Vec<String> {
        let parts = text.split(".wait(\"").skip(1);
        parts.filter_map(|part| part.split('"').next().map(str::to_owned)).collect()
    };
    texts.flat_map(waits).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
