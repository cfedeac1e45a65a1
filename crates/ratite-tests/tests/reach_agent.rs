//! The agent in the guest of a machine that is reached by its name.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::thread;
use std::time::Duration;

use ratite::Asked;
use ratite::Machine;
use ratite::blocking;
use ratite::qmp::Agent;
use ratite::qmp::AgentError;
use ratite::qmp::GuestProgram;
use ratite::qmp::ShutdownMode;
use ratite::reach;
use ratite::reach::ReachError;
use ratite_tests::guest_agent::START;
use ratite_tests::guest_agent::in_linux_guest;
use ratite_tests::linux_guest::PROMPT;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::apart::apart;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;

/// A Linux guest by the name `web`, whose shell waits for a command; its agent does not run yet.
async fn linux(stage: &Stage) -> Machine {
    let config = in_linux_guest(&stage.path("initrd")).base_folder(stage.base()).name("web").reachable();
    let machine = config.launch().await.unwrap();
    machine.console().unwrap().expect(PROMPT, PATIENCE).await.unwrap();
    machine
}

async fn start(machine: &Machine) {
    machine.console().unwrap().write(format!("{START}\n")).await.unwrap();
}

async fn agent() -> Agent {
    reach::attach("web").await.unwrap().agent(PATIENCE).await.unwrap()
}

fn sh(script: &str) -> GuestProgram {
    GuestProgram::new("/bin/sh").args(["-c", script])
}

#[test]
fn an_agent_is_reached_by_name_beside_its_owner() {
    apart("an_agent_is_reached_by_name_beside_its_owner", || {
        play(async |stage| {
            let machine = linux(stage).await;
            let ours = machine.agent().unwrap();
            let theirs = agent().await;
            assert!(reach::list().await.unwrap()[0].agent);
            let error = theirs.with_limit(Duration::from_millis(500)).ping().await.unwrap_err();
            assert!(matches!(error, AgentError::NoAgent { .. }), "{error:?}");

            start(&machine).await;

            theirs.ping().await.unwrap();
            assert_eq!(theirs.info().await.unwrap(), ours.info().await.unwrap());
            let bytes: Vec<u8> =
                (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            theirs.write_file("/tmp/file", &bytes).await.unwrap();
            assert_eq!(ours.read_file("/tmp/file").await.unwrap(), bytes);
            assert_eq!(theirs.read_file("/tmp/file").await.unwrap(), bytes);
            let refused = theirs.exec(&GuestProgram::new("/nowhere"), PATIENCE).await.unwrap_err();
            assert!(matches!(refused, AgentError::Refused { .. }), "{refused:?}");
            let unknown = theirs.execute("guest-fly", ()).await.unwrap_err();
            assert!(matches!(unknown, AgentError::Unknown { .. }), "{unknown:?}");

            // Many at once, with the owner among them.
            let mut all = vec![ours.clone()];
            for _ in 0..5 {
                all.push(agent().await);
            }
            let asked = all.into_iter().enumerate().map(|(n, agent)| {
                tokio::spawn(
                    async move { agent.exec(&sh(&format!("echo {n}")), PATIENCE).await.unwrap().text() },
                )
            });
            for (n, asked) in asked.collect::<Vec<_>>().into_iter().enumerate() {
                assert_eq!(asked.await.unwrap(), format!("{n}\n"));
            }

            theirs.shutdown(ShutdownMode::PowerDown).await.unwrap();
            let exit = machine.wait(PATIENCE).await.unwrap();
            assert_eq!(exit.asked, Asked::Guest, "{exit:?}");
            assert!(theirs.ping().await.is_err());
        });
    });
}

#[test]
fn the_agent_of_a_program_that_computes_is_reached_all_the_same() {
    apart("the_agent_of_a_program_that_computes_is_reached_all_the_same", || {
        play_blocking(|stage| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let machine = runtime.block_on(async {
                let machine = linux(stage).await;
                start(&machine).await;
                machine
            });

            // Nobody drives the runtime.
            let agent = blocking::reach::attach("web").unwrap().agent(PATIENCE).unwrap();
            assert_eq!(agent.exec(&sh("echo here"), PATIENCE).unwrap().text(), "here\n");

            runtime.block_on(machine.kill()).unwrap();
        });
    });
}

#[test]
fn a_visitor_that_goes_in_the_middle_leaves_the_agent_to_the_others() {
    apart("a_visitor_that_goes_in_the_middle_leaves_the_agent_to_the_others", || {
        play(async |stage| {
            let machine = linux(stage).await;
            start(&machine).await;
            machine.agent().unwrap().ping().await.unwrap();

            for _ in 0..20 {
                let rude = agent().await;
                // Some are cut off before the command is sent, others in the middle of its reply.
                let reading = tokio::spawn(async move { rude.read_file("/bin/busybox").await });
                let other = agent().await;
                assert!(other.exec(&sh("exit 0"), PATIENCE).await.unwrap().success());
                reading.abort();
                drop(reading.await);
                machine.agent().unwrap().ping().await.unwrap();
            }
            machine.kill().await.unwrap();
        });
    });
}

#[test]
fn a_machine_without_a_channel_says_so_and_how_it_gets_one() {
    apart("a_machine_without_a_channel_says_so_and_how_it_gets_one", || {
        play(async |stage| {
            let machine = stage.guest().name("web").reachable().launch().await.unwrap();
            let web = reach::attach("web").await.unwrap();

            let error = web.agent(PATIENCE).await.unwrap_err();

            assert!(matches!(error, ReachError::Refused { .. }), "{error:?}");
            assert_eq!(
                error.to_string(),
                "the machine `web` refused: it has no channel to a guest agent: `MachineConfig::agent` gives it one, \
                 and `ratite run --agent`"
            );
            assert!(!web.facts().await.unwrap().agent);
            machine.shutdown(PATIENCE).await.unwrap();
            assert!(matches!(web.agent(PATIENCE).await, Err(ReachError::NotThere { .. })));
        });
    });
}

#[test]
fn a_guest_without_an_agent_is_told_and_the_machines_end_too() {
    apart("a_guest_without_an_agent_is_told_and_the_machines_end_too", || {
        play_blocking(|stage| {
            let machine = blocking::Machine::launch(&stage.guest().agent().name("web").reachable()).unwrap();
            let web = blocking::reach::attach("web").unwrap();
            let error = web.agent(Duration::from_millis(300)).unwrap().ping().unwrap_err();
            assert!(matches!(error, AgentError::NoAgent { heard: None, .. }), "{error:?}");

            let waiting = web.agent(Duration::MAX).unwrap();
            let waiting = thread::spawn(move || waiting.ping().unwrap_err());
            let idle = web.agent(PATIENCE).unwrap();
            assert!(machine.shutdown(PATIENCE).unwrap().success());

            let error = waiting.join().unwrap();
            assert!(matches!(error, AgentError::Disconnected { .. }), "{error:?}");
            assert!(matches!(idle.ping().unwrap_err(), AgentError::Disconnected { .. }));
        });
    });
}
