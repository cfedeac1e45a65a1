//! A real QEMU that gives up a channel while it runs: what waits on it ends, and the machine still obeys.

use ratite::ConsoleError;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use serde_json::json;

#[test]
fn a_console_that_qemu_lets_go_has_ended_while_the_machine_runs() {
    play(async |stage| {
        let machine = stage.guest().launch().await.unwrap();
        let console = machine.console().unwrap();
        let closed = json!({ "type": "null", "data": {} });

        machine.cmd("chardev-change", json!({ "id": "console", "backend": closed })).await.unwrap();

        let error = console.expect("what never comes", PATIENCE).await.unwrap_err();
        assert!(matches!(error, ConsoleError::Ended { .. }), "{error}");
        assert!(machine.is_running());
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_monitor_is_not_let_go() {
    play(async |stage| {
        let machine = stage.real().launch().await.unwrap();
        let closed = json!({ "type": "null", "data": {} });

        let refused = machine.cmd("chardev-change", json!({ "id": "mon", "backend": closed })).await;

        assert_says(&refused.unwrap_err(), &["does not support chardev hotswap"]);
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_machine_that_is_not_initialised_yet_or_waits_to_be_migrated_still_ends() {
    play(async |stage| {
        for words in [&["-S"][..], &["-preconfig"], &["-incoming", "defer"], &["-no-shutdown"]] {
            let machine = stage.real().args(words).launch().await.unwrap();

            let exit = machine.shutdown(PATIENCE).await.unwrap();

            assert_eq!(exit.shutdown_reason.as_deref(), Some("host-qmp-quit"), "{words:?}");
        }
    });
}
