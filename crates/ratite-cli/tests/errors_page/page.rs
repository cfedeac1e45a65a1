//! The page as it is made, section by section, and compared with what is written.

use std::env;
use std::fmt::Write;
use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::QEMU;
use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::fake_qemu;
use crate::harness::run;
use crate::harness::start_run;

/// The page as far as it is written.
pub(crate) struct Page {
    text: String,
    files: TempDir,
}

impl Page {
    pub(crate) fn begin() -> Self {
        let text = format!(
            "\
# What goes wrong, and what is said

Each failure of `ratite` as one sees it. An error of the library carries the same in its fields:
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
    pub(crate) fn run(&mut self, heading: &str, options: &[&str], command: &[String]) {
        let outcome = run(options, command);
        self.add_run(heading, options, command, &outcome);
    }

    /// The same, with something done to it.
    #[track_caller]
    pub(crate) fn run_and(
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

    /// The same, by a program that becomes `ratite`; `before` is what a user would have done in a shell.
    #[track_caller]
    pub(crate) fn run_by(
        &mut self,
        heading: &str,
        starter: &[&str],
        before: &str,
        options: &[&str],
        command: &[String],
    ) {
        let arguments = [words(&["run"]), words(options), words(&["--"]), command.to_vec()].concat();
        let outcome = Ratite::start_by(starter, &arguments).finish();
        let shown = format!("{before}{}", self.shown(&arguments));
        self.add(heading, &shown, &outcome);
    }

    /// Any verb, by a program that becomes `ratite`.
    #[track_caller]
    pub(crate) fn ratite(&mut self, heading: &str, starter: &[&str], arguments: &[&str]) {
        let arguments = words(arguments);
        let outcome = Ratite::start_by(starter, &arguments).finish();
        let shown = self.shown(&arguments);
        self.add(heading, &shown, &outcome);
    }

    /// Takes over what is written, where this system cannot show it.
    pub(crate) fn keep(&mut self, heading: &str) {
        let written = fs::read_to_string(page_file()).unwrap_or_default();
        let section = sections(&written).into_iter().find(|(other, _)| *other == heading);
        let section = section.map_or("", |(_, section)| section.trim_end());
        write!(self.text, "\n## {heading}\n{section}\n").unwrap();
    }

    fn add_run(&mut self, heading: &str, options: &[&str], command: &[String], outcome: &Outcome) {
        let arguments = [words(&["run"]), words(options), words(&["--"]), command.to_vec()].concat();
        let shown = self.shown(&arguments);
        self.add(heading, &shown, outcome);
    }

    #[track_caller]
    pub(crate) fn add(&mut self, heading: &str, shown: &str, outcome: &Outcome) {
        assert!(!outcome.stderr.contains("hunter2"), "a secret is shown: {}", outcome.stderr);
        let said = self.without_the_run(&outcome.stderr);
        let code = outcome.code;
        let said = match said.as_str() {
            "" => ", and nothing is said.\n".to_owned(),
            said => format!(":\n\n```text\n{said}```\n"),
        };
        write!(self.text, "\n## {heading}\n\n```sh\n{shown}\n```\n\nExit code {code}{said}").unwrap();
    }

    /// A command line of `ratite`, for a shell.
    pub(crate) fn shown(&self, arguments: &[String]) -> String {
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

    pub(crate) fn path(&self, name: &str) -> String {
        self.files.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str, content: &str, mode: u32) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

/// A line that names a process, or one of the log, which begins with a time, too; other lines as they are.
fn without_time_and_pid(line: &str) -> String {
    if let Some((before, pid)) = line.split_once(" of process ") {
        let behind = pid.trim_start_matches(|character: char| character.is_ascii_digit());
        return format!("{before} of process …{behind}");
    }
    let Some((_, rest)) = line.split_once("s  WARN ") else { return line.to_owned() };
    let words = rest.split(' ').map(|word| if word.starts_with("pid=") { "pid=…" } else { word });
    format!("…s  WARN {}", words.collect::<Vec<_>>().join(" "))
}

/// Writes the page, or compares it with what is written.
pub(crate) fn settle(page: Page) {
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

const VERSION_BEFORE: &str = "QEMU's own words are those of ";

const VERSION_BEHIND: &str = ".";

/// Version and packaging of the installed one.
fn version_of_qemu() -> String {
    let printed = Command::new(QEMU).arg("-version").output().unwrap().stdout;
    let printed = String::from_utf8_lossy(&printed);
    let line = printed.lines().next().unwrap_or_default();
    line.replace("QEMU emulator version", "QEMU")
}

pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// One word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,%+@".contains(c);
    let escaped = word.replace('\r', "\\r").replace('\n', "\\n");
    match word {
        _ if !word.is_empty() && word.chars().all(is_plain) => word.to_owned(),
        _ if word.contains('\'') => format!("\"{word}\""),
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
    let starts = ["    | ", "hint: ", "  caused by: the machine cannot be frozen: "];
    let names_it = [VERSION_BEFORE, " was made by QEMU "];
    starts.iter().any(|start| line.starts_with(start)) || names_it.iter().any(|words| line.contains(words))
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
