//! `docs/guide/limits.md` names every call that waits, and no other.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

#[test]
fn the_page_names_every_call_that_waits_and_no_other() {
    let page = read("docs/guide/limits.md");
    let named: BTreeSet<&str> = page.lines().flat_map(calls_of_row).collect();
    let folders = ["crates/ratite/src", "crates/ratite-qmp/src", "crates/ratite-qmp/src/agent"];
    let sources = folders.map(|folder| functions(Path::new(folder)));
    let functions: Vec<Function> = sources.into_iter().flatten().collect();
    let twins: BTreeSet<String> = blocking_waits();

    let exists = |name: &str| functions.iter().any(|function| function.name == name);
    let gone: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(gone.is_empty(), "docs/guide/limits.md names what is not there: {gone:?}");
    let waits = functions.iter().filter(|function| function.waits).map(|function| &function.name);
    let missing: BTreeSet<_> = waits.chain(&twins).filter(|name| !named.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "docs/guide/limits.md does not name: {missing:?}");
    let idle = |name: &&&str| !functions.iter().any(|function| function.waits && function.name == **name);
    let idle: Vec<_> = named.iter().filter(idle).collect();
    assert!(idle.is_empty(), "docs/guide/limits.md names what does not wait: {idle:?}");
    assert!(named.len() > 30 && twins.len() > 20, "{named:?} {twins:?}");
}

#[test]
fn every_call_of_the_page_is_tried_with_and_without_async() {
    let page = read("docs/guide/limits.md");
    let named: BTreeSet<&str> = page.lines().flat_map(calls_of_row).collect();
    let is_called = |call: &str, tests: &str| {
        let method = call.rsplit("::").next().unwrap();
        [format!("::{method}("), format!(".{method}("), format!(".{method}::<"), format!(" {method}(")]
            .iter()
            .any(|words| tests.contains(words.as_str()))
    };

    let waits = read("crates/ratite-tests/src/waits.rs");
    let (with, without) = waits.split_once("pub fn every_blocking_wait").unwrap();
    // These try both.
    let both = read("crates/ratite-tests/tests/accelerators.rs")
        + &read("crates/ratite-tests/tests/limits_agent.rs")
        + &read("crates/ratite-tests/tests/reach_limits.rs")
        + &read("crates/ratite-tests/tests/limits_shell.rs")
        + &read("crates/ratite-tests/tests/limits_templates.rs");
    let with = read("crates/ratite-tests/tests/limits.rs") + &both + with;
    let without = read("crates/ratite-tests/tests/limits_blocking.rs") + &both + without;
    let twins = blocking_waits();

    let untried: Vec<_> = named.iter().filter(|call| !is_called(call, &with)).collect();
    assert!(untried.is_empty(), "no test in limits.rs: {untried:?}");
    let untried: Vec<_> = twins.iter().filter(|call| !is_called(call, &without)).collect();
    assert!(untried.is_empty(), "no test in limits_blocking.rs: {untried:?}");
}

/// A public function: `Type::name`, or `name` alone.
struct Function {
    name: String,
    waits: bool,
}

/// The calls in the first cell of a row that has a limit in its second.
fn calls_of_row(line: &str) -> Vec<&str> {
    let cells: Vec<&str> = line.split(" | ").collect();
    match (cells.len(), line.strip_prefix("| `")) {
        (4, Some(_)) => cells[0].split('`').skip(1).step_by(2).collect(),
        _ => Vec::new(),
    }
}

/// The public functions in the files of a folder and its folders, but for the blocking twins.
fn functions(folder: &Path) -> Vec<Function> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|entry| !entry.ends_with("blocking"));
    let found = entries.map(|entry| match entry.is_dir() {
        true => functions(&entry),
        false => functions_of(&fs::read_to_string(entry).unwrap()),
    });
    found.flatten().collect()
}

fn functions_of(text: &str) -> Vec<Function> {
    let mut found = Vec::new();
    let mut owner = String::new();
    let lines: Vec<&str> = text.lines().collect();
    for (place, line) in lines.iter().enumerate() {
        if let Some(rest) = line.strip_prefix("impl") {
            let head = rest.rsplit(" for ").next().unwrap_or(rest).trim_start();
            owner = head.chars().take_while(|c| c.is_alphanumeric()).collect();
        }
        let indented = line.starts_with("    ");
        let Some(rest) = line.trim_start().strip_prefix("pub ") else { continue };
        let (is_async, rest) = rest.strip_prefix("async ").map_or((false, rest), |rest| (true, rest));
        let Some(rest) = rest.strip_prefix("fn ") else { continue };
        let name: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
        found.push(Function {
            name: if indented { format!("{owner}::{name}") } else { name },
            waits: is_async || signature(&lines[place..]).contains("-> impl Future"),
        });
    }
    found
}

/// The lines up to the one that ends a function's head.
fn signature(lines: &[&str]) -> String {
    let end = lines.iter().position(|line| line.ends_with(['{', ';'])).unwrap_or_default();
    lines[..=end].concat()
}

/// What the blocking types say that they wait for.
fn blocking_waits() -> BTreeSet<String> {
    let files = fs::read_dir(root().join("crates/ratite/src/blocking")).unwrap();
    let texts = files.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let waits = |text: String| -> Vec<String> {
        let parts = text.split(".wait(\"").skip(1);
        parts.filter_map(|part| part.split('"').next().map(str::to_owned)).collect()
    };
    texts.flat_map(waits).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
