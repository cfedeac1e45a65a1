//! QEMU's monitor for people, by QMP.

use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;

#[test]
fn what_the_monitor_prints_is_returned_whole() {
    play(async |stage| {
        let machine = stage.guest().launch().await.unwrap();

        let version = machine.human_monitor("info version").await.unwrap();
        let status = machine.human_monitor("info status").await.unwrap();
        let registers = machine.human_monitor_on(0, "info registers").await.unwrap();

        let expected = &machine.cmd("query-version", ()).await.unwrap()["qemu"];
        assert!(version.starts_with(&format!("{}.{}.", expected["major"], expected["minor"])), "{version}");
        assert_eq!(status, "VM status: running\r\n");
        assert!(registers.contains("EIP=") || registers.contains("RIP="), "{registers}");
        machine.kill().await.unwrap();
    });
}

#[test]
fn what_it_does_not_know_it_says_and_what_qmp_does_not_take_is_an_error() {
    play(async |stage| {
        let machine = stage.guest().launch().await.unwrap();

        let unknown = machine.human_monitor("nosuch").await.unwrap();
        let processor = machine.human_monitor_on(9, "info registers").await.unwrap_err();

        assert_eq!(unknown, "unknown command: 'nosuch'\r\n");
        assert_says(&processor, &["QEMU refused `human-monitor-command`", "expects a CPU number"]);
        machine.kill().await.unwrap();
    });
}
