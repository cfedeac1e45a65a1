//! `ratite demo`.

use std::process::Command;

use rustix::process::Signal;

use crate::harness::Ratite;
use crate::harness::fake_qemu;
use crate::harness::ratite;
use crate::harness::send;

#[test]
fn the_demo_shows_a_guest_from_launch_to_end() {
    let shown = ratite(&["demo"]);

    shown.assert_code(0);
    let stdout = shown.stdout();
    let lines = [
        format!("QEMU {}", qemu_version()),
        "console │ ratite guest ready\n".into(),
        "status running".into(),
        "event │ STOP".into(),
        "│ RESUME".into(),
        "│ > echo hello from outside\n         │ hello from outside\n".into(),
        "each byte is the right one".into(),
        "│ > off\n".into(),
        r#"SHUTDOWN {"guest":true,"reason":"guest-shutdown"}"#.into(),
        "QEMU exited with status 0 (guest-shutdown): the guest asked for it".into(),
        "nothing is left of process".into(),
        "all together".into(),
    ];
    let mut rest = stdout.as_str();
    for line in lines {
        let found = rest.find(&line).unwrap_or_else(|| panic!("no `{line}` in its place: {stdout}"));
        rest = &rest[found..];
    }
    assert_eq!(shown.stderr, "");
    assert!(!stdout.contains('\u{1b}'), "colours where there is no terminal: {stdout}");
}

fn qemu_version() -> String {
    let output = Command::new("qemu-system-x86_64").arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().nth(3).unwrap().to_owned()
}

#[test]
fn without_its_qemu_the_demo_says_what_to_install() {
    let shown = ratite(&["demo", "--qemu", "/nowhere/qemu-system-x86_64"]);

    shown.assert_code(3);
    shown.assert_says(&["error: could not launch the machine\n", "hint: ", "apt install qemu-system-x86"]);
}

#[test]
fn a_demo_that_is_interrupted_ends_its_machine() {
    // This guest never says what the demo waits for.
    let mut demo = Ratite::start(&["demo", "--qemu", fake_qemu().to_str().unwrap()]);
    demo.wait_for("ready after");

    demo.signal(Signal::INT);

    demo.finish().assert_code(130);
}

#[test]
fn a_demo_that_nobody_watches_ends() {
    let mut demo = Ratite::start(&["demo"]);
    demo.wait_for("ratite");

    demo.close_stdout();

    let ended = demo.finish();
    ended.assert_code(141);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_demo_whose_qemu_dies_says_how() {
    let mut demo = Ratite::start(&["demo", "--qemu", fake_qemu().to_str().unwrap()]);
    demo.wait_for("ready after");

    send(demo.qemu(), Signal::ABORT);

    let ended = demo.finish();
    ended.assert_code(1);
    ended.assert_says(&["error: could not", "QEMU was killed by signal 6 (SIGABRT"]);
}
