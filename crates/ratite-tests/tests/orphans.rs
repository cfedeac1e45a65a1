//! Nothing outlives the program that launched, however that program ends.
//!
//! Each row of [`ENDINGS`] is played with each kind of machine, by a program of its own.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::thread;

use ratite_tests::orphans::children_of;
use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::PidfdGetfdFlags;
use rustix::process::Signal;

/// How a program may end, as its status or signal tells it afterwards.
const ENDINGS: [(&str, i32); 6] =
    [("return", 0), ("forget", 0), ("panic", 101), ("abort", 128 + 6), ("exit", 7), ("exec", 0)];

/// The signals that end a program.
const SIGNALS: [Signal; 5] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::KILL];

/// Plays every ending with the machines that `options` ask for, all at once, each on a stage of its own.
fn check_every_ending(options: &[&str]) {
    thread::scope(|scope| {
        for (order, status) in ENDINGS {
            scope.spawn(move || {
                let stage = Stage::empty();
                let controller = Controller::start(&stage, options);
                let ended = controller.end_by(|controller| controller.order(order));
                let told = ended.code().or(ended.signal().map(|signal| 128 + signal));
                assert_eq!(told, Some(status), "after `{order}`");
            });
        }
        for signal in SIGNALS {
            scope.spawn(move || {
                let stage = Stage::empty();
                let controller = Controller::start(&stage, options);
                let ended = controller.end_by(|controller| controller.signal(signal));
                assert_eq!(ended.signal(), Some(signal.as_raw()));
            });
        }
    });
}

/// The options for a wrapper of these words.
fn wrapped<'a>(wrapper: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let words = wrapper.iter().flat_map(|word| ["--wrapper", word]);
    words.chain(more.iter().copied()).collect()
}

#[test]
fn a_plain_machine_ends_with_its_program() {
    play_blocking(|_| check_every_ending(&["--machines", "3"]));
}

#[test]
fn a_machine_that_ignores_signals_ends_with_its_program() {
    play_blocking(|_| {
        check_every_ending(&["--fake", "ignore-sigterm", "--fake", "ignore-quit"]);
    });
}

#[test]
fn a_real_qemu_ends_with_its_program() {
    play_blocking(|_| check_every_ending(&["--real"]));
}

#[test]
fn a_machine_in_its_programs_group_ends_with_its_program() {
    play_blocking(|_| check_every_ending(&["--callers-group", "--fake", "spawn-child"]));
}

#[test]
fn what_a_machine_has_started_ends_with_its_program() {
    play_blocking(|_| {
        check_every_ending(&["--fake", "spawn-child", "--fake", "spawn-child-new-group"]);
    });
}

#[test]
fn a_machine_in_a_shell_ends_with_its_program() {
    play_blocking(|_| check_every_ending(&wrapped(&["sh", "-c", r#""$@"; true"#, "sh"], &[])));
}

#[test]
fn a_machine_in_a_shell_with_a_second_child_ends_with_its_program() {
    play_blocking(|_| {
        let shell = ["sh", "-c", r#"setsid sleep 1000 & sleep 1000 & "$@"; true"#, "sh"];
        check_every_ending(&wrapped(&shell, &["--fake", "ignore-sigterm"]));
    });
}

#[test]
fn a_machine_in_another_wrapper_ends_with_its_program() {
    play_blocking(|_| {
        for wrapper in [&["env", "A=b"][..], &["taskset", "1"], &["timeout", "100"], &["nice"]] {
            let options = wrapped(wrapper, &[]);
            check_every_ending(&options);
        }
    });
}

#[test]
fn a_machine_in_a_wrapper_that_clears_its_environment_ends_with_its_program() {
    play_blocking(|stage| {
        // As `sudo` and its like do: the mark is gone, and the shell that would be signalled dies first.
        let options = wrapped(&["sh", "-c", r#"env -i "$@"; true"#, "sh"], &[]);
        let controller = Controller::start(stage, &options);
        let qemu = children_of(controller.machines[0].0)[0].pid;

        controller.end_by(|controller| controller.signal(Signal::KILL));

        wait_until("QEMU is gone", AT_ONCE, || !is_alive(qemu));
    });
}

#[test]
fn a_stopped_machine_ends_with_its_program() {
    play_blocking(|stage| {
        for wrapper in [&[][..], &["sh", "-c", r#""$@"; true"#, "sh"]] {
            let options = wrapped(wrapper, &["--machines", "2"]);
            let stop = |controller: &Controller| {
                for (pid, _) in &controller.machines {
                    send_signal(*pid, Signal::STOP);
                }
            };

            Controller::start(stage, &options).end_by(|controller| {
                stop(controller);
                controller.signal(Signal::KILL);
            });
            Controller::start(stage, &options).end_by(|controller| {
                stop(controller);
                controller.order("return");
            });
        }
    });
}

#[test]
fn a_program_that_is_killed_in_the_middle_of_a_launch_leaves_nothing() {
    play_blocking(|stage| {
        for round in 0..10 {
            Controller::start(stage, &[]).end_by(|controller| {
                for _ in 0..round {
                    controller.order("launch");
                }
                controller.signal(Signal::KILL);
            });
        }
    });
}

#[test]
fn a_program_without_its_runtime_keeps_its_machines_until_it_ends() {
    play_blocking(|stage| {
        Controller::start(stage, &["--machines", "2"]).end_by(|controller| {
            controller.order("drop the runtime");
            assert_eq!(controller.answer(), "dropped");
            assert!(controller.machines.iter().all(|(pid, _)| is_alive(*pid)));
            controller.order("return");
        });
    });
}

#[test]
fn a_guard_that_somebody_killed_is_replaced_by_one_that_knows_as_much() {
    play_blocking(|stage| {
        // Without their mark machines are known by their groups alone.
        let mut controller =
            Controller::start(stage, &wrapped(&["sh", "-c", r#"env -i "$@"; true"#, "sh"], &[]));
        let guard = controller.guard();
        send_signal(guard, Signal::KILL);
        wait_until("the guard is gone", AT_ONCE, || !is_alive(guard));

        controller.order("launch");
        let answer = controller.answer();
        controller.note(&answer);

        assert_ne!(controller.guard(), guard);
        let shells = controller.machines.iter().map(|(shell, _)| *shell);
        let qemus: Vec<_> = shells.map(|shell| children_of(shell)[0].pid).collect();
        controller.end_by(|controller| controller.signal(Signal::KILL));
        wait_until("each QEMU is gone", AT_ONCE, || !qemus.iter().any(|qemu| is_alive(*qemu)));
    });
}

#[test]
fn a_ctrl_c_for_the_programs_group_reaches_neither_machine_nor_guard() {
    play_blocking(|stage| {
        // In a group of its own, as a shell runs its foreground job; it survives what the group is sent.
        let mut controller = Controller::start_in_shell(r#"trap "" INT; exec setsid "$@""#, stage, &[]);
        let group = Pid::from_raw(controller.id().try_into().unwrap()).unwrap();

        rustix::process::kill_process_group(group, Signal::INT).unwrap();

        controller.order("shut down");
        assert_eq!(controller.answer(), "QEMU exited with status 0 (host-qmp-quit)");
        assert!(is_alive(controller.guard()));
    });
}

/// Copies of every descriptor of a program, as a process has them that was forked off it and runs on.
fn descriptors_of(pid: u32) -> Vec<OwnedFd> {
    let number = pid.try_into().ok().and_then(Pid::from_raw).expect("a pid is a positive number");
    let process = rustix::process::pidfd_open(number, PidfdFlags::empty()).expect("it lives");
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let copy = |number| rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty());
    numbers.map(|number| copy(number).expect("it stays open")).collect()
}

#[test]
fn a_process_that_was_forked_off_its_program_keeps_no_machine_alive() {
    play_blocking(|stage| {
        for wrapper in [&[][..], &["sh", "-c", r#""$@"; true"#, "sh"]] {
            let controller = Controller::start(stage, &wrapped(wrapper, &[]));
            let forked = descriptors_of(controller.id());

            controller.end_by(|controller| controller.signal(Signal::KILL));

            drop(forked);
        }
    });
}
