//! What stands around the machine: a monitor for others, a wrapper, its log, and its work folder.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use crate::harness::fake;
use crate::harness::run;
use crate::harness::start_run;

#[test]
fn other_programs_reach_the_machine_by_a_socket_that_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp.sock");
    let options = ["--qmp", path.to_str().unwrap()];
    let mut machine = start_run(&options, &fake(&["console-banner=up"]));
    machine.wait_for("up");

    let mut greeting = String::new();
    BufReader::new(UnixStream::connect(&path).unwrap()).read_line(&mut greeting).unwrap();

    assert!(greeting.starts_with(r#"{"QMP":"#), "{greeting}");
    machine.signal(Signal::INT);
    machine.finish().assert_code(130);
    assert!(!path.exists());
}

#[test]
fn a_wrapper_starts_the_machine() {
    let wrapper = "sh -c 'echo wrapped; exec \"$@\"' sh";

    let ended = run(&["--wrapper", wrapper], &fake(&["guest-shutdown-after=100"]));

    ended.assert_code(0);
    ended.assert_says(&["wrapped\n"]);
}

#[test]
fn a_log_is_kept_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    let options = ["--log-folder", logs.to_str().unwrap(), "--name", "guest"];

    let ended = run(&options, &fake(&["stderr=a word", "guest-shutdown-after=100"]));

    ended.assert_code(0);
    assert_eq!(fs::read_to_string(logs.join("guest.log")).unwrap(), "a word\n");
}

#[test]
fn the_work_folder_is_where_it_is_wanted_and_goes_with_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--base-folder", folder.path().to_str().unwrap()];
    let mut machine = start_run(&options, &fake(&["console-banner=up"]));
    machine.wait_for("up");

    let count = || fs::read_dir(folder.path()).unwrap().count();
    let while_it_runs = count();
    machine.signal(Signal::INT);
    machine.finish().assert_code(130);

    assert_eq!((while_it_runs, count()), (1, 0));
}
