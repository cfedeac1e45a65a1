//! Templates that stay: what is refused later, what is left of one that was not finished, and the cache that all programs of
//! a user share.

use ratite::CacheError;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::SpawnError;
use ratite::StoreError;
use ratite::Template;
use ratite::TemplateCache;
use ratite::TemplateError;
use ratite::guest;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::not_tested;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::program;
use ratite_tests::scenario::wait_until;
use ratite_tests::templates::at_prompt;
use ratite_tests::templates::config;
use ratite_tests::templates::echoes;
use ratite_tests::templates::here;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

#[test]
fn a_template_stays_where_it_is_stored_and_is_refused_when_it_is_damaged() {
    play(async |stage| {
        let place = stage.path("stored");
        let template = at_prompt(&config(stage)).await.freeze().await.unwrap();
        let clone = template.clone();
        let held = template.store(&place).await.unwrap_err();
        assert!(matches!(held, StoreError::Held(_)), "{held}");
        drop(held);
        std::fs::create_dir(stage.path("taken")).unwrap();
        std::fs::write(stage.path("taken/file"), "mine").unwrap();
        clone.store(&place).await.unwrap();

        let open = async || Template::open(&place).await;
        let spawned = open().await.unwrap().spawn_with(&here(stage)).await.unwrap();
        echoes(&spawned, "stored").await;
        spawned.kill().await.unwrap();

        // What the guest was booted from counts, too.
        let boot = stage.path("boot.img");
        let as_it_was = std::fs::read(&boot).unwrap();
        std::fs::write(&boot, [0; 512]).unwrap();
        let refusal = open().await.unwrap_err();
        assert!(matches!(&refusal, TemplateError::Changed { file } if *file == boot), "{refusal}");
        std::fs::write(&boot, as_it_was).unwrap();
        open().await.expect("it is as it was");
        for name in ["ram", "state"] {
            let file = OpenOptions::new().write(true).open(place.join(name)).unwrap();
            let length = file.metadata().unwrap().len();
            let template = open().await.unwrap();
            let byte = [!std::fs::read(place.join(name)).unwrap()[100_000]];
            file.write_all_at(&byte, 100_000).unwrap();
            let refusal = template.spawn_with(&here(stage)).await.unwrap_err();
            assert!(matches!(&refusal, SpawnError::Template(TemplateError::Changed { .. })), "{refusal}");
            assert!(matches!(open().await, Err(TemplateError::Changed { .. })));
            file.write_all_at(&[!byte[0]], 100_000).unwrap();
            open().await.expect("it is as it was, as far as its content goes");
            file.set_len(length - 1).unwrap();
            assert!(matches!(open().await, Err(TemplateError::Size { .. })));
            file.set_len(length).unwrap();
            std::fs::rename(place.join(name), place.join("away")).unwrap();
            assert!(matches!(open().await, Err(TemplateError::Gone { .. })));
            std::fs::rename(place.join("away"), place.join(name)).unwrap();
        }
        std::fs::remove_file(place.join("template.json")).unwrap();
        assert!(matches!(open().await, Err(TemplateError::Missing { .. })));
    });
}

#[test]
fn a_place_that_is_taken_stays_as_it_is() {
    play(async |stage| {
        let place = stage.path("taken");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("file"), "mine").unwrap();
        let template = at_prompt(&config(stage)).await.freeze().await.unwrap();

        let refusal = template.store(&place).await.unwrap_err();

        assert!(matches!(refusal, StoreError::Taken { .. }), "{refusal}");
        assert_eq!(entries(&place), ["file"]);
        let spawned = refusal.template().unwrap().spawn_with(&here(stage)).await.unwrap();
        spawned.kill().await.unwrap();
    });
}

#[test]
fn a_template_of_another_qemu_is_refused() {
    play(async |stage| {
        let qemu = stage.path("qemu-system-x86_64");
        let real = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join("qemu-system-x86_64"))
            .find(|path| path.exists())
            .unwrap();
        std::os::unix::fs::symlink(real, &qemu).unwrap();
        let config = MachineConfig::new(&qemu).accelerator("tcg").args(["-nodefaults", "-m", "16", "-S"]);
        let machine = config.base_folder(stage.base()).freezable().launch().await.unwrap();
        let template = machine.freeze().await.unwrap();

        std::fs::remove_file(&qemu).unwrap();
        std::fs::copy(program("fake-qemu"), &qemu).unwrap();

        let refusal = template.spawn_with(&here(stage)).await.unwrap_err();
        assert!(matches!(&refusal, SpawnError::Template(TemplateError::OtherQemu { .. })), "{refusal}");
        std::fs::remove_file(&qemu).unwrap();
        let refusal = template.spawn_with(&here(stage)).await.unwrap_err();
        assert!(matches!(&refusal, SpawnError::Template(TemplateError::Gone { .. })), "{refusal}");
    });
}

#[test]
fn a_full_disk_leaves_the_machine_running_and_no_template() {
    if !rustix::process::geteuid().is_root() {
        return not_tested("only root may mount a small file system");
    }
    play_blocking(|stage| {
        // Room for the machine's folder and its state, and not for its RAM.
        let mount = format!("mount -t tmpfs -o size=400k none {}", stage.base().display());
        let script = format!(r#"exec unshare --mount sh -c '{mount} && exec "$@"' sh "$@""#);
        let mut controller = Controller::start_in_shell(&script, stage, &["--freezable"]);

        controller.order("freeze");
        let answer = controller.answer();
        assert!(answer.starts_with("failed") && answer.contains("No space left"), "{answer}");
        controller.order("status");
        assert_eq!(controller.answer(), "running");

        controller.order("shut down");
        assert_eq!(controller.answer(), "QEMU exited with status 0 (host-qmp-quit)");
        controller.end_by(|controller| controller.order("return"));
    });
}

/// What ratite says at each step from a running machine to a stored template.
const STEPS: [&str; 8] = [
    "stands still to be frozen",
    "state of a machine is saved",
    "disks are a template's",
    "template is written down",
    "machine is frozen",
    "template is on the disk",
    "template is stored",
    "ends here, and was never said",
];

#[test]
fn whoever_is_killed_while_freezing_leaves_no_half_template() {
    play_blocking(|stage| {
        for (number, step) in STEPS.iter().enumerate() {
            let cache = stage.path(&format!("cache-{number}"));
            let order = format!("cached {}", cache.display());
            let mut controller =
                Controller::start(stage, &["--machines", "0", "--freezable", "--die-at", step]);
            controller.order(&order);
            assert!(controller.answer().starts_with("made by"));
            if number + 1 < STEPS.len() {
                controller.wait();
            } else {
                assert!(controller.answer().starts_with("template"));
                controller.order("return");
                assert!(controller.wait().success());
            }
            wait_until("its folders are gone", PATIENCE, || {
                !entries(&cache).iter().any(|entry| entry.starts_with("qemu-machine"))
            });

            // Whoever comes next has a template, and makes it only if there is none.
            let mut next = Controller::start(stage, &["--machines", "0", "--freezable"]);
            next.order(&order);
            let is_stored = number >= STEPS.len() - 2;
            if !is_stored {
                let answer = next.answer();
                assert!(answer.starts_with("made by"), "{step}: {answer}");
            }
            let answer = next.answer();
            assert!(answer.starts_with("template"), "{step}: {answer}");
            next.order("return");
            assert!(next.wait().success());
        }
    });
}

#[test]
fn many_programs_want_a_template_and_one_makes_it() {
    play_blocking(|stage| {
        let cache = stage.path("cache");
        let start = || Controller::start(stage, &["--machines", "0", "--freezable"]);
        let mut controllers: Vec<_> = (0..4).map(|_| start()).collect();

        controllers.iter_mut().for_each(|it| it.order(&format!("cached {}", cache.display())));

        let mut made = 0;
        let mut places = Vec::new();
        for controller in &mut controllers {
            let mut answer = controller.answer();
            if answer.starts_with("made by") {
                made += 1;
                answer = controller.answer();
            }
            places.push(answer);
        }
        assert_eq!(made, 1);
        assert!(
            places.iter().all(|place| *place == places[0] && place.starts_with("template")),
            "{places:?}"
        );
        for mut controller in controllers {
            controller.order("return");
            assert!(controller.wait().success());
        }
    });
}

/// A cache in which nothing is booted: the machine is frozen as it starts.
async fn cached(cache: &TemplateCache, key: &str, config: &MachineConfig) -> (Template, bool) {
    let mut was_made = false;
    let boot = async |_: &Machine| {
        was_made = true;
        Ok::<_, std::io::Error>(())
    };
    let template = cache.cached(key, config, boot).await.expect("it is made");
    (template, was_made)
}

#[test]
fn a_cached_template_is_made_once_and_again_when_anything_has_changed() {
    play(async |stage| {
        let cache = TemplateCache::at(stage.path("cache"));
        let config = config(stage);

        let (template, was_made) = cached(&cache, "key", &config).await;
        assert!(was_made);
        let spawned = template.spawn_with(&here(stage)).await.unwrap();
        spawned.kill().await.unwrap();
        let name = template.folder().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!cached(&cache, "key", &config.clone().name("of one run")).await.1);
        assert!(matches!(cache.remove(&name).await, Err(CacheError::InUse { .. })));
        drop(template);
        assert!(cached(&cache, "other", &config).await.1);
        assert!(cached(&cache, "key", &config.clone().args(["-m", "24"])).await.1);

        // A damaged one is made anew.
        std::fs::write(cache.folder().join(&name).join("state"), "nonsense").unwrap();
        let listed = cache.list().unwrap();
        assert_eq!(listed.iter().filter(|entry| entry.damage.is_some()).count(), 1);
        assert!(cached(&cache, "key", &config).await.1);
        assert!(!cached(&cache, "key", &config).await.1);

        // A guest that has changed wants a new one; of the old ones few are kept.
        for round in 0_u8..6 {
            let mut boot = guest::BOOT_SECTOR.to_vec();
            boot.push(round);
            std::fs::write(stage.path("boot.img"), boot).unwrap();
            assert!(cached(&cache, "key", &config).await.1);
        }
        let of_key = cache.list().unwrap().iter().filter(|entry| entry.name.starts_with("key-")).count();
        assert_eq!(of_key, 4);
        for entry in cache.list().unwrap() {
            cache.remove(&entry.name).await.unwrap();
        }
        let locks = entries(cache.folder());
        assert!(locks.iter().all(|entry| entry == ".files" || entry.ends_with(".lock")), "{locks:?}");
    });
}

#[test]
fn a_boot_that_fails_leaves_nothing_and_says_why() {
    play(async |stage| {
        let cache = TemplateCache::at(stage.path("cache"));
        let boot = async |_: &Machine| Err::<(), _>("the guest does not like it");

        let refusal = cache.cached("key", &config(stage), boot).await.unwrap_err();

        assert_says(&refusal, &["the guest does not like it"]);
        assert!(cache.list().unwrap().is_empty());
        assert!(matches!(cache.open("none").await, Err(CacheError::Template(TemplateError::Missing { .. }))));
        assert!(matches!(cache.open("../etc").await, Err(CacheError::Name { .. })));
        let create = async || {
            cache.create("name", &config(stage), async |_: &Machine| Ok::<_, std::io::Error>(())).await
        };
        create().await.unwrap();
        assert!(matches!(create().await, Err(CacheError::Taken { .. })));
        cache.open("name").await.unwrap();
    });
}
