//! A Linux guest, booted once, frozen, and restored as often as it is wanted.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::Duration;
use std::time::SystemTime;

use ratite::Machine;
use ratite::MachineConfig;
use ratite::RamTransfer;
use ratite::Shell;
use ratite::Spawn;
use ratite_tests::linux_guest::PROMPT;
use ratite_tests::linux_guest::VIRTIO;
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

/// What a command prints, in a shell of its own.
async fn said(machine: &Machine, command: &str) -> String {
    shell(machine).await.check(command, LIMIT).await.unwrap().output.trim().to_owned()
}

fn here(stage: &Stage) -> Spawn {
    Spawn::new().base_folder(stage.base())
}

/// Leaves traces of all kinds: a variable of the shell, a file, and a process that counts on.
const TRACES: &str = "N=41; echo kept >/tmp/file; (while :; do echo tick >>/tmp/ticks; sleep 0.1; done) &";

#[test]
fn memory_files_and_processes_go_on_where_they_were() {
    play(async |stage| {
        let machine = booted(&config(stage, &[])).await;
        said(&machine, TRACES).await;
        let pid = said(&machine, "echo $$").await;

        let template = machine.freeze().await.unwrap();

        assert_eq!(template.ram(), RamTransfer::Mapped);
        drop(machine);
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        // At a prompt when it was frozen, it is at a prompt now: no byte comes before it is asked for something.
        let console = spawned.console().unwrap();
        assert_eq!(console.bytes_seen(), 0);
        assert_eq!(console.take().unwrap(), b"");
        console.reader().expect(PROMPT, LIMIT).await.unwrap();
        let mut shell = shell(&spawned).await;
        let mut ask =
            async |command: &str| shell.check(command, LIMIT).await.unwrap().output.trim().to_owned();
        assert_eq!(ask("echo $$ $((N + 1)) $(cat /tmp/file)").await, format!("{pid} 42 kept"));
        let ticks = ask("wc -l </tmp/ticks").await.parse::<u32>().unwrap();
        // The process that counts is still there, and still counts.
        ask(&format!("until [ $(wc -l </tmp/ticks) -gt {ticks} ]; do sleep 0.1; done")).await;
        spawned.kill().await.unwrap();
    });
}

#[test]
fn spawns_see_nothing_of_each_other_nor_of_those_before_them() {
    play(async |stage| {
        let machine = booted(&config(stage, &[])).await;
        said(&machine, TRACES).await;
        let template = machine.freeze().await.unwrap();

        let one = template.spawn_with(&here(stage)).await.unwrap();
        let other = template.spawn_with(&here(stage)).await.unwrap();
        said(
            &one,
            "echo changed >/tmp/file; N=0; dd if=/dev/urandom of=/tmp/large bs=1M count=32 2>/dev/null",
        )
        .await;

        for machine in [other, template.spawn_with(&here(stage)).await.unwrap()] {
            assert_eq!(
                said(&machine, "echo $N $(cat /tmp/file); ls /tmp/large 2>/dev/null || true").await,
                "41 kept"
            );
            machine.kill().await.unwrap();
        }
        assert_eq!(
            said(&one, "echo $N $(cat /tmp/file); wc -c </tmp/large").await,
            "0 changed\r\n33554432".replace('\r', "")
        );
        one.kill().await.unwrap();
    });
}

#[test]
fn a_machine_is_frozen_as_a_stream_where_its_ram_cannot_be_mapped() {
    play(async |stage| {
        let backend = ["-object", "memory-backend-ram,id=own,size=256M", "-machine", "memory-backend=own"];
        let machine = booted(&config(stage, &[]).args(backend)).await;
        said(&machine, TRACES).await;

        let template = machine.freeze().await.unwrap();

        let (RamTransfer::Streamed { because } | RamTransfer::Placed { because }) = template.ram() else {
            panic!("{:?}", template.ram());
        };
        assert!(because.contains("backends of their own"), "{because}");
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        assert_eq!(said(&spawned, "echo $((N + 1)) $(cat /tmp/file)").await, "42 kept");
        spawned.kill().await.unwrap();
    });
}

#[test]
fn fifty_spawns_at_once_are_fifty_machines() {
    play(async |stage| {
        let template = booted(&config(stage, &[])).await.freeze().await.unwrap();
        let mut spawns = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (template, spawn) = (template.clone(), here(stage));
            spawns.spawn(async move {
                let machine = template.spawn_with(&spawn).await.unwrap();
                let console = machine.console().unwrap();
                console.write(format!("echo $(({number} * 1000))\n")).await.unwrap();
                console.expect(format!("\n{}\r\n", number * 1000).as_str(), LIMIT).await.unwrap();
                machine
            });
        }

        let machines = spawns.join_all().await;

        let mut pids: Vec<_> = machines.iter().map(Machine::pid).collect();
        pids.sort_unstable();
        pids.dedup();
        assert_eq!(pids.len(), 50);
        for machine in machines {
            machine.kill().await.unwrap();
        }
    });
}

#[test]
fn a_disk_is_what_it_was_for_each_spawn_and_only_for_it() {
    play(async |stage| {
        let image = stage.path("disk.img");
        std::fs::write(&image, vec![0; 8 << 20]).unwrap();
        let drive = format!("file={},format=raw,if=virtio", image.display());
        let machine = booted(&config(stage, &[VIRTIO]).args(["-drive", &drive])).await;
        said(
            &machine,
            "until [ -e /dev/vda ]; do sleep 0.1; done; echo frozen | dd of=/dev/vda conv=fsync 2>/dev/null",
        )
        .await;
        let template = machine.freeze().await.unwrap();

        let first = async |machine: &Machine| {
            said(machine, "echo 3 >/proc/sys/vm/drop_caches; head -n 1 /dev/vda").await
        };
        let one = template.spawn_with(&here(stage)).await.unwrap();
        let other = template.spawn_with(&here(stage)).await.unwrap();
        said(&one, "echo its own | dd of=/dev/vda conv=fsync 2>/dev/null").await;

        assert_eq!((first(&one).await, first(&other).await), ("its own".into(), "frozen".into()));
        for machine in [one, other] {
            machine.kill().await.unwrap();
        }
        assert!(
            std::fs::read(&image).unwrap().iter().all(|byte| *byte == 0),
            "the caller's image is as it was"
        );
    });
}

#[test]
fn the_hosts_time_and_randomness_are_to_be_had_right_after_the_resume() {
    play(async |stage| {
        let machine = booted(&config(stage, &[VIRTIO])).await;
        said(&machine, "until grep -q virtio /sys/class/misc/hw_random/rng_current; do sleep 0.1; done")
            .await;
        let template = machine.freeze().await.unwrap();
        // As long as it takes for a clock that stood still to be told from one that did not.
        tokio::time::timeout(Duration::from_millis(2500), std::future::pending::<()>()).await.unwrap_err();

        // The driver has fetched some bytes before, and each guest has the same: what comes behind them is its own.
        let mut drawn = Vec::new();
        for _ in 0..2 {
            let spawned = template.spawn_with(&here(stage)).await.unwrap();
            let told = said(&spawned, "hwclock -u -s && date +%s; head -c 1024 /dev/hwrng >/dev/null; head -c 16 /dev/hwrng | od -An -tx1").await;
            let (time, random) = told.split_once('\n').unwrap();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            assert!(
                now.abs_diff(time.trim().parse::<u64>().unwrap()) <= 2,
                "{time} in the guest, {now} here"
            );
            drawn.push(random.to_owned());
            spawned.kill().await.unwrap();
        }
        assert_ne!(drawn[0], drawn[1]);
    });
}

/// Names that no two spawns share, although their driver may have fetched the same random bytes before the freeze.
const NAME: &str =
    "head -c 1024 /dev/hwrng >/dev/null; hostname guest-$(od -An -N4 -tx4 /dev/hwrng | tr -d ' ')";

#[test]
fn guests_of_a_pool_are_named_ahead_each_its_own_way() {
    play(async |stage| {
        let machine = booted(&config(stage, &[VIRTIO])).await;
        let template = machine.freeze().await.unwrap();
        let name = |machine: Machine| async move { shell(&machine).await.check(NAME, LIMIT).await.map(drop) };
        let pool = template.prepared_pool(2, here(stage), name).unwrap();

        let mut names = Vec::new();
        for _ in 0..3 {
            let machine = pool.take().await.unwrap();
            names.push(said(&machine, "hostname").await);
            machine.kill().await.unwrap();
        }

        assert!(names.iter().all(|name| name.len() == "guest-".len() + 8), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 3, "{names:?}");
    });
}
