//! `ratite doctor`: what is there, what is missing, and the exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::ratite;

fn records(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[track_caller]
fn finding<'a>(records: &'a [Value], check: &str, name: &str) -> &'a Value {
    let found = records.iter().find(|record| record["check"] == check && record["name"] == name);
    found.unwrap_or_else(|| panic!("no {check} `{name}`: {records:?}"))
}

#[test]
fn where_machines_run_the_verdict_is_good() {
    let told = ratite(&["doctor", "--json"]);

    told.assert_code(0);
    assert_eq!(told.stderr, "");
    let records = records(&told);
    assert_eq!(finding(&records, "qemu", "qemu-system-x86_64")["state"], "ok");
    assert_eq!(finding(&records, "accelerator", "tcg")["state"], "ok");
    assert_eq!(finding(&records, "images", "qemu-img")["state"], "ok");
    assert_eq!(records.last().unwrap()["says"], "machines can be run");
}

#[test]
fn people_get_a_line_for_each_finding() {
    let told = ratite(&["doctor"]);

    told.assert_code(0);
    let text = told.stdout();
    assert!(text.starts_with("qemu         ok       qemu-system-"), "{text}");
    assert!(text.ends_with("verdict      ok       ratite run: machines can be run\n"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn without_a_qemu_nothing_runs_and_what_mends_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("PATH={}", folder.path().display());

    let told = Ratite::start_by(&["env", &path], &["doctor", "--json"]).finish();

    told.assert_code(1);
    told.assert_says(&["error: machines cannot be run here: there is no QEMU that answers\n"]);
    let records = records(&told);
    let qemu = records.iter().find(|record| record["check"] == "qemu").unwrap();
    assert_eq!((&qemu["state"], &qemu["says"]), (&"missing".into(), &"not in PATH".into()));
    assert_eq!(finding(&records, "images", "qemu-img")["state"], "warning");
    assert_eq!(records.last().unwrap()["state"], "missing");
}

#[test]
fn programs_that_are_no_qemu_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, script: &str| {
        let path = folder.path().join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    put("qemu-system-silent", "#!/bin/sh\n");
    put("qemu-system-other", "#!/bin/sh\necho I am something else\n");
    put("qemu-system-old", "#!/bin/sh\necho QEMU emulator version 5.2.0\n");
    put("qemu-system-broken", "#!/nonexistent/sh\n");
    put("qemu-system-endless", "#!/bin/sh\nexec yes\n");
    let path = format!("PATH={}:/usr/bin:/bin", folder.path().display());

    let told = Ratite::start_by(&["env", &path], &["doctor", "--json"]).finish();

    told.assert_code(0);
    let records = records(&told);
    let check = |name: &str, says: &str| {
        let finding = finding(&records, "qemu", name);
        assert_eq!(finding["state"], "warning", "{finding}");
        assert!(finding["says"].as_str().unwrap().starts_with(says), "{finding}");
    };
    check("qemu-system-silent", "does not say its version: exit status: 0");
    check("qemu-system-other", "does not say its version as QEMU does");
    check("qemu-system-old", "5.2.0, which is older than 6.2");
    check("qemu-system-broken", "cannot be started: No such file or directory");
    check("qemu-system-endless", "does not say its version as QEMU does");
}

#[test]
fn firmware_is_found_by_its_descriptor() {
    let config = tempfile::tempdir().unwrap();
    let folder = config.path().join("qemu/firmware");
    fs::create_dir_all(&folder).unwrap();
    let descriptor = r#"{"description": "mine", "interface-types": ["uefi"], "features": [], "tags": [],
        "mapping": {"device": "memory", "filename": "/nonexistent/code.fd"},
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}]}"#;
    fs::write(folder.join("00-mine.json"), descriptor).unwrap();
    let environment = format!("XDG_CONFIG_HOME={}", config.path().display());

    let told = Ratite::start_by(&["env", &environment], &["doctor", "--json"]).finish();

    told.assert_code(0);
    let records = records(&told);
    let mine = finding(&records, "firmware", folder.join("00-mine.json").to_str().unwrap());
    assert_eq!(mine["state"], "warning");
    assert_eq!(mine["says"], "mine (uefi, x86_64): `/nonexistent/code.fd` is not there");
}
