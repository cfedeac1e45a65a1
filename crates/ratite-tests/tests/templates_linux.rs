//! A Linux guest, booted once, frozen, and restored as often as it is wanted.

use std::time::Duration;
use std::time::Instant;

use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::RamTransfer;
use ratite::Shell;
use ratite::Template;
use ratite_tests::linux_guest::PROMPT;
use ratite_tests::linux_guest::machine;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play;

/// Against hangs only.
const LIMIT: Duration = Duration::from_secs(100);

fn config(stage: &Stage, words: &[&str]) -> MachineConfig {
    machine(words).machine_type("q35").args(["-m", "256"]).base_folder(stage.base()).freezable()
}

async fn booted(config: &MachineConfig) -> Machine {
    let machine = config.launch().await.unwrap();
    machine.console().unwrap().expect(PROMPT, LIMIT).await.unwrap();
    machine
}

async fn shell(machine: &Machine) -> Shell {
    Shell::attach(machine.console().unwrap(), LIMIT).await.unwrap()
}

async fn say(machine: &Machine, command: &str) -> String {
    shell(machine).await.check(command, LIMIT).await.unwrap().output.trim().to_owned()
}

#[test]
fn a_frozen_guest_goes_on_where_it_was() {
    play(async |stage| {
        let t = Instant::now();
        let machine = booted(&config(stage, &[])).await;
        eprintln!("boot {:?}", t.elapsed());
        say(&machine, "echo kept >/tmp/file; N=41; (while :; do echo x >>/tmp/ticks; sleep 0.1; done) &")
            .await;
        let t = Instant::now();
        let template = machine.freeze().await.unwrap();
        eprintln!("freeze {:?} {:?}", t.elapsed(), template.ram());
        for _ in 0..3 {
            let t = Instant::now();
            let spawned = template.spawn_with(&ratite::Spawn::new().base_folder(stage.base())).await.unwrap();
            eprintln!("spawn {:?}", t.elapsed());
            spawned.console().unwrap().write("\n").await.unwrap();
            spawned.console().unwrap().expect(PROMPT, LIMIT).await.unwrap();
            eprintln!("answer {:?}", t.elapsed());
            eprintln!("{}", say(&spawned, "cat /tmp/file; echo $((N+1)); wc -l </tmp/ticks").await);
            spawned.kill().await.unwrap();
        }
        let pool = template.pool_with(2, ratite::Spawn::new().base_folder(stage.base())).unwrap();
        pool.filled().await;
        for _ in 0..3 {
            let t = Instant::now();
            let spawned = pool.take().await.unwrap();
            eprintln!("take {:?}", t.elapsed());
            spawned.console().unwrap().write("\n").await.unwrap();
            spawned.console().unwrap().expect(PROMPT, LIMIT).await.unwrap();
            eprintln!("answer {:?}", t.elapsed());
            eprintln!(
                "{:?} {}",
                spawned.take_events(),
                say(&spawned, "cat /tmp/file; echo $((N+1)); wc -l </tmp/ticks").await
            );
            spawned.kill().await.unwrap();
        }
    });
}
