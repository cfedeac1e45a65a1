//! Programs in roles of their own: one that blocks signals, one that gets orphans, one that reaps all there is.

use std::fs;
use std::sync::Arc;
use std::thread;

use ratite::LaunchErrorKind;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use rustix::process::WaitOptions;

#[test]
fn a_machine_can_be_told_to_end_whatever_signals_its_program_blocks() {
    play_blocking(|stage| {
        // As programs do that take signals by signalfd(2) or sigwait(3). QEMU itself never blocks SIGTERM; the fake takes all
        // of its signals so, and a shell clears its mask.
        let controller =
            Controller::start_in_shell(r#"exec env --block-signal=TERM "$@""#, stage, &["--real"]);

        let status = fs::read_to_string(format!("/proc/{}/status", controller.machines[0].0)).unwrap();

        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
        assert_eq!(blocked & (1 << (15 - 1)), 0, "SIGTERM is blocked: {blocked:x}");
        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn a_program_that_gets_orphans_gets_no_zombies_from_machines() {
    play(async |stage| {
        // As pid 1 of a container is: what a killed wrapper leaves behind becomes our child.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let script = r#"setsid sleep 1000 & sleep 1000 & "$@"; true"#;

        let machine = stage.fake(&[]).wrapper(["sh", "-c", script, "sh"]).launch().await.unwrap();
        machine.kill().await.unwrap();

        rustix::process::set_child_subreaper(None).unwrap();
    });
}

#[test]
fn a_program_that_reaps_every_child_still_sees_its_machines_end() {
    play(async |stage| {
        let playing = Arc::new(());
        let watched = Arc::downgrade(&playing);
        thread::scope(|scope| {
            // Over also when what is played panics.
            let _playing = playing;
            scope.spawn(move || {
                while watched.strong_count() > 0 {
                    // No child, or none that has ended.
                    let _none = rustix::process::wait(WaitOptions::NOHANG);
                    thread::yield_now();
                }
            });
            let played = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| {
                played.block_on(async {
                    for _ in 0..10 {
                        let machine = stage.fake(&[]).launch().await.expect("it launches");
                        machine.shutdown(PATIENCE).await.expect("it ends cleanly");
                    }
                    let config = stage.fake(&["exit-before-monitor=3"]);
                    let error = config.launch().await.expect_err("it ends before its monitor is ready");
                    assert!(matches!(error.kind(), LaunchErrorKind::Exited(_)), "{error:?}");
                });
            });
        });
    });
}
