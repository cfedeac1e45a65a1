//! The main scenarios with a real QEMU: empty (`-machine none`), and with ratite's boot sector in it.

use std::fs::File;
use std::time::Duration;
use std::time::Instant;

use ratite::Asked;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::ExtraMonitor;
use ratite::LaunchErrorKind;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::Monitor;
use ratite::PassedFd;
use ratite::Pattern;
use ratite::Timeouts;
use ratite::guest;
use ratite::qmp::Address;
use ratite::qmp::Client;
use ratite::qmp::Command;
use ratite::qmp::EventFilter;
use ratite::qmp::Options;
use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;
use serde_json::json;

/// Launches a guest and waits until it takes commands.
async fn boot(config: MachineConfig) -> Machine {
    let machine = config.launch().await.expect("the guest launches");
    let console = machine.console().expect("a guest has a console");
    let greeting = console.expect(guest::READY, PATIENCE).await.expect("the guest greets");
    assert_eq!(greeting.before, b"", "a console is read from its first byte");
    console.expect(&*format!("\n{}", guest::PROMPT), PATIENCE).await.expect("the guest prompts");
    machine
}

/// Types a command to the guest.
async fn order(machine: &Machine, line: &str) {
    machine
        .console()
        .expect("a guest has a console")
        .write(format!("{line}\r"))
        .await
        .expect("it takes what is typed");
}

#[test]
fn it_answers_whatever_its_monitor_is_reached_by() {
    play(async |stage| {
        let tcp = |host: &str| Monitor::Tcp { host: host.to_owned(), port: 0 };
        let path = stage.path("mon,itor");
        let monitors =
            [Monitor::SocketPair, Monitor::Unix(path), tcp("127.0.0.1"), tcp("::1"), tcp("localhost")];
        for monitor in monitors {
            let machine = stage.real().monitor(monitor).launch().await.unwrap();

            assert!(machine.cmd("query-version", ()).await.unwrap()["qemu"]["major"].is_u64());
            let exit = machine.shutdown(PATIENCE).await.unwrap();

            assert_eq!((exit.asked, exit.shutdown_reason.as_deref()), (Asked::Us, Some("host-qmp-quit")));
        }
    });
}

#[test]
fn a_wrong_option_is_told_at_once_in_its_own_words() {
    play(async |stage| {
        let path = stage.path("monitor");
        for monitor in [Monitor::SocketPair, Monitor::Unix(path)] {
            let start = Instant::now();
            let error = stage.real().arg("-nosuchoption").monitor(monitor).launch().await.unwrap_err();

            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            assert_says(&error, &["QEMU exited with status 1 before its monitor was ready"]);
            assert!(error.log().text().contains("-nosuchoption: invalid option"), "{:?}", error.log());
        }
    });
}

#[test]
fn a_name_that_it_has_already_is_told_in_its_own_words() {
    play(async |stage| {
        let error = stage.real().args(["-chardev", "null,id=mon"]).launch().await.unwrap_err();

        assert!(matches!(error.kind(), LaunchErrorKind::Exited(_)), "{}", chain(&error));
        assert!(error.log().text().contains("mon"), "{:?}", error.log());
    });
}

#[test]
fn it_prints_its_version_and_that_is_no_launch() {
    play(async |stage| {
        let error = stage.real().arg("--version").launch().await.unwrap_err();

        assert_eq!(error.exit().unwrap().code(), Some(0));
        assert!(error.log().text().starts_with("QEMU emulator version"));
    });
}

#[test]
fn its_refusals_events_and_out_of_band_commands_arrive() {
    play(async |stage| {
        let machine = stage.real().launch().await.unwrap();

        let refused = machine.cmd("device_add", json!({ "driver": "nope" })).await.unwrap_err();
        let oob = machine.qmp(Command::new("qmp_capabilities").oob()).await;
        machine.cmd("system_reset", ()).await.unwrap();
        let reset =
            machine.event_wait(EventFilter::named("RESET").data(json!({ "guest": false })), AT_ONCE).await;

        assert_says(&refused, &["QEMU refused `device_add`", "nope"]);
        assert!(oob.is_ok() || chain(&oob.unwrap_err()).contains("oob"));
        assert_eq!(reset.unwrap().data()["reason"], "host-qmp-system-reset");
    });
}

#[test]
fn descriptors_reach_it_by_set_by_number_and_by_name() {
    play(async |stage| {
        let file = |name: &str| File::create(stage.path(name)).unwrap();
        let config = stage
            .real()
            .fd(PassedFd::in_set(file("set"), 5).opaque("a,b c"))
            .fd(PassedFd::at(file("number"), 30));
        let machine = config.launch().await.unwrap();

        machine.send_fd("named", file("name")).await.unwrap();
        let sets = machine.cmd("query-fdsets", ()).await.unwrap();

        assert_eq!(sets[0]["fdset-id"], 5);
        assert_eq!(sets[0]["fds"][0]["opaque"], "a,b c");
        let path = |name: &str| stage.path(name);
        let held = |number: u32| std::fs::read_link(format!("/proc/{}/fd/{number}", machine.pid())).ok();
        assert_eq!(held(30), Some(path("number")));
        assert!((3..200).any(|number| held(number) == Some(path("name"))));
        machine.cmd("closefd", json!({ "fdname": "named" })).await.unwrap();
        assert!(!(3..200).any(|number| held(number) == Some(path("name"))));
    });
}

#[test]
fn further_monitors_serve_others() {
    play(async |stage| {
        let path = stage.path("other");
        let config =
            stage.real().extra_monitor(ExtraMonitor::Null).extra_monitor(ExtraMonitor::Qmp(path.clone()));
        let machine = config.launch().await.unwrap();

        let other = Client::connect(&Address::unix(&path), Options::default()).await.unwrap();

        assert_eq!(
            other.execute("query-status", ()).await.unwrap(),
            machine.cmd("query-status", ()).await.unwrap()
        );
    });
}

#[test]
fn it_ends_without_a_monitor_in_a_shell_and_by_force() {
    play(async |stage| {
        let without = boot(stage.guest().without_monitor()).await;
        let wrapped = stage.real().wrapper(["sh", "-c", r#""$@"; exit $?"#, "sh"]).launch().await.unwrap();
        let killed = stage.real().launch().await.unwrap();
        let stopped = stage.real().launch().await.unwrap();
        send_signal(stopped.pid(), Signal::STOP);

        assert!(without.shutdown(PATIENCE).await.unwrap().success());
        assert!(wrapped.shutdown(PATIENCE).await.unwrap().success());
        assert_eq!(killed.kill().await.unwrap().status.signal_name(), Some("SIGKILL"));
        let error = stopped.shutdown(Duration::from_millis(300)).await.unwrap_err();
        assert_says(&error, &["did not end within 300ms"]);
    });
}

#[test]
fn a_kill_in_a_shell_leaves_no_qemu() {
    play(async |stage| {
        let config = stage.real().wrapper(["sh", "-c", r#""$@"; true"#, "sh"]);
        let machine = config.launch().await.unwrap();
        let qemu = ratite_tests::orphans::children_of(machine.pid())[0].pid;

        machine.kill().await.unwrap();

        wait_until("QEMU is gone", AT_ONCE, || !is_alive(qemu));
    });
}

#[test]
fn a_signal_from_somebody_else_is_told_with_its_reason() {
    play(async |stage| {
        let machine = stage.real().launch().await.unwrap();
        send_signal(machine.pid(), Signal::TERM);

        let exit = machine.wait(PATIENCE).await.unwrap();

        assert_eq!((exit.asked, exit.shutdown_reason.as_deref()), (Asked::Signal, Some("host-signal")));
        assert!(exit.log.text().contains("terminating on signal 15"), "{:?}", exit.log);
    });
}

#[test]
fn its_death_under_a_command_is_told() {
    play(async |stage| {
        let machine = stage.real().launch().await.unwrap();
        send_signal(machine.pid(), Signal::STOP);
        let killing = async {
            let silent = machine.qmp(Command::new("query-status").limit(Duration::from_millis(50))).await;
            send_signal(machine.pid(), Signal::KILL);
            silent
        };

        let (told, silent) = tokio::join!(machine.cmd("query-version", ()), killing);

        assert!(silent.is_err());
        assert_says(&told.unwrap_err(), &["QEMU was killed by signal 9 (SIGKILL) while `query-version`"]);
    });
}

#[test]
fn a_guest_greets_obeys_and_powers_off() {
    play(async |stage| {
        let machine = boot(stage.guest()).await;
        let console = machine.console().unwrap();

        order(&machine, "echo hello 42").await;
        let answer = console.expect(Pattern::regex(r"\nhello (\d+)\r\n").unwrap(), PATIENCE).await.unwrap();
        order(&machine, "off").await;
        let exit = machine.wait(PATIENCE).await.unwrap();

        assert_eq!(answer.groups, [Some(b"42".to_vec())]);
        assert_eq!((exit.asked, exit.shutdown_reason.as_deref()), (Asked::Guest, Some("guest-shutdown")));
        assert!(exit.success());
        assert_eq!(
            console.expect("never", PATIENCE).await.unwrap_err().to_string(),
            "the console ended while waiting for `never`: QEMU exited with status 0"
        );
    });
}

#[test]
fn a_guest_may_choose_the_status() {
    play(async |stage| {
        let machine = boot(stage.guest().args(["-device", "isa-debug-exit,iobase=0xf4"])).await;

        order(&machine, "exit 21").await;
        let exit = machine.wait(PATIENCE).await.unwrap();

        assert_eq!(exit.status.code(), Some(21 << 1 | 1));
        assert!(!exit.success());
    });
}

#[test]
fn a_guest_that_resets_ends_only_if_it_is_told_to() {
    play(async |stage| {
        let machine = boot(stage.guest()).await;
        order(&machine, "reset").await;
        machine
            .event_wait(EventFilter::named("RESET").data(json!({ "guest": true })), PATIENCE)
            .await
            .unwrap();
        machine.console().unwrap().expect(guest::READY, PATIENCE).await.unwrap();

        let once = boot(stage.guest().arg("-no-reboot")).await;
        order(&once, "reset").await;
        let exit = once.wait(PATIENCE).await.unwrap();

        assert!(machine.is_running());
        assert_eq!((exit.asked, exit.shutdown_reason.as_deref()), (Asked::Guest, Some("guest-reset")));
    });
}

#[test]
fn a_guest_that_floods_its_console_is_neither_lost_nor_stopped() {
    play(async |stage| {
        let log = stage.path("console.log");
        let console = ConsoleConfig::serial().log(&log).history(1 << 16);
        let machine = boot(stage.guest().console(console)).await;

        order(&machine, "flood 300000").await;
        wait_until("all has arrived", PATIENCE, || {
            let console = machine.console().unwrap();
            console.bytes_seen() > 300_000 && console.tail(4).bytes == b"\r\n> "
        });

        let logged = std::fs::read(&log).unwrap();
        let flood: Vec<u8> =
            (0..300_000_u32).map(|at| if at % 64 == 63 { b'\n' } else { b'0' + (at % 64) as u8 }).collect();
        assert!(logged.windows(flood.len()).any(|window| window == flood), "{} bytes", logged.len());
        assert!(matches!(machine.console().unwrap().take(), Err(ConsoleError::Lagged { .. })));
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_guest_that_hangs_is_still_ended() {
    play(async |stage| {
        let machine = boot(stage.guest()).await;
        order(&machine, "hang").await;

        let limit = Duration::from_millis(200);
        let silent = machine.console().unwrap().expect("\n> ", limit).await;

        assert!(matches!(silent, Err(ConsoleError::TimedOut { .. })));
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_guest_that_never_reads_ends_a_write_at_its_limit() {
    play(async |stage| {
        let console = Duration::from_millis(300);
        let machine = boot(stage.guest().timeouts(Timeouts { console, ..Timeouts::default() })).await;
        machine.cmd("stop", ()).await.unwrap();

        let error = machine.console().unwrap().write(vec![b'x'; 4 << 20]).await.unwrap_err();

        assert!(matches!(error, ConsoleError::TimedOut { .. }), "{error:?}");
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn the_second_serial_port_and_a_device_are_consoles_too() {
    play(async |stage| {
        let device = ConsoleConfig::device("isa-serial");

        let machine = boot(stage.guest().console(device)).await;
        let second = stage.guest().console(ConsoleConfig::serial().index(1)).launch().await.unwrap();

        order(&machine, "echo x").await;
        machine.console().unwrap().expect("\nx\r\n", PATIENCE).await.unwrap();
        // The guest greets on the first port, and this is the second.
        assert!(second.console().unwrap().read(Duration::from_millis(300)).await.is_err());
    });
}

#[test]
fn it_does_all_that_without_async_too() {
    play_blocking(|stage| {
        let machine = ratite::blocking::Machine::launch(&stage.guest()).unwrap();
        let console = machine.console().unwrap();

        console.expect(guest::READY, PATIENCE).unwrap();
        console.write("off\r").unwrap();
        let exit = machine.wait(PATIENCE).unwrap();

        assert_eq!(exit.asked, Asked::Guest);
    });
}

#[test]
fn a_flood_of_events_and_commands_at_once_is_borne() {
    play(async |stage| {
        let machine = stage.real().launch().await.unwrap();

        for _ in 0..200 {
            let (one, two) = tokio::join!(machine.cmd("system_reset", ()), machine.cmd("query-status", ()));
            one.unwrap();
            two.unwrap();
        }

        let resets = machine.take_events().iter().filter(|event| event.name() == "RESET").count();
        assert!(resets > 0);
    });
}
