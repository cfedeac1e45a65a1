//! Commands to a running machine: their values, refusals and limits, and what becomes of them when QEMU dies.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use ratite::Machine;
use ratite::MachineConfig;
use ratite::MachineError;
use ratite::Monitor;
use ratite::Timeouts;
use ratite::qmp::Command;
use ratite::qmp::Direction;
use ratite::qmp::ExecuteError;
use ratite::qmp::Transcript;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;

fn commands_within(config: MachineConfig, limit: Duration) -> MachineConfig {
    config.timeouts(Timeouts { command: limit, ..Timeouts::default() })
}

#[track_caller]
fn check_timed_out(outcome: Result<Value, MachineError>, words: &str) {
    let error = outcome.expect_err("it must time out");
    let is_limit =
        matches!(error, MachineError::TimedOut(_) | MachineError::Command(ExecuteError::TimedOut(_)));
    assert!(is_limit, "{error:?}");
    assert_says(&error, &[words]);
}

/// Sends `command` to a machine that will not survive it, and checks that the error says what happened.
async fn check_dies(machine: &Machine, command: &str, words: &[&str]) {
    let start = Instant::now();

    let error = machine.cmd(command, json!({ "status": 3 })).await.expect_err("QEMU dies of it");

    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert!(matches!(error, MachineError::Exited { .. }), "{error:?}");
    assert_says(&error, words);
    assert!(!machine.is_running());
}

#[test]
fn a_command_returns_its_value_in_the_type_that_is_asked_for() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let sent = json!({ "cmd": 1, "self": [null, u64::MAX, i64::MIN], "a_b": "ü\u{1F600}" });

        let value = machine.cmd("fake-echo", &sent).await.unwrap();
        let ids: std::collections::BTreeMap<String, u32> = machine.cmd_as("fake-process", ()).await.unwrap();
        let text = machine.client().unwrap().execute_text("fake-echo", json!({ "x": 1.5 })).await.unwrap();

        assert_eq!(value, sent);
        assert_eq!(ids["pid"], machine.pid());
        assert_eq!(text, r#"{"x":1.5}"#);
    });
}

#[test]
fn a_refusal_carries_qemus_own_words() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        let error = machine.cmd("no-such-command", ()).await.unwrap_err();

        let refusal = error.refusal().unwrap();
        assert_eq!(refusal.to_string(), "The command no-such-command has not been found (CommandNotFound)");
        assert_says(&error, &["QEMU refused `no-such-command`", "has not been found"]);
        assert!(machine.cmd("query-status", ()).await.is_ok());
    });
}

#[test]
fn a_raw_reply_is_a_value_even_when_qemu_refuses() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        let refused = machine.qmp(Command::new("nope")).await.unwrap();
        let taken = machine.qmp(Command::new("query-name")).await.unwrap();

        assert!(refused.error().unwrap().to_string().contains("nope"));
        assert!(refused.return_text().is_none());
        assert!(taken.error().is_none());
        assert_eq!(taken.return_text(), Some("{}"));
    });
}

#[test]
fn a_command_that_is_never_answered_ends_at_its_limit_and_spoils_nothing() {
    play(async |stage| {
        let config = commands_within(stage.fake(&["never-answer=stop"]), Duration::from_millis(100));
        let machine = config.launch().await.unwrap();

        check_timed_out(machine.cmd("stop", ()).await, "no reply to `stop` within 100ms");

        let late = machine.cmd("fake-echo", json!({ "after": 1 })).await.unwrap();
        assert_eq!(late, json!({ "after": 1 }));
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_late_reply_is_nobody_elses() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let slow = Command::new("fake-sleep").arguments(json!({ "ms": 150 })).unwrap();

        let timed_out = machine.qmp(slow.limit(Duration::from_millis(20))).await;
        let next = machine.cmd("fake-sleep", json!({ "ms": 200 })).await;

        assert!(timed_out.is_err());
        assert_eq!(next.unwrap(), json!({}));
        assert_eq!(machine.cmd("fake-echo", json!({ "n": 1 })).await.unwrap(), json!({ "n": 1 }));
    });
}

#[test]
fn a_limit_of_one_command_is_only_its_own() {
    play(async |stage| {
        let config = commands_within(stage.fake(&["never-answer=cont"]), Duration::from_millis(50));
        let machine = config.launch().await.unwrap();
        let patient = Command::new("fake-sleep").arguments(json!({ "ms": 120 })).unwrap();

        let waited = machine.qmp(patient.limit(Duration::MAX)).await;
        let hasty = machine.qmp(Command::new("cont").limit(Duration::ZERO)).await;

        assert!(waited.unwrap().error().is_none());
        assert!(hasty.is_err());
        check_timed_out(machine.cmd("cont", ()).await, "within 50ms");
    });
}

#[test]
fn commands_of_many_tasks_each_get_their_own_answer() {
    play(async |stage| {
        let machine = Arc::new(stage.fake(&[]).launch().await.unwrap());

        let asked: Vec<_> = (0..200)
            .map(|number: u64| {
                let machine = machine.clone();
                tokio::spawn(async move {
                    let pause = json!({ "ms": (number * 7) % 13 });
                    machine.cmd("fake-sleep", pause).await.unwrap();
                    machine.cmd("fake-echo", json!({ "number": number })).await.unwrap()
                })
            })
            .collect();

        for (number, answer) in asked.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap(), json!({ "number": number }));
        }
    });
}

#[test]
fn a_cancelled_command_leaves_the_next_one_intact() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        for number in 0..100 {
            let pause = Duration::from_micros(number * 20);
            drop(tokio::time::timeout(pause, machine.cmd("fake-echo", json!({ "lost": number }))).await);
            let answer = machine.cmd("fake-echo", json!({ "number": number })).await.unwrap();
            assert_eq!(answer, json!({ "number": number }));
        }
    });
}

#[test]
fn qemu_dying_under_a_command_is_told_with_its_end_and_the_command() {
    play(async |stage| {
        let exiting = stage.fake(&["exit-on=stop", "stderr=last words"]).launch().await.unwrap();
        let aborting = stage.fake(&[]).launch().await.unwrap();

        check_dies(&exiting, "stop", &["QEMU exited with status 1 while `stop` waited for its reply"]).await;
        check_dies(&aborting, "fake-abort", &["QEMU was killed by signal 6 (SIGABRT) while `fake-abort`"])
            .await;

        let MachineError::Exited { log, .. } = exiting.cmd("cont", ()).await.unwrap_err() else {
            panic!("it is still dead");
        };
        assert_eq!(log.text(), "last words\n");
    });
}

#[test]
fn all_commands_under_way_are_told_of_the_death() {
    play(async |stage| {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let transcript = Transcript::new(move |entry| {
            if entry.direction == Direction::Sent && entry.text.contains("\"stop\"") {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let config = stage.fake(&["never-answer=stop"]).transcript(transcript);
        let machine = Arc::new(config.launch().await.unwrap());
        // No more than QEMU takes in at once (8); the next would wait for one of them.
        let waiting: Vec<_> = (0..6)
            .map(|_| {
                let machine = machine.clone();
                tokio::spawn(async move { machine.cmd("stop", ()).await.unwrap_err().to_string() })
            })
            .collect();
        wait_until("all were sent", PATIENCE, || sent.load(Ordering::Relaxed) == 6);

        check_dies(&machine, "fake-exit", &["QEMU exited with status 3 while `fake-exit`"]).await;

        for told in waiting {
            assert_eq!(told.await.unwrap(), "QEMU exited with status 3 while `stop` waited for its reply");
        }
    });
}

#[test]
fn a_machine_that_ends_right_after_its_handshake_says_so_at_once_or_at_the_first_command() {
    play(async |stage| {
        // Whether the end of the handshake or that of the process is seen first, nobody can say.
        match stage.fake(&["exit-after-handshake=8", "stderr=that was it"]).launch().await {
            Ok(machine) => {
                let words = &["QEMU exited with status 8", "`query-status`"];
                check_dies(&machine, "query-status", words).await;
            }
            Err(error) => {
                assert_says(&error, &["QEMU exited with status 8 before its monitor was ready"]);
                assert_eq!(error.log().text(), "that was it\n");
            }
        }
    });
}

#[test]
fn a_command_after_the_death_is_told_at_once() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        machine.kill().await.unwrap();

        check_dies(&machine, "query-status", &["QEMU was killed by signal 9 (SIGKILL)", "`query-status`"])
            .await;
        check_dies(&machine, "cont", &["`cont`"]).await;
    });
}

#[test]
fn a_monitor_that_closes_while_qemu_lives_is_told_as_that() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        let error = machine.cmd("fake-close-monitor", ()).await.unwrap_err();

        assert_says(&error, &["the connection ended while `fake-close-monitor` waited"]);
        assert!(machine.is_running());
        // The monitor is gone, so it is ended by SIGTERM.
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn to_a_stopped_qemu_commands_time_out_and_shutdown_keeps_its_grace() {
    play(async |stage| {
        let limit = Duration::from_millis(200);
        let machine = commands_within(stage.fake(&[]), limit).launch().await.unwrap();
        send_signal(machine.pid(), Signal::STOP);

        check_timed_out(machine.cmd("query-status", ()).await, "within 200ms");
        let start = Instant::now();
        let ended = machine.shutdown(Duration::from_millis(300)).await;

        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert_says(&ended.unwrap_err(), &["did not end within 300ms and was killed"]);
    });
}

#[test]
fn a_stopped_qemu_that_is_not_reading_does_not_hold_up_a_large_command() {
    play(async |stage| {
        let machine = commands_within(stage.fake(&[]), Duration::from_millis(200)).launch().await.unwrap();
        send_signal(machine.pid(), Signal::STOP);

        let large = machine.cmd("fake-echo", json!({ "x": "x".repeat(8 << 20) })).await;
        let next = machine.cmd("query-status", ()).await;

        check_timed_out(large, "`fake-echo`");
        check_timed_out(next, "`query-status`");
    });
}

#[test]
fn a_large_command_and_a_large_reply_arrive_whole() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let sent = json!({ "x": "x".repeat(1 << 20) });

        assert_eq!(machine.cmd("fake-echo", &sent).await.unwrap(), sent);
        let big = machine.cmd("fake-big", json!({ "bytes": 10 << 20 })).await.unwrap();
        assert_eq!(big.as_str().unwrap().len(), 10 << 20);
    });
}

#[test]
fn a_qemu_that_breaks_the_protocol_is_told_and_still_ends() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        let error = machine.cmd("fake-raw", json!({ "text": "this is not JSON\r\n" })).await.unwrap_err();

        assert_says(&error, &["`fake-raw`", "the peer broke the protocol"]);
        assert!(machine.is_running());
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn arguments_that_json_cannot_hold_are_refused_before_anything_is_sent() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        let no_object = machine.cmd("fake-echo", 5).await.unwrap_err();
        let not_finite = machine.cmd("fake-echo", std::collections::BTreeMap::from([("x", f64::NAN)])).await;

        assert_says(&no_object, &["could not write the arguments of `fake-echo`"]);
        assert_says(&not_finite.unwrap_err(), &["`fake-echo`"]);
        assert!(machine.cmd("query-status", ()).await.is_ok());
    });
}

#[test]
fn a_transcript_shows_every_message_in_both_directions() {
    play(async |stage| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let writer = seen.clone();
        let transcript = Transcript::new(move |entry| {
            let line = format!("{:?} {}", entry.direction, entry.text.trim());
            writer.lock().unwrap().push(line);
        });
        let machine = stage.fake(&[]).transcript(transcript).launch().await.unwrap();

        machine.cmd("stop", ()).await.unwrap();
        machine.shutdown(PATIENCE).await.unwrap();

        let seen = seen.lock().unwrap().join("\n");
        for word in ["\"QMP\"", "qmp_capabilities", "\"stop\"", "\"STOP\"", "\"quit\"", "\"SHUTDOWN\""] {
            assert!(seen.contains(word), "no {word} in:\n{seen}");
        }
    });
}

#[test]
fn two_machines_on_named_monitors_do_not_mix() {
    play(async |stage| {
        let at = |name| stage.fake(&[]).monitor(Monitor::Unix(stage.path(name)));
        let (one, two) = (at("one").launch().await.unwrap(), at("two").launch().await.unwrap());

        let ids = [
            one.cmd("fake-process", ()).await.unwrap()["pid"].clone(),
            two.cmd("fake-process", ()).await.unwrap()["pid"].clone(),
        ];

        assert_eq!(ids, [json!(one.pid()), json!(two.pid())]);
    });
}
