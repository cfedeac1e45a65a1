//! `ratite cmd` and `ratite events`.

use std::os::unix::net::UnixListener;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

use crate::harness::HANG;
use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::boot_sector;
use crate::harness::ratite;
use crate::harness::real;
use crate::qemu::Qemu;

fn cmd(address: &str, words: &[&str]) -> Outcome {
    ratite(&[&["cmd", address], words].concat())
}

/// Does something while the machine stops and goes on again and again: nothing tells when somebody begins to listen.
fn while_stopping_and_going_on<T>(qemu: &Qemu, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                cmd(&qemu.two(), &["stop"]).assert_code(0);
                cmd(&qemu.two(), &["cont"]).assert_code(0);
            }
        });
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        done
    })
}

fn value(outcome: &Outcome) -> Value {
    outcome.assert_code(0);
    let stdout = outcome.stdout();
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn the_value_is_one_line_of_json() {
    let qemu = Qemu::start();

    assert_eq!(value(&cmd(&qemu.one(), &["query-status"]))["status"], "running");
    let pretty = ratite(&["cmd", "--pretty", &qemu.one(), "query-name"]);
    assert_eq!(pretty.stdout(), "{}\n");
    let raw = ratite(&["cmd", "--raw", &qemu.one(), "human-monitor-command", "command-line=info status"]);
    assert_eq!(raw.stdout(), "VM status: running\n");
}

#[test]
fn values_are_of_the_type_that_this_qemu_wants() {
    let qemu = Qemu::start();
    let add = ["object-add", "qom-type=memory-backend-ram", "id=m7", "size=0x100000", "merge=false"];

    assert_eq!(value(&cmd(&qemu.one(), &add)), json!({}));

    let get = |property: &str| {
        value(&cmd(&qemu.one(), &["qom-get", "path=/objects/m7", &format!("property={property}")]))
    };
    assert_eq!((get("size"), get("merge")), (json!(0x10_0000), json!(false)));
    let set = ["qom-set", "path=/objects/m7", "property=dump", "value=false"];
    assert_eq!(value(&cmd(&qemu.one(), &set)), json!({}));
    assert_eq!(get("dump"), json!(false));
}

#[test]
fn what_qemu_refuses_is_told_in_its_words() {
    let qemu = Qemu::start();

    let refused = cmd(&qemu.one(), &["device_del", "id=nothing"]);

    refused.assert_code(1);
    refused.assert_says(&["QEMU refused `device_del`", "Device 'nothing' not found (DeviceNotFound)"]);
    assert_eq!(refused.stdout(), "");
}

#[test]
fn what_this_qemu_does_not_know_is_not_sent() {
    let qemu = Qemu::start();
    let check = |words: &[&str], what: &str, hint: &str| {
        let refused = cmd(&qemu.one(), words);
        refused.assert_code(2);
        refused.assert_says(&[what, hint]);
    };

    check(&["query-sttus"], "this QEMU has no command `query-sttus`", "did you mean `query-status`?");
    check(&["stop", "now=true"], "`stop` takes no argument, and is given `now`", "");
    check(&["device_del", "ip=x"], "`device_del` has no argument `ip`", "`id`");
    check(&["device_del"], "`device_del` needs the argument `id`", "string");
    check(&["blockdev-add", "driver=nul-co"], "`driver` has no value `nul-co`", "did you mean `null-co`?");
    check(&["blockdev-add", "driver=null-co", "cache.dirct=true"], "no argument `cache.dirct`", "`direct`");
    check(
        &["blockdev-add", "driver=null-co", "filename=x"],
        "`filename` does not go with `driver=null-co`",
        "",
    );

    let sent = ratite(&["cmd", "--no-check", &qemu.one(), "query-sttus"]);
    sent.assert_code(1);
    sent.assert_says(&["The command query-sttus has not been found (CommandNotFound)"]);
}

#[test]
fn without_a_machine_it_fails_and_with_a_silent_one_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp");
    let address = path.to_str().unwrap();

    let missing = cmd(address, &["stop"]);
    missing.assert_code(1);
    missing.assert_says(&[
        "could not connect to unix:",
        "No such file or directory",
        "hint: QEMU makes a socket",
    ]);
    let silent = UnixListener::bind(&path).unwrap();
    for words in [["cmd", address, "stop"], ["keys", address, "a"], ["screenshot", address, "picture.png"]] {
        let late = ratite(&[&words[..], &["--timeout", "300ms"]].concat());
        late.assert_code(4);
        late.assert_says(&["error: no QMP session", "within 300ms", "one client at a time"]);
    }
    drop(silent);
    let deaf = cmd(address, &["stop"]);
    deaf.assert_code(1);
    deaf.assert_says(&["Connection refused", "hint: nobody listens at this address"]);
}

#[test]
fn events_are_lines_as_they_come_until_the_machine_is_gone() {
    let qemu = Qemu::start();
    let mut events = Ratite::start(&["events", &qemu.one(), "--only", "STOP,SHUTDOWN"]);
    while_stopping_and_going_on(&qemu, || events.wait_for("STOP"));

    cmd(&qemu.two(), &["quit"]).assert_code(0);

    let outcome = events.finish();
    outcome.assert_code(0);
    outcome.assert_says(&["note: the machine is gone"]);
    let stdout = outcome.stdout();
    let events: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["timestamp"]["seconds"].is_number()), "{stdout}");
    assert!(events.iter().all(|event| event["event"] != "RESUME"), "{stdout}");
    assert_eq!(events.last().unwrap()["event"], "SHUTDOWN");
}

#[test]
fn so_many_events_are_enough_and_fewer_are_a_failure() {
    let qemu = Qemu::start_with(&["-S"]);
    let too_few = ratite(&["events", "--count", "1", "--timeout", "3s", &qemu.one()]);
    too_few.assert_code(4);
    too_few.assert_says(&["no event came within 3s"]);
    let none = ratite(&["events", "--count", "2", "--only", "RESET", "--timeout", "300ms", &qemu.one()]);
    none.assert_code(4);
    none.assert_says(&["0 of 2 events came within 300ms"]);
    let all = ratite(&["events", "--timeout", "300ms", "--only", "RESET", &qemu.one()]);
    all.assert_code(4);
    all.assert_says(&["the machine did not end within 300ms"]);

    let counted = Ratite::start(&["events", "--count", "1", "--only", "RESUME", &qemu.one()]);
    let outcome = while_stopping_and_going_on(&qemu, || counted.finish());
    outcome.assert_code(0);
    assert_eq!(outcome.stdout().lines().count(), 1);

    let mut early = Ratite::start(&["events", "--count", "999", &qemu.one()]);
    while_stopping_and_going_on(&qemu, || early.wait_for("RESUME"));
    cmd(&qemu.two(), &["quit"]).assert_code(0);
    let outcome = early.finish();
    outcome.assert_code(1);
    outcome.assert_says(&["could not wait for more events", "the peer closed the connection"]);
}

#[test]
fn events_that_this_qemu_does_not_have_are_refused() {
    let qemu = Qemu::start();

    let refused = ratite(&["events", "--only", "STOP,SHUTDWN", &qemu.one()]);

    refused.assert_code(2);
    refused.assert_says(&["this QEMU has no event `SHUTDWN`", "did you mean `SHUTDOWN`?"]);
}

#[test]
fn a_signal_ends_the_wait_for_events() {
    let qemu = Qemu::start();
    let mut events = Ratite::start(&["events", &qemu.one()]);
    while_stopping_and_going_on(&qemu, || events.wait_for("RESUME"));

    events.signal(Signal::TERM);

    events.finish().assert_code(143);
}

#[test]
fn a_machine_with_a_name_speaks_with_several_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    boot_sector(&disk, "up", &HANG);
    let runtime = format!("XDG_RUNTIME_DIR={}", folder.path().display());
    let by_name = |words: &[&str]| Ratite::start_by(&["env", &runtime], words);
    let command = real(&disk);
    let words: Vec<&str> =
        ["run", "--name", "web", "--"].into_iter().chain(command.iter().map(String::as_str)).collect();
    let mut machine = by_name(&words);
    machine.wait_for("up");
    let mut first = by_name(&["events", "web", "--only", "STOP,RESUME,SHUTDOWN"]);
    let mut second = by_name(&["events", "web"]);

    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                by_name(&["cmd", "web", "stop"]).finish().assert_code(0);
                by_name(&["cmd", "web", "cont"]).finish().assert_code(0);
            }
        });
        first.wait_for("RESUME");
        second.wait_for("RESUME");
        is_done.store(true, Ordering::Relaxed);
    });
    let refused = by_name(&["cmd", "web", "query-sttus"]).finish();
    by_name(&["cmd", "web", "quit"]).finish().assert_code(0);

    refused.assert_code(2);
    for told in [first.finish(), second.finish()] {
        told.assert_code(0);
        assert!(told.stdout().contains("\"SHUTDOWN\""), "{}", told.stdout());
    }
    machine.finish().assert_code(0);
}
