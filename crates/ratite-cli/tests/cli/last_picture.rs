//! `--screenshot-on-exit`: a picture of the screen, whatever ends the machine.

use std::path::Path;

use ratite::Picture;
use rustix::process::Signal;

use crate::harness::DEBUG_EXIT;
use crate::harness::HANG;
use crate::harness::Outcome;
use crate::harness::POWER_OFF;
use crate::harness::boot_sector;
use crate::harness::run;
use crate::harness::start_run;

/// A machine with a screen, a BIOS that writes on it, and a disk that does what `end` says.
fn machine(folder: &Path, end: &[u8]) -> Vec<String> {
    let disk = folder.join("disk");
    boot_sector(&disk, "up\r\n", end);
    let drive = format!("file={},format=raw,if=floppy,readonly=on", disk.display());
    let words = ["qemu-system-x86_64", "-accel", "tcg", "-m", "8", "-net", "none", "-drive", &drive];
    words.map(str::to_owned).to_vec()
}

/// The picture at `path`, which shows more than darkness: the BIOS has written on it.
#[track_caller]
fn check_picture(path: &Path, outcome: &Outcome) {
    let png = std::fs::read(path).unwrap_or_else(|error| panic!("{error}; {}", outcome.stderr));
    let picture = Picture::from_png(&png).unwrap();
    assert_eq!((picture.width(), picture.height()), (720, 400));
    assert!(picture.rgb().iter().any(|channel| *channel > 0x7f), "it is dark");
}

#[test]
fn a_guest_that_powers_off_has_its_last_picture_taken() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last.png");
    let options = ["--screenshot-on-exit", file.to_str().unwrap(), "--timeout", "1m"];

    let ended = run(&options, &machine(folder.path(), &POWER_OFF));

    ended.assert_code(0);
    assert_eq!((ended.stdout().as_str(), ended.stderr.as_str()), ("up\r\n", ""));
    check_picture(&file, &ended);
}

#[test]
fn a_match_a_failure_and_a_limit_are_pictured() {
    let folder = tempfile::tempdir().unwrap();
    let machine = machine(folder.path(), &HANG);
    for (option, value, code) in [("--expect", "up", 0), ("--fail-on", "up", 1), ("--timeout", "3s", 4)] {
        let file = folder.path().join(format!("{code}.png"));

        let ended = run(&[option, value, "--screenshot-on-exit", file.to_str().unwrap()], &machine);

        ended.assert_code(code);
        check_picture(&file, &ended);
    }
}

#[test]
fn an_interrupt_is_pictured_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last.png");
    let options = ["--json", "--screenshot-on-exit", file.to_str().unwrap()];
    let mut running = start_run(&options, &machine(folder.path(), &HANG));
    // Each letter may have a record of its own.
    running.wait_for("\"event\":\"console\"");

    running.signal(Signal::INT);

    let ended = running.finish();
    ended.assert_code(130);
    check_picture(&file, &ended);
    let events: Vec<_> =
        ended.stdout().lines().filter_map(|line| line.split('"').nth(3).map(str::to_owned)).collect();
    assert_eq!(events[events.len() - 2..], ["screenshot", "ended"]);
}

#[test]
fn a_picture_that_cannot_be_had_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last.png");
    let options = ["--screenshot-on-exit", file.to_str().unwrap(), "--expect", "up"];
    let dark = [machine(folder.path(), &HANG), vec!["-nodefaults".into()]].concat();

    let failed = run(&options, &dark);

    failed.assert_code(1);
    failed.assert_says(&["error: there is no screenshot: the machine has no screen\n"]);
    assert!(!file.exists());
}

#[test]
fn a_qemu_that_exits_at_once_leaves_no_picture_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last.png");
    let device = ["-device", "isa-debug-exit,iobase=0xf4"].map(str::to_owned);
    let command = [machine(folder.path(), &DEBUG_EXIT), device.to_vec()].concat();

    let failed = run(&["--screenshot-on-exit", file.to_str().unwrap()], &command);

    failed.assert_code(1);
    failed.assert_says(&[
        "note: there is no screenshot: QEMU had ended before",
        "error: QEMU exited with status 3\n",
    ]);
}

#[test]
fn a_place_where_no_picture_can_be_put_is_told_before_anything_is_started() {
    for file in ["/dev/null/last.png", "/nonexistent/last.png", "/"] {
        let failed = run(&["--screenshot-on-exit", file], &["/nonexistent/qemu".to_owned()]);

        failed.assert_code(3);
        failed.assert_says(&[&format!("error: could not write the screenshot `{file}`\n")]);
    }
}
