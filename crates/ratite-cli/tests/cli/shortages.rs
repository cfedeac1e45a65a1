//! A system that gives too little: descriptors, room for arguments, room on a disk.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::harness::Ratite;
use crate::harness::bound_by_permissions;
use crate::harness::fake;
use crate::harness::run;
use crate::harness::too_long;

#[test]
fn at_every_limit_of_descriptors_the_machine_runs_or_the_limit_is_told() {
    let arguments = ["run", "--expect", "up", "--"].map(str::to_owned);
    let arguments = [arguments.to_vec(), fake(&["console-banner=up"])].concat();
    let mut works = false;

    // With less than 4, the system cannot load `ratite`. Each further one gets it a step further.
    for limit in 4..40 {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let ended = Ratite::start_by(&["sh", "-c", &script, "sh"], &arguments).finish();

        works = ended.code == 0;
        if works {
            assert_eq!(ended.stdout(), "up", "with {limit}");
            continue;
        }
        assert!([1, 3].contains(&ended.code), "with {limit}: code {}: {}", ended.code, ended.stderr);
        let hint = format!("hint: a program may have {limit} open files here");
        ended.assert_says(&["error: could not ", "Too many open files", &hint]);
        assert!(!ended.stderr.contains("panicked"), "with {limit}: {}", ended.stderr);
    }
    assert!(works, "40 are enough");
}

#[test]
fn arguments_that_are_too_long_are_told_with_the_limit() {
    let failed = too_long();

    failed.assert_code(3);
    failed.assert_says(&[
        "its arguments and environment are too long for the system",
        "hint: the arguments have 127 KiB, and with the environment they may have 128:",
    ]);
    assert!(failed.stderr.len() < 4096, "the long word fills the screen: {}", failed.stderr);
}

#[test]
fn a_folder_that_may_not_be_written_to_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let mut permissions = fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(path, permissions).unwrap();
    let failed = |option: &str| {
        let arguments = [["run", option, path, "--"].map(str::to_owned).to_vec(), fake(&[])].concat();
        let failed = Ratite::start_by(bound_by_permissions(), &arguments).finish();
        failed.assert_code(3);
        failed.assert_says(&[path, "Permission denied"]);
    };

    failed("--base-folder");
    failed("--log-folder");
}

#[test]
fn a_socket_of_somebody_else_is_left_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp.sock");
    let _theirs = UnixListener::bind(&path).unwrap();

    let failed = run(&["--qmp", path.to_str().unwrap()], &fake(&[]));

    failed.assert_code(3);
    failed.assert_says(&["somebody else listens there", "hint: another program"]);
    assert!(path.exists());
}
