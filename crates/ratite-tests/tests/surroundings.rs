//! Programs in trouble of their own: short of descriptors, without signals, without a folder, with a stopped guard.

use std::time::Instant;

use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;

/// What a controller says of a machine that ended as it was told to.
const ENDED: &str = "QEMU exited with status 0 (host-qmp-quit)";

/// Plays a launch, an end and another launch in a program that a shell has started so.
fn check_works(stage: &Stage, script: &str) {
    check_works_and_says(stage, script, ENDED);
}

/// The same, where a machine's end is told in other words.
fn check_works_and_says(stage: &Stage, script: &str, end: &str) {
    let mut controller = Controller::start_in_shell(script, stage, &[]);

    controller.order("shut down");
    assert_eq!(controller.answer(), end, "after `{script}`");
    assert_eq!(entries(stage.base()), Vec::<String>::new());
    controller.machines.clear();
    controller.order("launch");
    let answer = controller.answer();
    controller.note(&answer);

    controller.end_by(|controller| controller.order("return"));
}

#[test]
fn a_program_that_ignores_the_end_of_its_children_still_sees_that_of_its_machines() {
    play_blocking(|stage| {
        // Ignored, the signal makes the system reap every child at once, so that nobody learns of a status.
        let mut controller = Controller::start_in_shell(r#"exec env --ignore-signal=CHLD "$@""#, stage, &[]);

        let start = Instant::now();
        controller.order("shut down");
        let answer = controller.answer();

        assert!(start.elapsed() < AT_ONCE, "after {:?}: {answer}", start.elapsed());
        assert_eq!(entries(stage.base()), Vec::<String>::new());
        controller.machines.clear();
        controller.order("launch");
        let answer = controller.answer();
        controller.note(&answer);
        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn a_program_that_ignores_signals_does_not_hand_that_on_to_the_end_of_a_machine() {
    play_blocking(|stage| check_works(stage, r#"trap "" HUP INT QUIT TERM PIPE USR1; exec "$@""#));
}

#[test]
fn a_program_without_standard_error_or_path_or_home_works() {
    play_blocking(|stage| {
        check_works(stage, r#"exec "$@" 2>&-"#);
        check_works(stage, r#"unset PATH HOME; exec "$@""#);
    });
}

#[test]
fn a_program_whose_folder_is_gone_works() {
    play_blocking(|stage| {
        let folder = stage.path("gone");
        let script = format!(r#"mkdir {0} && cd {0} && rmdir {0} && exec "$@""#, folder.display());

        check_works(stage, &script);
    });
}

#[test]
fn a_program_at_the_end_of_its_descriptors_says_so_and_goes_on() {
    play_blocking(|stage| {
        let mut controller = Controller::start(stage, &["--descriptors", "300"]);
        let refused = loop {
            controller.order("launch");
            let answer = controller.answer();
            if answer.starts_with("failed") {
                break answer;
            }
            controller.note(&answer);
        };

        assert!(refused.contains("Too many open files"), "{refused}");
        for _ in 0..5 {
            controller.order("launch");
            assert!(controller.answer().starts_with("failed"), "nothing was freed");
        }
        let count = controller.machines.len();
        assert_eq!(entries(stage.base()).len(), count, "a failed launch leaves nothing");
        controller.order("shut down");
        for _ in 0..count {
            assert_eq!(controller.answer(), ENDED);
        }
        controller.machines.clear();
        controller.order("launch");
        let answer = controller.answer();
        controller.note(&answer);
        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn at_every_lack_of_descriptors_a_launch_works_or_fails_and_leaves_nothing() {
    play_blocking(|stage| {
        // Enough for a runtime and the guard; each further one gets a launch a step further. Whoever runs the tests may
        // have left us some with large numbers, which count for nothing here.
        for descriptors in 20..60 {
            let descriptors = descriptors.to_string();
            let options = ["--machines", "0", "--descriptors", &descriptors];
            let mut controller = Controller::start(stage, &options);

            controller.order("launch");
            let answer = controller.answer();

            let failed = answer.starts_with("failed");
            assert!(!failed || answer.contains("Too many open files"), "with {descriptors}: {answer}");
            let left = || entries(stage.base()).len() == usize::from(!failed);
            wait_until(&format!("nothing is left with {descriptors} after: {answer}"), AT_ONCE, left);
            controller.order("return");
            controller.wait();
            wait_until("no folder is left", AT_ONCE, || entries(stage.base()).is_empty());
        }
    });
}

#[test]
fn a_stopped_guard_does_not_keep_a_machine_alive() {
    play_blocking(|stage| {
        let mut controller = Controller::start(stage, &["--fake", "ignore-sigterm"]);
        let (guard, machine) = (controller.guard(), controller.machines[0].0);
        send_signal(guard, Signal::STOP);

        controller.signal(Signal::KILL);
        controller.wait();
        wait_until("the machine is gone", AT_ONCE, || !is_alive(machine));

        send_signal(guard, Signal::CONT);
        wait_until("the guard has done its work", PATIENCE, || !is_alive(guard));
        assert_eq!(entries(stage.base()), Vec::<String>::new());
    });
}

#[test]
fn a_stopped_guard_does_not_hold_up_launches() {
    play_blocking(|stage| {
        // The guard is told of each base folder; a pipe that it does not read takes 64 KiB.
        let long = vec!["x".repeat(200); 17].join("/");
        let mut controller = Controller::start(stage, &[]);
        let guard = controller.guard();
        send_signal(guard, Signal::STOP);

        for number in 0..25 {
            let base = stage.path(&number.to_string()).join(&long);
            std::fs::create_dir_all(&base).unwrap();
            controller.order(&format!("launch in {}", base.display()));
            let answer = controller.answer();
            controller.note(&answer);
        }

        controller.order("shut down");
        for _ in &controller.machines.clone() {
            assert_eq!(controller.answer(), ENDED);
        }
        // A guard that does not listen may have been given up.
        if is_alive(guard) {
            send_signal(guard, Signal::CONT);
        }
        controller.order("return");
        assert!(controller.wait().success());
        wait_until("the guard is gone", AT_ONCE, || !is_alive(guard));
    });
}

#[test]
fn a_qemu_that_may_not_write_more_is_told_with_its_signal() {
    play_blocking(|stage| {
        let options = ["--file-size", "4096", "--machines", "0", "--fake", "stderr-bytes=100000"];
        let mut controller = Controller::start(stage, &options);

        controller.order("launch");

        let answer = controller.answer();
        assert!(answer.contains("SIGXFSZ"), "{answer}");
        controller.order("return");
        assert!(controller.wait().success());
    });
}
