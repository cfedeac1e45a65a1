//! Waiting for a machine to end by itself, and what its end says of who wanted it.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite::Asked;
use ratite::Exit;
use ratite::ShutdownErrorKind;
use ratite::qmp::EventFilter;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use rustix::process::Signal;
use serde_json::json;

#[track_caller]
fn check(exit: &Exit, asked: Asked, reason: Option<&str>) {
    assert_eq!((exit.asked, exit.shutdown_reason.as_deref()), (asked, reason), "{exit:?}");
}

#[test]
fn a_guest_that_powers_off_is_known_to_have_wanted_it() {
    play(async |stage| {
        let machine = stage.fake(&["guest-shutdown-after=100"]).launch().await.unwrap();

        let exit = machine.wait(PATIENCE).await.unwrap();

        check(&exit, Asked::Guest, Some("guest-shutdown"));
        assert!(exit.success());
        assert_eq!(exit.to_string(), "QEMU exited with status 0 (guest-shutdown)");
    });
}

#[test]
fn a_guest_that_is_asked_to_power_off_may_do_so() {
    play(async |stage| {
        let machine = stage.fake(&["obey-powerdown"]).launch().await.unwrap();
        machine.cmd("system_powerdown", ()).await.unwrap();

        let exit = machine.wait(PATIENCE).await.unwrap();

        check(&exit, Asked::Guest, Some("guest-shutdown"));
        let names: Vec<_> = machine.take_events().iter().map(|event| event.name().to_owned()).collect();
        assert_eq!(names, ["POWERDOWN", "SHUTDOWN"]);
    });
}

#[test]
fn a_signal_from_somebody_else_is_known_as_that() {
    play(async |stage| {
        let killed = stage.fake(&[]).launch().await.unwrap();
        let told = stage.fake(&[]).launch().await.unwrap();
        send_signal(killed.pid(), Signal::KILL);
        send_signal(told.pid(), Signal::TERM);

        let killed = killed.wait(PATIENCE).await.unwrap();
        let told = told.wait(PATIENCE).await.unwrap();

        check(&killed, Asked::Signal, None);
        assert_eq!(killed.status.to_string(), "was killed by signal 9 (SIGKILL)");
        check(&told, Asked::Signal, Some("host-signal"));
        assert!(told.success());
    });
}

#[test]
fn an_end_out_of_the_blue_was_wanted_by_nobody_and_any_status_is_a_value() {
    play(async |stage| {
        for status in [0, 1, 77, 255] {
            let machine = stage.fake(&["stderr=log"]).launch().await.unwrap();
            machine.cmd("fake-exit", json!({ "status": status })).await.unwrap_err();

            let exit = machine.wait(PATIENCE).await.unwrap();

            check(&exit, Asked::Nobody, None);
            assert_eq!((exit.status.code(), exit.log.text().as_str()), (Some(status), "log\n"));
            assert_eq!(exit.success(), status == 0);
        }
    });
}

#[test]
fn a_machine_that_outlasts_the_wait_is_killed() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let limit = Duration::from_millis(300);

        let start = Instant::now();
        let error = machine.wait(limit).await.unwrap_err();

        assert!(start.elapsed() >= limit && start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert_eq!(error.kind(), ShutdownErrorKind::TimedOut { grace: limit });
        check(error.exit().unwrap(), Asked::TimeOver, None);
        assert_eq!(error.exit().unwrap().status.signal_name(), Some("SIGKILL"));
    });
}

#[test]
fn events_and_commands_go_on_while_a_machine_is_waited_for() {
    play(async |stage| {
        let machine = Arc::new(stage.fake(&[]).launch().await.unwrap());
        let waiting = machine.clone();
        let waiting = tokio::spawn(async move { waiting.wait(PATIENCE).await });

        machine.cmd("stop", ()).await.unwrap();
        machine.event_wait(EventFilter::named("STOP"), AT_ONCE).await.unwrap();
        machine.cmd("fake-guest-shutdown", ()).await.unwrap();

        let exit = waiting.await.unwrap().unwrap();
        check(&exit, Asked::Guest, Some("guest-shutdown"));
    });
}

#[test]
fn a_wait_that_was_cancelled_can_be_repeated() {
    play(async |stage| {
        for pause in [0, 5, 90, 100, 110] {
            let machine = stage.fake(&["guest-shutdown-after=100"]).launch().await.unwrap();

            drop(tokio::time::timeout(Duration::from_millis(pause), machine.wait(PATIENCE)).await);
            let exit = machine.wait(PATIENCE).await.unwrap();

            check(&exit, Asked::Guest, Some("guest-shutdown"));
        }
    });
}

#[test]
fn the_end_can_be_selected_on() {
    play(async |stage| {
        let machine = stage.fake(&["guest-shutdown-after=50"]).launch().await.unwrap();
        let (first, second) = (machine.exited(), machine.exited());

        let status = tokio::select! {
            status = first => status,
            _ = machine.next_event(PATIENCE), if false => unreachable!(),
        };

        assert_eq!(status.code(), Some(0));
        assert_eq!(second.await, status);
        assert_eq!(machine.exited().await, status);
        assert_eq!(machine.exit(), Some(status));
        assert!(machine.wait(Duration::ZERO).await.is_ok());
    });
}

#[test]
fn the_reason_is_not_lost_in_a_flood_of_events() {
    play(async |stage| {
        let machine = stage.fake(&["event-flood=50000", "guest-shutdown-after=1500"]).launch().await.unwrap();

        let exit = machine.wait(PATIENCE).await.unwrap();

        check(&exit, Asked::Guest, Some("guest-shutdown"));
    });
}

#[test]
fn an_end_is_told_even_while_a_child_holds_the_console_and_the_log() {
    play(async |stage| {
        let console = ratite::ConsoleConfig::serial();
        let config = stage.fake(&["spawn-child-new-group"]).console(console);
        let machine =
            config.wrapper(["sh", "-c", r#"setsid sleep 1000 & exec "$@""#, "sh"]).launch().await.unwrap();

        let start = Instant::now();
        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    });
}
