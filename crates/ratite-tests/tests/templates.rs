//! Machines without an operating system, frozen and restored: what is refused, what each spawn has for itself, and machines
//! that are started ahead.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use ratite::ConsoleConfig;
use ratite::FreezeError;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::PassedFd;
use ratite::RamTransfer;
use ratite::SpawnError;
use ratite::Template;
use ratite::TemplateCache;
use ratite::guest;
use ratite::qmp::Event;
use ratite::qmp::EventFilter;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::templates::at_prompt;
use ratite_tests::templates::config;
use ratite_tests::templates::content;
use ratite_tests::templates::echoes;
use ratite_tests::templates::fill_sector;
use ratite_tests::templates::here;
use ratite_tests::templates::is_running;
use ratite_tests::templates::plain;
use serde_json::json;
use std::ffi::OsString;
use std::time::Duration;

/// A small image, of this name, for a disk.
fn image(stage: &Stage, name: &str) -> String {
    let path = stage.path(name);
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_spawn_answers_where_the_source_stood_and_the_source_is_gone() {
    play(async |stage| {
        let machine = at_prompt(&config(stage)).await;
        let pid = machine.pid();

        let template = machine.freeze().await.unwrap();

        assert_eq!(template.ram(), RamTransfer::Mapped);
        assert!(!machine.is_running());
        drop(machine);
        let first = template.spawn_with(&here(stage)).await.unwrap();
        let second = template.spawn_with(&here(stage)).await.unwrap();
        assert!(first.pid() != pid && second.pid() != first.pid());
        echoes(&second, "two").await;
        echoes(&first, "one").await;
        // The template may go while they run.
        drop(template);
        echoes(&first, "still there").await;
        // What was said of the state is not among the machine's events.
        let events = first.take_events();
        assert_eq!(events.iter().map(Event::name).collect::<Vec<_>>(), ["RESUME"]);
        first.shutdown(PATIENCE).await.unwrap();
        second.kill().await.unwrap();
    });
}

#[test]
fn a_machine_that_nobody_meant_to_freeze_is_frozen_by_a_stream_and_says_why() {
    play(async |stage| {
        let mut config = config(stage);
        config.arguments_mut().extend(["-name", "any"].map(OsString::from));
        for (config, reason) in [
            (
                config.clone().args([
                    "-object",
                    "memory-backend-ram,id=x,size=16M",
                    "-machine",
                    "memory-backend=x",
                ]),
                "backends of their own",
            ),
            (
                MachineConfig::new("qemu-system-x86_64")
                    .args(config.arguments())
                    .accelerator("tcg")
                    .console(ConsoleConfig::serial())
                    .base_folder(stage.base()),
                "without `freezable`",
            ),
        ] {
            let template = at_prompt(&config).await.freeze().await.unwrap();

            let (RamTransfer::Streamed { because } | RamTransfer::Placed { because }) = template.ram() else {
                panic!("{:?}", template.ram());
            };
            assert!(because.contains(reason), "{because}");
            let spawned = template.spawn_with(&here(stage)).await.unwrap();
            echoes(&spawned, "streamed").await;
            spawned.kill().await.unwrap();
        }
    });
}

#[test]
fn a_spawn_is_frozen_again() {
    play(async |stage| {
        let template = at_prompt(&config(stage)).await.freeze().await.unwrap();
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        echoes(&spawned, "first").await;

        let second = spawned.freeze().await.unwrap();

        drop(template);
        let spawned = second.spawn_with(&here(stage)).await.unwrap();
        echoes(&spawned, "second").await;
        assert!(!matches!(second.ram(), RamTransfer::Mapped));
        spawned.kill().await.unwrap();
    });
}

#[test]
fn what_stands_in_the_way_is_named_and_the_machine_goes_on() {
    play(async |stage| {
        let disk = format!("file={},format=raw,if=none,id=d0", image(stage, "disk.img"));
        let shared = ["-object", "memory-backend-ram,size=1M,share=on,id=shm"];
        let peer = ["-device", "ivshmem-plain,memdev=shm,id=peer0,master=off"];
        let null = std::fs::File::open("/dev/null").unwrap();
        for (config, words) in [
            (config(stage).args(shared).args(peer), "ivshmem"),
            (plain(stage).args(["-drive", &disk, "-device", "virtio-blk-pci,drive=d0"]), "disk `d0`"),
            (plain(stage).fd(PassedFd::in_set(null, 1)), "descriptors"),
            (plain(stage).in_work_folder(), "work folder"),
        ] {
            let machine = config.launch().await.unwrap();

            let refusal = machine.freeze().await.unwrap_err();

            assert_says(&refusal, &[words]);
            assert!(is_running(&machine).await, "{words}");
            machine.kill().await.unwrap();
        }
    });
}

#[test]
fn a_block_job_stands_in_the_way_until_it_is_over() {
    play(async |stage| {
        let disk = format!("file={},format=raw,if=none,id=d0", image(stage, "disk.img"));
        let config = plain(stage).freezable().args(["-drive", &disk, "-device", "virtio-blk-pci,drive=d0"]);
        let machine = config.launch().await.unwrap();
        let target = stage.path("mirror.img");
        let mirror = json!({ "device": "d0", "target": target, "sync": "full", "format": "raw", "speed": 1 });
        machine.cmd("drive-mirror", mirror).await.unwrap();

        let refusal = machine.freeze().await.unwrap_err();

        assert!(
            matches!(&refusal, FreezeError::BlockJob { job, kind } if job == "d0" && kind == "mirror"),
            "{refusal}"
        );
        assert!(is_running(&machine).await);
        machine.cmd("block-job-cancel", json!({ "device": "d0", "force": true })).await.unwrap();
        machine.event_wait(EventFilter::named("BLOCK_JOB_CANCELLED"), PATIENCE).await.unwrap();
        machine.freeze().await.unwrap();
    });
}

#[test]
fn what_cannot_be_launched_to_be_frozen_is_refused_at_launch() {
    play(async |stage| {
        for (config, words) in [
            (plain(stage).args(["-drive", "file=nbd://127.0.0.1/x,if=none,id=d"]), "nbd://"),
            (plain(stage).args(["-blockdev", "raw,node-name=n,file=f"]), "read-only=on"),
            (plain(stage).args(["-hda", "/nowhere/disk.img"]), "/nowhere/disk.img"),
            (plain(stage).without_monitor(), "no QMP monitor"),
        ] {
            let refusal = config.freezable().launch().await.unwrap_err();

            assert_says(&refusal, &["cannot", words]);
        }
        assert!(entries(stage.base()).is_empty());
    });
}

#[test]
fn what_one_spawn_writes_to_its_disk_nobody_else_sees() {
    play(async |stage| {
        let image = image(stage, "disk.img");
        let disk = format!("file={image},format=raw,if=none,id=d0");
        let config = config(stage).args(["-drive", &disk, "-device", "virtio-blk-pci,drive=d0"]);
        let machine = at_prompt(&config).await;
        let begins_with = async |machine: &Machine, value: u8| {
            let content = content(machine, "d0").await;
            assert_eq!((content.len(), &content[512..]), (1 << 20, &[7; (1 << 20) - 512][..]));
            content[..512] == [value; 512]
        };
        assert!(begins_with(&machine, 7).await, "as the image");
        fill_sector(&machine, "d0", 0, 65).await;

        let template = machine.freeze().await.unwrap();

        let (one, other) = (
            template.spawn_with(&here(stage)).await.unwrap(),
            template.spawn_with(&here(stage)).await.unwrap(),
        );
        assert!(begins_with(&one, 65).await && begins_with(&other, 65).await, "both begin as it was frozen");
        fill_sector(&one, "d0", 0, 66).await;
        assert!(begins_with(&one, 66).await && begins_with(&other, 65).await);
        let late = template.spawn_with(&here(stage)).await.unwrap();
        assert!(begins_with(&late, 65).await);
        let frozen_again = one.freeze().await.unwrap();
        let later = frozen_again.spawn_with(&here(stage)).await.unwrap();
        assert!(begins_with(&later, 66).await);
        for machine in [other, late, later] {
            machine.kill().await.unwrap();
        }
        assert_eq!(std::fs::read(&image).unwrap(), vec![7; 1 << 20], "the caller's image is as it was");

        std::fs::write(&image, vec![8; 1 << 20]).unwrap();
        let refusal = template.spawn_with(&here(stage)).await.unwrap_err();
        assert_says(&refusal, &["disk.img", "has changed"]);
    });
}

#[test]
fn a_spawn_with_a_disk_is_frozen_when_its_template_is_nobodys_any_more() {
    play(async |stage| {
        let disk = format!("file={},format=raw,if=none,id=d0", image(stage, "disk.img"));
        let config = config(stage).args(["-drive", &disk, "-device", "virtio-blk-pci,drive=d0"]);
        let template = at_prompt(&config).await.freeze().await.unwrap();
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        drop(template);
        fill_sector(&spawned, "d0", 0, 66).await;

        let second = spawned.freeze().await.unwrap();

        drop(spawned);
        let spawned = second.spawn_with(&here(stage)).await.unwrap();
        let content = content(&spawned, "d0").await;
        assert_eq!((&content[..512], &content[512..1024]), (&[66; 512][..], &[7; 512][..]));
        spawned.kill().await.unwrap();
    });
}

#[test]
fn a_device_that_came_later_stands_in_the_way_and_a_balloon_is_no_reason_to_share_memory() {
    play(async |stage| {
        let machine = at_prompt(&config(stage)).await;
        machine.cmd("device_add", json!({ "driver": "virtio-scsi-pci", "id": "late" })).await.unwrap();
        let refusal = machine.freeze().await.unwrap_err();
        assert!(matches!(&refusal, FreezeError::HotPlugged { device, .. } if device == "late"), "{refusal}");
        echoes(&machine, "on it goes").await;
        machine.kill().await.unwrap();

        let balloon = config(stage).args(["-device", "virtio-balloon-pci,id=b"]);
        let template = at_prompt(&balloon).await.freeze().await.unwrap();
        assert!(!matches!(template.ram(), RamTransfer::Mapped));
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        echoes(&spawned, "with a balloon").await;
        spawned.kill().await.unwrap();
    });
}

#[test]
fn no_spawn_is_the_twin_of_another() {
    play(async |stage| {
        let generation = async |machine: &Machine| machine.cmd("query-vm-generation-id", ()).await.unwrap();
        let machine = at_prompt(&config(stage)).await;
        let mut seen = vec![generation(&machine).await];
        let template = machine.freeze().await.unwrap();

        for _ in 0..3 {
            let spawned = template.spawn_with(&here(stage)).await.unwrap();
            let id = generation(&spawned).await;
            assert!(!seen.contains(&id), "{id}");
            seen.push(id);
            spawned.kill().await.unwrap();
        }
    });
}

#[test]
fn a_spawn_has_what_its_caller_wishes() {
    play(async |stage| {
        let template = at_prompt(&config(stage)).await.freeze().await.unwrap();
        let log = stage.path("console.txt");
        let netdev = json!({ "type": "hubport", "hubid": 0, "id": "n0" });
        let nic =
            json!({ "driver": "virtio-net-pci", "netdev": "n0", "mac": "52:54:00:00:00:2a", "id": "nic" });
        let wishes = here(stage)
            .name("wishes")
            .log_folder(stage.path("logs"))
            .console_log("console", &log)
            .command("netdev_add", netdev)
            .command("device_add", nic)
            .paused();

        let spawned = template.spawn_with(&wishes).await.unwrap();

        assert!(!is_running(&spawned).await);
        let mac = json!({ "path": "/machine/peripheral/nic", "property": "mac" });
        assert_eq!(spawned.cmd("qom-get", mac).await.unwrap(), "52:54:00:00:00:2a");
        assert!(spawned.log().path().ends_with("logs/wishes.log"));
        spawned.cmd("cont", ()).await.unwrap();
        echoes(&spawned, "hello").await;
        spawned.kill().await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "echo hello\r\nhello\r\n> ");

        let refusal = template.spawn_with(&here(stage).console_log("none", &log)).await.unwrap_err();
        assert!(matches!(&refusal, SpawnError::NoConsole { name } if name == "none"), "{refusal}");
        let wrong = here(stage).command("device_add", json!({ "driver": "none-such" }));
        assert_says(&template.spawn_with(&wrong).await.unwrap_err(), &["none-such"]);
    });
}

#[test]
fn a_freeze_that_is_given_up_leaves_a_machine_that_goes_on() {
    play(async |stage| {
        let machine = at_prompt(&config(stage)).await;
        let before = entries(stage.base());

        for patience in [0, 1, 2, 4, 8, 16, 32] {
            let given_up = tokio::time::timeout(Duration::from_millis(patience), machine.freeze()).await;
            let Err(_given_up) = given_up else {
                return;
            };
            while !is_running(&machine).await || entries(stage.base()) != before {
                tokio::task::yield_now().await;
            }
            echoes(&machine, "on it goes").await;
        }

        let template = machine.freeze().await.unwrap();
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        echoes(&spawned, "frozen after all").await;
        spawned.kill().await.unwrap();
    });
}

#[test]
fn a_machine_that_has_ended_is_told_to_have() {
    play(async |stage| {
        let machine = at_prompt(&config(stage)).await;
        machine.kill().await.unwrap();

        let refusal = machine.freeze().await.unwrap_err();

        assert!(matches!(refusal, FreezeError::Exited(_)), "{refusal}");
    });
}

#[test]
fn templates_without_async_do_the_same() {
    play_blocking(|stage| {
        use ratite::blocking;
        let cache = blocking::TemplateCache::of(TemplateCache::at(stage.path("cache"))).unwrap();
        let boot = |machine: &blocking::Machine| {
            machine.console().unwrap().expect(guest::PROMPT, PATIENCE).map(drop)
        };

        let template = cache.cached("key", &config(stage), boot).unwrap();

        let spawned = template.spawn_with(&here(stage)).unwrap();
        let console = spawned.console().unwrap();
        console.write("echo blocking\n").unwrap();
        console.expect("\nblocking\r\n", PATIENCE).unwrap();
        let again = spawned.freeze().unwrap();
        let pool = again.pool_with(1, here(stage)).unwrap();
        pool.filled();
        let machine = pool.take().unwrap();
        machine.kill().unwrap();
        assert_eq!((pool.size(), cache.open("none").is_err()), (1, true));
        let place = again.folder().to_owned();
        assert!(matches!(
            blocking::Template::open(place).unwrap().ram(),
            RamTransfer::Streamed { .. } | RamTransfer::Placed { .. }
        ));
        let plain = blocking::Pool::of(&config(stage), 1).unwrap();
        plain.take().unwrap().kill().unwrap();
    });
}

#[test]
fn a_template_that_qemu_does_not_take_is_told_with_its_last_words() {
    play(async |stage| {
        let template = at_prompt(&config(stage)).await.freeze().await.unwrap();
        let place = stage.path("stored");
        let template = template.store(&place).await.unwrap();
        drop(template);
        // A description that is not the state's: what no seal is on.
        let manifest = place.join("template.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace("\"tells_generation\": true", "\"tells_generation\": false"))
            .unwrap();

        let refusal = Template::open(&place).await.unwrap().spawn_with(&here(stage)).await.unwrap_err();

        let SpawnError::Restore { exit, log, .. } = &refusal else { panic!("{refusal:?}") };
        assert!(exit.is_some() && log.text().contains("vmgenid"), "{refusal:?}");
    });
}
