//! What is kept of a console: the file from the first byte on, the bounded history, and the stream handed over.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::wait_until;
use serde_json::json;

async fn launch(stage: &Stage, words: &[&str], console: ConsoleConfig) -> Machine {
    stage.fake(words).console(console).launch().await.expect("it launches")
}

async fn flood(machine: &Machine, bytes: u64) {
    machine.cmd("fake-console", json!({ "bytes": bytes })).await.expect("the fake writes it");
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
}

#[test]
fn the_log_has_every_byte_from_the_first_even_if_nobody_reads() {
    play(async |stage| {
        let log = stage.path("console.log");
        fs::write(&log, "of an earlier run, and longer than what is to come").unwrap();
        let words = ["console-banner=first\r\n", "quit-console=3000000"];
        let machine = launch(stage, &words, ConsoleConfig::serial().log(&log).history(100)).await;

        machine.shutdown(PATIENCE).await.unwrap();

        let logged = fs::read(&log).unwrap();
        assert!(logged.starts_with(b"first\r\naaaa"));
        assert_eq!(logged.len(), 7 + 3_000_000);
        assert_eq!(machine.console().unwrap().log_fault(), None);
    });
}

#[test]
fn the_log_grows_while_the_guest_speaks() {
    play(async |stage| {
        let log = stage.path("console.log");
        let machine = launch(stage, &["console-banner=hello"], ConsoleConfig::serial().log(&log)).await;

        machine.console().unwrap().expect("hello", AT_ONCE).await.unwrap();

        assert_eq!(fs::read(&log).unwrap(), b"hello");
    });
}

#[test]
fn a_full_disk_is_told_once_and_the_guest_goes_on() {
    play(async |stage| {
        let console = ConsoleConfig::serial().log("/dev/full");
        let machine = launch(stage, &["console-banner=hello"], console).await;

        flood(&machine, 4 << 20).await;

        let console = machine.console().unwrap();
        wait_until("all has arrived", PATIENCE, || console.bytes_seen() == 5 + (4 << 20));
        let fault = console.log_fault().unwrap();
        assert!(fault.contains("/dev/full") && fault.contains("No space left"), "{fault}");
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_pipe_that_nobody_reads_is_no_place_for_a_log() {
    play(async |stage| {
        let fifo = stage.path("fifo");
        make_fifo(&fifo);
        let config = stage.fake(&[]).console(ConsoleConfig::serial().log(&fifo));

        // On a task of its own: a launch that blocks must fail this test, not stop it.
        let launch = tokio::spawn(async move { config.launch().await.map(drop) });
        let outcome = tokio::time::timeout(AT_ONCE, launch).await;
        // Lets go whoever blocks on it.
        let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();

        let error = outcome.expect("a launch never blocks").unwrap().expect_err("it is refused");
        assert!(matches!(error.kind(), LaunchErrorKind::Console(_)), "{error:?}");
        assert_says(&error, &["fifo"]);
        drop(reader);
    });
}

#[test]
fn a_log_that_blocks_does_not_hold_up_the_guest() {
    play(async |stage| {
        let fifo = stage.path("fifo");
        make_fifo(&fifo);
        // It can be opened, but takes no more than 64 KiB.
        let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let config = stage.fake(&[]).console(ConsoleConfig::serial().log(&fifo));
        let task = tokio::spawn(async move {
            // To refuse it is as good an answer.
            let Ok(machine) = config.launch().await else { return };
            flood(&machine, 1 << 20).await;
            assert!(machine.shutdown(PATIENCE).await.unwrap().success());
        });

        let outcome = tokio::time::timeout(AT_ONCE, task).await;

        drop(reader);
        outcome.expect("the guest is held up by its log").unwrap();
    });
}

#[test]
fn of_more_than_the_history_holds_the_newest_stay_and_the_rest_is_counted() {
    play(async |stage| {
        let machine = launch(stage, &[], ConsoleConfig::serial().history(1000)).await;
        let console = machine.console().unwrap();

        flood(&machine, 100_000).await;
        wait_until("all has arrived", PATIENCE, || console.bytes_seen() == 100_000);

        assert!(matches!(console.take(), Err(ConsoleError::Lagged { dropped: 99_000 })));
        assert_eq!(console.take().unwrap().len(), 1000);
        assert_eq!(console.tail(usize::MAX).omitted, 99_000);
        assert_eq!(console.tail(10).bytes.len(), 10);
    });
}

#[test]
fn a_search_goes_on_over_what_was_dropped() {
    play(async |stage| {
        let machine = launch(stage, &[], ConsoleConfig::serial().history(1000)).await;
        let console = machine.console().unwrap();

        let wait = console.expect("login:", PATIENCE);
        let talk = async {
            flood(&machine, 100_000).await;
            machine.cmd("fake-console", json!({ "text": "login: " })).await.unwrap();
        };
        let (found, ()) = tokio::join!(wait, talk);

        assert_eq!(found.unwrap().text(), "login:");
        assert_eq!(console.read(AT_ONCE).await.unwrap(), b" ");
    });
}

#[test]
fn a_history_of_nothing_still_lets_the_guest_speak() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=hello"], ConsoleConfig::serial().history(0)).await;
        let console = machine.console().unwrap();

        flood(&machine, 1 << 20).await;

        wait_until("all has arrived", PATIENCE, || console.bytes_seen() == 5 + (1 << 20));
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn the_stream_can_be_had_itself_with_what_was_not_read() {
    play(async |stage| {
        let machine =
            launch(stage, &["console-banner=one two", "console-echo"], ConsoleConfig::serial()).await;
        let console = machine.console().unwrap();
        console.expect("one", AT_ONCE).await.unwrap();
        wait_until("all has arrived", PATIENCE, || console.bytes_seen() == 7);

        let (mut stream, unread) = console.take_stream().await.unwrap();

        assert_eq!(unread, b" two");
        assert!(console.has_ended());
        assert!(matches!(console.take_stream().await, Err(ConsoleError::Ended { .. })));
        assert!(matches!(console.write("x").await, Err(ConsoleError::Ended { .. })));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hi\n").unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"you said: hi\n");
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
        assert_eq!(stream.read(&mut answer).unwrap(), 0);
    });
}

#[test]
fn a_stream_that_was_taken_and_is_not_read_does_not_hold_up_the_end() {
    play(async |stage| {
        let machine = launch(stage, &["quit-console=40000000"], ConsoleConfig::serial()).await;
        let (stream, _) = machine.console().unwrap().take_stream().await.unwrap();

        // QEMU blocks on what nobody reads: the grace passes, and then it is killed.
        let ended = machine.shutdown(Duration::from_millis(300)).await;

        assert_says(&ended.unwrap_err(), &["did not end within 300ms and was killed"]);
        drop(stream);
    });
}
