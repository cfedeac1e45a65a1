//! A machine's console: read from its first byte, searched, typed to, and never in the guest's way.

use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Machine;
use ratite::Pattern;
use ratite::Timeouts;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use rustix::process::Signal;
use serde_json::json;

async fn launch(stage: &Stage, words: &[&str]) -> Machine {
    stage.fake(words).console(ConsoleConfig::serial()).launch().await.expect("it launches")
}

fn console(machine: &Machine) -> &Console {
    machine.console().expect("it was given a console")
}

/// Lets the guest write `text`.
async fn say(machine: &Machine, text: &str) {
    machine.cmd("fake-console", json!({ "text": text })).await.expect("the fake writes it");
}

#[test]
fn a_banner_is_there_from_its_first_byte() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=Hello, world\n"]).await;

        let found = console(&machine).expect("world", AT_ONCE).await.unwrap();

        assert_eq!(found.before_text(), "Hello, ");
        assert_eq!(found.text(), "world");
        assert_eq!(console(&machine).read(AT_ONCE).await.unwrap(), b"\n");
    });
}

#[test]
fn what_was_found_is_taken_only_by_its_taker() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=one two three"]).await;
        let console = console(&machine);
        console.ready(AT_ONCE).await.unwrap();

        let (first, second) =
            (console.find("one", AT_ONCE).await.unwrap(), console.find("two", AT_ONCE).await.unwrap());
        drop(console.find("three", AT_ONCE).await.unwrap());

        assert_eq!(second.take().unwrap().unwrap().before_text(), "one ");
        assert_eq!(first.take().unwrap(), None);
        assert_eq!(console.take().unwrap(), b" three");
        assert_says(&console.ready(Duration::ZERO).await.unwrap_err(), &["no output on the console"]);
        machine.shutdown(PATIENCE).await.unwrap();
        console.ready(AT_ONCE).await.unwrap();
    });
}

#[test]
fn a_console_is_a_serial_port_or_a_device_at_its_index() {
    play(async |stage| {
        let second = ConsoleConfig::serial().index(2);
        let device = ConsoleConfig::device("virt,console");
        for (config, words) in [
            (second, "-serial null -serial null -chardev 'socket,id=console,fd="),
            (device, "-device 'virt,,console,chardev=console'"),
        ] {
            let machine = stage.fake(&["console-banner=hi"]).console(config).launch().await.unwrap();

            let line = machine.command_line().to_string();
            assert!(line.contains(words), "{line}");
            assert_eq!(console(&machine).expect("hi", AT_ONCE).await.unwrap().text(), "hi");
        }
    });
}

#[test]
fn a_machine_without_a_console_has_none() {
    play(async |stage| {
        assert!(stage.fake(&[]).launch().await.unwrap().console().is_none());
    });
}

#[test]
fn a_flood_that_nobody_reads_does_not_stop_the_guest() {
    play(async |stage| {
        let machine = launch(stage, &[]).await;
        let flood = 64 << 20;

        let written = machine.cmd("fake-console", json!({ "bytes": flood })).await.unwrap();

        assert_eq!(written["written"], flood);
        let exit = machine.shutdown(PATIENCE).await.unwrap();
        assert!(exit.success());
        assert_eq!(console(&machine).bytes_seen(), flood);
    });
}

#[test]
fn a_qemu_that_must_write_before_it_can_end_does_end() {
    play(async |stage| {
        let machine = launch(stage, &["quit-console=4000000"]).await;

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert_eq!(console(&machine).bytes_seen(), 4_000_000);
    });
}

#[test]
fn what_follows_a_match_stays_for_the_next_reader() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=one two three"]).await;
        let console = console(&machine);

        let first = console.expect("two", AT_ONCE).await.unwrap();
        let second = console.expect(Pattern::regex(r"t(h)(r|x)(y)?ee").unwrap(), AT_ONCE).await.unwrap();

        assert_eq!((first.before_text().as_str(), first.text().as_str()), ("one ", "two"));
        assert_eq!((second.before_text().as_str(), second.text().as_str()), (" ", "three"));
        assert_eq!(second.groups, [Some(b"h".to_vec()), Some(b"r".to_vec()), None]);
        assert_eq!(console.take().unwrap(), b"");
    });
}

#[test]
fn a_match_is_found_however_its_bytes_arrive() {
    play(async |stage| {
        let machine = launch(stage, &[]).await;
        let wait = console(&machine).expect(Pattern::regex(r"log(in|out):\s").unwrap(), PATIENCE);
        let talk = async {
            for piece in ["xlo", "g", "in", ":", "", " ", "rest"] {
                say(&machine, piece).await;
            }
        };

        let (found, ()) = tokio::join!(wait, talk);

        let found = found.unwrap();
        assert_eq!((found.before_text().as_str(), found.text().as_str()), ("x", "login: "));
        assert_eq!(console(&machine).expect("rest", AT_ONCE).await.unwrap().before, b"");
    });
}

#[test]
fn a_pattern_that_looks_at_what_follows_takes_only_what_it_matches() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=one xy"]).await;

        let found = console(&machine).expect(Pattern::regex(r"(x)\B").unwrap(), AT_ONCE).await.unwrap();

        assert_eq!((found.before_text().as_str(), found.text().as_str()), ("one ", "x"));
        assert_eq!(found.groups, [Some(b"x".to_vec())]);
        assert_eq!(console(&machine).read(AT_ONCE).await.unwrap(), b"y");
    });
}

#[test]
fn a_literal_means_its_very_bytes() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=a.c aXc [a-c]+$ \u{e9}"]).await;

        assert_eq!(console(&machine).expect("[a-c]+$", AT_ONCE).await.unwrap().before, b"a.c aXc ");
        assert_eq!(console(&machine).expect("\u{e9}", AT_ONCE).await.unwrap().before, b" ");
    });
}

#[test]
fn what_does_not_come_ends_at_the_limit_and_takes_nothing() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=still here"]).await;
        let limit = Duration::from_millis(100);

        let error = console(&machine).expect("login:", limit).await.unwrap_err();

        assert!(matches!(error, ConsoleError::TimedOut { .. }), "{error:?}");
        assert_says(&error, &["`login:` on the console within 100ms"]);
        assert_eq!(console(&machine).read(AT_ONCE).await.unwrap(), b"still here");
        assert!(matches!(console(&machine).read(limit).await, Err(ConsoleError::TimedOut { .. })));
    });
}

#[test]
fn a_cancelled_wait_loses_no_byte() {
    play(async |stage| {
        let machine = launch(stage, &[]).await;
        let mut heard = Vec::new();
        for round in 0..100 {
            let text = format!("<{round}>");
            let talk = say(&machine, &text);
            let wait = async {
                let limit = Duration::from_micros(round * 10);
                let read = tokio::time::timeout(limit, console(&machine).read(PATIENCE)).await;
                drop(tokio::time::timeout(limit, console(&machine).expect("never", PATIENCE)).await);
                read.map(Result::unwrap).unwrap_or_default()
            };
            heard.extend(tokio::join!(talk, wait).1);
        }

        machine.shutdown(PATIENCE).await.unwrap();
        heard.extend(console(&machine).take().unwrap());

        let said: String = (0..100).map(|round| format!("<{round}>")).collect();
        assert_eq!(String::from_utf8(heard).unwrap(), said);
    });
}

#[test]
fn the_end_of_the_stream_is_told_behind_its_last_byte() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=bye", "console-close"]).await;

        let error = console(&machine).expect("never", PATIENCE).await.unwrap_err();

        assert!(matches!(error, ConsoleError::Ended { .. }), "{error:?}");
        assert_says(&error, &["the console ended while waiting for `never`"]);
        assert_eq!(console(&machine).read(AT_ONCE).await.unwrap(), b"bye");
        assert_eq!(console(&machine).read(AT_ONCE).await.unwrap(), b"");
        assert!(console(&machine).has_ended() && machine.is_running());
        assert!(matches!(console(&machine).write("x").await, Err(ConsoleError::Ended { .. })));
    });
}

#[test]
fn qemus_death_wakes_who_waits_for_the_console() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=last words"]).await;

        let start = Instant::now();
        let wait = console(&machine).expect("login:", Duration::MAX);
        let (outcome, killed) = tokio::join!(wait, machine.kill());

        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(matches!(outcome, Err(ConsoleError::Ended { .. })));
        killed.unwrap();
        assert_eq!(console(&machine).take().unwrap(), b"last words");
    });
}

#[test]
fn what_was_recorded_is_readable_after_the_machine_is_gone() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=remember me", "quit-console=100000"]).await;
        let console = console(&machine).clone();

        machine.shutdown(PATIENCE).await.unwrap();
        drop(machine);

        assert_eq!(console.expect("remember", AT_ONCE).await.unwrap().before, b"");
        assert_eq!(console.take().unwrap().len(), " me".len() + 100_000);
        assert_eq!(console.tail(4).bytes.len(), 4);
        assert_eq!(console.tail(4).omitted, "remember me".len() as u64 + 100_000 - 4);
    });
}

#[test]
fn what_is_typed_reaches_the_guest_whole_and_in_order() {
    play(async |stage| {
        let machine = launch(stage, &["console-echo"]).await;

        for line in ["root\n", "", "two words\r"] {
            console(&machine).write(line).await.unwrap();
        }
        console(&machine).expect("you said: two words\n", PATIENCE).await.unwrap();

        let typed = machine.cmd("fake-console-read", ()).await.unwrap();
        assert_eq!(typed, "root\ntwo words\r");
    });
}

#[test]
fn writes_of_many_tasks_do_not_mix() {
    play(async |stage| {
        let machine = launch(stage, &[]).await;
        let lines: Vec<_> =
            (b'a'..b'k').map(|letter| format!("{}\n", char::from(letter).to_string().repeat(9999))).collect();

        let writes = lines.iter().map(|line| {
            let (console, line) = (console(&machine).clone(), line.clone());
            tokio::spawn(async move { console.write(line).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }

        let mut typed = String::new();
        while typed.len() < 100_000 {
            let more = machine.cmd("fake-console-read", ()).await.unwrap();
            typed.push_str(more.as_str().unwrap());
        }
        let mut arrived: Vec<_> = typed.split_inclusive('\n').collect();
        arrived.sort_unstable();
        assert_eq!(arrived, lines);
    });
}

#[test]
fn a_guest_that_never_reads_ends_a_write_at_its_limit() {
    play(async |stage| {
        let console = Duration::from_millis(200);
        let config = stage.fake(&[]).console(ConsoleConfig::serial());
        let machine = config.timeouts(Timeouts { console, ..Timeouts::default() }).launch().await.unwrap();
        send_signal(machine.pid(), Signal::STOP);
        let console = machine.console().unwrap();

        let start = Instant::now();
        let large = console.write(vec![b'x'; 8 << 20]).await.unwrap_err();
        let next = console.write("y").await.unwrap_err();

        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        for error in [large, next] {
            assert!(matches!(error, ConsoleError::TimedOut { .. }), "{error:?}");
            assert_says(&error, &["no room for a write to the console within 200ms"]);
        }
        machine.kill().await.unwrap();
        assert!(matches!(console.write("z").await, Err(ConsoleError::Ended { .. })));
    });
}

#[test]
fn clones_share_one_place_in_the_stream() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=one two"]).await;
        let clone = console(&machine).clone();

        clone.expect("one", AT_ONCE).await.unwrap();

        assert_eq!(console(&machine).expect("two", AT_ONCE).await.unwrap().before, b" ");
    });
}
