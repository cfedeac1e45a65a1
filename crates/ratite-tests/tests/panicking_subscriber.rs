//! A subscriber of `tracing` is the program's own code, and may panic: that ends no watch over a machine.

use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::wait_until;

#[test]
fn a_machine_goes_and_its_end_is_told_though_a_subscriber_panics() {
    play_blocking(|stage| {
        let mut controller = Controller::start(stage, &["--panicking", "--fake", "ignore-sigterm"]);
        let (pid, folder) = controller.machines.remove(0);

        controller.order("drop");

        assert_eq!(controller.answer(), "was killed by signal 9 (SIGKILL)");
        assert!(!is_alive(pid));
        wait_until("its folder is gone", AT_ONCE, || !folder.exists());
        controller.order("launch");
        let answer = controller.answer();
        controller.note(&answer);
        controller.order("shut down");
        assert_eq!(controller.answer(), "QEMU exited with status 0 (host-qmp-quit)");
        assert_eq!(entries(stage.base()), Vec::<String>::new());
        controller.order("return");
        assert!(controller.wait().success());
    });
}
