//! `ratite accel`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use crate::harness::Ratite;
use crate::harness::fake_qemu;
use crate::harness::ratite;

const HEADER: &str = "ACCELERATOR  LISTED  USABLE      SPEED  WHY\n";

fn lines(stdout: &str) -> Vec<&str> {
    assert!(stdout.starts_with(HEADER), "{stdout}");
    stdout.lines().skip(1).collect()
}

/// A script in place of a QEMU.
fn script(folder: &Path, text: &str) -> String {
    let path = folder.join("qemu");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_qemu_with_tcg_has_something_usable() {
    let told = ratite(&["accel", "--limit", "30s"]);

    told.assert_code(0);
    let stdout = told.stdout();
    let lines = lines(&stdout);
    assert!(lines[0].starts_with("tcg          yes     yes  "), "{stdout}");
    assert!(lines[0].ends_with("/s"), "{stdout}");
    let kvm = ["kvm          yes     yes  ", "kvm          yes     no   ", "kvm          no      no   "];
    assert!(kvm.iter().any(|start| lines[1].starts_with(start)), "{stdout}");
    assert!(lines[1].starts_with(kvm[0]) || lines[1].len() > 50, "no reason: {stdout}");
}

#[test]
fn without_anything_usable_it_fails_and_says_why_for_each() {
    let told = ratite(&["accel", "--limit", "1s", fake_qemu().to_str().unwrap()]);

    told.assert_code(1);
    told.assert_says(&["error: no accelerator of `", "fake-qemu` is known to be usable\n"]);
    let expected = "\
tcg          yes     no              -  opens, but ran no guest code within 1s
kvm          no      no              -  is not built into this QEMU
qtest        yes     no              -  runs no guest code, by its nature
";
    assert_eq!(told.stdout(), format!("{HEADER}{expected}"));
}

#[test]
fn another_target_is_not_guessed_at() {
    let folder = tempfile::tempdir().unwrap();
    let fake = format!("exec {} \"$@\" -fake target=aarch64", fake_qemu().display());

    let told = ratite(&["accel", &script(folder.path(), &fake)]);

    told.assert_code(1);
    let stdout = told.stdout();
    let why = "was not run: the guest code is for x86_64, and this QEMU for aarch64";
    assert_eq!(lines(&stdout)[0], format!("tcg          yes     unknown         -  {why}"));
}

#[test]
fn what_is_no_qemu_is_told_with_its_words() {
    let folder = tempfile::tempdir().unwrap();

    let other = ratite(&["accel", &script(folder.path(), "echo what is it; exit 7")]);
    other.assert_code(1);
    other.assert_says(&["qemu` did not list its accelerators, and exited with status 7", "| what is it\n"]);

    let missing = ratite(&["accel", "/nowhere/qemu-system-x86_64"]);
    missing.assert_code(3);
    missing.assert_says(&["there is no such file", "apt install qemu-system-x86"]);

    let silent = ratite(&["accel", &script(folder.path(), "exec sleep 1000")]);
    silent.assert_code(4);
    silent.assert_says(&["qemu` did not list its accelerators within 5s"]);
}

#[test]
fn one_that_is_interrupted_ends_what_it_measures() {
    let mut accel = Ratite::start(&["accel", "--limit", "1m", fake_qemu().to_str().unwrap()]);
    accel.wait_for("WHY\n");
    accel.qemu();

    accel.signal(Signal::INT);

    let ended = accel.finish();
    ended.assert_code(130);
    assert_eq!(ended.stdout(), HEADER);
}

#[test]
fn its_help_says_what_usable_means() {
    let help = ratite(&["accel", "--help"]);

    help.assert_code(0);
    let stdout = help.stdout();
    for words in [
        "[BINARY]",
        "[default: qemu-system-x86_64]",
        "--limit <DURATION>",
        "less than\na quarter as fast as TCG",
    ] {
        assert!(stdout.contains(words), "no `{words}` in: {stdout}");
    }
}
