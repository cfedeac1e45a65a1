//! What the machine is made of by ratite's own options, and what is kept of it.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use ratite_tests::linux_guest::PROMPT;
use ratite_tests::linux_guest::kernel_arguments;
use ratite_tests::linux_guest::linux_guest;

use crate::harness::HANG;
use crate::harness::Outcome;
use crate::harness::boot_sector;
use crate::harness::fake;
use crate::harness::ratite;
use crate::harness::real;
use crate::harness::run;

/// The words that follow `--` in what a fake QEMU was started with, as far as its console can tell.
#[track_caller]
fn command_of(failed: &Outcome) -> String {
    let line = failed.stderr.lines().find_map(|line| line.strip_prefix("  command: "));
    line.unwrap_or_else(|| panic!("no command in: {}", failed.stderr)).to_owned()
}

#[test]
fn a_linux_boots_without_a_word_about_qemu() {
    let guest = linux_guest();
    let (kernel, initrd) = (guest.kernel.to_str().unwrap(), guest.initrd.to_str().unwrap());
    let append = ["--append", kernel_arguments(), "--append", "loglevel=1"];
    let options =
        ["--kernel", kernel, "--initrd", initrd, "--memory", "256M", "--cpus", "1", "--accel", "tcg"];
    let expect = ["--expect", PROMPT, "--fail-on-linux", "--timeout", "60s"];

    let booted = ratite(&[&["run"], &options[..], &append, &expect].concat());

    booted.assert_code(0);
    assert!(booted.stdout().contains(PROMPT), "{}", booted.stdout());
}

#[test]
fn what_an_option_adds_is_shown_before_the_users_own() {
    let kernel = tempfile::NamedTempFile::new().unwrap();
    let kernel = kernel.path().to_str().unwrap();
    let line = format!(
        "run --machine q35 --accel tcg --memory 64M --cpus 2 --kernel {kernel} --append -x --append y=1"
    );
    let options: Vec<&str> = line.split(' ').chain(["--", "-nosuchoption"]).collect();

    let refused = ratite(&options);

    refused.assert_code(3);
    let expected =
        format!(" -machine q35 -accel tcg -m 64M -smp 2 -kernel {kernel} -append '-x y=1' -nosuchoption");
    let command = command_of(&refused);
    assert!(command.starts_with("qemu-system-x86_64 ") && command.ends_with(&expected), "{command}");
}

#[test]
fn a_file_that_is_missing_is_told_before_anything_is_started() {
    let missing = ratite(&["run", "--kernel", "nowhere/bzImage", "--", "/nowhere/qemu"]);

    missing.assert_code(3);
    let folder = std::env::current_dir().unwrap();
    let hint =
        format!("hint: a path that does not begin with `/` begins in the folder `{}`\n", folder.display());
    missing.assert_says(&["error: could not read the kernel `nowhere/bzImage`\n", &hint]);

    let kernel = tempfile::NamedTempFile::new().unwrap();
    let options = ["run", "--kernel", kernel.path().to_str().unwrap(), "--initrd", "/"];
    let folder = ratite(&options);
    folder.assert_code(3);
    folder.assert_says(&["error: could not read the initial file system `/`\n  caused by: is a directory\n"]);
}

#[test]
fn the_best_accelerator_is_found_by_measuring() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    boot_sector(&disk, "up\r\n", &HANG);
    let drive = format!("file={},format=raw,if=floppy,readonly=on", disk.display());

    let found = ratite(&["run", "--accel", "auto", "--expect", "up", "--", "-nodefaults", "-drive", &drive]);

    found.assert_code(0);
    found.assert_says(&["note: `--accel auto` takes `", "kvm"]);
}

#[test]
fn a_qemu_that_cannot_be_measured_is_told() {
    let missing = ratite(&["run", "--accel", "auto", "--", "/nowhere/qemu-system-x86_64"]);

    missing.assert_code(3);
    missing.assert_says(&["could not start the binary `/nowhere/qemu-system-x86_64`"]);
}

#[test]
fn a_console_can_be_another_device_or_none() {
    let none = run(&["--console", "none"], &fake(&["guest-shutdown-after=100"]));
    none.assert_code(0);
    assert_eq!((none.stdout().as_str(), none.stderr.as_str()), ("", ""));

    let virtio = ratite(&["run", "--console", "virtconsole", "--", "-nosuchoption"]);
    let command = command_of(&virtio);
    assert!(command.contains("-device 'virtconsole,chardev=console,bus=ratite-serial.0'"), "{command}");
    let device = ratite(&["run", "--console", "teapot", "--", "-nosuchoption"]);
    assert!(command_of(&device).contains("-device 'teapot,chardev=console'"), "{}", device.stderr);
}

#[test]
fn a_console_that_is_not_shown_is_searched_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let options = ["--quiet", "--expect", "up", "--log", log.to_str().unwrap()];

    let ended = run(&options, &fake(&["console-banner=it is up"]));

    ended.assert_code(0);
    assert_eq!((ended.stdout().as_str(), ended.stderr.as_str()), ("", ""));
    assert_eq!(fs::read_to_string(&log).unwrap(), "it is up");
}

#[test]
fn a_screen_is_there_and_no_window() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    boot_sector(&disk, "up\r\n", &HANG);

    let with = run(&["--screen"], &[real(&disk), vec!["-nosuchoption".into()]].concat());

    let command = command_of(&with);
    assert!(command.contains(" -display none ") && !command.contains("-vga none"), "{command}");
}

/// The folder that is told to be kept. Whoever asks removes it.
#[track_caller]
fn kept(outcome: &Outcome) -> PathBuf {
    let path = outcome.stderr.lines().find_map(|line| line.strip_prefix("note: the work folder is kept: "));
    Path::new(path.unwrap_or_else(|| panic!("nothing is kept: {}", outcome.stderr))).to_owned()
}

#[test]
fn a_work_folder_that_is_kept_has_the_console_and_qemus_words() {
    let base = tempfile::tempdir().unwrap();
    let options = ["--keep", "--base-folder", base.path().to_str().unwrap(), "--expect", "up"];

    let ended = run(&options, &fake(&["console-banner=up", "stderr=a word"]));

    ended.assert_code(0);
    let folder = kept(&ended);
    assert_eq!(fs::read_to_string(folder.join("console.log")).unwrap(), "up");
    let logs = fs::read_dir(&folder).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    assert!(logs.into_iter().any(|log| log == "a word\n"), "QEMU's words are not in {}", folder.display());
}

#[test]
fn a_work_folder_is_kept_when_nothing_was_launched() {
    let base = tempfile::tempdir().unwrap();
    let options = ["--keep", "--base-folder", base.path().to_str().unwrap()];

    let failed = run(&options, &fake(&["exit-before-monitor=3", "stderr=my last words"]));

    failed.assert_code(3);
    assert!(kept(&failed).is_dir());
}
