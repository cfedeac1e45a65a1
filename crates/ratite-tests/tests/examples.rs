//! Every example runs, says what it is to say, and leaves nothing behind.

use std::process::Command;
use std::process::Stdio;

use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::program;

/// Runs an example and asserts that it succeeds and prints each of `words`.
#[track_caller]
fn check(name: &str, words: &[&str]) {
    play_blocking(|_| {
        let outcome = Command::new(program(&format!("examples/{name}")))
            .stdin(Stdio::null())
            .output()
            .expect("the example starts");
        let (said, wrong) =
            (String::from_utf8_lossy(&outcome.stdout), String::from_utf8_lossy(&outcome.stderr));

        assert!(outcome.status.success(), "{}: {wrong}", outcome.status);
        for word in words {
            assert!(said.contains(word), "no `{word}` in: {said}");
        }
    });
}

#[test]
fn boot_and_quit() {
    check("boot_and_quit", &["is \"running\"", "QEMU exited with status 0 (host-qmp-quit)"]);
}

#[test]
fn watch_events() {
    check("watch_events", &["STOP", "RESUME", "SHUTDOWN", "the end: the peer closed the connection"]);
}

#[test]
fn console_login() {
    check("console_login", &["the guest says \"hello\"", "asked by Guest"]);
}

#[test]
fn blocking() {
    check("blocking", &["commands", "QEMU exited with status 0"]);
}

#[test]
fn qtest_poke() {
    check("qtest_poke", &["RTC register B is 0x"]);
}

#[test]
fn many_machines() {
    check("many_machines", &["64 machines run", "64 of them ended well"]);
}
