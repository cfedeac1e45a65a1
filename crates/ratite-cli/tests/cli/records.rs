//! `--json`: what happens, for programs.

use serde_json::Value;
use serde_json::json;

use crate::harness::Outcome;
use crate::harness::fake;
use crate::harness::run;

/// The records without what depends on the run: times, pids, paths, command lines.
#[track_caller]
fn records(outcome: &Outcome) -> Vec<Value> {
    let stdout = outcome.stdout();
    assert!(stdout.ends_with('\n'), "{stdout}");
    let mut last = 0.0;
    let lines = stdout.lines().map(|line| {
        let mut record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let fields = record.as_object_mut().unwrap();
        let time = fields.remove("time").unwrap().as_f64().unwrap();
        assert!(time >= last, "time goes back: {stdout}");
        last = time;
        for field in ["pid", "command", "work_folder", "run_time"] {
            if let Some(value) = fields.get_mut(field).filter(|value| !value.is_null()) {
                *value = "…".into();
            }
        }
        record
    });
    lines.collect()
}

/// What the guest said, put together again.
fn console(records: &[Value]) -> String {
    records
        .iter()
        .filter_map(|record| record["text"].as_str().filter(|_| record["event"] == "console"))
        .collect()
}

#[test]
fn a_run_that_goes_well_is_told_line_by_line() {
    let options = ["--json", "--expect-regex", "(up) (and)? ?ready"];

    let ended = run(&options, &fake(&["console-banner=up ready\r\n"]));

    ended.assert_code(0);
    assert_eq!(ended.stderr, "");
    let records = records(&ended);
    let (version, package) = (&records[0]["qemu"], &records[0]["package"]);
    let launched = json!({
        "event": "launched", "pid": "…", "command": "…", "qemu": version, "package": package, "work_folder": "…",
    });
    let matched = json!({
        "event": "matched", "pattern": "/(up) (and)? ?ready/", "failure": false, "text": "up ready",
        "groups": ["up", null],
    });
    let end = json!({
        "event": "ended", "ok": true, "exit_code": 0, "error": null, "causes": [], "hints": [], "status": 0,
        "signal": null, "reason": records.last().unwrap()["reason"], "asked": "ratite", "run_time": "…", "log": "",
    });
    assert!(version.is_string(), "{version}");
    assert_eq!(records.first(), Some(&launched));
    assert!(records.contains(&matched), "{records:?}");
    assert_eq!(records.last(), Some(&end));
    assert_eq!(console(&records), "up ready\r\n");
}

#[test]
fn a_failure_is_a_record_as_well_as_talk() {
    let options = ["--json", "--expect", "login:", "--fail-on", "ERROR"];

    let failed = run(&options, &fake(&["console-banner=ERROR 7"]));

    failed.assert_code(1);
    failed.assert_says(&["error: `ERROR` appeared on the console\n"]);
    let records = records(&failed);
    let matched = records.iter().find(|record| record["event"] == "matched").unwrap();
    assert_eq!((&matched["failure"], &matched["text"]), (&json!(true), &json!("ERROR")));
    let end = records.last().unwrap();
    assert_eq!((&end["ok"], &end["exit_code"]), (&json!(false), &json!(1)));
    assert_eq!(end["error"], "`ERROR` appeared on the console");
}

#[test]
fn a_machine_that_is_not_launched_has_one_record() {
    let failed = run(&["--json"], &fake(&["exit-before-monitor=7", "stderr=my last words"]));

    failed.assert_code(3);
    let records = records(&failed);
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["exit_code"], 3);
    assert_eq!(records[0]["causes"], json!(["QEMU exited with status 7 before its monitor was ready"]));
    assert!(records[0]["log"].as_str().unwrap().starts_with("my last words\n"), "{}", records[0]["log"]);
}

#[test]
fn bytes_that_are_no_text_are_base64() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    // Letters of two bytes, of which the first is missing.
    crate::harness::boot_sector(&disk, "ü", &crate::harness::POWER_OFF);
    let mut sector = std::fs::read(&disk).unwrap();
    sector[0x80] = 0xff;
    std::fs::write(&disk, sector).unwrap();

    let ended = run(&["--json"], &crate::harness::real(&disk));

    ended.assert_code(0);
    let bytes: Vec<_> =
        records(&ended).iter().filter_map(|it| it["base64"].as_str().map(str::to_owned)).collect();
    assert!(!bytes.is_empty(), "{}", ended.stdout());
    assert!(bytes.concat().starts_with("/"), "{bytes:?}");
}
