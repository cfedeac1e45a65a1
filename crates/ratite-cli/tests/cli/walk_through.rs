//! The guide's walk-through, done as it is written: each line of its blocks is pasted into the terminal that the block names.
//!
//! ```text
//! ```sh first      lines for the shell of the terminal `first`
//! ```text second   what `second` shows, `…` being anything; of `guest login: root`, `root` is typed once the rest is shown
//! ```
//!
//! A comment `<!-- key second ctrl-] -->` presses a key. What builds the project is left out, since it is built.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::terminal::Terminal;

/// What asks for a line to be typed.
const PROMPTS: [&str; 4] = ["login: ", "Password: ", "# ", "(QEMU) "];

/// The prompt of the shell that a terminal begins with.
const SHELL: &str = "paste$ ";

/// One thing to do in a terminal.
#[derive(Debug, PartialEq)]
enum Step {
    /// A line for the shell.
    Line(String),
    /// What is shown, and what is typed behind it.
    Shown(String, Option<String>),
    Key(&'static [u8]),
}

/// A terminal, and how much of what it was sent has been seen.
struct Pasted {
    terminal: Terminal,
    seen: usize,
}

impl Pasted {
    /// A shell at the project's root that finds `ratite`.
    fn shell(runtime: &Path) -> Self {
        let binaries = Path::new(env!("CARGO_BIN_EXE_ratite")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        // A shell that is not interactive forgets its prompt.
        let begin = format!("cd '{}'; exec env PS1='{SHELL}' bash --norc --noprofile -i", root().display());
        let runtime = runtime.to_str().unwrap();
        let environment = [("PATH", path.as_str()), ("XDG_RUNTIME_DIR", runtime), ("TERM", "vt100")];
        Self { terminal: Terminal::start(&environment, &["bash", "-c", &begin]), seen: 0 }
    }

    fn wait_for(&mut self, text: &str) {
        self.seen = self.terminal.wait_for_raw_after(self.seen, text.as_bytes());
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Line(line) => {
                self.wait_for(SHELL);
                self.terminal.type_line(line);
            }
            Step::Shown(shown, typed) => {
                shown.split('…').map(str::trim_end).for_each(|part| self.wait_for(part));
                typed.iter().for_each(|typed| self.terminal.type_line(typed));
            }
            Step::Key(key) => self.terminal.type_bytes(key),
        }
    }
}

#[test]
fn the_walk_through_works_as_it_is_written() {
    let page = fs::read_to_string(root().join("docs/guide/walk-through.md")).unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let mut terminals: BTreeMap<String, Pasted> = BTreeMap::new();
    ratite_tests::linux_guest::linux_guest();

    for (terminal, step) in steps(&page) {
        terminals.entry(terminal).or_insert_with(|| Pasted::shell(runtime.path())).take(&step);
    }

    assert_eq!(terminals.len(), 2);
    for mut pasted in terminals.into_values() {
        pasted.wait_for(SHELL);
        pasted.terminal.type_line("exit");
        assert_eq!(pasted.terminal.finish().code, 0);
    }
    assert_eq!(fs::read_dir(runtime.path().join("ratite")).unwrap().count(), 0);
}

/// The steps of a page with the terminals that they are for, in their order.
fn steps(page: &str) -> Vec<(String, Step)> {
    let mut steps = Vec::new();
    let mut block: Option<(&str, &str)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(""), Some(_)) => block = None,
            (Some(words), None) => block = words.split_once(' '),
            (None, Some(("sh", terminal))) if !builds(line) => {
                steps.push((terminal.to_owned(), Step::Line(at_target(line))));
            }
            (None, Some(("text", terminal))) => steps.push((terminal.to_owned(), shown(line))),
            (None, None) => steps.extend(key(line)),
            _ => {}
        }
    }
    steps
}

/// Whether a line makes what the tests have.
fn builds(line: &str) -> bool {
    ["make ", "cargo ", "export PATH="].iter().any(|start| line.starts_with(start))
}

/// The same line, wherever the tests' target folder is.
fn at_target(line: &str) -> String {
    match std::env::var("CARGO_TARGET_DIR") {
        Ok(target) => line.replace("target/", &format!("{target}/")),
        Err(_) => line.to_owned(),
    }
}

fn shown(line: &str) -> Step {
    let asked = PROMPTS.iter().find_map(|prompt| {
        let (before, typed) = line.split_once(prompt)?;
        Some(Step::Shown(format!("{before}{prompt}"), Some(typed.to_owned())))
    });
    asked.unwrap_or_else(|| Step::Shown(line.to_owned(), None))
}

fn key(line: &str) -> Option<(String, Step)> {
    let (terminal, key) = line.strip_prefix("<!-- key ")?.strip_suffix(" -->")?.split_once(' ')?;
    let key: &[u8] = match key {
        "enter" => b"\r",
        "ctrl-]" => b"\x1d",
        other => panic!("no key is called {other}"),
    };
    Some((terminal.to_owned(), Step::Key(key)))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

#[test]
fn a_page_is_read_as_steps() {
    let page = "```sh one\nmake guest\nls\n```\nwords\n<!-- key two ctrl-] -->\n```text two\nguest login: root\nPID … 5\n```\n";

    let expected = [
        ("one", Step::Line("ls".into())),
        ("two", Step::Key(b"\x1d")),
        ("two", Step::Shown("guest login: ".into(), Some("root".into()))),
        ("two", Step::Shown("PID … 5".into(), None)),
    ];
    assert_eq!(steps(page), expected.map(|(terminal, step)| (terminal.to_owned(), step)));
}
