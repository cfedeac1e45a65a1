//! What is looked for on the console: several things at once, some of which mean that it went wrong.

use crate::harness::HANG;
use crate::harness::boot_sector;
use crate::harness::fake;
use crate::harness::real;
use crate::harness::run;

/// `mov dx, 0x505; mov al, 1; out dx, al`: the device `pvpanic` hears that the guest has panicked.
const PANIC: [u8; 6] = [0xba, 0x05, 0x05, 0xb0, 0x01, 0xee];

#[test]
fn the_first_of_what_is_expected_counts() {
    let command = fake(&["console-banner=host login: \r\n"]);

    for options in
        [["--expect", "# ", "--expect", "login:"], ["--expect", "# ", "--expect-regex", r"log\w+:"]]
    {
        run(&options, &command).assert_code(0);
    }
}

#[test]
fn what_means_a_failure_ends_the_run_at_once_and_is_told() {
    let command = fake(&["console-banner=boot\r\nERROR 17\r\n"]);
    let says = "appeared on the console\n  the console:\n    | boot\n    | ERROR 17\n";

    let literal = run(&["--expect", "login:", "--fail-on", "ERROR", "--timeout", "1m"], &command);
    literal.assert_code(1);
    literal.assert_says(&["error: `ERROR` ", says]);
    assert!(literal.stdout().starts_with("boot\r\nERROR"), "{}", literal.stdout());

    let regex = run(&["--fail-on-regex", r"ERROR \d+", "--timeout", "1m"], &command);
    regex.assert_code(1);
    regex.assert_says(&[r"error: /ERROR \d+/ ", says]);
}

#[test]
fn what_is_expected_comes_first_where_it_came_first() {
    let command = fake(&["console-banner=up, then ERROR"]);

    run(&["--fail-on", "ERROR", "--expect", "up"], &command).assert_code(0);
}

#[test]
fn the_ready_made_set_knows_a_linux_that_went_wrong() {
    let command = fake(&["console-banner=[ 1.0] Kernel panic - not syncing: no init\r\n"]);

    let failed = run(&["--fail-on-linux", "--timeout", "1m"], &command);

    failed.assert_code(1);
    failed.assert_says(&["error: `Kernel panic - not syncing` appeared on the console\n"]);
}

#[test]
fn a_failure_that_never_comes_is_no_failure() {
    let command = fake(&["console-banner=all is well", "guest-shutdown-after=100"]);

    run(&["--fail-on-linux", "--fail-on", "ERROR"], &command).assert_code(0);
}

#[test]
fn a_guest_that_panics_and_is_kept_as_it_is_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    boot_sector(&disk, "oh no\r\n", &[PANIC.as_slice(), &HANG].concat());
    let arguments = ["-device", "pvpanic", "-action", "panic=pause"].map(str::to_owned);

    let failed = run(&["--expect", "login:", "--timeout", "1m"], &[real(&disk), arguments.to_vec()].concat());

    failed.assert_code(1);
    failed.assert_says(&["error: the guest panicked\n  the console:\n    | oh no\n"]);
}

#[test]
fn patterns_that_are_too_large_together_are_refused() {
    let large = "(a{1000}){80}";
    let options: Vec<&str> = ["--expect-regex", large].repeat(10);

    let refused = run(&options, &fake(&[]));

    refused.assert_code(2);
    refused
        .assert_says(&["error: could not search on: ", "hint: what is looked for is searched all at once"]);
}
