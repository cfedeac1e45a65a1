//! What a launch says when its process ran, but its monitor never became ready.

use std::time::Duration;
use std::time::Instant;

use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::MachineConfig;
use ratite::Monitor;
use ratite::Timeouts;
use ratite::qmp;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::play;

/// Every way to reach a monitor.
fn monitors(stage: &Stage) -> [Monitor; 3] {
    let host = "127.0.0.1".to_owned();
    [Monitor::SocketPair, Monitor::Unix(stage.path("monitor")), Monitor::Tcp { host, port: 0 }]
}

fn connect_within(limit: Duration) -> Timeouts {
    Timeouts { connect: limit, ..Timeouts::default() }
}

/// Launches what must fail, and long before the connect limit of 30 s.
async fn fails_at_once(config: &MachineConfig) -> LaunchError {
    let start = Instant::now();
    let error = config.launch().await.map(drop).expect_err("the launch must fail");
    assert!(start.elapsed() < AT_ONCE, "told after {:?}: {}", start.elapsed(), chain(&error));
    assert!(error.command_line().is_some());
    error
}

#[track_caller]
fn check_exited(error: &LaunchError, status: i32) {
    assert!(
        matches!(error.kind(), LaunchErrorKind::Exited(exit) if exit.code() == Some(status)),
        "{}",
        chain(error)
    );
    assert_eq!(error.exit().expect("there was a process").code(), Some(status));
}

#[test]
fn an_exit_before_the_monitor_is_told_at_once_with_status_and_last_words() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let config = stage.fake(&["stderr=before that", "exit-before-monitor=3"]).monitor(monitor);

            let error = fails_at_once(&config).await;

            check_exited(&error, 3);
            assert_says(&error, &["QEMU exited with status 3 before its monitor was ready"]);
            let words = "before that\nfake-qemu: -machine bogus: unsupported machine type\n";
            assert_eq!(error.log().text(), words);
        }
    });
}

#[test]
fn an_exit_with_status_0_is_a_failure_too() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let error = fails_at_once(&stage.fake(&["exit-before-monitor=0"]).monitor(monitor)).await;

            check_exited(&error, 0);
        }
    });
}

#[test]
fn a_death_before_the_monitor_is_told_by_the_signals_name() {
    play(async |stage| {
        for (number, name) in [(6, "SIGABRT"), (11, "SIGSEGV"), (9, "SIGKILL")] {
            for monitor in monitors(stage) {
                let word = format!("signal-before-monitor={number}");

                let error = fails_at_once(&stage.fake(&[&word]).monitor(monitor)).await;

                assert_eq!(error.exit().unwrap().signal_name(), Some(name), "{}", chain(&error));
                let told =
                    format!("QEMU was killed by signal {number} ({name}) before its monitor was ready");
                assert_says(&error, &[&told]);
            }
        }
    });
}

#[test]
fn an_exit_between_greeting_and_negotiation_is_told_by_its_status() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let error = fails_at_once(&stage.fake(&["exit-after-greeting=7"]).monitor(monitor)).await;

            check_exited(&error, 7);
        }
    });
}

#[test]
fn an_exit_of_qemu_within_a_wrapper_is_told_by_the_wrappers_status() {
    play(async |stage| {
        let wrapper = ["sh", "-c", r#""$@"; exit $(($? + 1))"#, "sh"];
        for monitor in monitors(stage) {
            let config = stage.fake(&["exit-before-monitor=4"]).wrapper(wrapper).monitor(monitor);

            check_exited(&fails_at_once(&config).await, 5);
        }
    });
}

#[test]
fn a_program_that_is_no_qemu_is_told_with_what_it_said() {
    play(async |stage| {
        let config = MachineConfig::new("echo").base_folder(stage.base());

        let error = fails_at_once(&config).await;

        check_exited(&error, 0);
        assert!(error.log().text().starts_with("-display none"), "{:?}", error.log());
    });
}

#[test]
fn last_words_that_are_no_text_are_kept_byte_for_byte() {
    play(async |stage| {
        let error = fails_at_once(&stage.fake(&["stderr-invalid-utf8", "exit-before-monitor=1"])).await;

        assert!(error.log().bytes.starts_with(b"not UTF-8: \xff\xfe here\n"), "{:?}", error.log());
        assert!(error.log().text().starts_with("not UTF-8: \u{fffd}\u{fffd} here\n"));
    });
}

#[test]
fn of_a_long_log_an_error_carries_the_end() {
    play(async |stage| {
        let error = fails_at_once(&stage.fake(&["stderr-bytes=10000000", "exit-before-monitor=1"])).await;

        assert!(error.log().bytes.len() <= 64 << 10, "{}", error.log().bytes.len());
        assert!(error.log().text().ends_with("eee\nfake-qemu: -machine bogus: unsupported machine type\n"));
        assert_eq!(error.log().omitted + error.log().bytes.len() as u64, 10_000_052);
    });
}

#[test]
fn a_monitor_that_closes_while_qemu_lives_is_told_at_once() {
    play(async |stage| {
        for word in ["close-before-greeting", "close-after-greeting"] {
            for monitor in monitors(stage) {
                let error = fails_at_once(&stage.fake(&[word]).monitor(monitor)).await;

                let is_closed = matches!(error.kind(), LaunchErrorKind::Qmp(qmp::Error::Disconnected(_)));
                assert!(is_closed, "{word}: {}", chain(&error));
                assert_eq!(error.exit().unwrap().signal_name(), Some("SIGKILL"), "it was ended");
            }
        }
    });
}

#[test]
fn a_greeting_that_is_none_is_shown() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let error = fails_at_once(&stage.fake(&["garbage-greeting"]).monitor(monitor)).await;

            assert!(matches!(error.kind(), LaunchErrorKind::Qmp(_)), "{}", chain(&error));
            assert_says(&error, &["SSH-2.0"]);
        }
    });
}

#[test]
fn a_refused_negotiation_is_told_in_qemus_own_words() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let error = fails_at_once(&stage.fake(&["nego-error"]).monitor(monitor)).await;

            assert_says(&error, &["refused", "fake-qemu does not want to negotiate"]);
        }
    });
}

#[test]
fn a_qemu_that_never_gets_ready_is_ended_at_the_connect_limit() {
    play(async |stage| {
        let limit = Duration::from_millis(150);
        for word in ["silent", "half-greeting", "nego-silent", "no-connect"] {
            for monitor in monitors(stage) {
                let config = stage.fake(&[word, "stderr=I am here"]).monitor(monitor);

                let start = Instant::now();
                let error = config.timeouts(connect_within(limit)).launch().await.unwrap_err();

                assert!(
                    start.elapsed() >= limit && start.elapsed() < AT_ONCE,
                    "{word}: {:?}",
                    start.elapsed()
                );
                let is_limit =
                    matches!(error.kind(), LaunchErrorKind::TimedOut { limit: told } if *told == limit);
                assert!(is_limit, "{word}: {}", chain(&error));
                assert_says(&error, &["QEMU's monitor was not ready within 150ms"]);
                assert_eq!(error.log().text(), "I am here\n");
                assert_eq!(error.exit().unwrap().signal_name(), Some("SIGKILL"));
            }
        }
    });
}

#[test]
fn a_qemu_that_ignores_sigterm_is_ended_all_the_same() {
    play(async |stage| {
        let config = stage.fake(&["silent", "ignore-sigterm", "spawn-child"]);

        let error = config.timeouts(connect_within(Duration::from_millis(200))).launch().await.unwrap_err();

        assert!(matches!(error.kind(), LaunchErrorKind::TimedOut { .. }), "{}", chain(&error));
    });
}

#[test]
fn a_connect_limit_of_zero_fails_at_once() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let config = stage.fake(&["silent"]).monitor(monitor).timeouts(connect_within(Duration::ZERO));

            let error = fails_at_once(&config).await;

            assert!(matches!(error.kind(), LaunchErrorKind::TimedOut { .. }), "{}", chain(&error));
        }
    });
}

#[test]
fn without_a_connect_limit_an_exit_still_ends_the_launch() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let config = stage.fake(&["exit-before-monitor=3"]).monitor(monitor);

            let error = fails_at_once(&config.timeouts(connect_within(Duration::MAX))).await;

            check_exited(&error, 3);
        }
    });
}

#[test]
fn a_late_greeting_is_waited_for() {
    play(async |stage| {
        for monitor in monitors(stage) {
            let config = stage.fake(&["greeting-delay=300"]).monitor(monitor);

            let machine = config.timeouts(connect_within(Duration::MAX)).launch().await.unwrap();

            assert!(machine.launch_time() >= Duration::from_millis(300));
            assert!(machine.launch_time() < AT_ONCE, "{:?}", machine.launch_time());
        }
    });
}
