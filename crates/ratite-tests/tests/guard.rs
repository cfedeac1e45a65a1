//! The guard in trouble: it is replaced while machines end, and its holder is sent what was meant for others.

use ratite_tests::orphans::children_of;
use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;

/// The process that keeps the guard waiting.
#[track_caller]
fn holder(controller: &Controller) -> u32 {
    let find = || {
        let mut children = children_of(controller.id()).into_iter();
        children.find(|child| child.command_line.starts_with("sleep ")).map(|child| child.pid)
    };
    let mut found = None;
    wait_until("there is a holder", PATIENCE, || {
        found = find();
        found.is_some()
    });
    found.expect("it was found")
}

#[test]
fn a_guard_is_replaced_while_machines_end() {
    play_blocking(|stage| {
        let mut controller = Controller::start(stage, &["--machines", "4"]);

        for _ in 0..40 {
            let guard = controller.guard();
            send_signal(guard, Signal::KILL);
            wait_until("the guard is gone", PATIENCE, || !is_alive(guard));
            for (machine, _) in controller.machines.drain(..) {
                send_signal(machine, Signal::KILL);
            }
            for _ in 0..4 {
                controller.order("launch");
                let answer = controller.answer();
                controller.note(&answer);
            }
        }

        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn a_signal_for_all_processes_of_a_unit_ends_neither_guard_nor_holder() {
    play_blocking(|stage| {
        let controller = Controller::start(stage, &[]);
        let (guard, holder) = (controller.guard(), holder(&controller));

        for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
            send_signal(guard, signal);
            send_signal(holder, signal);
        }
        // Whatever else a signal does, it has done when a later one has ended the process.
        send_signal(controller.machines[0].0, Signal::KILL);
        wait_until("the machine is gone", PATIENCE, || !is_alive(controller.machines[0].0));

        assert!(is_alive(guard) && is_alive(holder));
        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn a_guard_that_has_lost_its_holder_ends_no_machine_and_is_replaced() {
    play_blocking(|stage| {
        let mut controller = Controller::start(stage, &["--fake", "ignore-sigterm"]);
        let guard = controller.guard();
        let (machine, folder) = controller.machines[0].clone();

        send_signal(holder(&controller), Signal::KILL);
        wait_until("the guard has gone, too", AT_ONCE, || !is_alive(guard));

        assert!(is_alive(machine) && folder.exists());
        controller.order("launch");
        let answer = controller.answer();
        controller.note(&answer);
        controller.end_by(|controller| controller.signal(Signal::KILL));
    });
}
