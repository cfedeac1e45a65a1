//! The console on stdout, what is looked for on it, and its log file.

use std::fs;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use ratite_tests::orphans::wait_until_gone;
use tempfile::TempDir;

use crate::harness::HANG;
use crate::harness::POWER_OFF;
use crate::harness::Ratite;
use crate::harness::boot_sector;
use crate::harness::fake;
use crate::harness::real;
use crate::harness::run;
use crate::harness::start_run;

/// A disk whose guest prints `text`, and then does what `end` says.
fn disk(text: &str, end: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    boot_sector(&path, text, end);
    (folder, path)
}

fn flag(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The first bytes that the fake QEMU floods its console with.
fn flood(count: usize) -> Vec<u8> {
    let line = |letter: u8| [[letter; 63].as_slice(), b"\n"].concat();
    (b'a'..=b'z').cycle().flat_map(line).take(count).collect()
}

#[test]
fn a_guest_that_powers_off_is_a_success() {
    let (_folder, disk) = disk("hello\r\n", &POWER_OFF);

    let ended = run(&[], &real(&disk));

    ended.assert_code(0);
    assert_eq!((ended.stdout().as_str(), ended.stderr.as_str()), ("hello\r\n", ""));
}

#[test]
fn a_console_that_is_meant_for_the_terminal_is_shown_too() {
    let (_folder, disk) = disk("hello\r\n", &POWER_OFF);

    for arguments in [["-serial", "stdio"], ["-serial", "mon:stdio"]] {
        let ended = run(&["--expect", "hello"], &[real(&disk), flag(&arguments)].concat());

        ended.assert_code(0);
    }
    let ended = run(&["--expect", "hello"], &[real(&disk), flag(&["-nographic"])].concat());
    ended.assert_code(0);
}

#[test]
fn a_serial_port_that_is_taken_is_left_alone() {
    let (folder, disk) = disk("hello\r\n", &POWER_OFF);
    let file = folder.path().join("serial");
    let serial = format!("file:{}", file.display());

    let ended = run(&[], &[real(&disk), flag(&["-serial", &serial])].concat());

    ended.assert_code(0);
    assert_eq!(ended.stdout(), "");
    ended.assert_says(&["note: `-serial file:", "has the first serial port, so no console is shown"]);
    assert_eq!(fs::read(&file).unwrap(), b"hello\r\n");
}

#[test]
fn what_is_expected_and_found_ends_the_machine_well() {
    let (_folder, disk) = disk("boot: tests 7 passed\r\n", &HANG);

    let literal = run(&["--expect", "7 passed"], &real(&disk));
    let regex = run(&["--expect-regex", r"tests \d+ pass", "--timeout", "1m"], &real(&disk));

    for found in [literal, regex] {
        found.assert_code(0);
        assert_eq!(found.stderr, "");
        assert!(found.stdout().contains("7 pass"), "{}", found.stdout());
    }
}

#[test]
fn a_text_is_no_expression() {
    let (_folder, disk) = disk("axb\r\n", &POWER_OFF);

    run(&["--expect", "a.b"], &real(&disk)).assert_code(1);
}

#[test]
fn what_does_not_appear_in_time_is_told_with_what_did() {
    let (_folder, disk) = disk("no such luck\r\n", &HANG);

    let failed = run(&["--expect", "login:", "--timeout", "2s"], &real(&disk));

    failed.assert_code(4);
    assert_eq!(failed.stdout(), "no such luck\r\n");
    failed.assert_says(&[
        "error: `login:` did not appear on the console within 2s\n  the console:\n    | no such luck\n",
    ]);
}

#[test]
fn a_machine_that_ends_without_it_is_told_with_its_end() {
    let (_folder, disk) = disk("no such luck\r\n", &POWER_OFF);

    let failed = run(&["--expect", "login:"], &real(&disk));

    failed.assert_code(1);
    failed.assert_says(&[
        "error: the machine ended before `login:` appeared on its console\n",
        "  caused by: QEMU exited with status 0 (guest-shutdown)\n",
        "    | no such luck\n",
    ]);
}

#[test]
fn a_machine_that_does_not_end_is_out_of_time() {
    let (_folder, disk) = disk("hello\r\n", &HANG);

    let failed = run(&["--timeout", "2s"], &real(&disk));

    failed.assert_code(4);
    assert_eq!(failed.stdout(), "hello\r\n");
    failed.assert_says(&["error: the machine did not end within 2s\n"]);
}

#[test]
fn no_byte_is_lost_on_the_way_to_a_reader_that_comes_late() {
    const BYTES: usize = 40 << 20;
    let flooded = format!("quit-console={BYTES}");
    let options = ["--expect", "up", "--grace", "1m"];
    let machine = start_run(&options, &fake(&["console-banner=up\n", &flooded]));

    // Nobody reads until QEMU is gone, and all that it wrote is with ratite.
    assert!(wait_until_gone(machine.qemu(), Duration::from_secs(60)));
    let ended = machine.finish();

    ended.assert_code(0);
    assert_eq!(ended.stdout.len(), 3 + BYTES);
    assert!(ended.stdout[3..] == flood(BYTES), "the bytes are others");
}

#[test]
fn a_reader_that_never_comes_is_out_of_time() {
    let options = ["--expect", "up", "--timeout", "2s"];
    let machine = start_run(&options, &fake(&["console-banner=up\n", "quit-console=1000000"]));

    // Nobody reads until it has given up.
    assert!(wait_until_gone(machine.pid(), Duration::from_secs(30)));

    let failed = machine.finish();
    failed.assert_code(4);
    failed.assert_says(&["error: stdout did not take all of the console within 2s\n"]);
}

#[test]
fn what_comes_while_the_machine_ends_is_shown_too() {
    let ended = run(&["--expect", "up"], &fake(&["console-banner=up\n", "quit-console=1000000"]));

    ended.assert_code(0);
    assert_eq!(ended.stdout.len(), 3 + 1_000_000);
    assert!(ended.stdout[3..] == flood(1_000_000), "the bytes are others");
}

#[test]
fn the_log_file_has_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("console.log");
    fs::write(&log, "of an earlier run").unwrap();
    let options = ["--log", log.to_str().unwrap(), "--expect", "up"];

    let ended =
        run(&options, &fake(&["console-banner=the very first byte, and up\n", "quit-console=300000"]));

    ended.assert_code(0);
    assert!(ended.stdout.starts_with(b"the very first byte"), "{}", ended.stdout());
    assert!(fs::read(&log).unwrap() == ended.stdout, "the log differs from stdout");
}

#[test]
fn a_log_file_that_cannot_be_written_is_a_failure() {
    let failed = run(&["--log", "/dev/full", "--expect", "up"], &fake(&["console-banner=up"]));

    failed.assert_code(1);
    failed.assert_says(&[
        "error: the console is not complete: could not write to /dev/full: No space left on device",
    ]);
}

#[test]
fn a_log_file_that_cannot_be_made_is_a_failed_launch() {
    let failed = run(&["--log", "/nowhere/log"], &fake(&["console-banner=up"]));

    failed.assert_code(3);
    failed.assert_says(&["/nowhere/log: No such file or directory", "hint: `--log` takes a file"]);
}

#[test]
fn what_qemu_says_itself_is_talk() {
    let warned = run(&["--expect", "up"], &fake(&["console-banner=up\n", "stderr=warning: it is late"]));

    warned.assert_code(0);
    assert_eq!((warned.stdout().as_str(), warned.stderr.as_str()), ("up\n", "warning: it is late\n"));
}

#[test]
fn a_reader_that_goes_away_ends_the_machine() {
    let (_folder, disk) = disk("hello\r\n", &HANG);
    let mut machine = start_run(&[], &real(&disk));
    machine.wait_for("hello");

    // From here on the guest is silent: no write can fail.
    machine.close_stdout();

    let ended = machine.finish();
    ended.assert_code(141);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_reader_that_goes_away_in_a_flood_ends_the_machine() {
    let mut machine = start_run(&[], &fake(&["console-flood=0"]));
    machine.wait_for("aaaa");

    machine.close_stdout();

    machine.finish().assert_code(141);
}

#[test]
fn a_reader_that_goes_when_it_has_seen_enough_is_content() {
    let mut machine = start_run(&["--expect", "up"], &fake(&["console-banner=up", "quit-delay=300"]));
    machine.wait_for("up");

    machine.close_stdout();

    machine.finish().assert_code(0);
}

#[test]
fn a_stdout_that_is_full_is_told() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let command = fake(&["console-banner=up"]);
    let words: Vec<&str> = ["run", "--"].into_iter().chain(command.iter().map(String::as_str)).collect();

    let failed = Ratite::start_into(full, &words).finish();

    failed.assert_code(1);
    failed.assert_says(&["error: could not write to stdout\n  caused by: No space left on device"]);
}
