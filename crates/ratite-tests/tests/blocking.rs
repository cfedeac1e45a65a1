//! The face without `async`: the same things, on the caller's thread.

use std::fs::File;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ratite::Asked;
use ratite::ConsoleConfig;
use ratite::LaunchErrorKind;
use ratite::MachineConfig;
use ratite::MachineError;
use ratite::ShutdownErrorKind;
use ratite::blocking::Client;
use ratite::blocking::Machine;
use ratite::qmp::Address;
use ratite::qmp::Command;
use ratite::qmp::EventFilter;
use ratite::qmp::Options;
use ratite_tests::orphans::is_alive;
use ratite_tests::orphans::wait_until_gone;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::wait_until;
use serde_json::json;

#[test]
fn a_machine_is_launched_spoken_to_and_ended() {
    play_blocking(|stage| {
        let machine = Machine::launch(&stage.fake(&["stderr=hello"])).unwrap();

        let sent = json!({ "a": [1, 2] });
        assert_eq!(machine.cmd("fake-echo", &sent).unwrap(), sent);
        assert_eq!(machine.cmd_as::<serde_json::Value>("fake-echo", &sent).unwrap(), sent);
        assert!(machine.qmp(Command::new("nope")).unwrap().error().is_some());
        machine.send_fd("null", File::open("/dev/null").unwrap()).unwrap();
        machine.cmd("closefd", json!({ "fdname": "null" })).unwrap();
        assert!(machine.is_running() && machine.exit().is_none());
        assert_eq!(machine.log().text().unwrap(), "hello\n");
        let exit = machine.shutdown(PATIENCE).unwrap();

        assert_eq!((exit.asked, exit.pid), (Asked::Us, machine.pid()));
        assert!(!machine.work_folder().exists() && !machine.is_running());
        assert_eq!(machine.exit(), Some(exit.status));
        assert_eq!((machine.launch_time(), machine.command_line()), (exit.launch_time, &exit.command_line));
    });
}

#[test]
fn a_launch_that_fails_says_why() {
    play_blocking(|stage| {
        let missing = Machine::launch(&MachineConfig::new("/nope").base_folder(stage.base())).unwrap_err();
        let exited = Machine::launch(&stage.fake(&["exit-before-monitor=3"])).unwrap_err();

        assert!(matches!(missing.kind(), LaunchErrorKind::Spawn { .. }));
        assert_eq!(exited.exit().unwrap().code(), Some(3));
        assert!(exited.log().text().contains("unsupported machine type"));
    });
}

#[test]
fn events_are_waited_for_listened_to_and_taken() {
    play_blocking(|stage| {
        let machine = Machine::launch(&stage.fake(&[])).unwrap();
        let listener = machine.listen(EventFilter::named("B")).unwrap();
        for name in ["A", "B", "C"] {
            machine.cmd("fake-events", json!({ "name": name })).unwrap();
        }

        assert_eq!(machine.event_wait(EventFilter::named("C"), AT_ONCE).unwrap().name(), "C");
        assert_eq!(machine.events_wait(&[EventFilter::named("B")], AT_ONCE).unwrap().name(), "B");
        assert_eq!(machine.next_event(AT_ONCE).unwrap().name(), "A");
        assert!(machine.take_events().is_empty());
        assert_eq!(listener.next(AT_ONCE).unwrap().name(), "B");
        let limit = Duration::from_millis(50);
        assert!(matches!(machine.next_event(limit), Err(MachineError::Event(_))));
        machine.kill().unwrap();
        assert!(matches!(machine.next_event(Duration::MAX), Err(MachineError::Exited { .. })));
    });
}

#[test]
fn a_console_is_read_and_typed_to() {
    play_blocking(|stage| {
        let config = stage.fake(&["console-banner=login: ", "console-echo"]).console(ConsoleConfig::serial());
        let machine = Machine::launch(&config).unwrap();
        let console = machine.console().unwrap();

        assert_eq!(console.expect("login:", AT_ONCE).unwrap().before, b"");
        console.write("root\n").unwrap();
        assert_eq!(console.expect("you said: root\n", AT_ONCE).unwrap().before, b" ");
        assert!(console.read(Duration::from_millis(50)).is_err());
        machine.shutdown(PATIENCE).unwrap();
        assert_eq!(console.read(AT_ONCE).unwrap(), b"");
    });
}

#[test]
fn qtest_commands_are_answered() {
    play_blocking(|stage| {
        let machine = Machine::launch(&stage.fake(&["qtest-irq"]).qtest()).unwrap();
        let qtest = machine.qtest().unwrap();

        assert_eq!(qtest.command("clock_step 5").unwrap(), "5");
        assert_eq!(qtest.raw("clock_step 5").unwrap(), "OK 10");
        qtest.wait_irq(8, true, AT_ONCE).unwrap();
        assert!(qtest.command("").is_err());
    });
}

#[test]
fn a_session_with_a_qemu_that_runs_elsewhere() {
    play_blocking(|stage| {
        let path = stage.path("monitor");
        let config = stage.fake(&[]).extra_monitor(ratite::ExtraMonitor::Qmp(path.clone()));
        let machine = Machine::launch(&config).unwrap();

        let client = Client::connect(&Address::unix(&path), Options::default()).unwrap();

        assert_eq!(client.execute("query-version", ()).unwrap()["package"], "fake");
        client.close();
        assert!(client.execute("query-version", ()).is_err());
        assert!(machine.is_running());
    });
}

#[test]
fn a_machine_ends_however_it_is_ended() {
    play_blocking(|stage| {
        let limit = Duration::from_millis(200);
        let stubborn = Machine::launch(&stage.fake(&["ignore-quit", "ignore-sigterm"])).unwrap();
        let idle = Machine::launch(&stage.fake(&[])).unwrap();
        let powered_off = Machine::launch(&stage.fake(&["guest-shutdown-after=50"])).unwrap();

        let error = stubborn.shutdown(limit).unwrap_err();
        assert_eq!(error.kind(), ShutdownErrorKind::TimedOut { grace: limit });
        assert_eq!(idle.wait(limit).unwrap_err().kind(), ShutdownErrorKind::TimedOut { grace: limit });
        assert_eq!(powered_off.wait(PATIENCE).unwrap().asked, Asked::Guest);
    });
}

#[test]
fn threads_share_a_machine() {
    play_blocking(|stage| {
        let machine = Arc::new(Machine::launch(&stage.fake(&[])).unwrap());

        let threads: Vec<_> = (0..8)
            .map(|thread: u64| {
                let machine = machine.clone();
                thread::spawn(move || {
                    for number in 0..50 {
                        let sent = json!({ "thread": thread, "number": number });
                        assert_eq!(machine.cmd("fake-echo", &sent).unwrap(), sent);
                    }
                })
            })
            .collect();

        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_machine_whose_thread_ended_lives_on_and_a_dropped_one_goes() {
    play_blocking(|stage| {
        let config = stage.fake(&[]);
        let machine = thread::spawn(move || Machine::launch(&config).unwrap()).join().unwrap();
        let pid = machine.pid();
        assert!(machine.cmd("query-status", ()).is_ok());

        drop(machine);

        assert!(wait_until_gone(pid, AT_ONCE));
        wait_until("the folder is gone", AT_ONCE, || entries(stage.base()).is_empty());
    });
}

#[test]
fn a_machine_goes_with_the_thread_that_panics() {
    play_blocking(|stage| {
        let machine = Machine::launch(&stage.fake(&["ignore-sigterm"])).unwrap();
        let pid = machine.pid();

        let panicked = thread::spawn(move || {
            let _machine = machine;
            panic!("on purpose");
        });

        assert!(panicked.join().is_err());
        assert!(wait_until_gone(pid, AT_ONCE) && !is_alive(pid));
    });
}

/// Runs what must panic, and returns what it says.
fn panic_of(action: impl FnOnce()) -> String {
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(action)).expect_err("it must panic");
    match panicked.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().expect("a panic says something")).to_owned(),
    }
}

#[test]
fn within_an_async_runtime_it_panics_and_names_what_to_use_instead() {
    play(async |stage| {
        let config = stage.fake(&[]);
        let machine = tokio::task::spawn_blocking(move || {
            thread::spawn(move || Machine::launch(&config).unwrap()).join().unwrap()
        });
        let machine = machine.await.unwrap();

        let launch = panic_of(|| drop(Machine::launch(&stage.fake(&[]))));
        let cmd = panic_of(|| drop(machine.cmd("query-status", ())));
        let shutdown = panic_of(|| drop(machine.shutdown(PATIENCE)));

        assert!(launch.contains("`MachineConfig::launch` and `.await` it"), "{launch}");
        assert!(cmd.contains("`Machine::cmd`"), "{cmd}");
        assert!(shutdown.contains("`Machine::shutdown`"), "{shutdown}");
        // What does not wait works everywhere.
        assert!(machine.is_running());
        let pid = machine.pid();
        drop(machine);
        assert!(wait_until_gone(pid, AT_ONCE));
    });
}

#[test]
fn where_a_runtime_lets_its_callers_block_it_works() {
    play(async |stage| {
        let config = stage.fake(&[]);

        let blocking = tokio::task::spawn_blocking(move || {
            let machine = Machine::launch(&config).unwrap();
            machine.shutdown(PATIENCE).unwrap().success()
        });

        assert!(blocking.await.unwrap());
    });
}

#[test]
fn a_command_to_a_stopped_machine_ends_at_its_limit() {
    play_blocking(|stage| {
        let machine = Machine::launch(&stage.fake(&["never-answer=stop"])).unwrap();

        let start = Instant::now();
        let error = machine.qmp(Command::new("stop").limit(Duration::from_millis(100))).unwrap_err();

        assert!(start.elapsed() < AT_ONCE);
        assert_says(&error, &["no reply to `stop` within 100ms"]);
        machine.client().unwrap().set_command_limit(Duration::from_millis(50));
        assert_says(&machine.cmd("stop", ()).unwrap_err(), &["within 50ms"]);
    });
}
