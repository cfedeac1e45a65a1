//! QEMU's real guest agent, on this system: programs, files, refusals, and an agent that falls silent.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::time::Duration;

use ratite::ConsoleConfig;
use ratite::blocking;
use ratite::qmp::Agent;
use ratite::qmp::AgentError;
use ratite::qmp::FsState;
use ratite::qmp::GuestExit;
use ratite::qmp::GuestProgram;
use ratite::qmp::ShutdownMode;
use ratite_tests::guest_agent::DISABLED;
use ratite_tests::guest_agent::GuestAgent;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;
use serde_json::json;

fn sh(script: &str) -> GuestProgram {
    GuestProgram::new("/bin/sh").args(["-c", script])
}

async fn connect(real: &GuestAgent) -> Agent {
    Agent::connect(&real.address(), PATIENCE).await.unwrap()
}

#[test]
fn an_agent_tells_what_it_has() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;

        agent.ping().await.unwrap();
        let info = agent.info().await.unwrap();

        assert!(info.version.starts_with(|c: char| c.is_ascii_digit()), "{}", info.version);
        for name in DISABLED {
            assert!(info.command(name).is_none_or(|command| !command.enabled), "{name}");
        }
        let exec = info.command("guest-exec").unwrap();
        assert!(exec.enabled && exec.success_response);
        assert!(!info.command("guest-shutdown").unwrap().success_response);
        let interfaces = agent.interfaces().await.unwrap();
        let loopback = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(loopback.addresses.iter().all(|address| address.prefix > 0));
        assert_eq!(agent.fs_status().await.unwrap(), FsState::Thawed);
        assert!(agent.time().await.unwrap() > Duration::from_secs(1_600_000_000));
    });
}

#[test]
fn a_program_has_its_output_its_code_and_its_input() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;

        let output =
            agent.exec(&sh("cat; echo out; echo err >&2; exit 3").input(*b"\x00in\xff"), PATIENCE).await;
        let output = output.unwrap();
        assert_eq!(output.exit, GuestExit::Code(3));
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.as_slice()),
            (&b"\x00in\xffout\n"[..], &b"err\n"[..])
        );

        let killed = agent.exec(&sh("kill -9 $$"), PATIENCE).await.unwrap();
        assert_eq!(killed.exit, GuestExit::Signal(9));

        let variables = agent.exec(&sh("echo $A-$HOME-").env("A", "b c"), PATIENCE).await.unwrap();
        assert_eq!(variables.text(), "b c--\n");

        let unseen = agent.exec(&sh("echo out").without_output(), PATIENCE).await.unwrap();
        assert!(unseen.success() && unseen.stdout.is_empty());

        let found = agent.exec(&GuestProgram::new("echo").arg("found"), PATIENCE).await.unwrap();
        assert_eq!(found.text(), "found\n");
    });
}

#[test]
fn the_output_that_an_agent_cannot_keep_is_told() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;

        let much = agent.exec(&sh("head -c 3000000 /dev/zero"), PATIENCE).await.unwrap();
        assert_eq!((much.stdout.len(), much.stdout_truncated), (3_000_000, false));

        let more = agent.exec(&sh("head -c 17000000 /dev/zero"), PATIENCE).await.unwrap();
        assert_eq!((more.stdout.len(), more.stdout_truncated), (16 << 20, true));
    });
}

#[test]
fn a_program_that_cannot_be_started_is_told_in_the_agents_words() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;

        let error = agent.exec(&GuestProgram::new("/proc/nowhere"), PATIENCE).await.unwrap_err();

        assert!(matches!(error, AgentError::Refused { .. }), "{error:?}");
        assert!(chain(&error).contains("No such file"), "{}", chain(&error));
    });
}

#[test]
fn a_program_that_runs_on_leaves_the_agent_usable() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;

        let error = agent.exec(&sh("exec sleep 1000"), Duration::from_millis(200)).await.unwrap_err();

        let AgentError::StillRuns { pid, .. } = error else { panic!("{error:?}") };
        let killed = agent.exec(&sh(&format!("kill {pid}")), PATIENCE).await.unwrap();
        assert!(killed.success());
        agent.ping().await.unwrap();
        wait_until("the program has ended", PATIENCE, || !fs::exists(format!("/proc/{pid}/fd/0")).unwrap());
    });
}

#[test]
fn files_are_written_and_read_as_they_are() {
    play(async |stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;
        let path = stage.path("file");
        let path = path.to_str().unwrap();
        let every_byte: Vec<u8> =
            (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();

        for bytes in [&b""[..], b"x", &every_byte] {
            agent.write_file(path, bytes).await.unwrap();

            assert_eq!(fs::read(path).unwrap(), bytes);
            assert_eq!(agent.read_file(path).await.unwrap(), bytes);
        }

        let mut behind = agent.open_file(path, "a").await.unwrap();
        behind.write(b"more").await.unwrap();
        behind.close().await.unwrap();
        assert!(agent.read_file(path).await.unwrap().ends_with(b"more"));
        let status = agent.read_file("/proc/self/status").await.unwrap();
        assert!(status.starts_with(b"Name:\tqemu-ga\n"));
    });
}

#[test]
fn no_file_is_left_open() {
    play(async |stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;
        let path = stage.path("file");
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let open = || {
            let fds = fs::read_dir(format!("/proc/{}/fd", real.pid())).unwrap();
            fds.filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == path)).count()
        };

        let mut file = agent.open_file(path.to_str().unwrap(), "r").await.unwrap();
        file.read().await.unwrap();
        assert_eq!(open(), 1);
        drop(file);
        wait_until("it is closed", PATIENCE, || open() == 0);

        let folder = stage.path("");
        let error = agent.read_file(folder.to_str().unwrap()).await.unwrap_err();
        assert!(chain(&error).contains("Is a directory"), "{}", chain(&error));
        agent.ping().await.unwrap();
    });
}

#[test]
fn what_the_agent_may_not_or_cannot_do_is_told_apart() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;
        assert!(!agent.info().await.unwrap().command("guest-shutdown").unwrap().enabled);

        let errors = [
            agent.shutdown(ShutdownMode::PowerDown).await.unwrap_err(),
            agent.fs_freeze().await.unwrap_err(),
            agent.fs_trim(0).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, AgentError::Disabled { .. }), "{error:?}");
        }

        let unknown = agent.execute("guest-fly", ()).await.unwrap_err();
        assert!(matches!(unknown, AgentError::Unknown { .. }), "{unknown:?}");
        let wrong = agent.execute("guest-file-open", json!({ "way": 1 })).await.unwrap_err();
        assert!(matches!(wrong, AgentError::Refused { .. }), "{wrong:?}");
        agent.ping().await.unwrap();
    });
}

#[test]
fn an_agent_that_falls_silent_is_told_and_back_in_step_when_it_wakes() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;
        agent.ping().await.unwrap();
        let hasty = agent.with_limit(Duration::from_millis(100));

        real.signal(Signal::STOP);
        let errors = [hasty.info().await.unwrap_err(), hasty.ping().await.unwrap_err()];
        real.signal(Signal::CONT);

        assert_eq!(errors[0].to_string(), "no reply to `guest-info` within 100ms");
        assert!(matches!(errors[1], AgentError::NoAgent { .. }), "{:?}", errors[1]);
        // The stale replies to both are on their way.
        assert!(agent.exec(&sh("echo new"), PATIENCE).await.unwrap().text() == "new\n");
    });
}

#[test]
fn half_of_a_message_of_an_earlier_client_is_forgotten() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let mut rude = std::os::unix::net::UnixStream::connect(real.socket()).unwrap();
        std::io::Write::write_all(&mut rude, b"{\"execute\": \"guest-p").unwrap();
        drop(rude);

        let agent = connect(&real).await;

        agent.ping().await.unwrap();
    });
}

#[test]
fn an_agent_that_ends_is_told() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;
        agent.ping().await.unwrap();

        drop(real);

        let error = agent.ping().await.unwrap_err();
        assert!(matches!(error, AgentError::Disconnected { .. }), "{error:?}");
    });
}

#[test]
fn many_share_an_agent() {
    play(async |_stage| {
        let real = GuestAgent::start();
        let agent = connect(&real).await;
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let agent = agent.clone();
                tokio::spawn(
                    async move { agent.exec(&sh(&format!("echo {n}")), PATIENCE).await.unwrap().text() },
                )
            })
            .collect();

        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), format!("{n}\n"));
        }
    });
}

#[test]
fn a_guest_without_an_agent_is_told_and_its_end_too() {
    play(async |stage| {
        let machine = stage.guest().agent().console(ConsoleConfig::virtconsole().name("hvc0")).launch().await;
        let machine = machine.unwrap();
        let agent = machine.agent().unwrap().clone();

        let error = agent.with_limit(Duration::from_millis(300)).ping().await.unwrap_err();
        assert!(matches!(error, AgentError::NoAgent { heard: None, .. }), "{error:?}");

        let waiting = tokio::spawn(async move { agent.with_limit(Duration::MAX).ping().await });
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, AgentError::Disconnected { .. }), "{error:?}");
    });
}

#[test]
fn a_machine_has_an_agent_only_if_it_was_given_the_channel() {
    play_blocking(|stage| {
        let without = blocking::Machine::launch(&stage.real()).unwrap();
        assert!(without.agent().is_none());
        without.shutdown(PATIENCE).unwrap();

        let with = blocking::Machine::launch(&stage.guest().agent()).unwrap();
        let error = with.agent().unwrap().with_limit(Duration::ZERO).ping().unwrap_err();
        assert!(error.is_timed_out(), "{error:?}");
        with.shutdown(PATIENCE).unwrap();
    });
}
