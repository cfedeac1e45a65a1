//! Signals, and what is left when the program itself is killed.

use std::time::Duration;

use ratite_tests::orphans::is_alive;
use ratite_tests::orphans::wait_until_gone;
use rustix::process::Signal;

use crate::harness::HANG;
use crate::harness::Ratite;
use crate::harness::boot_sector;
use crate::harness::fake;
use crate::harness::real;
use crate::harness::send;
use crate::harness::start_run;

#[test]
fn a_signal_ends_the_machine_gently() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    boot_sector(&disk, "up\r\n", &HANG);

    for (signal, code, name) in
        [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM"), (Signal::HUP, 129, "SIGHUP")]
    {
        let mut machine = start_run(&[], &real(&disk));
        machine.wait_for("up");

        machine.signal(signal);

        let ended = machine.finish();
        ended.assert_code(code);
        assert_eq!(ended.stderr, format!("error: ended by {name}\n"));
    }
}

#[test]
fn a_signal_while_it_launches_ends_it() {
    let machine = start_run(&[], &fake(&["silent"]));
    let qemu = machine.qemu();

    machine.signal(Signal::INT);

    machine.finish().assert_code(130);
    assert!(!is_alive(qemu));
}

#[test]
fn a_machine_that_does_not_obey_is_killed_after_its_grace() {
    let mut machine = start_run(&["--grace", "300ms"], &fake(&["console-banner=up", "ignore-quit"]));
    machine.wait_for("up");

    machine.signal(Signal::TERM);

    let ended = machine.finish();
    ended.assert_code(143);
    ended.assert_says(&["  caused by: the machine did not end within 300ms and was killed\n"]);
}

#[test]
fn a_second_interrupt_kills_at_once() {
    let mut machine =
        start_run(&["--grace", "1h"], &fake(&["console-banner=up", "ignore-quit", "ignore-sigterm"]));
    machine.wait_for("up");
    machine.signal(Signal::INT);
    // Two signals at once are one; this one has been taken when QEMU is asked.
    let asked = "the machine has 3600s to end; Ctrl-C kills it at once";

    machine.wait_for_talk(asked);
    machine.signal(Signal::INT);

    machine.finish().assert_code(130);
}

#[test]
fn a_program_that_is_killed_leaves_nothing_running() {
    let mut machine = start_run(&[], &fake(&["console-banner=up", "spawn-child", "ignore-sigterm"]));
    machine.wait_for("up");

    machine.signal(Signal::KILL);

    // What `finish` proves, too: no process, and not even the folder.
    machine.finish();
}

#[test]
fn a_reader_that_stands_still_holds_no_end_up() {
    let machine = start_run(&[], &fake(&["console-flood=20000000"]));
    let qemu = machine.qemu();

    // The pipe is full by now or soon, and nobody reads.
    machine.signal(Signal::TERM);

    for pid in [qemu, machine.pid()] {
        assert!(wait_until_gone(pid, Duration::from_secs(20)));
    }
    machine.finish().assert_code(143);
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let command = fake(&["console-banner=up", "guest-shutdown-after=700"]);
    let words: Vec<&str> = ["run", "--"].into_iter().chain(command.iter().map(String::as_str)).collect();
    let mut machine = Ratite::start_by(&["env", "--ignore-signal=HUP,INT"], &words);
    machine.wait_for("up");

    machine.signal(Signal::HUP);
    machine.signal(Signal::INT);

    machine.finish().assert_code(0);
}

#[test]
fn a_terminated_qemu_is_no_failure_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    boot_sector(&disk, "up\r\n", &HANG);
    let mut machine = start_run(&[], &real(&disk));
    machine.wait_for("up");

    send(machine.qemu(), Signal::TERM);

    // QEMU ends well on SIGTERM, and says who sent it.
    let ended = machine.finish();
    ended.assert_code(0);
    ended.assert_says(&["terminating on signal 15"]);
}
