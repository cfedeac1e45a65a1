//! How a machine ends when it is told to: gracefully if it can, by force if it must, and never later than that.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite::Asked;
use ratite::Exit;
use ratite::Machine;
use ratite::ShutdownError;
use ratite::ShutdownErrorKind;
use ratite::Timeouts;
use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;
use serde_json::json;

/// A grace that is bound to be over.
const SHORT: Duration = Duration::from_millis(300);

/// Checks that the machine was killed because its grace was over, and that it took no longer than that and a bit.
async fn check_outlasts(machine: &Machine, grace: Duration) {
    let start = Instant::now();

    let error = machine.shutdown(grace).await.expect_err("it outlasts its grace");

    assert!(start.elapsed() >= grace && start.elapsed() < grace + AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ShutdownErrorKind::TimedOut { grace });
    let exit = error.exit().expect("it is down");
    assert_eq!((exit.asked, exit.status.signal_name()), (Asked::TimeOver, Some("SIGKILL")));
    assert!(!machine.is_running() && !is_alive(machine.pid()));
    assert!(!machine.work_folder().exists());
}

#[track_caller]
fn check_same(one: &Exit, other: &Exit) {
    assert_eq!((one.pid, one.status, one.asked), (other.pid, other.status, other.asked));
    assert_eq!(
        (one.run_time, &one.log, &one.shutdown_reason),
        (other.run_time, &other.log, &other.shutdown_reason)
    );
}

#[test]
fn a_machine_that_quits_ends_cleanly_and_tells_all_about_it() {
    play(async |stage| {
        let before = std::time::SystemTime::now();
        let machine = stage.fake(&["stderr=hello"]).launch().await.unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert_eq!(exit.pid, machine.pid());
        assert_eq!((exit.asked, exit.shutdown_reason.as_deref()), (Asked::Us, Some("host-qmp-quit")));
        assert_eq!(
            (exit.status.code(), exit.status.signal(), exit.status.core_dumped()),
            (Some(0), None, false)
        );
        assert_eq!(exit.log.text(), "hello\n");
        assert_eq!(&exit.command_line, machine.command_line());
        assert!(exit.started >= before);
        assert!(exit.launch_time > Duration::ZERO && exit.launch_time <= exit.run_time);
        assert_eq!(exit.launch_time, machine.launch_time());
        assert_eq!(exit.to_string(), "QEMU exited with status 0 (host-qmp-quit)");
        assert!(!machine.is_running() && machine.exit() == Some(exit.status));
        assert!(!machine.work_folder().exists());
    });
}

#[test]
fn an_exit_with_another_status_is_an_error_that_names_it() {
    play(async |stage| {
        let machine = stage.fake(&["quit-status=3", "stderr=oh"]).launch().await.unwrap();

        let error = machine.shutdown(PATIENCE).await.unwrap_err();

        assert_says(&error, &["QEMU exited with status 3 instead of ending cleanly"]);
        assert!(matches!(error.kind(), ShutdownErrorKind::Unclean(exit) if exit.code() == Some(3)));
        let exit = error.exit().unwrap();
        assert_eq!((exit.asked, exit.log.text().as_str()), (Asked::Us, "oh\n"));
    });
}

#[test]
fn an_exit_without_a_reply_to_quit_is_clean() {
    play(async |stage| {
        let machine = stage.fake(&["quit-no-reply"]).launch().await.unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert_eq!((exit.asked, exit.shutdown_reason), (Asked::Us, None));
    });
}

#[test]
fn an_exit_that_takes_its_time_is_waited_for() {
    play(async |stage| {
        let machine = stage.fake(&["quit-delay=300"]).launch().await.unwrap();

        let exit = machine.shutdown(Duration::MAX).await.unwrap();

        assert!(exit.success() && exit.run_time >= Duration::from_millis(300));
    });
}

#[test]
fn a_machine_that_does_not_quit_is_killed_when_its_grace_is_over() {
    play(async |stage| {
        let deaf = stage.fake(&["hang-on=quit"]).launch().await.unwrap();
        let stubborn = stage.fake(&["ignore-quit", "ignore-sigterm"]).launch().await.unwrap();
        let silent = stage.fake(&["never-answer=quit"]).launch().await.unwrap();
        let slow = stage.fake(&["quit-delay=60000"]).launch().await.unwrap();

        for machine in [deaf, stubborn, silent, slow] {
            check_outlasts(&machine, SHORT).await;
        }
    });
}

#[test]
fn a_stopped_machine_is_killed_when_its_grace_is_over() {
    play(async |stage| {
        let machine = stage.fake(&["spawn-child"]).launch().await.unwrap();
        send_signal(machine.pid(), Signal::STOP);

        check_outlasts(&machine, SHORT).await;
    });
}

#[test]
fn a_grace_of_zero_kills_at_once() {
    play(async |stage| {
        let machine = stage.fake(&["ignore-quit"]).launch().await.unwrap();

        check_outlasts(&machine, Duration::ZERO).await;
    });
}

#[test]
fn without_a_monitor_a_machine_is_ended_by_sigterm() {
    play(async |stage| {
        // Its handler is installed before it writes the banner.
        let console = ratite::ConsoleConfig::serial();
        let config = stage.fake(&["console-banner=up"]).without_monitor().console(console);
        let machine = config.launch().await.unwrap();
        machine.console().unwrap().expect("up", PATIENCE).await.unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert_eq!(exit.asked, Asked::Us);
        assert!(exit.log.text().contains("terminating on signal 15"), "{:?}", exit.log);
    });
}

#[test]
fn a_death_by_the_sigterm_that_was_sent_is_clean() {
    play(async |stage| {
        // A QEMU whose handler is not installed yet dies of it; a `sleep` has none at all.
        let config = stage.fake(&[]).without_monitor().wrapper(["sh", "-c", "exec sleep 1000", "sh"]);
        let machine = config.launch().await.unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert_eq!((exit.asked, exit.status.signal_name()), (Asked::Us, Some("SIGTERM")));
    });
}

#[test]
fn without_a_monitor_what_ignores_sigterm_is_killed_when_its_grace_is_over() {
    play(async |stage| {
        let console = ratite::ConsoleConfig::serial();
        let config = stage.fake(&["ignore-sigterm", "console-banner=up"]).without_monitor().console(console);
        let machine = config.launch().await.unwrap();
        machine.console().unwrap().expect("up", PATIENCE).await.unwrap();

        check_outlasts(&machine, SHORT).await;
    });
}

#[test]
fn a_second_shutdown_tells_the_same_at_once() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=x"]).launch().await.unwrap();

        let first = machine.shutdown(PATIENCE).await.unwrap();
        let second = machine.shutdown(Duration::ZERO).await.unwrap();
        let killed = machine.kill().await.unwrap();
        let waited = machine.wait(Duration::ZERO).await.unwrap();

        for other in [second, killed, waited] {
            check_same(&first, &other);
        }
    });
}

#[test]
fn shutdowns_at_once_all_tell_the_same() {
    play(async |stage| {
        let machine = Arc::new(stage.fake(&["quit-delay=100"]).launch().await.unwrap());

        let endings: Vec<_> = (0..10)
            .map(|_| {
                let machine = machine.clone();
                tokio::spawn(async move { machine.shutdown(PATIENCE).await.unwrap() })
            })
            .collect();

        let first = machine.shutdown(PATIENCE).await.unwrap();
        assert!(first.success());
        for ending in endings {
            check_same(&first, &ending.await.unwrap());
        }
    });
}

#[test]
fn the_shorter_of_two_graces_counts() {
    play(async |stage| {
        let machine = stage.fake(&["ignore-quit"]).launch().await.unwrap();

        let start = Instant::now();
        let (long, short) = tokio::join!(machine.shutdown(PATIENCE), machine.shutdown(SHORT));

        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(long.is_err() && short.is_err());
    });
}

#[test]
fn a_shutdown_that_was_cancelled_can_be_repeated() {
    play(async |stage| {
        for pause in [0, 1, 5, 20, 60, 100, 150] {
            let machine = stage.fake(&["quit-delay=100"]).launch().await.unwrap();

            let pause = Duration::from_millis(pause);
            drop(tokio::time::timeout(pause, machine.shutdown(PATIENCE)).await);
            let exit = machine.shutdown(PATIENCE).await.unwrap();

            assert!(exit.success());
            assert_eq!(exit.shutdown_reason.as_deref(), Some("host-qmp-quit"));
        }
    });
}

#[test]
fn a_shutdown_after_a_crash_tells_of_the_crash() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=crash"]).launch().await.unwrap();
        machine.cmd("fake-abort", ()).await.unwrap_err();

        let error: ShutdownError = machine.shutdown(PATIENCE).await.unwrap_err();

        assert_says(&error, &["QEMU was killed by signal 6 (SIGABRT) instead of ending cleanly"]);
        assert_eq!(error.exit().unwrap().asked, Asked::Signal);
        assert_eq!(error.exit().unwrap().log.text(), "crash\n");
        assert!(!machine.work_folder().exists());
    });
}

#[test]
fn a_shutdown_after_a_clean_end_is_clean() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        machine.cmd("fake-exit", json!({ "status": 0 })).await.unwrap_err();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert_eq!(exit.asked, Asked::Nobody);
    });
}

#[test]
fn a_quit_of_ones_own_is_known_as_such() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        machine.cmd("quit", ()).await.unwrap();

        let exit = machine.wait(PATIENCE).await.unwrap();

        assert_eq!((exit.asked, exit.shutdown_reason.as_deref()), (Asked::Us, Some("host-qmp-quit")));
        assert!(exit.success());
    });
}

#[test]
fn commands_are_answered_while_a_machine_is_being_ended() {
    play(async |stage| {
        let machine = Arc::new(stage.fake(&["ignore-quit"]).launch().await.unwrap());
        let ending = machine.clone();
        let ending = tokio::spawn(async move { ending.shutdown(PATIENCE).await });
        machine.event_wait(ratite::qmp::EventFilter::named("SHUTDOWN"), PATIENCE).await.unwrap();

        let answer = machine.cmd("fake-echo", json!({ "still": "here" })).await.unwrap();
        machine.cmd("fake-exit", json!({ "status": 0 })).await.unwrap_err();

        assert_eq!(answer, json!({ "still": "here" }));
        assert!(ending.await.unwrap().unwrap().success());
    });
}

#[test]
fn a_kill_limit_of_zero_is_no_reason_to_leave_anything() {
    play(async |stage| {
        let timeouts = Timeouts { kill: Duration::ZERO, ..Timeouts::default() };
        let machine = stage.fake(&[]).timeouts(timeouts).launch().await.unwrap();

        // Whether the end came in no time at all or not, it comes.
        drop(machine.kill().await);

        wait_until("it is gone", AT_ONCE, || !machine.is_running());
        assert!(machine.shutdown(PATIENCE).await.is_err() || machine.exit().is_some());
    });
}
