//! One description, many runs: each is new, and none leaves anything in its program.

use std::collections::BTreeSet;

use ratite::ConsoleConfig;
use ratite::MachineConfig;
use ratite_tests::orphans::open_descriptors;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use ratite_tests::scenario::threads_called;
use ratite_tests::scenario::wait_until;

async fn run(config: &MachineConfig) -> u32 {
    let machine = config.launch().await.expect("it launches");
    machine.cmd("query-status", ()).await.expect("it answers");
    machine.shutdown(PATIENCE).await.expect("it ends cleanly");
    machine.pid()
}

#[test]
fn twenty_runs_leave_no_descriptor_and_no_thread() {
    play(async |stage| {
        let config = stage.fake(&["spawn-child"]).console(ConsoleConfig::serial()).qtest();
        run(&config).await;
        let descriptors = open_descriptors().len();

        let mut pids = BTreeSet::new();
        for _ in 0..20 {
            pids.insert(run(&config).await);
        }

        assert_eq!(pids.len(), 20);
        wait_until("no descriptor is left", AT_ONCE, || open_descriptors().len() <= descriptors);
        // Two that work, and one or two that have just swept a base folder.
        assert!(threads_called("ratite-io") <= 5, "{}", threads_called("ratite-io"));
        assert_eq!(threads_called("ratite-supervi"), 1);
    });
}

#[test]
fn twenty_failed_runs_leave_no_descriptor() {
    play(async |stage| {
        let failing = [
            stage.fake(&["exit-before-monitor=1"]).console(ConsoleConfig::serial()).qtest(),
            stage.fake(&["garbage-greeting"]).console(ConsoleConfig::serial()),
            MachineConfig::new("/nope").base_folder(stage.base()).console(ConsoleConfig::serial()).qtest(),
        ];
        let descriptors = open_descriptors().len();

        for _ in 0..20 {
            for config in &failing {
                assert!(config.launch().await.is_err());
            }
        }

        wait_until("no descriptor is left", AT_ONCE, || open_descriptors().len() <= descriptors);
    });
}

#[test]
fn twenty_runs_of_a_real_qemu_leave_nothing_either() {
    play(async |stage| {
        let config = stage.real();
        let descriptors = open_descriptors().len();

        for _ in 0..20 {
            run(&config).await;
        }

        wait_until("no descriptor is left", AT_ONCE, || open_descriptors().len() <= descriptors);
    });
}

#[test]
fn a_run_with_its_own_log_folder_and_name_can_follow_at_once() {
    play(async |stage| {
        let config = stage.fake(&[]).name("same").log_folder(stage.path("logs"));

        for _ in 0..10 {
            run(&config).await;
        }
    });
}

#[test]
fn a_run_can_follow_while_somebody_still_holds_the_one_before() {
    play(async |stage| {
        let config = stage.fake(&["stderr=run"]).name("same").log_folder(stage.path("logs"));
        let first = config.launch().await.unwrap();
        first.shutdown(PATIENCE).await.unwrap();

        let second = config.launch().await.unwrap();

        // Nobody writes to the first log any more, but it can still be read.
        assert_eq!(first.log().text().unwrap(), "run\n");
        assert_eq!(second.log().text().unwrap(), "run\n");
        assert!(second.is_running());
    });
}

#[test]
fn what_changed_in_the_description_counts_at_the_next_launch() {
    play(async |stage| {
        let config = stage.fake(&[]);
        let first = config.launch().await.unwrap();

        let second = config.clone().arg("-S").launch().await.unwrap();

        assert_eq!(first.cmd("query-status", ()).await.unwrap()["running"], true);
        assert_eq!(second.cmd("query-status", ()).await.unwrap()["running"], false);
    });
}
