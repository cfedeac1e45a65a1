//! Every help text as one sees it. A new verb needs an example, and a snapshot.
//!
//! `INSTA_UPDATE=always cargo test -p ratite-cli help` writes the snapshots anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Command;

use crate::args;

/// How wide a line of help may be.
const WIDTH: usize = 120;

/// Every command with its words, `ratite` itself first. Hidden ones are among them.
fn commands() -> Vec<(String, Command)> {
    let mut root = args::command();
    root.build();
    let mut commands = vec![("ratite".to_owned(), root.clone())];
    collect("ratite", &root, &mut commands);
    commands
}

fn collect(before: &str, command: &Command, commands: &mut Vec<(String, Command)>) {
    for verb in command.get_subcommands() {
        let words = format!("{before} {}", verb.get_name());
        commands.push((words.clone(), verb.clone()));
        collect(&words, verb, commands);
    }
}

fn snapshot_name(words: &str) -> String {
    words.replace(' ', "-")
}

#[test]
fn every_help_text_is_as_it_was() {
    for (words, mut command) in commands() {
        let text = command.render_long_help().to_string();
        // Editors, and those who read, see no blanks at the ends of lines.
        let text: Vec<_> = text.lines().map(str::trim_end).collect();
        insta::assert_snapshot!(snapshot_name(&words), text.join("\n"));
    }
}

#[test]
fn every_verb_has_an_example() {
    let mut without = Vec::new();
    for (words, mut command) in commands() {
        let is_leaf = command.get_subcommands().next().is_none();
        let text = command.render_long_help().to_string();
        let behind = text.split_once("Example").map(|(_, behind)| behind).unwrap_or_default();
        if is_leaf && !behind.contains(&words) {
            without.push(words);
        }
    }
    assert!(without.is_empty(), "their help has no example: {without:?}");
}

#[test]
fn no_line_of_help_is_too_wide() {
    let mut wide = Vec::new();
    for (words, mut command) in commands() {
        let text = command.render_long_help().to_string();
        let lines = text.lines().filter(|line| line.chars().count() > WIDTH);
        wide.extend(lines.map(|line| format!("{words}: {}", line.trim())));
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn a_verb_that_is_gone_leaves_no_snapshot() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/args/snapshots");
    let names = fs::read_dir(folder)
        .expect("the snapshots are there")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept: BTreeSet<_> = names.map(|name| name.rsplit("__").next().unwrap().to_owned()).collect();

    let verbs: BTreeSet<_> = commands().iter().map(|(words, _)| snapshot_name(words) + ".snap").collect();

    assert_eq!(kept, verbs);
}
