//! What goes wrong with QEMU, and what is said about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use crate::harness::DEBUG_EXIT;
use crate::harness::boot_sector;
use crate::harness::fake;
use crate::harness::ratite;
use crate::harness::real;
use crate::harness::run;
use crate::harness::send;
use crate::harness::start_run;

#[test]
fn an_unknown_option_is_told_in_one_screen() {
    let failed = ratite(&["run", "--", "qemu-system-x86_64", "-nosuchoption"]);

    failed.assert_code(3);
    assert_eq!(failed.stdout(), "");
    let expected = "\
error: could not launch the machine
  caused by: QEMU exited with status 1 before its monitor was ready
    | qemu-system-x86_64: -nosuchoption: invalid option
  command: qemu-system-x86_64 -display none -vga none -chardev 'socket,id=mon,fd=3' -mon 'chardev=mon,mode=control' \
-chardev 'socket,id=console,fd=4' -serial chardev:console -nosuchoption
hint: `qemu-system-x86_64 -help` lists the options of this QEMU
";
    assert_eq!(failed.stderr, expected);
}

#[test]
fn an_unknown_machine_type_comes_with_a_hint() {
    let failed = ratite(&["run", "--", "qemu-system-x86_64", "-machine", "pc-q35-99.0"]);

    failed.assert_code(3);
    failed.assert_says(&[
        "unsupported machine type",
        "hint: `qemu-system-x86_64 -machine help` lists the machine types",
    ]);
}

#[test]
fn a_missing_binary_is_named_with_its_package() {
    let failed = ratite(&["run", "--", "/nowhere/qemu-system-aarch64"]);

    failed.assert_code(3);
    failed.assert_says(&[
        "`/nowhere/qemu-system-aarch64`",
        "hint: on Debian and Ubuntu, `sudo apt install qemu-system-arm`",
    ]);
}

#[test]
fn what_is_not_executable_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qemu");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

    let failed = run(&[], &[path.to_str().unwrap().to_owned()]);

    failed.assert_code(3);
    failed.assert_says(&["is not executable", &format!("hint: `chmod +x {}`", path.display())]);
}

#[test]
fn a_missing_disk_comes_with_a_hint() {
    let failed = ratite(&["run", "--", "qemu-system-x86_64", "-hda", "nowhere.img"]);

    failed.assert_code(3);
    failed.assert_says(&["Could not open 'nowhere.img'", "hint: a path that does not begin with `/`"]);
}

#[test]
fn a_qemu_that_would_leave_is_refused() {
    let failed = ratite(&["run", "--", "qemu-system-x86_64", "-daemonize"]);

    failed.assert_code(3);
    failed.assert_says(&["`-daemonize`", "hint: leave it out"]);
}

#[test]
fn of_many_last_words_the_last_are_shown() {
    let failed = run(&[], &fake(&["stderr-bytes=8000", "exit-before-monitor=7"]));

    failed.assert_code(3);
    failed.assert_says(&["QEMU exited with status 7 before its monitor was ready\n    | …\n    | eeee"]);
    assert_eq!(failed.stderr.matches("\n    | ").count(), 21, "{}", failed.stderr);
}

#[test]
fn a_qemu_that_never_greets_is_out_of_time() {
    let failed = run(&["--timeout", "300ms"], &fake(&["silent", "stderr=thinking"]));

    failed.assert_code(4);
    failed.assert_says(&["error: the machine was not launched within 300ms\n", "    | thinking\n"]);
}

#[test]
fn a_status_of_qemus_own_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    boot_sector(&disk, "goodbye\r\n", &DEBUG_EXIT);
    let device = ["-device", "isa-debug-exit,iobase=0xf4"].map(str::to_owned);

    let failed = run(&[], &[real(&disk), device.to_vec()].concat());

    failed.assert_code(1);
    assert_eq!(failed.stdout(), "goodbye\r\n");
    failed.assert_says(&["error: QEMU exited with status 3\n", "  command: qemu-system-x86_64 ", "hint: "]);
}

#[test]
fn a_qemu_that_is_killed_is_reported_with_the_signal() {
    let mut machine = start_run(&[], &fake(&["console-banner=up", "stderr=my last words"]));
    machine.wait_for("up");

    send(machine.qemu(), Signal::KILL);

    let failed = machine.finish();
    failed.assert_code(1);
    failed.assert_says(&["error: QEMU was killed by signal 9 (SIGKILL)\n    | my last words\n  command: "]);
}
