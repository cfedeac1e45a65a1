//! A real guest agent in a real guest, over the virtio channel that ratite gives to the machine.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::Duration;

use ratite::Asked;
use ratite::qmp::Agent;
use ratite::qmp::AgentError;
use ratite::qmp::FsState;
use ratite::qmp::GuestProgram;
use ratite::qmp::ShutdownMode;
use ratite_tests::guest_agent::START;
use ratite_tests::guest_agent::in_linux_guest;
use ratite_tests::linux_guest::PROMPT;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play;

/// A guest whose shell waits for a command.
async fn guest(stage: &Stage) -> ratite::Machine {
    let config = in_linux_guest(&stage.path("initrd")).base_folder(stage.base());
    let machine = config.launch().await.unwrap();
    machine.console().unwrap().expect(PROMPT, PATIENCE).await.unwrap();
    machine
}

async fn start(machine: &ratite::Machine) {
    machine.console().unwrap().write(format!("{START}\n")).await.unwrap();
}

async fn sh(agent: &Agent, script: &str) -> String {
    let program = GuestProgram::new("/bin/sh").args(["-c", script]);
    agent.exec(&program, PATIENCE).await.unwrap().text()
}

#[test]
fn an_agent_that_starts_late_is_found_and_works() {
    play(async |stage| {
        let machine = guest(stage).await;
        let agent = machine.agent().unwrap();
        let hasty = agent.with_limit(Duration::from_millis(300));
        // Two that nobody answers: they wait in the channel, and the agent reads them when it comes.
        for _ in 0..2 {
            let error = hasty.ping().await.unwrap_err();
            assert!(matches!(error, AgentError::NoAgent { .. }), "{error:?}");
        }

        start(&machine).await;

        agent.ping().await.unwrap();
        assert_eq!(sh(agent, "hostname; uname -s").await, "guest\nLinux\n");
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        agent.write_file("/tmp/file", &bytes).await.unwrap();
        assert_eq!(sh(agent, "wc -c < /tmp/file").await, "300000\n");
        assert_eq!(agent.read_file("/tmp/file").await.unwrap(), bytes);
        assert!(agent.interfaces().await.unwrap().iter().any(|interface| interface.name == "lo"));
        assert_eq!(agent.fs_status().await.unwrap(), FsState::Thawed);
        machine.kill().await.unwrap();
    });
}

#[test]
fn an_agent_that_is_killed_and_started_again_is_found_again() {
    play(async |stage| {
        let machine = guest(stage).await;
        let agent = machine.agent().unwrap();
        start(&machine).await;
        agent.ping().await.unwrap();
        let hasty = agent.with_limit(Duration::from_millis(500));

        machine
            .console()
            .unwrap()
            .write("killall ld-linux-x86-64.so.2 qemu-ga; echo ki''lled\n")
            .await
            .unwrap();
        machine.console().unwrap().expect("killed", PATIENCE).await.unwrap();
        let error = hasty.info().await.unwrap_err();
        assert!(error.is_timed_out(), "{error:?}");
        start(&machine).await;

        assert_eq!(sh(agent, "echo again").await, "again\n");
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_shutdown_takes_the_guest_down() {
    play(async |stage| {
        for mode in [ShutdownMode::PowerDown, ShutdownMode::Reboot] {
            let machine = guest(stage).await;
            let agent = machine.agent().unwrap();
            start(&machine).await;
            agent.ping().await.unwrap();

            agent.shutdown(mode).await.unwrap();

            let exit = machine.wait(PATIENCE).await.unwrap();
            assert_eq!(exit.asked, Asked::Guest, "{exit:?}");
        }
    });
}
