//! Whoever ends a machine, or waits for its end, may go away at any moment: somebody else can end it, and all goes.

use std::time::Duration;

use ratite::Asked;
use ratite::ConsoleConfig;
use ratite::Exit;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::ShutdownError;
use ratite_tests::orphans::is_alive;
use ratite_tests::orphans::machine_folders;
use ratite_tests::orphans::processes_with_mark;
use ratite_tests::polling::Departure;
use ratite_tests::polling::Dice;
use ratite_tests::polling::at_every_point;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;

/// How many moments of each end are tried, beside its points.
const MOMENTS: u64 = 30;

/// A grace that is bound to be over.
const SHORT: Duration = Duration::from_millis(20);

/// A shell around QEMU whose child leaves the group, and the session.
const STRAY_CHILD: [&str; 4] = ["sh", "-c", r#"setsid sleep 1000 & "$@"; true"#, "sh"];

/// A way to end a machine, or to wait for its end.
#[derive(Debug, Clone, Copy)]
enum End {
    Shutdown(Duration),
    Kill,
    Wait(Duration),
    /// A guest that powers off, and the wait for that.
    PowerOff,
}

impl End {
    /// A machine to be ended so.
    async fn launch(self, config: &MachineConfig) -> Machine {
        let machine = config.launch().await.expect("it launches");
        if let Self::PowerOff = self {
            // It may be down before it can answer.
            drop(machine.cmd("fake-guest-shutdown", ()).await);
        }
        machine
    }

    async fn of(self, machine: &Machine) -> Result<Exit, ShutdownError> {
        match self {
            Self::Shutdown(grace) => machine.shutdown(grace).await,
            Self::Kill => machine.kill().await,
            Self::Wait(limit) => machine.wait(limit).await,
            Self::PowerOff => machine.wait(PATIENCE).await,
        }
    }
}

/// What is known of an end, whether it is an error or not.
fn exit_of(outcome: &Result<Exit, ShutdownError>) -> &Exit {
    match outcome {
        Ok(exit) => exit,
        Err(error) => error.exit().expect("the machine is down"),
    }
}

/// The machine is down with all that it had, and everybody is told the same of it, whatever he asks for.
async fn check_down(machine: &Machine, exit: &Exit) {
    assert!(!machine.is_running() && !is_alive(machine.pid()));
    assert!(!machine.work_folder().exists());
    for end in [End::Shutdown(PATIENCE), End::Kill, End::Wait(PATIENCE)] {
        let outcome = end.of(machine).await;
        let again = exit_of(&outcome);
        assert_eq!((again.status, again.asked, &again.log), (exit.status, exit.asked, &exit.log), "{end:?}");
        assert_eq!((again.run_time, &again.shutdown_reason), (exit.run_time, &exit.shutdown_reason));
    }
}

fn check_nothing_is_left(stage: &Stage) {
    let mark = format!("{}-", std::process::id());
    wait_until("the processes are gone", AT_ONCE, || processes_with_mark(&mark).is_empty());
    wait_until("the folder is gone", AT_ONCE, || machine_folders(stage.base()).is_empty());
}

/// Whoever begins `end` goes away, and `next` ends the machine; whether the first had come to its end.
async fn check_taken_over(config: &MachineConfig, end: End, departure: Departure, next: End) -> bool {
    let machine = end.launch(config).await;
    let outcome = departure.from(end.of(&machine)).await;
    let came_to_its_end = outcome.is_some();
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => next.of(&machine).await,
    };
    let exit = exit_of(&outcome);
    let is_graceful = |end| matches!(end, End::Shutdown(PATIENCE));
    if is_graceful(end) && (is_graceful(next) || exit.asked == Asked::Us) {
        // It was asked to end, did, and has said so. Without a monitor, SIGTERM may come before it is ready for it.
        let has_monitor = machine.client().is_ok();
        assert!(exit.success() || (!has_monitor && exit.status.signal() == Some(15)), "{exit}");
        let said = has_monitor.then_some("host-qmp-quit");
        assert_eq!(exit.shutdown_reason.as_deref(), said, "{end:?}, {departure:?}, {next:?}");
    }
    check_down(&machine, exit).await;
    came_to_its_end
}

/// Every way to take over what was begun by `end`, at each point and at many moments.
async fn check_every_take_over(stage: &Stage, config: &MachineConfig, end: End, seed: u64) {
    let mut dice = Dice::new(seed);
    // A grace as long as that of the first, or one that is over at once.
    let again = if let End::Shutdown(grace) = end { grace } else { SHORT };
    for next in [End::Shutdown(again), End::Kill, End::Wait(SHORT)] {
        let steps = at_every_point(async |steps| {
            check_taken_over(config, end, Departure::AfterSteps(steps), next).await
        })
        .await;
        for _ in 0..MOMENTS / 3 {
            check_taken_over(config, end, Departure::AfterTurns(dice.below(20_000)), next).await;
        }
        assert!(steps >= 1, "there was something to drop: {end:?}");
    }
    // And when nobody takes over.
    at_every_point(async |steps| {
        let machine = end.launch(config).await;
        let outcome = Departure::AfterSteps(steps).from(end.of(&machine)).await;
        drop(machine);
        check_nothing_is_left(stage);
        outcome.is_some()
    })
    .await;
}

#[test]
fn a_dropped_shutdown_can_be_taken_over_by_any_other_end() {
    play(async |stage| {
        let words = ["quit-delay=5", "quit-console=100000", "spawn-child"];
        let config = stage.fake(&words).console(ConsoleConfig::serial());

        check_every_take_over(stage, &config, End::Shutdown(PATIENCE), 1).await;
    });
}

#[test]
fn a_dropped_shutdown_without_a_monitor_can_be_taken_over_by_any_other_end() {
    play(async |stage| {
        let config = stage.fake(&[]).without_monitor();

        check_every_take_over(stage, &config, End::Shutdown(PATIENCE), 2).await;
    });
}

#[test]
fn a_dropped_shutdown_of_what_does_not_quit_can_be_taken_over_by_any_other_end() {
    play(async |stage| {
        let config = stage.fake(&["ignore-quit"]).console(ConsoleConfig::serial());

        check_every_take_over(stage, &config, End::Shutdown(SHORT), 3).await;
    });
}

#[test]
fn a_dropped_kill_can_be_taken_over_by_any_other_end() {
    play(async |stage| {
        let config = stage.fake(&["spawn-child"]).wrapper(STRAY_CHILD).console(ConsoleConfig::serial());

        check_every_take_over(stage, &config, End::Kill, 4).await;
    });
}

#[test]
fn a_dropped_wait_can_be_taken_over_by_any_other_end() {
    play(async |stage| {
        let config = stage.fake(&[]).console(ConsoleConfig::serial());
        check_every_take_over(stage, &config, End::PowerOff, 5).await;
        check_every_take_over(stage, &config, End::Wait(SHORT), 6).await;
    });
}

#[test]
fn a_dropped_wait_for_what_lives_leaves_it_as_it_was() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        for round in 0..100 {
            let departure = match round {
                0..50 => Departure::AfterSteps(round % 2),
                _ => Departure::AfterTurns(round as u64),
            };
            assert!(departure.from(machine.wait(PATIENCE)).await.is_none());
            assert!(departure.from(machine.exited()).await.is_none());
            machine.cmd("query-status", ()).await.unwrap();
        }

        let exit = machine.shutdown(PATIENCE).await.unwrap();
        assert_eq!((exit.asked, exit.success()), (Asked::Us, true));
    });
}

#[test]
fn a_shutdown_that_was_never_begun_has_asked_for_nothing() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        assert!(Departure::AfterSteps(0).from(machine.shutdown(PATIENCE)).await.is_none());
        assert!(Departure::AfterSteps(0).from(machine.kill()).await.is_none());

        send_signal(machine.pid(), Signal::TERM);

        let exit = machine.wait(PATIENCE).await.unwrap();
        assert_eq!((exit.asked, exit.status.code()), (Asked::Signal, Some(0)));
    });
}
