//! Many machines at once in one program.

use std::collections::BTreeSet;
use std::sync::Arc;

use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::MachineConfig;
use ratite_tests::orphans::processes_with_mark;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play;
use ratite_tests::scenario::wait_until;
use serde_json::json;

async fn launch_all(config: MachineConfig, count: usize) -> Vec<Machine> {
    let config = Arc::new(config);
    let launches: Vec<_> = (0..count)
        .map(|_| {
            let config = config.clone();
            tokio::spawn(async move { config.launch().await.expect("it launches") })
        })
        .collect();
    let mut machines = Vec::new();
    for launch in launches {
        machines.push(launch.await.expect("no task panics"));
    }
    machines
}

async fn shut_down_all(machines: Vec<Machine>) {
    let endings: Vec<_> = machines
        .into_iter()
        .map(|machine| {
            tokio::spawn(async move { machine.shutdown(PATIENCE).await.expect("it ends cleanly") })
        })
        .collect();
    for ending in endings {
        assert!(ending.await.expect("no task panics").success());
    }
}

#[test]
fn sixty_four_machines_at_once_all_answer_and_all_end() {
    play(async |stage| {
        let config = stage.fake(&["console-banner=up"]).console(ConsoleConfig::serial());
        let machines = launch_all(config, 64).await;

        for (number, machine) in machines.iter().enumerate() {
            let answer = machine.cmd("fake-echo", json!({ "number": number })).await.unwrap();
            assert_eq!(answer, json!({ "number": number }));
            machine.console().unwrap().expect("up", PATIENCE).await.unwrap();
        }
        let pids: BTreeSet<_> = machines.iter().map(Machine::pid).collect();
        let folders: BTreeSet<_> = machines.iter().map(|machine| machine.work_folder().to_owned()).collect();

        assert_eq!((pids.len(), folders.len()), (64, 64));
        shut_down_all(machines).await;
        assert_eq!(entries(stage.base()), Vec::<String>::new());
    });
}

#[test]
fn sixty_four_machines_dropped_at_once_all_go() {
    play(async |stage| {
        let config = stage.fake(&["ignore-sigterm", "spawn-child"]).console(ConsoleConfig::serial());
        let machines = launch_all(config, 64).await;

        drop(machines);

        let mark = format!("{}-", std::process::id());
        wait_until("every process is gone", AT_ONCE, || processes_with_mark(&mark).is_empty());
        wait_until("every folder is gone", AT_ONCE, || entries(stage.base()).is_empty());
    });
}

#[test]
fn real_machines_at_once_all_answer_and_all_end() {
    play(async |stage| {
        let machines = launch_all(stage.real(), 16).await;

        for machine in &machines {
            assert!(machine.cmd("query-status", ()).await.is_ok());
        }

        shut_down_all(machines).await;
    });
}

#[test]
fn one_machine_that_floods_does_not_hold_up_another() {
    play(async |stage| {
        let flooding = stage.fake(&["console-flood=0", "event-flood=0"]).console(ConsoleConfig::serial());
        let floods = launch_all(flooding, 3).await;
        let quiet = stage.fake(&["console-echo"]).console(ConsoleConfig::serial()).launch().await.unwrap();
        let console = quiet.console().unwrap();

        for number in 0..20 {
            console.write(format!("{number}\n")).await.unwrap();
            console.expect(&*format!("you said: {number}\n"), PATIENCE).await.unwrap();
        }

        assert!(quiet.shutdown(PATIENCE).await.unwrap().success());
        for flood in floods {
            flood.kill().await.unwrap();
        }
    });
}

#[test]
fn one_machine_that_dies_disturbs_no_other() {
    play(async |stage| {
        let machines = launch_all(stage.fake(&[]), 8).await;

        for machine in &machines[..4] {
            machine.cmd("fake-abort", ()).await.unwrap_err();
        }

        for machine in &machines[4..] {
            assert!(machine.is_running());
            assert!(machine.cmd("query-status", ()).await.is_ok());
        }
    });
}
