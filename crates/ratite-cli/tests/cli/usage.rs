//! Wrong command lines, and help.

use crate::harness::Outcome;
use crate::harness::ratite;

#[track_caller]
fn check_refused(arguments: &[&str], words: &str) -> Outcome {
    let refused = ratite(arguments);
    refused.assert_code(2);
    refused.assert_says(&[words]);
    assert_eq!(refused.stdout(), "");
    refused
}

#[test]
fn a_wrong_command_line_is_refused_with_its_reason() {
    check_refused(&[], "Usage: ratite <COMMAND>");
    check_refused(&["walk"], "unrecognized subcommand 'walk'");
    check_refused(&["run"], "Usage: ratite run [OPTIONS] -- <QEMU>");
    check_refused(
        &["run", "--timeout", "30", "--", "qemu"],
        "a duration is written like `500ms`, `30s`, `2m` or `1h`",
    );
    check_refused(&["run", "--grace", "soon", "--", "qemu"], "`soon` is no unit of time");
    check_refused(&["run", "--expect", "", "--", "qemu"], "it is there before the machine has said anything");
    check_refused(&["run", "--expect-regex", "a(b", "--", "qemu"], "unclosed group");
    check_refused(&["run", "--wrapper", "sh -c 'x", "--", "qemu"], "a quote is not closed");
    check_refused(&["run", "--json", "--quiet", "--", "qemu"], "cannot be used with");
    check_refused(&["run", "--initrd", "x", "--", "qemu"], "--kernel <FILE>");
    check_refused(&["run", "--cpus", "0", "--", "qemu"], "invalid value '0'");
    check_refused(&["run", "--accel", "", "--", "qemu"], "it names none");
    check_refused(&["run", "--fail-on", "", "--", "qemu"], "it is there before the machine has said");
}

#[test]
fn what_needs_a_console_is_refused_without_one() {
    let serial = "`-serial file:x` has the first serial port";

    check_refused(&["run", "--expect", "a", "--", "qemu", "-serial", "file:x"], serial);
    check_refused(&["run", "--log", "l", "--", "qemu", "-serial", "file:x"], serial);
    check_refused(
        &["run", "--fail-on-linux", "--", "qemu", "-serial", "file:x"],
        "`--fail-on-linux` needs it",
    );
    check_refused(
        &["run", "--console", "none", "--expect", "a", "--", "qemu"],
        "with `--console none` there is no",
    );
}

#[test]
fn help_and_version_are_data() {
    let help = ratite(&["run", "--help"]);
    help.assert_code(0);
    assert!(help.stdout().contains("Examples:\n  ratite run --kernel bzImage"), "{}", help.stdout());

    let version = ratite(&["--version"]);
    version.assert_code(0);
    assert_eq!(version.stdout(), concat!("ratite ", env!("CARGO_PKG_VERSION"), "\n"));
}
