//! Several patterns at once, those that mean a failure, and what else ends a wait: each error has the console's last words.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::Pattern;
use ratite::Patterns;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use serde_json::json;

async fn launch(stage: &Stage, words: &[&str]) -> Machine {
    stage.fake(words).console(ConsoleConfig::serial()).launch().await.expect("it launches")
}

async fn say(machine: &Machine, text: &str) {
    machine.cmd("fake-console", json!({ "text": text })).await.expect("the fake says it");
}

async fn panic(machine: &Machine, action: &str) {
    let event = json!({ "count": 1, "name": "GUEST_PANICKED", "data": { "action": action } });
    machine.cmd("fake-events", event).await.expect("the fake tells of it");
}

#[test]
fn of_several_patterns_it_is_told_which_matched() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=Welcome\r\nguest# guest login: "]).await;
        let console = machine.console().unwrap();
        let either = Patterns::any([Pattern::literal("login: "), Pattern::regex(r"(\w+)# ").unwrap()]);

        let first = console.expect(&either, PATIENCE).await.unwrap();
        let second = console.expect(&either, PATIENCE).await.unwrap();

        assert_eq!((first.index, first.before_text().as_str()), (1, "Welcome\r\n"));
        assert_eq!(first.groups, [Some(b"guest".to_vec())]);
        assert_eq!((second.index, second.before_text().as_str()), (0, "guest "));
        let error = console.expect(["a", "b", "c"], AT_ONCE / 100).await.unwrap_err();
        assert_says(&error, &["no `a`, `b` or `c` on the console within"]);
    });
}

#[test]
fn a_failure_ends_the_wait_with_what_came_before_it() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=booting\r\nKernel panic - not syncing: oh\r\n"]).await;
        let console = machine.console().unwrap();
        let login = Patterns::from("login: ").failing_on(Pattern::linux_failures());

        let error = console.expect(&login, PATIENCE).await.unwrap_err();

        let said = "`Kernel panic - not syncing` appeared on the console while waiting for `login: `";
        assert_eq!(error.to_string(), said);
        assert!(format!("{error:?}").contains("\n    | Kernel panic - not syncing: oh"), "{error:?}");
        let ConsoleError::Failure { found, .. } = error else { panic!("{error:?}") };
        assert_eq!((found.before_text().as_str(), found.index), ("booting\r\n", 1));
        assert_eq!(console.take().unwrap(), b": oh\r\n");
    });
}

#[test]
fn what_is_wanted_and_comes_before_a_failure_is_found() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=login: BUG: late"]).await;
        let login = Patterns::from("login: ").failing_on(["BUG: "]);

        let found = machine.console().unwrap().expect(login, PATIENCE).await.unwrap();

        assert_eq!(found.index, 0);
    });
}

#[test]
fn the_guests_panic_ends_every_wait() {
    play(async |stage| {
        let machine = launch(stage, &[]).await;
        let console = machine.console().unwrap();
        let start = Instant::now();
        let (one, other) = (console.clone(), console.reader());

        let happens = async {
            say(&machine, "last words\r\n").await;
            panic(&machine, "pause").await;
        };
        let (one, other, ()) =
            tokio::join!(one.expect("login:", PATIENCE), other.expect("words", PATIENCE), happens);

        let error = one.unwrap_err();
        assert_eq!(error.to_string(), "the guest panicked while waiting for `login:`");
        assert!(matches!(&error, ConsoleError::GuestPanicked { event, .. } if event["action"] == "pause"));
        assert_eq!(error.tail().unwrap().text(), "last words\r\n");
        assert_eq!(other.unwrap().before, b"last ", "what the guest said before it panicked counts");
        assert!(console.expect("later", PATIENCE).await.is_err(), "it does not go on");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    });
}

#[test]
fn a_guest_that_goes_on_after_its_panic_is_waited_for() {
    play(async |stage| {
        let machine = launch(stage, &[]).await;

        panic(&machine, "run").await;
        say(&machine, "login: ").await;

        machine.console().unwrap().expect("login: ", PATIENCE).await.unwrap();
    });
}

#[test]
fn a_guest_that_was_made_to_go_on_after_its_panic_is_waited_for() {
    play(async |stage| {
        let machine = launch(stage, &[]).await;
        let console = machine.console().unwrap();
        let again = async |name: &str| {
            let event = json!({ "count": 1, "name": name });
            machine.cmd("fake-events", event).await.expect("the fake tells of it");
        };

        panic(&machine, "pause").await;
        let first = console.expect("login: ", PATIENCE).await;
        // As after system_reset and cont.
        again("RESUME").await;
        let quiet = console.expect("login: ", Duration::from_millis(300)).await;
        say(&machine, "login: ").await;
        let found = console.expect("login: ", PATIENCE).await;
        panic(&machine, "pause").await;
        let second = console.expect("login: ", PATIENCE).await;

        assert!(matches!(first, Err(ConsoleError::GuestPanicked { .. })), "{first:?}");
        assert!(matches!(quiet, Err(ConsoleError::TimedOut { .. })), "{quiet:?}");
        found.unwrap();
        assert!(matches!(second, Err(ConsoleError::GuestPanicked { .. })), "{second:?}");
    });
}

#[test]
fn the_panic_of_a_real_machine_is_heard() {
    play(async |_| {
        let config = MachineConfig::new("qemu-system-x86_64")
            .machine_type("pc")
            .accelerator("tcg")
            .qtest()
            .args(["-nodefaults", "-device", "pvpanic,ioport=0x505", "-action", "panic=pause"])
            .console(ConsoleConfig::serial());
        let machine = config.launch().await.expect("it launches");
        let qtest = machine.qtest().expect("it was given one");

        let wait = machine.console().unwrap().expect("login:", PATIENCE);
        let (outcome, out) = tokio::join!(wait, qtest.command("outb 0x505 1"));

        out.expect("the port is there");
        let error = outcome.unwrap_err();
        assert!(matches!(error, ConsoleError::GuestPanicked { .. }), "{error:?}");
        machine.cmd("cont", ()).await.expect("it goes on");
        let gone_on = machine.console().unwrap().expect("login:", Duration::from_millis(300)).await;
        assert!(matches!(gone_on, Err(ConsoleError::TimedOut { .. })), "{gone_on:?}");
        machine.kill().await.unwrap();
    });
}

#[test]
fn an_end_names_how_qemu_ended() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=bye\r\n"]).await;
        let console = machine.console().unwrap();

        let (outcome, _no_reply) = tokio::join!(
            console.expect("login:", PATIENCE),
            machine.cmd("fake-exit", json!({ "status": 7 }))
        );

        let error = outcome.unwrap_err();
        assert_says(&error, &["the console ended while waiting for `login:`: QEMU exited with status 7"]);
        assert_eq!(error.tail().unwrap().text(), "bye\r\n");
    });
}

#[test]
fn what_was_typed_is_not_taken_for_an_answer() {
    play(async |_| {
        let machine = ratite::guest::machine("qemu-system-x86_64").unwrap().launch().await.unwrap();
        let console = machine.console().unwrap();
        console.expect(ratite::guest::PROMPT, PATIENCE).await.unwrap();

        let echo = console.send_echoed("echo hello", PATIENCE).await.unwrap();
        console.send_line("").await.unwrap();
        let answer = console.expect("hello", PATIENCE).await.unwrap();

        assert_eq!(echo.text(), "echo hello");
        assert_eq!(answer.before_text().trim(), "");
        console.send_line("off").await.unwrap();
        machine.wait(PATIENCE).await.unwrap();
    });
}

#[test]
fn patterns_that_are_too_large_together_are_refused() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=a"]).await;
        let large = Pattern::regex("(a{1000}){80}").unwrap();

        let error = machine.console().unwrap().expect(vec![large; 10], PATIENCE).await.unwrap_err();

        assert!(matches!(error, ConsoleError::Search { .. }), "{error:?}");
        assert_eq!(machine.console().unwrap().take().unwrap(), b"a");
    });
}

#[test]
fn an_end_is_told_as_an_end_however_short_the_limit() {
    play(async |stage| {
        let machine = launch(stage, &["console-banner=bye", "console-close"]).await;
        let console = machine.console().unwrap();
        console.ready(PATIENCE).await.unwrap();
        console.read(PATIENCE).await.unwrap();
        console.ready(PATIENCE).await.unwrap();

        let error = console.expect("login:", AT_ONCE / 1000).await.unwrap_err();

        assert!(matches!(error, ConsoleError::Ended { exit: None, .. }), "{error:?}");
    });
}

#[test]
fn no_flood_is_too_fast_for_a_match_to_be_found() {
    play(async |_| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let console = Console::over(ours, &ConsoleConfig::serial().history(1), PATIENCE).unwrap();
        let noise = "nothing but noise\r\n".repeat(200_000);
        let flood = async {
            // It may go away once it has what it wants.
            let write = move || {
                [noise.as_str(), "login: ", noise.as_str()]
                    .map(|part| theirs.write_all(part.as_bytes()).is_ok())
            };
            std::thread::spawn(write)
        };

        let (found, flooding) = tokio::join!(console.expect(["login: ", "panic"], PATIENCE), flood);

        let found = found.unwrap();
        assert_eq!(found.index, 0);
        assert_eq!(found.dropped + (found.before.len() + found.matched.len()) as u64, 200_000 * 19 + 7);
        assert_eq!(flooding.join().unwrap(), [true; 3]);
    });
}

#[test]
fn a_wait_that_is_given_up_leaves_what_it_searched_to_the_next() {
    play(async |_| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let console = Console::over(ours, &ConsoleConfig::serial(), PATIENCE).unwrap();

        for _ in 0..100 {
            console.expect("login: ", Duration::ZERO).await.unwrap_err();
        }
        theirs.write_all(b"guest login: ").unwrap();

        let found = console.expect("login: ", PATIENCE).await.unwrap();
        assert_eq!(found.before_text(), "guest ");
    });
}
