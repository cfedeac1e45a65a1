//! Holds the sources to the floors of `ARCHITECTURE.md`, and to those rules of `CONTRIBUTING.md` that a program can see.
//!
//! Reads Rust by its words, not by its grammar: comments and literals are left out, and what follows a `crate::` is the
//! module that a file uses.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The crates whose files have floors.
const CRATES_WITH_FLOORS: [&str; 2] = ["ratite-qmp", "ratite"];

/// Where `unsafe` may be: the binding's macros need it, and the floor of the yardstick is raw system calls.
const WITH_UNSAFE: [&str; 2] = ["crates/ratite-python", "benches"];

const LONGEST_FILE: usize = 500;

#[test]
fn every_file_stays_on_its_floor() {
    let architecture = read("ARCHITECTURE.md");

    let faults = CRATES_WITH_FLOORS.iter().flat_map(|name| {
        let sources = sources(&format!("crates/{name}/src"));
        floor_faults(&floors(&architecture, name), &sources)
    });

    report(faults);
}

#[test]
fn no_test_is_ignored() {
    report(every_source().flat_map(|source| attribute_faults(&source, "ignore")));
}

#[test]
fn no_lint_is_allowed_for_ever() {
    report(every_source().flat_map(|source| attribute_faults(&source, "allow")));
}

#[test]
fn unsafe_code_stays_in_the_python_crate_and_the_yardstick() {
    let is_safe = |source: &Source| !WITH_UNSAFE.iter().any(|folder| source.path.starts_with(folder));
    let safe = every_source().filter(is_safe);

    report(safe.flat_map(|source| word_faults(&source, "unsafe")));
}

#[test]
fn the_libraries_forbid_unsafe_code() {
    for name in CRATES_WITH_FLOORS {
        let root = read(format!("crates/{name}/src/lib.rs"));

        assert!(root.lines().any(|line| line == "#![forbid(unsafe_code)]"), "{name} does not forbid it");
    }
}

#[test]
fn every_file_says_what_it_owns() {
    let explained = |text: &str| text.starts_with("//!") || text.starts_with("#![doc");
    let sources = every_source().filter(|source| !is_test_or_example(&source.path));

    let silent = sources.filter(|source| !explained(&source.text));
    report(silent.map(|source| source.fault(1, "does not begin with `//!`")));
}

#[test]
fn no_file_is_too_long() {
    let length = |source: &Source| source.text.lines().count();
    let long = every_source().filter(|source| length(source) > LONGEST_FILE);

    let what = format!("a file has at most {LONGEST_FILE} lines");
    report(long.map(|source| source.fault(length(&source), &what)));
}

/// A module's name and its floor.
type Floors = BTreeMap<String, u32>;

/// One Rust file; its path is relative to the root of the repository.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self { path: path.into(), text: text.to_owned() }
    }

    fn fault(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }
}

/// One word of a source: an identifier, a `::`, or a single other character.
#[derive(Clone, Copy)]
struct Word<'a> {
    line: usize,
    text: &'a str,
}

/// The floors of one crate: the rows below the header `| <crate> | files | may know |`.
///
/// A row's first cell begins with the number of the floor; its second names the files in backticks.
fn floors(architecture: &str, krate: &str) -> Floors {
    let header = format!("| {krate} | files | may know |");
    let rows = architecture.lines().skip_while(|line| *line != header).skip(2);
    let mut floors = Floors::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let mut cells = row.split('|').skip(1);
        let floor = cells.next().and_then(|cell| cell.split_whitespace().next());
        let floor = floor.and_then(|number| number.parse().ok());
        let floor = floor.unwrap_or_else(|| panic!("a row without the number of its floor: {row}"));
        for file in cells.next().unwrap_or_default().split('`').skip(1).step_by(2) {
            assert!(floors.insert(file.to_owned(), floor).is_none(), "`{file}` has two floors: {row}");
        }
    }
    assert!(!floors.is_empty(), "ARCHITECTURE.md has no table `{header}`");
    floors
}

/// Every breach of `floors` by the files of one crate.
fn floor_faults(floors: &Floors, sources: &[Source]) -> Vec<String> {
    let modules: BTreeSet<String> = sources.iter().filter_map(|source| module_of(&source.path)).collect();
    let without_floor = modules.iter().filter(|module| !floors.contains_key(*module));
    let without_file = floors.keys().filter(|module| !modules.contains(*module));

    let mut faults = Vec::new();
    faults.extend(without_floor.map(|module| format!("`{module}` has no floor in ARCHITECTURE.md")));
    faults.extend(without_file.map(|module| format!("`{module}` has a floor, but no file")));
    faults.extend(sources.iter().flat_map(|source| breaches(floors, source)));
    faults
}

/// Every use in one file of a module that is not below it.
fn breaches(floors: &Floors, source: &Source) -> Vec<String> {
    let module = module_of(&source.path).unwrap_or_default();
    let Some(floor) = floors.get(&module) else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    for Word { line, text: used } in modules_used(&without_tests(&words(&source.text))) {
        let what = match floors.get(used) {
            Some(other) if used == module || other < floor => continue,
            Some(other) => format!("`{module}` (floor {floor}) uses `{used}` (floor {other})"),
            None => format!("write `crate::`, a module with a floor, `::`; not `{used}`"),
        };
        faults.push(source.fault(line, &what));
    }
    faults
}

/// The module a file belongs to: the first part of its path below `src`. `lib.rs` belongs to none.
fn module_of(path: &Path) -> Option<String> {
    let mut parts = path.components().skip_while(|part| part.as_os_str() != "src");
    let first = parts.nth(1)?;
    let name = Path::new(&first).file_stem()?.to_str()?;
    (name != "lib").then(|| name.to_owned())
}

/// What follows each `crate::`, also inside braces; and each `super` of a path, which would hide where it leads.
fn modules_used<'a>(words: &[Word<'a>]) -> Vec<Word<'a>> {
    let mut used = Vec::new();
    for at in 0..words.len() {
        match (words[at].text, word(words, at + 1), word(words, at + 2)) {
            ("super", "::", _) => used.push(words[at]),
            ("crate", "::", "{") => used.extend(heads_in_braces(&words[at + 3..])),
            ("crate", "::", _) => used.extend(words.get(at + 2)),
            _ => {}
        }
    }
    used
}

/// The first word of each path in `a::B, c::{D, E}, f}`.
fn heads_in_braces<'a>(words: &[Word<'a>]) -> Vec<Word<'a>> {
    let mut heads = Vec::new();
    let mut open = 0;
    let mut before = ",";
    for word in words {
        match word.text {
            "}" if open == 0 => break,
            "}" => open -= 1,
            "{" => open += 1,
            _ if open == 0 && before == "," && is_name(word.text) => heads.push(*word),
            _ => {}
        }
        before = word.text;
    }
    heads
}

/// Where `#[name…]` or `#![name…]` stands.
fn attribute_faults(source: &Source, name: &str) -> Vec<String> {
    let words = words(&source.text);
    let is_attribute = |at: &usize| matches!(word(&words, at - 1), "#" | "!") && word(&words, *at) == "[";
    let names = (1..words.len()).filter(is_attribute).filter_map(|at| words.get(at + 1));
    let found = names.filter(|word| word.text == name);
    found.map(|word| source.fault(word.line, &format!("has `#[{name}]`"))).collect()
}

/// Where `wanted` stands as a word of the code.
fn word_faults(source: &Source, wanted: &str) -> Vec<String> {
    let what = format!("has `{wanted}`");
    let found = words(&source.text).into_iter().filter(|word| word.text == wanted);
    found.map(|word| source.fault(word.line, &what)).collect()
}

/// The words without every item marked `#[cfg(test)]`.
fn without_tests<'a>(words: &[Word<'a>]) -> Vec<Word<'a>> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if (0..MARK.len()).all(|offset| word(words, at + offset) == MARK[offset]) {
            at = end_of_item(words, at + MARK.len());
        } else {
            kept.push(words[at]);
            at += 1;
        }
    }
    kept
}

/// Where the item that begins at `at` ends: after its `;`, or after the brace that closes its body.
fn end_of_item(words: &[Word<'_>], mut at: usize) -> usize {
    let mut open = 0_usize;
    while at < words.len() {
        match words[at].text {
            "{" | "(" | "[" => open += 1,
            ")" | "]" => open = open.saturating_sub(1),
            "}" if open <= 1 => return at + 1,
            "}" => open -= 1,
            ";" if open == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// The word at `at`, or an empty one beyond the end.
fn word<'a>(words: &[Word<'a>], at: usize) -> &'a str {
    words.get(at).map_or("", |word| word.text)
}

fn is_name(text: &str) -> bool {
    text.starts_with(is_name_part)
}

fn is_name_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Splits a source into words; comments and literals are none.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = length_of_comment_or_literal(rest);
        let length = match first {
            _ if skipped.is_some() => skipped.unwrap_or_default(),
            // A name is taken whole, so that the `r` of `for` does not begin a raw string.
            _ if is_name(rest) => rest.find(|c| !is_name_part(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            other => other.len_utf8(),
        };
        let (piece, after) = rest.split_at(length);
        if skipped.is_none() && !first.is_whitespace() {
            words.push(Word { line, text: piece });
        }
        line += piece.matches('\n').count();
        rest = after;
    }
    words
}

fn length_of_comment_or_literal(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        return Some(comment.find("*/").map_or(rest.len(), |end| 2 + end + 2));
    }
    let prefix = usize::from(rest.starts_with(['b', 'c']));
    let literal = &rest[prefix..];
    let length = match literal.chars().next()? {
        '"' => length_of_quoted(literal, '"'),
        'r' => length_of_raw_string(literal)?,
        '\'' if is_character(literal) => length_of_quoted(literal, '\''),
        _ => return None,
    };
    Some(prefix + length)
}

/// Tells the character `'a'` from the lifetime `'a`.
fn is_character(literal: &str) -> bool {
    let mut characters = literal.chars().skip(1);
    characters.next() == Some('\\') || characters.next() == Some('\'')
}

fn length_of_quoted(literal: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, c) in literal.char_indices().skip(1) {
        if c == quote && !escaped {
            return index + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    literal.len()
}

/// `None` if this is no raw string but a name like `r` or `r#type`.
fn length_of_raw_string(literal: &str) -> Option<usize> {
    let hashes = literal[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = literal[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |index| index + end.len());
    Some(1 + hashes + 1 + length)
}

fn is_test_or_example(path: &Path) -> bool {
    path.components()
        .any(|part| ["tests", "examples", "benches"].iter().any(|name| part.as_os_str() == *name))
}

fn every_source() -> impl Iterator<Item = Source> {
    ["crates", "fuzz", "benches"].into_iter().flat_map(sources)
}

/// Every Rust file below a folder of the repository, if there is such a folder.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root().join(&folder)) else {
            continue;
        };
        for entry in entries {
            let entry = entry.expect("a folder that can be opened can be listed");
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() && entry.file_name() != "target" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source::new(&path, &read(&path)));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn read(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Fails with every fault on a line of its own.
#[track_caller]
fn report(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

mod the_checker {
    //! Proves that the checks can fail, and that they do not fail for nothing.

    use super::*;

    const ARCHITECTURE: &str = "\
| bird | files | may know |\n|---|---|---|\n\
| 0 words | `egg` | std |\n| 1 parts | `wing` `leg` | |\n| 2 faces | `ostrich` `twins` | |\n";

    /// Checks one file of a crate.
    #[track_caller]
    fn check(file: &str, text: &str, expected: &[&str]) {
        let source = Source::new(Path::new("src").join(file), text);
        assert_eq!(breaches(&floors(ARCHITECTURE, "bird"), &source), expected);
    }

    #[test]
    fn lower_floors_may_be_used() {
        check("wing.rs", "use crate::egg::Egg;\nuse crate::wing::Feather;\n", &[]);
        check("twins/chick.rs", "use crate::twins::other;\nuse crate::{egg, leg::{Leg, Toe}};\n", &[]);
    }

    #[test]
    fn the_same_floor_and_higher_ones_are_named_with_file_and_line() {
        let same = "src/wing.rs:2: `wing` (floor 1) uses `leg` (floor 1)";
        let higher = "src/wing.rs:2: `wing` (floor 1) uses `ostrich` (floor 2)";
        check("wing.rs", "use crate::egg;\nuse crate::leg::Leg;\n", &[same]);
        check("wing.rs", "\nfn f() -> u8 { crate::leg::legs::<u8>() }\n", &[same]);
        check("wing.rs", "use crate::{egg::{self, ostrich},\n leg::{Leg, *}, ostrich}", &[same, higher]);
        check("wing.rs", "#[cfg(test)]\nfn f(_: [u8; 2]) { (); } use crate::ostrich::Ostrich;\n", &[higher]);
    }

    #[test]
    fn paths_that_hide_their_module_are_named() {
        let hidden =
            |word| format!("src/wing.rs:1: write `crate::`, a module with a floor, `::`; not `{word}`");
        check("wing.rs", "use crate::Ostrich;", &[&hidden("Ostrich")]);
        check("wing.rs", "use super::ostrich; pub(super) fn f() {}", &[&hidden("super")]);
    }

    #[test]
    fn comments_literals_and_tests_may_name_anything() {
        check("egg.rs", "//! crate::leg\n/* crate::leg */\n", &[]);
        check("egg.rs", r##"const A: (&str, char, &str) = ("\"crate::leg", '"', r#"" crate::leg"#);"##, &[]);
        check("egg.rs", "fn f<'a>(_: &'a str) {}\n#[cfg(test)]\nmod tests { use crate::leg::Leg; }\n", &[]);
    }

    #[test]
    fn files_without_a_floor_and_floors_without_a_file_are_named() {
        let floors = Floors::from([("egg".to_owned(), 0)]);
        let source = Source::new("src/tail.rs", "");

        let faults = floor_faults(&floors, &[source]);

        let tail = "`tail` has no floor in ARCHITECTURE.md";
        let egg = "`egg` has a floor, but no file";
        assert_eq!(faults, [tail, egg]);
    }

    #[test]
    fn attributes_and_words_are_found_in_code_only() {
        let text = "#![allow(x)]\n#[ignore = \"slow\"]\n// unsafe #[ignore]\nunsafe { allow() }\n";
        let source = Source::new("egg.rs", text);

        assert_eq!(attribute_faults(&source, "allow"), ["egg.rs:1: has `#[allow]`"]);
        assert_eq!(attribute_faults(&source, "ignore"), ["egg.rs:2: has `#[ignore]`"]);
        assert_eq!(word_faults(&source, "unsafe"), ["egg.rs:4: has `unsafe`"]);
    }
}
