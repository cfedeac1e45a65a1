//! The limits of templates in `docs/guide/limits.md`, with a QEMU that is stopped, and with somebody who never comes to an
//! end; with and without async.

use std::time::Duration;

use ratite::CacheError;
use ratite::FreezeError;
use ratite::MachineConfig;
use ratite::Place;
use ratite::Spawn;
use ratite::SpawnError;
use ratite::Template;
use ratite::TemplateCache;
use ratite::Timeouts;
use ratite::blocking;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use rustix::process::Signal;

/// Over soon.
const SHORT: Duration = Duration::from_millis(30);

fn config(stage: &Stage) -> MachineConfig {
    let real = MachineConfig::new("qemu-system-x86_64").accelerator("tcg").args(["-nodefaults", "-m", "16"]);
    real.base_folder(stage.base()).freezable()
}

/// A launch that ends before any QEMU is ready.
fn hasty(stage: &Stage) -> Spawn {
    Spawn::new()
        .base_folder(stage.base())
        .timeouts(Timeouts { connect: Duration::ZERO, ..Timeouts::default() })
}

#[test]
fn a_freeze_of_a_stopped_qemu_ends_at_the_limit_and_the_machine_goes_on() {
    play(async |stage| {
        let config = config(stage).timeouts(Timeouts { command: SHORT, ..Timeouts::default() });
        let machine = config.launch().await.unwrap();
        send_signal(machine.pid(), Signal::STOP);

        let refusal = machine.freeze().await.unwrap_err();

        assert!(matches!(refusal, FreezeError::Command(_)), "{refusal}");
        assert_says(&refusal, &["within 30ms"]);
        send_signal(machine.pid(), Signal::CONT);
        machine.client().unwrap().set_command_limit(AT_ONCE);
        assert_eq!(machine.cmd("query-status", ()).await.unwrap()["running"], true);
        machine.kill().await.unwrap();
    });
}

#[test]
fn spawns_and_pools_end_at_the_limit_of_a_launch() {
    play(async |stage| {
        let template = config(stage).launch().await.unwrap().freeze().await.unwrap();

        let refusal = template.spawn_with(&hasty(stage)).await.unwrap_err();
        assert!(matches!(refusal, SpawnError::Launch(_)), "{refusal}");
        let pool = template.pool_with(1, hasty(stage)).unwrap();
        pool.filled().await;
        let refusal = pool.take().await.unwrap_err();
        assert!(matches!(refusal, SpawnError::Launch(_)), "{refusal}");
        // Those with the limits that nobody has set come through.
        template.spawn().await.unwrap().kill().await.unwrap();
    });
}

#[test]
fn who_waits_for_another_who_makes_a_template_waits_no_longer_than_his_patience() {
    play(async |stage| {
        let cache = TemplateCache::at(stage.path("cache")).patience(SHORT);
        let Place::Empty(making) = cache.look("key", &config(stage)).await.unwrap() else {
            panic!("it is made")
        };
        let boot = async |_: &ratite::Machine| Ok::<_, std::io::Error>(());

        let refusal = cache.cached("key", &config(stage), boot).await.unwrap_err();
        assert!(matches!(refusal, CacheError::Busy(_)), "{refusal}");

        let named = cache.reserve("name", &config(stage)).await.unwrap();
        assert!(matches!(cache.create("name", &config(stage), boot).await, Err(CacheError::Busy(_))));
        drop(named);
        let machine = making.config().launch().await.unwrap();
        let template = making.store(&machine).await.unwrap();
        let folder = template.folder().to_owned();
        drop(template);
        let moved = Template::open(&folder).await.unwrap().store(stage.path("moved")).await.unwrap();
        drop(moved);
        assert!(cache.open("none").await.is_err() && cache.remove("none").await.is_err());
    });
}

#[test]
fn the_same_limits_hold_without_async() {
    play_blocking(|stage| {
        let cache =
            blocking::TemplateCache::of(TemplateCache::at(stage.path("cache")).patience(SHORT)).unwrap();
        let boot = |_: &blocking::Machine| Ok::<_, std::io::Error>(());
        let machine = blocking::Machine::launch(&config(stage)).unwrap();
        let template = machine.freeze().unwrap();
        let refusal = template.spawn_with(&hasty(stage)).unwrap_err();
        assert!(matches!(refusal, SpawnError::Launch(_)), "{refusal}");
        let pool = template.pool_with(1, hasty(stage)).unwrap();
        pool.filled();
        assert!(matches!(pool.take(), Err(SpawnError::Launch(_))));
        drop(pool);
        template.spawn().unwrap().kill().unwrap();

        let stored = template.store(stage.path("stored")).unwrap();
        drop(stored);
        assert!(blocking::Template::open(stage.path("stored")).is_ok());
        let refusal = cache.cached("key", &config(stage), |machine: &blocking::Machine| {
            // Whoever wants it meanwhile has to wait, and has no patience.
            let waiting = cache.cached("key", &config(stage), boot).unwrap_err();
            assert!(matches!(waiting, CacheError::Busy(_)), "{waiting}");
            machine.kill().map(drop)
        });
        assert!(matches!(refusal, Err(CacheError::Freeze(_))));
        cache.create("name", &config(stage), boot).unwrap();
        assert!(cache.open("name").is_ok());
        cache.remove("name").unwrap();
    });
}
