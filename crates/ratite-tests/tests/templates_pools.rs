//! Machines that are started ahead, of a template or plain ones, and prepared before anybody takes them.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use ratite::ConsoleError;
use ratite::Machine;
use ratite::SpawnError;
use ratite::blocking;
use ratite::guest;
use ratite::qmp::Event;
use ratite_tests::orphans;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use ratite_tests::templates::at_prompt;
use ratite_tests::templates::config;
use ratite_tests::templates::echoes;
use ratite_tests::templates::here;
use ratite_tests::templates::is_running;
use ratite_tests::templates::plain;
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_pool_gives_machines_that_run() {
    play(async |stage| {
        let config = config(stage);
        let template = at_prompt(&config).await.freeze().await.unwrap();
        for pool in [template.pool_with(2, here(stage)).unwrap(), config.pool(2).unwrap()] {
            pool.filled().await;
            let mut taken = Vec::new();
            for number in 0..5 {
                let machine = pool.take().await.unwrap();
                assert!(is_running(&machine).await);
                echoes(&machine, &format!("number {number}")).await;
                taken.push(machine);
            }
            for machine in taken {
                machine.kill().await.unwrap();
            }
        }
        assert!(matches!(template.pool(0), Err(SpawnError::EmptyPool)));
    });
}

#[test]
fn a_pool_passes_over_machines_that_have_died_and_tells_why_none_comes() {
    play(async |stage| {
        let pool = config(stage).name("pooled").pool(1).unwrap();
        pool.filled().await;
        let children = orphans::children_of(std::process::id());
        let waiting = children.iter().find(|child| child.command_line.contains("qemu-system")).unwrap().pid;
        send_signal(waiting, Signal::KILL);
        wait_until("it is dead", PATIENCE, || !orphans::is_alive(waiting));

        let machine = pool.take().await.unwrap();

        assert_ne!(machine.pid(), waiting);
        machine.kill().await.unwrap();
        let broken = plain(stage).args(["-device", "none-such"]).pool(1).unwrap();
        for _ in 0..3 {
            assert_says(&broken.take().await.unwrap_err(), &["could not launch"]);
        }
    });
}

/// What is done with a pool's machines before anybody takes one.
async fn say_hello(machine: &Machine) -> Result<(), ConsoleError> {
    let console = machine.console().unwrap();
    console.write("echo hello\n").await?;
    console.expect("\nhello\r\n", PATIENCE).await.map(drop)
}

#[test]
fn machines_are_prepared_and_stand_still_until_they_are_taken() {
    play(async |stage| {
        let template = at_prompt(&config(stage)).await.freeze().await.unwrap();
        let (keep, kept) = mpsc::channel();
        // It would be refused a second time.
        let spawn = here(stage).command("object-add", json!({"qom-type": "rng-builtin", "id": "once"}));
        let pool = template.prepared_pool(2, spawn, move |machine: Machine| {
            let keep = keep.clone();
            async move {
                let outcome = say_hello(&machine).await;
                keep.send(machine).unwrap();
                outcome
            }
        });
        let pool = pool.unwrap();

        pool.filled().await;

        let waiting: Vec<Machine> = kept.try_iter().collect();
        assert_eq!(waiting.len(), 2);
        for machine in &waiting {
            assert!(!is_running(machine).await);
        }
        for _ in 0..3 {
            let machine = pool.take().await.unwrap();
            let events = machine.take_events();
            assert_eq!(events.iter().map(Event::name).collect::<Vec<_>>(), ["RESUME"]);
            let said = machine.console().unwrap().tail(1 << 10).text();
            assert!(said.contains("\nhello\r\n"), "{said:?}");
            // Those who have helped with it end nothing.
            kept.try_iter().for_each(drop);
            echoes(&machine, "taken").await;
            machine.kill().await.unwrap();
        }
        pool.filled().await;
        drop(pool);
        // And they do not hold it.
        for machine in waiting.into_iter().chain(kept.try_iter()) {
            machine.exited().await;
        }
    });
}

#[test]
fn a_plain_machine_is_prepared_too_and_one_that_is_to_stand_still_does() {
    play(async |stage| {
        let boot = |machine: Machine| async move {
            machine.console().unwrap().expect(guest::PROMPT, PATIENCE).await.map(drop)
        };
        let config = config(stage);
        let booted = config.prepared_pool(1, boot).unwrap().take().await.unwrap();
        // The prompt has come, was the preparation's to read, and nothing else has come since.
        let console = booted.console().unwrap();
        assert!(console.tail(1 << 10).text().ends_with(guest::PROMPT));
        assert_eq!(console.take().unwrap(), b"");
        echoes(&booted, "plain").await;
        booted.kill().await.unwrap();

        let template = at_prompt(&config).await.freeze().await.unwrap();
        for pool in [
            template.prepared_pool(1, here(stage).paused(), stands_still).unwrap(),
            config.arg("-S").prepared_pool(1, stands_still).unwrap(),
        ] {
            let machine = pool.take().await.unwrap();
            assert!(!is_running(&machine).await);
            machine.cmd("cont", ()).await.unwrap();
            machine.kill().await.unwrap();
        }
    });
}

async fn stands_still(machine: Machine) -> Result<(), String> {
    if is_running(&machine).await { Err("it runs".into()) } else { Ok(()) }
}

#[test]
fn a_preparation_that_fails_is_told_and_the_next_machine_is_tried() {
    play(async |stage| {
        let template = at_prompt(&config(stage)).await.freeze().await.unwrap();
        let times = AtomicUsize::new(0);
        let pool = template.prepared_pool(1, here(stage), move |machine: Machine| {
            let time = times.fetch_add(1, Ordering::Relaxed);
            assert_ne!(time, 3, "before it began");
            async move {
                match time {
                    0 => Err(format!("not {} again", machine.pid())),
                    1 => panic!("out of order"),
                    2 => {
                        machine.kill().await.unwrap();
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
        });
        let pool = pool.unwrap();

        let refused = pool.take().await.unwrap_err();
        let panicked = pool.take().await.unwrap_err();
        let ended = pool.take().await.unwrap_err();
        let panicked_at_once = pool.take().await.unwrap_err();

        assert!(matches!(&refused, SpawnError::Prepare(cause) if cause.to_string().contains("again")));
        assert_says(&refused, &["the machine could not be prepared", "not ", " again"]);
        assert_says(&panicked, &["the machine could not be prepared", "out of order"]);
        assert_says(&ended, &["the machine could not be prepared", "QEMU was killed by signal 9"]);
        assert_says(&panicked_at_once, &["the machine could not be prepared", "before it began"]);
        let machine = pool.take().await.unwrap();
        echoes(&machine, "the fifth").await;
        machine.kill().await.unwrap();
    });
}

#[test]
fn a_pool_that_goes_ends_a_preparation_that_blocks() {
    play_blocking(|stage: &Stage| {
        let (told, tell) = mpsc::channel();
        let wait_for_ever = move |machine: &blocking::Machine| {
            let console = machine.console().unwrap();
            console.expect(guest::PROMPT, PATIENCE)?;
            told.send(None).unwrap();
            let never = console.expect("what nobody says", PATIENCE * 10);
            told.send(Some(never.as_ref().unwrap_err().to_string())).unwrap();
            never.map(drop)
        };
        let pool = blocking::Pool::prepared(&config(stage), 1, wait_for_ever).unwrap();
        assert_eq!(tell.recv_timeout(PATIENCE).unwrap(), None);

        drop(pool);

        let said = tell.recv_timeout(PATIENCE).unwrap().unwrap();
        assert!(said.contains("killed"), "{said}");
    });
}

#[test]
fn pools_without_async_prepare_in_threads() {
    play_blocking(|stage: &Stage| {
        let hello = |machine: &blocking::Machine| -> Result<(), ConsoleError> {
            let console = machine.console().unwrap();
            console.expect(guest::PROMPT, PATIENCE)?;
            console.write("echo hello\n")?;
            console.expect("\nhello\r\n", PATIENCE).map(drop)
        };
        let config = config(stage);
        let template = blocking::Machine::launch(&config).unwrap().freeze().unwrap();
        for pool in [
            template.prepared_pool(1, here(stage), hello).unwrap(),
            blocking::Pool::prepared(&config, 1, hello).unwrap(),
        ] {
            let machine = pool.take().unwrap();
            let console = machine.console().unwrap();
            assert!(console.tail(1 << 10).text().contains("\nhello\r\n"));
            console.write("echo taken\n").unwrap();
            console.expect("\ntaken\r\n", PATIENCE).unwrap();
            machine.kill().unwrap();
        }
    });
}
