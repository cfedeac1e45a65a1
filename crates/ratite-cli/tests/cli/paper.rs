//! What is made of the words of the command line: completions, as a shell uses them, and manual pages.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::fake;
use crate::harness::ratite;
use crate::harness::start_run;
use crate::reach::Place;

/// What bash completes `words` to, of which the last is being written.
fn completed(words: &[&str]) -> Vec<String> {
    completed_with(words, &[])
}

/// The same with these in the environment.
fn completed_with(words: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    const SCRIPT: &str = r#"
        source <(ratite completions bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
        _clap_complete_ratite ratite "${!#}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let programs = Path::new(env!("CARGO_BIN_EXE_ratite")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.env("PATH", path)
        .envs(environment.iter().copied())
        .args(["--norc", "-c", SCRIPT, "bash"])
        .args(words);
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_options_and_files() {
    assert_eq!(completed(&["ratite", "doc"]), ["doctor"]);
    assert_eq!(completed(&["ratite", "run", "--fail-on-l"]), ["--fail-on-linux"]);
    assert_eq!(completed(&["ratite", "run", "--accel", "t"]), ["tcg"]);
    assert_eq!(completed(&["ratite", "run", "--kernel", "Cargo.to"]), ["Cargo.toml"]);
    let qemus = completed(&["ratite", "run", "--", "qemu-system-x"]);
    assert!(qemus.contains(&"qemu-system-x86_64".to_owned()), "{qemus:?}");
}

#[test]
fn bash_completes_the_names_of_machines() {
    let name = format!("completed-{}", std::process::id());
    let mut machine = start_run(&["--name", &name], &fake(&["console-banner=up"]));
    machine.wait_for("up");

    for verb in [&["stop"][..], &["console"], &["agent", "ping"]] {
        let words = [&["ratite"], verb, &["completed-"]].concat();
        assert!(completed(&words).contains(&name), "{verb:?}");
    }

    machine.signal(Signal::INT);
    machine.finish().assert_code(130);
    assert!(!completed(&["ratite", "stop", "completed-"]).contains(&name));
}

#[test]
fn bash_completes_the_names_of_templates() {
    let place = Place::new();
    place.template("guest");
    let environment = [("RATITE_CACHE", place.path().to_str().unwrap())];

    for words in [&["run", "--from"][..], &["template", "spawn"], &["template", "rm", "x"]] {
        let words = [&["ratite"], words, &["gue"]].concat();
        assert_eq!(completed_with(&words, &environment), ["guest"], "{words:?}");
    }
}

#[test]
fn every_shell_has_its_script() {
    for (shell, word) in [
        ("bash", "complete "),
        ("zsh", "compdef"),
        ("fish", "complete "),
        ("elvish", "edit:"),
        ("powershell", "Register"),
    ] {
        let script = ratite(&["completions", shell]);

        script.assert_code(0);
        assert!(script.stdout().contains(word), "{shell}: {}", script.stdout());
    }
    ratite(&["completions", "tcsh"]).assert_code(2);
}

#[test]
fn there_is_a_page_for_every_verb_and_groff_has_nothing_to_say_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("new/man");

    let written = ratite(&["man", pages.to_str().unwrap()]);

    written.assert_code(0);
    let has_man = Command::new("man").arg("--version").output().is_ok();
    for page in [
        "ratite",
        "ratite-run",
        "ratite-doctor",
        "ratite-agent",
        "ratite-agent-exec",
        "ratite-template-create",
    ] {
        let page = pages.join(format!("{page}.1"));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains("Exit codes"), "{}", page.display());
        if has_man {
            let shown = Command::new("man").args(["--warnings", "-l"]).arg(&page).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&shown.stderr), "", "{}", page.display());
            assert!(shown.status.success());
        }
    }
    assert!(!pages.join("ratite-man.1").exists(), "a hidden verb has a page");
}

#[test]
fn pages_that_cannot_be_written_are_told() {
    let failed = ratite(&["man", "/dev/null/man"]);

    failed.assert_code(3);
    failed.assert_says(&[
        "error: could not write manual pages into `/dev/null/man`\n  caused by: Not a directory",
    ]);
}
