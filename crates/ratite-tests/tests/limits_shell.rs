//! The limits of what is driven over a console, with and without `async`: a silent guest, a stopped shell.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::Login;
use ratite::Machine;
use ratite::Shell;
use ratite::blocking;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::shell_on_pty::ShellOnPty;

/// No time at all, the shortest there is, and one that is over soon.
const SHORT: [Duration; 3] = [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(30)];

const DASH: &[&str] = &["dash", "-i"];

async fn silent(stage: &Stage) -> Machine {
    stage.fake(&[]).console(ConsoleConfig::serial()).launch().await.unwrap()
}

#[track_caller]
fn check(said: Option<String>, limit: Duration) {
    let said = said.expect("nothing was there");
    assert!(said.contains(&format!("within {limit:?}")), "{said}");
}

#[test]
fn a_guest_that_never_stops_talking_holds_nobody_beyond_the_limit() {
    play(async |_| {
        let (stream, mut guest) = UnixStream::pair().unwrap();
        let flood = thread::spawn(move || while guest.write_all(&[b'x'; 64 << 10]).is_ok() {});
        let console = Console::over(stream, &ConsoleConfig::serial(), PATIENCE).unwrap();
        let limit = Duration::from_secs(2);
        let start = Instant::now();

        check(Shell::attach(&console, limit).await.err().map(|error| error.to_string()), limit);

        // Hundreds of megabytes have come, and an error tells of a mebibyte.
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        drop(console);
        flood.join().unwrap();
    });
}

#[test]
fn waits_on_a_silent_guest_end_at_their_limit() {
    play(async |stage| {
        let machine = silent(stage).await;
        let console = machine.console().unwrap();
        for limit in SHORT {
            let login = Login::new("root");
            let waits = async {
                check(Shell::attach(console, limit).await.err().map(|error| error.to_string()), limit);
                check(Shell::login(console, &login, limit).await.err().map(|error| error.to_string()), limit);
                let mut view = console.terminal(80, 25);
                check(view.wait_for("menu", limit).await.err().map(|error| error.to_string()), limit);
            };
            tokio::time::timeout(AT_ONCE, waits).await.unwrap();
        }
        machine.kill().await.unwrap();
    });
}

#[test]
fn waits_on_a_stopped_shell_end_at_their_limit() {
    play(async |_| {
        let (_shell, stream) = ShellOnPty::start(DASH).unwrap();
        let console = Console::over(stream, &ConsoleConfig::serial(), PATIENCE).unwrap();
        let mut shell = Shell::attach(&console, PATIENCE).await.unwrap();
        let stopping = Duration::from_millis(200);
        check(shell.run("kill -STOP $$", stopping).await.err().map(|error| error.to_string()), stopping);

        for limit in SHORT {
            let waits = async {
                check(shell.run("true", limit).await.err().map(|error| error.to_string()), limit);
                check(shell.check("true", limit).await.err().map(|error| error.to_string()), limit);
                check(shell.interrupt(limit).await.err().map(|error| error.to_string()), limit);
            };
            tokio::time::timeout(AT_ONCE, waits).await.unwrap();
        }
    });
}

#[test]
fn the_twins_end_as_these_do() {
    play_blocking(|stage| {
        let config = stage.fake(&[]).console(ConsoleConfig::serial());
        let machine = blocking::Machine::launch(&config).unwrap();
        let console = machine.console().unwrap();
        let (_shell, stream) = ShellOnPty::start(DASH).unwrap();
        let terminal = blocking::Console::over(stream, &ConsoleConfig::serial(), PATIENCE).unwrap();
        let mut shell = blocking::Shell::attach(&terminal, PATIENCE).unwrap();
        let stopping = Duration::from_millis(200);
        check(shell.run("kill -STOP $$", stopping).err().map(|error| error.to_string()), stopping);

        for limit in SHORT {
            let login = Login::new("root");
            check(blocking::Shell::attach(&console, limit).err().map(|error| error.to_string()), limit);
            check(
                blocking::Shell::login(&console, &login, limit).err().map(|error| error.to_string()),
                limit,
            );
            check(
                console.terminal(80, 25).wait_for("menu", limit).err().map(|error| error.to_string()),
                limit,
            );
            check(shell.run("true", limit).err().map(|error| error.to_string()), limit);
            check(shell.check("true", limit).err().map(|error| error.to_string()), limit);
            check(shell.interrupt(limit).err().map(|error| error.to_string()), limit);
        }
        machine.kill().unwrap();
    });
}
