//! Makes `docs/guide/errors.md` from real runs of `ratite run`, and fails if the page says something else.
//!
//! `RATITE_BLESS=1 cargo test -p ratite-cli --test errors_page` writes the page anew. What depends on the run is replaced:
//! paths by `…`. QEMU's own words depend on its version; they are compared only with the version that the page names.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

#[path = "cli/harness.rs"]
#[expect(dead_code, reason = "the tests beside it use the rest")]
mod harness;

use std::env;
use std::fmt::Write;
use std::fs;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::DEBUG_EXIT;
use crate::harness::HANG;
use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::boot_sector;
use crate::harness::fake;
use crate::harness::fake_qemu;
use crate::harness::real;
use crate::harness::run;
use crate::harness::send;
use crate::harness::start_run;

/// `mov dx, 0x505; mov al, 1; out dx, al`: the device `pvpanic` hears that the guest has panicked.
const PANIC: [u8; 6] = [0xba, 0x05, 0x05, 0xb0, 0x01, 0xee];

const QEMU: &str = "qemu-system-x86_64";

#[test]
fn the_page_says_what_the_program_says() {
    let mut page = Page::begin();
    programs_that_cannot_be_started(&mut page);
    words_that_are_refused(&mut page);
    qemus_that_refuse_their_command_line(&mut page);
    qemus_that_do_not_get_ready(&mut page);
    consoles_that_fail(&mut page);
    ends_that_are_not_well(&mut page);
    let (text, file) = (page.text, page_file());

    if env::var_os("RATITE_BLESS").is_some_and(|value| value == "1") {
        fs::write(&file, text).unwrap();
        return;
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    let faults = differences(&written, &text);
    assert!(
        faults.is_empty(),
        "docs/guide/errors.md says something else; RATITE_BLESS=1 writes it anew:\n{faults}"
    );
}

fn programs_that_cannot_be_started(page: &mut Page) {
    let missing = "/opt/qemu-9/bin/qemu-system-aarch64";
    page.run("The program is not there", &[], &words(&[missing]));
    page.run("The program is not in PATH", &[], &words(&["qemu-system-vax"]));

    let path = page.file("qemu", "#!/bin/sh\n", 0o644);
    page.run("The program is not executable", &[], &[path]);

    let folder = page.path("build");
    fs::create_dir(&folder).unwrap();
    page.run("The program is a folder", &[], &[folder]);

    let path = page.file("qemu.img", "QFI", 0o755);
    page.run("The program is of a format that the system cannot run", &[], &[path]);

    let path = page.file("qemu.sh", "#!/opt/bin/sh\n", 0o755);
    page.run("The program's interpreter is missing", &[], &[path]);
}

fn words_that_are_refused(page: &mut Page) {
    page.run("The program is the empty word", &[], &words(&[""]));
    page.run("QEMU is told to go into the background", &[], &words(&[QEMU, "-daemonize"]));
    let serial = words(&[QEMU, "-serial", "file:out"]);
    page.run("The console is wanted, but has another place", &["--expect", "login:"], &serial);
    page.run("A duration without its unit", &["--timeout", "30"], &words(&[QEMU]));
}

fn qemus_that_refuse_their_command_line(page: &mut Page) {
    let mut refused = |heading: &str, arguments: &[&str]| {
        page.run(heading, &[], &words(&[&[QEMU], arguments].concat()));
    };
    refused("QEMU does not know an option", &["-nosuchoption"]);
    refused("QEMU misses what an option takes", &["-m"]);
    refused("QEMU does not know the machine type", &["-machine", "pc-q35-99.0"]);
    refused("QEMU does not know the accelerator", &["-accel", "warp"]);
    refused("QEMU does not know the device", &["-device", "teapot"]);
    refused("QEMU does not know the CPU", &["-accel", "tcg", "-cpu", "z80"]);
    refused("The kernel is not there", &["-accel", "tcg", "-kernel", "bzImage"]);
    refused("The disk is not there", &["-drive", "file=disk.img,format=raw"]);
    refused("A character device has the name of one of ratite's", &["-chardev", "null,id=mon"]);
    refused("QEMU prints something and is done", &["-accel", "help"]);
    refused(
        "A secret is on the command line: it is not shown",
        &["-object", "secret,id=key,data=hunter2", "-nosuchoption"],
    );
}

fn qemus_that_do_not_get_ready(page: &mut Page) {
    page.run("QEMU crashes before its monitor is ready", &[], &fake(&["signal-before-monitor=11"]));
    page.run(
        "QEMU ends while its monitor is negotiated",
        &[],
        &fake(&["stderr=no more memory", "exit-after-greeting=1"]),
    );
    page.run_and("QEMU is killed while its monitor is negotiated", &[], &fake(&["nego-silent"]), |ratite| {
        send(ratite.qemu(), Signal::KILL);
    });
    page.run("QEMU's monitor refuses the negotiation", &[], &fake(&["nego-error"]));
    page.run("QEMU's monitor does not speak QMP", &[], &fake(&["garbage-greeting"]));
    page.run("QEMU's monitor closes, and QEMU lives on", &[], &fake(&["close-before-greeting"]));
    page.run(
        "QEMU's monitor is silent",
        &["--timeout", "500ms"],
        &fake(&["silent", "stderr=waiting for a debugger"]),
    );
    page.run_and("Ctrl-C while QEMU is started", &[], &fake(&["silent"]), |ratite| {
        let _is_started = ratite.qemu();
        ratite.signal(Signal::INT);
    });
}

fn consoles_that_fail(page: &mut Page) {
    let log = ["--log", "/nowhere/console.log"];
    page.run("The console's log file cannot be made", &log, &fake(&[]));
    let log = ["--log", "/dev/full", "--expect", "login:"];
    page.run("The console's log file cannot be written", &log, &fake(&["console-banner=login:"]));

    let boots = fake(&["console-banner=booting\r\n"]);
    page.run("What is expected does not appear in time", &["--expect", "login:", "--timeout", "1s"], &boots);
    let ends = fake(&["console-banner=Kernel panic\r\n", "guest-shutdown-after=300"]);
    page.run("The machine ends before what is expected appears", &["--expect", "login:"], &ends);
    page.run("The machine does not end in time", &["--timeout", "1s"], &boots);

    let options = ["--expect", "login:"].map(str::to_owned);
    let command = fake(&["console-banner=login:"]);
    let arguments = [&words(&["run"]), &options[..], &words(&["--"]), &command].concat();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let outcome = Ratite::start_into(full, &arguments).finish();
    page.add("stdout is full", &format!("{} > /dev/full", page.shown(&arguments)), &outcome);
}

fn ends_that_are_not_well(page: &mut Page) {
    let up = ["console-banner=up\r\n", "stderr=the last words"];
    page.run_and("QEMU is killed while it runs", &[], &fake(&up), |ratite| {
        ratite.wait_for("up");
        send(ratite.qemu(), Signal::KILL);
    });

    let disk = page.path("disk.img");
    boot_sector(Path::new(&disk), "test 1 failed\r\n", &DEBUG_EXIT);
    let device = words(&["-device", "isa-debug-exit,iobase=0xf4"]);
    let command = [real(Path::new(&disk)), device].concat();
    page.run("The guest makes QEMU exit with a status", &[], &command);

    let disk = page.path("panic.img");
    boot_sector(Path::new(&disk), "Kernel panic\r\n", &PANIC);
    let command = [real(Path::new(&disk)), words(&["-device", "pvpanic"])].concat();
    page.run("The guest panics", &[], &command);

    let disk = page.path("idle.img");
    boot_sector(Path::new(&disk), "up\r\n", &HANG);
    page.run_and("Ctrl-C while the machine runs", &[], &real(Path::new(&disk)), |ratite| {
        ratite.wait_for("up");
        ratite.signal(Signal::INT);
    });

    let stubborn = fake(&["console-banner=up\r\n", "ignore-quit"]);
    page.run_and("SIGTERM to a machine that does not obey", &["--grace", "300ms"], &stubborn, |ratite| {
        ratite.wait_for("up");
        ratite.signal(Signal::TERM);
    });
    let options = ["--expect", "up", "--grace", "300ms"];
    page.run("What is expected appears, and the machine does not obey then", &options, &stubborn);
}

/// The page as far as it is written.
struct Page {
    text: String,
    files: TempDir,
}

impl Page {
    fn begin() -> Self {
        let text = format!(
            "\
# What goes wrong, and what is said

Each failure of `ratite run` as one sees it. An error of the library carries the same in its fields:
[launching](launching.md#when-it-does-not-start), [ending](ending.md#when-it-did-not-end-well).
{VERSION_BEFORE}{}{VERSION_BEHIND}

A test writes this page from real runs and fails when it is not what the program says. `fake-qemu` is a QEMU of ratite's tests
that misbehaves as its `-fake` words say.
",
            version_of_qemu()
        );
        Self { text, files: tempfile::tempdir().unwrap() }
    }

    /// `ratite run OPTIONS -- COMMAND` to its end.
    #[track_caller]
    fn run(&mut self, heading: &str, options: &[&str], command: &[String]) {
        let outcome = run(options, command);
        self.add_run(heading, options, command, &outcome);
    }

    /// The same, with something done to it.
    #[track_caller]
    fn run_and(
        &mut self,
        heading: &str,
        options: &[&str],
        command: &[String],
        act: impl FnOnce(&mut Ratite),
    ) {
        let mut ratite = start_run(options, command);
        act(&mut ratite);
        let outcome = ratite.finish();
        self.add_run(heading, options, command, &outcome);
    }

    fn add_run(&mut self, heading: &str, options: &[&str], command: &[String], outcome: &Outcome) {
        let arguments = [words(&["run"]), words(options), words(&["--"]), command.to_vec()].concat();
        let shown = self.shown(&arguments);
        self.add(heading, &shown, outcome);
    }

    #[track_caller]
    fn add(&mut self, heading: &str, shown: &str, outcome: &Outcome) {
        assert!(!outcome.stderr.contains("hunter2"), "a secret is shown: {}", outcome.stderr);
        let said = self.without_the_run(&outcome.stderr);
        let code = outcome.code;
        write!(
            self.text,
            "\n## {heading}\n\n```sh\n{shown}\n```\n\nExit code {code}:\n\n```text\n{said}```\n"
        )
        .unwrap();
    }

    /// A command line of `ratite`, for a shell.
    fn shown(&self, arguments: &[String]) -> String {
        let words: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        self.without_the_run(&format!("ratite {}", words.join(" ")))
    }

    /// `text` without what another run, or another system, would say otherwise.
    fn without_the_run(&self, text: &str) -> String {
        let here = env::current_dir().unwrap();
        let text = text.replace(fake_qemu().to_str().unwrap(), "…/fake-qemu");
        let text = text.replace(self.files.path().to_str().unwrap(), "…");
        let text = text.replace(here.to_str().unwrap(), "…");
        text.split_inclusive('\n').map(without_time_and_pid).collect()
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

/// A line of the log, which begins with a time and may name a process; other lines as they are.
fn without_time_and_pid(line: &str) -> String {
    let Some((_, rest)) = line.split_once("s  WARN ") else { return line.to_owned() };
    let words = rest.split(' ').map(|word| if word.starts_with("pid=") { "pid=…" } else { word });
    format!("…s  WARN {}", words.collect::<Vec<_>>().join(" "))
}

const VERSION_BEFORE: &str = "QEMU's own words are those of ";

const VERSION_BEHIND: &str = ".";

/// Version and packaging of the installed one.
fn version_of_qemu() -> String {
    let printed = Command::new(QEMU).arg("-version").output().unwrap().stdout;
    let printed = String::from_utf8_lossy(&printed);
    let line = printed.lines().next().unwrap_or_default();
    line.replace("QEMU emulator version", "QEMU")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,%+@".contains(c);
    let escaped = word.replace('\r', "\\r").replace('\n', "\\n");
    match word {
        _ if !word.is_empty() && word.chars().all(is_plain) => word.to_owned(),
        _ if escaped != word => format!("$'{escaped}'"),
        _ => format!("'{word}'"),
    }
}

fn page_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/errors.md")
}

/// What two pages do not have in common, section by section; empty if they say the same.
fn differences(written: &str, made: &str) -> String {
    let same_qemu = version_in(written) == version_in(made);
    let lines = |section: &str| -> Vec<String> {
        let lines = section.lines().filter(|line| same_qemu || !is_of_qemu(line));
        lines.map(str::to_owned).collect()
    };
    let mut faults = String::new();
    let (written, made) = (sections(written), sections(made));
    for (heading, section) in &made {
        let before = written.iter().find(|(other, _)| other == heading);
        let before = lines(before.map_or("", |(_, section)| section));
        let after = lines(section);
        if before == after {
            continue;
        }
        writeln!(faults, "{heading}").unwrap();
        let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("  - {line}"));
        let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("  + {line}"));
        gone.chain(new).for_each(|line| writeln!(faults, "{line}").unwrap());
    }
    let lost = written.iter().filter(|(heading, _)| !made.iter().any(|(other, _)| other == heading));
    lost.for_each(|(heading, _)| writeln!(faults, "{heading}\n  - the whole").unwrap());
    faults
}

/// Whether a line is, or follows from, QEMU's own words.
fn is_of_qemu(line: &str) -> bool {
    line.starts_with("    | ") || line.starts_with("hint: ") || line.contains(VERSION_BEFORE)
}

fn version_in(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once(VERSION_BEFORE)?;
    rest.lines().next()?.strip_suffix(VERSION_BEHIND)
}

/// Heading and text of each section; what is before the first heading has the empty one.
fn sections(page: &str) -> Vec<(&str, &str)> {
    let mut parts = page.split("\n## ");
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('\n').unwrap_or((part, "")));
    [("", first)].into_iter().chain(rest).collect()
}

#[test]
fn a_page_that_says_something_else_is_told_by_section_and_line() {
    let page = |words: &str| format!("# t\n\n{VERSION_BEFORE}1.\n\n## a\n\nsame\n{words}\n\n## b\n\nsame\n");
    let check =
        |written: &str, expected: &str| assert_eq!(differences(written, &page("    | new")), expected);

    check(&page("    | new"), "");
    check(&page("    | old"), "a\n  -     | old\n  +     | new\n");
    check(&page("    | old").replace("1.", "2."), "");
    check(&page("old").replace("1.", "2."), "a\n  - old\n");
    check(&page("    | new").replace("## b", "## c"), "b\n  + \n  + same\nc\n  - the whole\n");
}

#[test]
fn a_line_of_the_log_loses_its_time_and_its_pid() {
    let line = "   0.313453344s  WARN ratite::shutdown: it did not end pid=13962 grace=300ms\n";

    assert_eq!(without_time_and_pid(line), "…s  WARN ratite::shutdown: it did not end pid=… grace=300ms\n");
    assert_eq!(without_time_and_pid("    | pid=7\n"), "    | pid=7\n");
}
