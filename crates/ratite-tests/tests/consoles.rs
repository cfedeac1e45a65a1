//! Machines with several consoles: each has its own name, device, readers and log, and none holds up another.

use std::fs;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite::guest;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use serde_json::json;

fn console<'machine>(machine: &'machine Machine, name: &str) -> &'machine Console {
    machine.console_named(name).expect("the machine has it")
}

#[test]
fn each_console_is_read_and_written_by_its_name() {
    play(async |stage| {
        let config = stage
            .fake(&["console-echo"])
            .console(ConsoleConfig::serial())
            .console(ConsoleConfig::serial().name("debug"))
            .console(ConsoleConfig::virtserialport("org.example.0"));
        let machine = config.launch().await.expect("it launches");

        console(&machine, "debug").write("to debug\r").await.unwrap();
        console(&machine, "org.example.0").write("to the channel\r").await.unwrap();
        machine.console().unwrap().write("to the first\r").await.unwrap();

        for (name, said) in
            [("debug", "to debug"), ("org.example.0", "to the channel"), ("console", "to the first")]
        {
            assert_eq!(console(&machine, name).expect(said, PATIENCE).await.unwrap().before, b"you said: ");
        }
        let names: Vec<_> = machine.consoles().map(|(name, _)| name).collect();
        assert_eq!(names, ["console", "debug", "org.example.0"]);
        assert!(machine.console_named("none").is_none());
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_console_that_nobody_reads_holds_up_no_other() {
    play(async |stage| {
        let config = stage
            .fake(&[])
            .console(ConsoleConfig::serial().name("one").history(1000))
            .console(ConsoleConfig::serial().name("two").history(1000));
        let machine = config.launch().await.expect("it launches");

        let flood = json!({ "id": "console-one", "bytes": 8 << 20 });
        machine.cmd("fake-console", flood).await.expect("the fake writes it");
        machine.cmd("fake-console", json!({ "id": "console-two", "text": "here" })).await.unwrap();

        console(&machine, "two").expect("here", PATIENCE).await.unwrap();
        machine.shutdown(PATIENCE).await.unwrap();
        assert_eq!(console(&machine, "one").bytes_seen(), 8 << 20);
    });
}

#[test]
fn each_console_has_a_log_of_its_own_with_times_if_wanted() {
    play(async |stage| {
        let (plain, timed) = (stage.path("plain.log"), stage.path("timed.log"));
        let config = stage
            .fake(&["console-banner=one\r\ntwo"])
            .console(ConsoleConfig::serial().name("plain").log(&plain))
            .console(ConsoleConfig::serial().name("timed").log(&timed).timestamps());
        let machine = config.launch().await.expect("it launches");

        machine.shutdown(PATIENCE).await.unwrap();

        assert_eq!(fs::read_to_string(plain).unwrap(), "one\r\ntwo");
        let timed = fs::read_to_string(timed).unwrap();
        let lines: Vec<_> = timed.split("\r\n").map(|line| line.split_once("] ").unwrap()).collect();
        assert_eq!(lines.iter().map(|(_, text)| *text).collect::<Vec<_>>(), ["one", "two"]);
        assert!(lines.iter().all(|(time, _)| time.starts_with("[ ") && time.contains('.')), "{timed}");
        assert_eq!(console(&machine, "timed").take().unwrap(), b"one\r\ntwo");
    });
}

#[test]
fn a_real_machine_has_them_all() {
    play(async |_| {
        let config = guest::machine("qemu-system-x86_64").unwrap();
        let config = config
            .console(ConsoleConfig::serial().name("debug").index(2))
            .console(ConsoleConfig::virtconsole().name("hvc0"))
            .console(ConsoleConfig::virtconsole().name("hvc1"))
            .console(ConsoleConfig::virtserialport("org.example.0"));
        let machine = config.launch().await.expect("it launches");

        let chardevs = machine.cmd("query-chardev", ()).await.unwrap();
        let mut open: Vec<_> = chardevs.as_array().unwrap().iter().collect();
        open.retain(|chardev| chardev["label"].as_str().unwrap().starts_with("console"));
        open.sort_by_key(|chardev| chardev["label"].as_str().unwrap());

        let labels: Vec<_> = open.iter().map(|chardev| chardev["label"].as_str().unwrap()).collect();
        assert_eq!(
            labels,
            ["console", "console-debug", "console-hvc0", "console-hvc1", "console-org.example.0"]
        );
        let ports = machine.cmd("qom-list", json!({ "path": "/machine/peripheral/ratite-serial" })).await;
        assert!(ports.is_ok(), "{ports:?}");
        machine.console().unwrap().expect(guest::PROMPT, PATIENCE).await.unwrap();
        machine.kill().await.unwrap();
    });
}

#[test]
fn two_consoles_cannot_be_one_port() {
    play(async |stage| {
        let config = stage
            .fake(&[])
            .console(ConsoleConfig::serial().name("one").index(1))
            .console(ConsoleConfig::serial().name("two").index(1));

        let error = config.launch().await.expect_err("it cannot work");

        assert!(matches!(error.kind(), LaunchErrorKind::Config(_)));
    });
}

#[test]
fn a_hundred_consoles_at_once_are_each_heard_and_none_is_left() {
    play(async |stage| {
        let mut config = stage.fake(&["console-banner=hello", "quit-console=100000"]);
        for number in 0..100 {
            config = config.console(ConsoleConfig::serial().name(format!("c{number}")).history(10));
        }
        let machine = config.launch().await.expect("it launches");

        for (_, console) in machine.consoles() {
            console.expect("hello", PATIENCE).await.unwrap();
        }
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());

        // The fake says its last words on the first one.
        assert_eq!(machine.console().unwrap().bytes_seen(), 5 + 100_000);
        assert_eq!(machine.consoles().filter(|(_, console)| console.has_ended()).count(), 100);
    });
}
