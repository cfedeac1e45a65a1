//! Ends by force: by a kill, by a drop at any moment, and of all that a machine has started.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite::Asked;
use ratite::Machine;
use ratite::MachineConfig;
use ratite_tests::orphans::Process;
use ratite_tests::orphans::is_alive;
use ratite_tests::orphans::processes_with_mark;
use ratite_tests::orphans::wait_until_gone;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::fake_qemu;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;

/// A shell around QEMU that starts a second child.
const TWO_CHILDREN: [&str; 4] = ["sh", "-c", r#"sleep 1000 & "$@"; true"#, "sh"];

/// A shell around QEMU whose second child leaves the group, and the session.
const STRAY_CHILD: [&str; 4] = ["sh", "-c", r#"setsid sleep 1000 & "$@"; true"#, "sh"];

/// Everything that carries the mark of a machine of ours.
fn marked() -> Vec<Process> {
    processes_with_mark(&format!("{}-", std::process::id()))
}

/// Checks that all that belongs to the machines goes, without anybody asking further.
#[track_caller]
fn check_all_goes(stage: &Stage) {
    wait_until("every process is gone", AT_ONCE, || marked().is_empty());
    wait_until("every folder is gone", AT_ONCE, || entries(stage.base()).is_empty());
}

async fn launch(stage: &Stage) -> Machine {
    stage.fake(&["spawn-child", "ignore-sigterm"]).wrapper(TWO_CHILDREN).launch().await.expect("it launches")
}

#[test]
fn a_kill_ends_whatever_state_the_machine_is_in() {
    play(async |stage| {
        let running = stage.fake(&[]).launch().await.unwrap();
        let deaf = stage.fake(&["ignore-sigterm"]).launch().await.unwrap();
        let stopped = stage.fake(&[]).launch().await.unwrap();
        send_signal(stopped.pid(), Signal::STOP);
        let hanging = stage.fake(&[]).launch().await.unwrap();
        drop(tokio::time::timeout(Duration::from_millis(50), hanging.cmd("fake-hang", ())).await);

        for machine in [running, deaf, stopped, hanging] {
            let start = Instant::now();
            let exit = machine.kill().await.unwrap();

            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            assert_eq!((exit.asked, exit.status.signal_name()), (Asked::UsByForce, Some("SIGKILL")));
            assert!(!is_alive(machine.pid()) && !machine.work_folder().exists());
        }
    });
}

#[test]
fn a_kill_of_what_has_ended_tells_how_it_ended() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        machine.cmd("fake-exit", serde_json::json!({ "status": 7 })).await.unwrap_err();

        let exit = machine.kill().await.unwrap();

        assert_eq!((exit.asked, exit.status.code()), (Asked::Nobody, Some(7)));
    });
}

#[test]
fn a_kill_takes_all_that_the_machine_has_started_along() {
    play(async |stage| {
        for wrapper in [TWO_CHILDREN, STRAY_CHILD] {
            let machine = stage.fake(&["spawn-child"]).wrapper(wrapper).launch().await.unwrap();
            assert_eq!(marked().len(), 4);

            machine.kill().await.unwrap();

            assert_eq!(marked(), []);
        }
    });
}

#[test]
fn a_graceful_end_takes_all_that_is_left_along() {
    play(async |stage| {
        for wrapper in [TWO_CHILDREN, STRAY_CHILD] {
            let machine = stage.fake(&["spawn-child"]).wrapper(wrapper).launch().await.unwrap();

            assert!(machine.shutdown(PATIENCE).await.unwrap().success());

            assert_eq!(marked(), []);
        }
    });
}

#[test]
fn a_script_in_the_place_of_qemu_leaves_nothing_either() {
    play(async |stage| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/qemu-with-stray-child");
        let config = MachineConfig::new(script).base_folder(stage.base());
        let machine = config.env("RATITE_TEST_QEMU", fake_qemu()).launch().await.unwrap();
        assert_eq!(marked().len(), 2);

        assert!(machine.shutdown(PATIENCE).await.unwrap().success());

        assert_eq!(marked(), []);
    });
}

#[test]
fn in_the_callers_group_a_kill_takes_only_the_machine() {
    play(async |stage| {
        let machine = stage.fake(&[]).in_callers_process_group().launch().await.unwrap();

        let exit = machine.kill().await.unwrap();

        assert_eq!(exit.status.signal_name(), Some("SIGKILL"));
        // We are still here, which is the point.
        check_all_goes(stage);
    });
}

#[test]
fn a_dropped_machine_goes_with_all_that_it_has() {
    play(async |stage| {
        let machine = launch(stage).await;
        let pid = machine.pid();

        drop(machine);

        assert!(wait_until_gone(pid, AT_ONCE));
        check_all_goes(stage);
    });
}

#[test]
fn a_machine_dropped_after_its_shutdown_leaves_nothing_either() {
    play(async |stage| {
        let machine = launch(stage).await;
        machine.shutdown(PATIENCE).await.unwrap();

        drop(machine);

        check_all_goes(stage);
    });
}

#[test]
fn a_machine_dropped_in_the_middle_of_anything_goes() {
    play(async |stage| {
        for pause in [0, 1, 10, 100] {
            let machine = Arc::new(stage.fake(&["ignore-quit"]).launch().await.unwrap());
            let user = || machine.clone();
            let (ending, waiting, asking, listening) = (user(), user(), user(), user());
            let users = [
                tokio::spawn(async move { drop(ending.shutdown(PATIENCE).await) }),
                tokio::spawn(async move { drop(waiting.wait(PATIENCE).await) }),
                tokio::spawn(async move { drop(asking.cmd("fake-never", ()).await) }),
                tokio::spawn(async move { drop(listening.next_event(PATIENCE).await) }),
            ];
            drop(machine);

            drop(tokio::time::timeout(Duration::from_millis(pause), std::future::pending::<()>()).await);
            users.iter().for_each(tokio::task::JoinHandle::abort);

            check_all_goes(stage);
        }
    });
}

#[test]
fn a_machine_that_a_panic_unwinds_over_goes() {
    play(async |stage| {
        let machine = launch(stage).await;

        let panicked = tokio::spawn(async move {
            let _machine = machine;
            panic!("on purpose");
        });

        assert!(panicked.await.unwrap_err().is_panic());
        check_all_goes(stage);
    });
}

#[test]
fn a_machine_in_a_task_that_is_aborted_goes() {
    play(async |stage| {
        let machine = launch(stage).await;
        let task = tokio::spawn(async move {
            drop(machine.wait(Duration::MAX).await);
        });
        tokio::task::yield_now().await;

        task.abort();

        check_all_goes(stage);
    });
}

#[test]
fn a_machine_outlives_the_runtime_it_was_launched_on_and_goes_when_it_is_dropped() {
    play(async |stage| {
        let config = stage.fake(&[]);
        let elsewhere = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(config.launch()).unwrap()
        });
        let machine = elsewhere.await.unwrap();

        let running = machine.is_running();
        let command = machine.cmd("query-status", ()).await;
        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(running);
        assert!(command.unwrap_err().to_string().contains("the connection ended"));
        assert!(exit.success(), "its monitor is gone, so it was ended by SIGTERM: {exit}");
    });
}

#[test]
fn a_machine_dropped_outside_of_any_runtime_goes() {
    play(async |stage| {
        let machine = launch(stage).await;

        std::thread::spawn(move || drop(machine)).join().unwrap();

        check_all_goes(stage);
    });
}

#[test]
fn a_thread_that_launched_may_end() {
    play(async |stage| {
        let config = stage.fake(&[]);
        let launched = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let machine = runtime.block_on(config.launch()).unwrap();
            (runtime, machine)
        });

        let (runtime, machine) = launched.join().unwrap();
        // What the end of the thread could have done is done before the next thread is made and answers.
        std::thread::spawn(|| ()).join().unwrap();

        let answer = tokio::task::spawn_blocking(move || {
            let answer = runtime.block_on(machine.cmd("query-status", ()));
            drop(machine);
            answer
        });
        assert_eq!(answer.await.unwrap().unwrap()["running"], true);
    });
}
