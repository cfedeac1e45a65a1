//! Many at once: tasks, listeners, threads that come and go; each gets what it would get alone.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ratite::ConsoleConfig;
use ratite::qmp::EventFilter;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use tokio::runtime::Builder;
use tokio::time::timeout;

#[test]
fn a_thousand_tasks_of_which_half_give_up_take_nothing_from_the_others() {
    play(async |stage| {
        let machine = Arc::new(stage.fake(&[]).launch().await.unwrap());
        let listeners: Vec<_> =
            (0..2_000).map(|_| machine.listen(EventFilter::named("SHUTDOWN")).unwrap()).collect();

        let tasks = (0..1_000_u64).map(|number| {
            let machine = machine.clone();
            tokio::spawn(async move {
                let command = machine.cmd("query-status", ());
                match number % 2 {
                    0 => command.await.map(drop).expect("it is answered"),
                    _ => drop(timeout(Duration::from_micros(number), command).await),
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }

        machine.shutdown(PATIENCE).await.unwrap();
        assert!(listeners.iter().all(|listener| listener.len() == 1), "each hears of the end once");
    });
}

#[test]
fn a_machine_that_is_dropped_ends_every_command_that_waits() {
    play(async |stage| {
        let machine = stage.fake(&["never-answer=query-version"]).launch().await.unwrap();
        let client = machine.client().unwrap().clone();
        let (begins, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let tasks = (0..100).map(|_| {
            let (client, begins) = (client.clone(), begins.clone());
            tokio::spawn(async move {
                begins.send(()).expect("somebody counts");
                client.execute("query-version", ()).await
            })
        });
        let tasks: Vec<_> = tasks.collect();
        begun.recv_many(&mut Vec::new(), tasks.len()).await;

        drop(machine);

        for task in tasks {
            assert!(timeout(AT_ONCE, task).await.unwrap().unwrap().is_err());
        }
        assert!(client.execute("query-status", ()).await.is_err());
    });
}

#[test]
fn of_all_who_end_a_machine_at_once_each_gets_the_same_exit() {
    play(async |stage| {
        let config = stage.fake(&["console-flood=0"]).console(ConsoleConfig::serial());
        let machine = Arc::new(config.launch().await.unwrap());

        let enders = (0..48).map(|number| {
            let machine = machine.clone();
            tokio::spawn(async move {
                match number % 3 {
                    0 => machine.shutdown(PATIENCE).await,
                    1 => machine.kill().await,
                    _ => machine.wait(PATIENCE).await,
                }
            })
        });
        let mut exits = Vec::new();
        for ender in enders.collect::<Vec<_>>() {
            exits.push(ender.await.unwrap().unwrap().to_string());
        }

        exits.dedup();
        assert_eq!(exits.len(), 1, "{exits:?}");
    });
}

#[test]
fn threads_that_launch_and_end_at_once_leave_nothing() {
    play_blocking(|stage| {
        let config = stage.fake(&[]);
        thread::scope(|scope| {
            for number in 0..30 {
                let config = &config;
                scope.spawn(move || {
                    let runtime = || Builder::new_current_thread().enable_all().build().expect("a runtime");
                    let first = runtime();
                    let machine = first.block_on(config.launch()).expect("it launches");
                    match number % 3 {
                        0 => drop((first, machine)),
                        1 => drop((machine, first)),
                        _ => {
                            // Its monitor's runtime is gone; another one ends it.
                            drop(first);
                            let ended = runtime().block_on(machine.shutdown(PATIENCE));
                            ended.expect("it ends cleanly");
                        }
                    }
                });
            }
        });
    });
}
