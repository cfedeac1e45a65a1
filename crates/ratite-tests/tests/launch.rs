//! What a machine is when its launch has succeeded.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use ratite::Machine;
use ratite::Monitor;
use ratite_tests::orphans::Process;
use ratite_tests::orphans::children_of;
use ratite_tests::orphans::is_alive;
use ratite_tests::orphans::processes_with_mark;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::fake_qemu;
use ratite_tests::scenario::play;
use ratite_tests::scenario::wait_until;
use serde_json::Value;

async fn ask(machine: &Machine, command: &str) -> Value {
    machine.cmd(command, ()).await.expect("the fake answers")
}

/// The arguments with which QEMU was started, as it sees them itself.
async fn arguments(machine: &Machine) -> Vec<String> {
    serde_json::from_value(ask(machine, "fake-args").await).expect("arguments are texts")
}

async fn check_monitor(stage: &Stage, monitor: Monitor, option: &str) {
    let machine = stage.fake(&[]).monitor(monitor.clone()).launch().await.expect("it launches");

    assert_eq!(ask(&machine, "query-version").await["package"], "fake", "{monitor:?}");
    let arguments = arguments(&machine).await;
    assert!(arguments.iter().any(|argument| argument.starts_with(option)), "{arguments:?}");
    assert!(machine.shutdown(PATIENCE).await.expect("it ends cleanly").success());
}

fn tcp(host: &str, port: u16) -> Monitor {
    let host = host.to_owned();
    Monitor::Tcp { host, port }
}

#[test]
fn a_machine_answers_whatever_its_monitor_is_reached_by() {
    play(async |stage| {
        check_monitor(stage, Monitor::SocketPair, "socket,id=mon,fd=").await;
        let path = stage.path("m,on");
        let option = format!("socket,id=mon,path={}", stage.path("m,,on").display());
        check_monitor(stage, Monitor::Unix(path.clone()), &option).await;
        check_monitor(stage, tcp("127.0.0.1", 0), "socket,id=mon,host=127.0.0.1,port=").await;
        check_monitor(stage, tcp("::1", 0), "socket,id=mon,host=::1,port=").await;
        check_monitor(stage, tcp("localhost", 0), "socket,id=mon,host=localhost,port=").await;

        assert!(!path.exists(), "the monitor's socket goes with its machine");
    });
}

#[test]
fn a_tcp_port_that_is_asked_for_is_the_one_that_is_used() {
    play(async |stage| {
        // Held on one address, it is left alone by others on the next.
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();

        let option = format!("socket,id=mon,host=127.0.0.2,port={port}");
        check_monitor(stage, tcp("127.0.0.2", port), &option).await;
    });
}

#[test]
fn a_machine_without_a_monitor_runs_as_soon_as_its_process_does() {
    play(async |stage| {
        let machine = stage.fake(&[]).without_monitor().launch().await.unwrap();

        let refused = machine.cmd("query-status", ()).await.unwrap_err();

        assert!(machine.is_running() && is_alive(machine.pid()));
        assert_eq!(machine.launch_time(), std::time::Duration::ZERO);
        assert_eq!(
            refused.to_string(),
            "could not send `query-status`: the machine was launched without a monitor"
        );
        assert_eq!(machine.take_events().len(), 0);
        assert!(machine.listen(ratite::qmp::EventFilter::any()).is_err());
        let words = machine.command_line().words();
        assert!(!words.iter().any(|word| word == "-mon"), "{words:?}");
    });
}

#[test]
fn a_running_machine_knows_its_process_its_folder_and_its_command_line() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=hello"]).name("mach,ine").launch().await.unwrap();

        let ids = ask(&machine, "fake-process").await;
        let folder = machine.work_folder();
        assert_eq!(ids["pid"], machine.pid());
        assert!(machine.is_running() && machine.exit().is_none());
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(folder.parent(), Some(stage.base()));
        assert_eq!(machine.log().path(), folder.join("mach,ine.log"));
        assert_eq!(machine.log().text().unwrap(), "hello\n");
        assert_eq!(machine.command_line().words()[0], fake_qemu());
        let words = machine.command_line().words().iter();
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(arguments(&machine).await, words);
    });
}

#[test]
fn the_default_name_is_no_other_machines() {
    play(async |stage| {
        let logs = stage.path("logs");
        let config = stage.fake(&[]).log_folder(&logs);

        for _ in 0..3 {
            config.launch().await.unwrap().shutdown(PATIENCE).await.unwrap();
        }

        assert_eq!(entries(&logs).len(), 3);
    });
}

#[test]
fn an_argument_may_hold_any_bytes() {
    play(async |stage| {
        let odd = OsString::from_vec(b"-odd\xff'\" \n$x".to_vec());

        let machine = stage.fake(&[]).arg(&odd).arg("").launch().await.unwrap();

        let given = fs::read(format!("/proc/{}/cmdline", machine.pid())).unwrap();
        assert!(given.ends_with(b"\0-odd\xff'\" \n$x\0\0"), "{given:?}");
        let shown = machine.command_line().to_string();
        assert!(shown.ends_with(r#" $'-odd\xff\'\" \n$x' ''"#), "{shown}");
    });
}

#[test]
fn the_environment_is_the_callers_with_what_was_changed() {
    play(async |stage| {
        let config = stage.fake(&[]).env("RATITE_TEST_ODD", "a=b\n c").env_remove("HOME");

        let machine = config.launch().await.unwrap();

        let environment = ask(&machine, "fake-env").await;
        let path = std::env::var_os("PATH");
        assert_eq!(environment["RATITE_TEST_ODD"], "a=b\n c");
        assert_eq!(environment.get("HOME"), None);
        assert_eq!(environment["PATH"].as_str().map(OsStr::new), path.as_deref());
        let mark = environment["RATITE_MACHINE"].as_str().unwrap();
        assert!(mark.starts_with(&format!("{}-", std::process::id())), "{mark}");
    });
}

#[test]
fn the_working_folder_is_the_callers_unless_another_is_given() {
    play(async |stage| {
        let here = stage.fake(&[]).launch().await.unwrap();
        let there = stage.fake(&[]).working_folder(stage.base()).launch().await.unwrap();

        let callers = std::env::current_dir().unwrap();
        assert_eq!(ask(&here, "fake-cwd").await.as_str().map(OsStr::new), Some(callers.as_os_str()));
        let given = stage.base().canonicalize().unwrap();
        assert_eq!(ask(&there, "fake-cwd").await.as_str().map(OsStr::new), Some(given.as_os_str()));
    });
}

#[test]
fn a_machine_leads_a_process_group_of_its_own_unless_told_otherwise() {
    play(async |stage| {
        let own = stage.fake(&[]).launch().await.unwrap();
        let callers = stage.fake(&[]).in_callers_process_group().launch().await.unwrap();

        let ours = nix::unistd::getpgrp().as_raw();
        assert_eq!(ask(&own, "fake-process").await["pgid"], own.pid());
        assert_eq!(ask(&callers, "fake-process").await["pgid"], ours);
        assert!(callers.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_wrapper_stands_before_the_binary_and_its_pid_is_the_machines() {
    play(async |stage| {
        let env = stage.fake(&[]).wrapper(["env", "RATITE_TEST=wrapped"]).launch().await.unwrap();
        let shell = stage.fake(&[]).wrapper(["sh", "-c", r#""$@"; true"#, "sh"]).launch().await.unwrap();

        assert_eq!(ask(&env, "fake-env").await["RATITE_TEST"], "wrapped");
        assert_eq!(ask(&env, "fake-process").await["pid"], env.pid());
        let ids = ask(&shell, "fake-process").await;
        assert!(shell.has_process(u32::try_from(ids["pid"].as_u64().unwrap()).unwrap()));
        assert!(!shell.has_process(env.pid()) && !shell.has_process(std::process::id()));
        assert_eq!(ids["ppid"], shell.pid());
        assert_eq!(ids["pgid"], shell.pid());
        assert_eq!(Process::find(shell.pid()).unwrap().name, "sh");
        let exit = shell.shutdown(PATIENCE).await.unwrap();
        assert_eq!(exit.pid, shell.pid());
    });
}

#[test]
fn every_process_of_a_machine_carries_its_mark() {
    play(async |stage| {
        let wrapper = ["sh", "-c", r#"sleep 1000 & "$@"; true"#, "sh"];

        let machine = stage.fake(&["spawn-child"]).wrapper(wrapper).launch().await.unwrap();

        // The shell, its `sleep`, the fake, and the fake's `sleep`.
        let mark = ask(&machine, "fake-env").await["RATITE_MACHINE"].as_str().unwrap().to_owned();
        assert_eq!(processes_with_mark(&mark).len(), 4);
        assert_eq!(children_of(machine.pid()).len(), 2);
        machine.shutdown(PATIENCE).await.unwrap();
        wait_until("all of them are gone", PATIENCE, || processes_with_mark(&mark).is_empty());
    });
}

#[test]
fn one_description_can_be_launched_many_times_at_once() {
    play(async |stage| {
        let config = stage.fake(&[]);

        let (one, two) = tokio::join!(config.launch(), config.launch());

        let (one, two) = (one.unwrap(), two.unwrap());
        assert_ne!(one.pid(), two.pid());
        assert_ne!(one.work_folder(), two.work_folder());
        assert_ne!(one.log().path().file_name(), two.log().path().file_name());
    });
}

#[test]
fn events_sent_during_the_negotiation_are_there_afterwards() {
    play(async |stage| {
        let machine = stage.fake(&["nego-event"]).launch().await.unwrap();

        let early: Vec<Value> = machine.take_events().iter().map(ratite::qmp::Event::data).collect();

        assert_eq!(early, [serde_json::json!({ "seq": 0 }), serde_json::json!({ "seq": 1 })]);
    });
}
