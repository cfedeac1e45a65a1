//! Machines that are reachable by name: who has a name, what others can do by it, and how all of that ends.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ratite::ConfigError;
use ratite::ConsoleConfig;
use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::MachineConfig;
use ratite::guest;
use ratite::qmp::Command;
use ratite::qmp::EventFilter;
use ratite::qmp::Options;
use ratite::qmp::within;
use ratite::reach;
use ratite::reach::ReachError;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::apart::apart;
use ratite_tests::scenario::apart::machines;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;

/// A fake QEMU that is reachable by this name.
fn fake(stage: &Stage, name: &str, words: &[&str]) -> MachineConfig {
    stage.fake(words).console(ConsoleConfig::serial()).name(name).reachable()
}

fn reach_error(error: &LaunchError) -> &ReachError {
    match error.kind() {
        LaunchErrorKind::Reach(error) => error,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_nobody_is_left() {
    assert_eq!(entries(&machines()), Vec::<String>::new());
}

#[test]
fn a_machine_is_found_looked_at_spoken_with_and_ended() {
    apart("a_machine_is_found_looked_at_spoken_with_and_ended", || {
        play(async |stage| {
            let machine = stage.guest().name("web").reachable().launch().await.unwrap();
            let console = machine.console().unwrap();
            console.expect(guest::PROMPT, PATIENCE).await.unwrap();

            let listed = reach::list().await.unwrap();
            let web = reach::attach("web").await.unwrap();
            let facts = web.facts().await.unwrap();
            let client = web.qmp(Options::default()).await.unwrap();
            let paused = client.listen(EventFilter::named("STOP"));
            client.execute("stop", ()).await.unwrap();
            paused.next(PATIENCE).await.unwrap();
            let stopped = web.facts().await.unwrap();
            client.execute("cont", ()).await.unwrap();
            let attached = web.console(None, 1 << 20).await.unwrap();
            assert_eq!((attached.name.as_str(), attached.omitted), ("console", 0));
            assert_eq!(attached.recorded, console.bytes_seen());
            let theirs = attached.into_console().unwrap();
            let found = theirs.expect(guest::READY, PATIENCE).await.unwrap();
            assert_eq!(found.dropped, 0);
            let exit = web.shutdown(PATIENCE).await.unwrap();

            assert_eq!(listed.len(), 1);
            assert_eq!(
                (facts.name.as_str(), facts.pid, facts.owner),
                ("web", machine.pid(), std::process::id())
            );
            assert_eq!((facts.state.as_str(), stopped.state.as_str()), ("running", "paused"));
            let version = &machine.client().unwrap().greeting().unwrap().version;
            assert_eq!(facts.version, Some(format!("{}.{}.{}", version.major, version.minor, version.micro)));
            assert_eq!(facts.consoles[0].last_line, guest::PROMPT);
            assert_eq!(facts.work_folder, machine.work_folder());
            assert!(facts.command_line.starts_with("qemu-system-x86_64 "), "{}", facts.command_line);
            assert_eq!((exit.success(), exit.shutdown_reason.as_deref()), (true, Some("host-qmp-quit")));
            // Its owner learns the same.
            let ours = machine.wait(PATIENCE).await.unwrap();
            assert_eq!((ours.status, ours.shutdown_reason), (exit.status, exit.shutdown_reason));
            check_nobody_is_left();
            assert!(matches!(reach::attach("web").await, Err(ReachError::NotThere { .. })));
        });
    });
}

#[test]
fn a_name_that_cannot_be_one_is_refused_before_anything_is_made() {
    apart("a_name_that_cannot_be_one_is_refused_before_anything_is_made", || {
        play(async |stage| {
            let refusal = async |config: MachineConfig| match config.launch().await.unwrap_err().kind() {
                LaunchErrorKind::Config(ConfigError::Unreachable { reason }) => *reason,
                other => panic!("{other:?}"),
            };

            assert_eq!(refusal(stage.fake(&[]).reachable()).await, "it has none");
            for name in ["a b", "a:b", "-a", ".a", "ä", "a\nb"] {
                let reason = refusal(fake(stage, name, &[])).await;
                assert!(
                    reason.starts_with("it holds") || reason.starts_with("it begins"),
                    "{name}: {reason}"
                );
            }
            let long = fake(stage, &"x".repeat(90), &[]).launch().await.unwrap_err();
            assert!(matches!(reach_error(&long), ReachError::Name { .. }), "{long:?}");
            assert_says(&long, &["90 bytes long", "a name may have", "107"]);
            assert!(!machines().exists());
            // One that is just as long as it may be can be reached.
            let most = 107 - machines().as_os_str().len() - "//control".len();
            let machine = fake(stage, &"x".repeat(most), &[]).launch().await.unwrap();
            reach::attach("x".repeat(most)).await.unwrap();
            assert!(fake(stage, &"x".repeat(most + 1), &[]).launch().await.is_err());
            machine.shutdown(PATIENCE).await.unwrap();
        });
    });
}

#[test]
fn a_name_belongs_to_one_machine_at_a_time() {
    apart("a_name_belongs_to_one_machine_at_a_time", || {
        play(async |stage| {
            let first = fake(stage, "web", &[]).launch().await.unwrap();

            let second = fake(stage, "web", &[]).launch().await.unwrap_err();

            assert!(
                matches!(reach_error(&second), ReachError::Taken { pid: Some(pid), .. } if *pid == std::process::id())
            );
            assert_says(&second, &["the name `web` is taken by a machine of process"]);
            assert_eq!(reach::list().await.unwrap().len(), 1);
            first.shutdown(PATIENCE).await.unwrap();
            check_nobody_is_left();
            drop(fake(stage, "web", &[]).launch().await.unwrap());
            wait_until("the folder goes with a dropped machine", AT_ONCE, || entries(&machines()).is_empty());
            let failed = fake(stage, "web", &["exit-before-monitor=1"]).launch().await;
            assert!(failed.is_err());
            check_nobody_is_left();
        });
    });
}

#[test]
fn of_many_takers_of_a_dead_programs_name_one_gets_it() {
    apart("of_many_takers_of_a_dead_programs_name_one_gets_it", || {
        play_blocking(|stage| {
            for _ in 0..5 {
                let dead = Controller::start(stage, &["--name", "web"]);
                dead.end_by(|dead| dead.signal(Signal::KILL));
                assert_eq!(entries(&machines()), ["web"]);

                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    let config = Arc::new(fake(stage, "web", &[]));
                    let takers = (0..8).map(|_| {
                        let config = config.clone();
                        tokio::spawn(async move { config.launch().await })
                    });
                    let (mut winners, mut losers) = (Vec::new(), Vec::new());
                    for taker in takers.collect::<Vec<_>>() {
                        match taker.await.unwrap() {
                            Ok(machine) => winners.push(machine),
                            Err(error) => losers.push(error),
                        }
                    }
                    assert_eq!((winners.len(), losers.len()), (1, 7));
                    for error in &losers {
                        assert!(matches!(reach_error(error), ReachError::Taken { pid: Some(pid), .. } if *pid == std::process::id()), "{error:?}");
                    }
                    reach::attach("web").await.unwrap().facts().await.unwrap();
                    winners[0].shutdown(PATIENCE).await.unwrap();
                });
                check_nobody_is_left();
            }
        });
    });
}

#[test]
fn what_a_killed_program_leaves_is_swept_by_who_looks_around() {
    apart("what_a_killed_program_leaves_is_swept_by_who_looks_around", || {
        play_blocking(|stage| {
            let living = Controller::start(stage, &["--name", "living"]);
            let folder = tempfile::tempdir().unwrap();
            let other = Stage::empty();
            let dead = Controller::start(&other, &["--name", "dead"]);
            drop(folder);
            assert_eq!(ratite::blocking::reach::list().unwrap().len(), 2);
            dead.end_by(|dead| dead.signal(Signal::KILL));

            let listed = ratite::blocking::reach::list().unwrap();

            assert_eq!(listed.iter().map(|facts| facts.name.as_str()).collect::<Vec<_>>(), ["living"]);
            assert_eq!(listed[0].owner, living.id());
            assert_eq!(entries(&machines()), ["living"]);
            assert!(matches!(ratite::blocking::reach::attach("dead"), Err(ReachError::NotThere { .. })));
            living.end_by(|living| living.order("return"));
            check_nobody_is_left();
        });
    });
}

#[test]
fn a_folder_that_others_could_write_to_is_not_used() {
    apart("a_folder_that_others_could_write_to_is_not_used", || {
        play(async |stage| {
            fs::create_dir(machines()).unwrap();
            fs::set_permissions(machines(), PermissionsExt::from_mode(0o755)).unwrap();
            let open = fake(stage, "web", &[]).launch().await.unwrap_err();
            fs::remove_dir(machines()).unwrap();
            let elsewhere = stage.path("elsewhere");
            fs::create_dir(&elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, machines()).unwrap();
            let linked = fake(stage, "web", &[]).launch().await.unwrap_err();
            let listed = reach::list().await.unwrap_err();
            fs::remove_file(machines()).unwrap();

            assert_says(&open, &["its mode is 0755, and has to be 0700"]);
            assert_says(&linked, &["it is a symbolic link"]);
            assert_says(&listed, &["it is a symbolic link"]);
            assert!(entries(&elsewhere).is_empty());
            let machine = fake(stage, "web", &[]).launch().await.unwrap();
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(machines()), mode(machines().join("web"))), (0o700, 0o700));
            machine.shutdown(PATIENCE).await.unwrap();
        });
    });
}

#[test]
fn the_end_is_told_though_the_program_ends_right_behind_it() {
    apart("the_end_is_told_though_the_program_ends_right_behind_it", || {
        play_blocking(|stage| {
            for _ in 0..10 {
                let controller = Controller::start(stage, &["--name", "web"]);
                let web = ratite::blocking::reach::attach("web").unwrap();
                let mut waiting = UnixStream::connect(machines().join("web/control")).unwrap();
                waiting.write_all(b"{\"open\":\"wait\"}\n").unwrap();
                // Answered by somebody who was let in after the one that waits.
                web.facts().unwrap();
                let mut log = web.log(None, true).unwrap().stream;

                controller.end_by(|controller| controller.order("shut down\nreturn"));

                let mut told = String::new();
                waiting.read_to_string(&mut told).unwrap();
                assert!(told.contains("\"success\":true"), "{told}");
                log.read_to_end(&mut Vec::new()).unwrap();
            }
        });
    });
}

#[test]
fn a_guest_that_ends_by_itself_is_told_to_all_who_wait() {
    apart("a_guest_that_ends_by_itself_is_told_to_all_who_wait", || {
        play(async |stage| {
            let machine = stage.guest().name("web").reachable().launch().await.unwrap();
            let web = reach::attach("web").await.unwrap();
            let waiting: Vec<_> = (0..5)
                .map(|_| {
                    let web = web.clone();
                    tokio::spawn(async move { web.wait(PATIENCE).await })
                })
                .collect();
            let mut console = web.console(None, 0).await.unwrap().stream;
            machine.console().unwrap().expect(guest::READY, PATIENCE).await.unwrap();

            console.write_all(b"off\r").unwrap();

            for waiting in waiting {
                let exit = waiting.await.unwrap().unwrap();
                assert_eq!((exit.success(), exit.shutdown_reason.as_deref()), (true, Some("guest-shutdown")));
            }
            // Before its owner has asked for anything.
            wait_until("the name is free", AT_ONCE, || entries(&machines()).is_empty());
            assert!(machine.work_folder().exists());
        });
    });
}

#[test]
fn a_machine_that_is_dropped_or_killed_ends_for_all_who_reach_it() {
    apart("a_machine_that_is_dropped_or_killed_ends_for_all_who_reach_it", || {
        play(async |stage| {
            for is_killed in [true, false] {
                let machine = fake(stage, "web", &[]).launch().await.unwrap();
                let pid = machine.pid();
                let web = reach::attach("web").await.unwrap();
                let client = web.qmp(Options::default()).await.unwrap();
                let mut console = web.console(None, 0).await.unwrap().stream;
                let mut waiting = Box::pin({
                    let web = web.clone();
                    async move { web.wait(PATIENCE).await }
                });
                // It has asked before: a wait for what is gone is another thing.
                for _ in 0..3 {
                    tokio::select! {
                        biased;
                        early = &mut waiting => panic!("{early:?}"),
                        facts = web.facts() => drop(facts.unwrap()),
                    }
                }
                let waiting = tokio::spawn(waiting);
                // Whoever stops it gently does not keep it from its end.
                send_signal(pid, Signal::STOP);
                let stopping = tokio::spawn({
                    let web = web.clone();
                    async move { web.shutdown(Duration::from_secs(3600)).await }
                });

                match is_killed {
                    true => drop(web.kill().await.unwrap()),
                    false => drop(machine),
                }

                let exit = within(AT_ONCE, "end", waiting).await.unwrap().unwrap().unwrap();
                assert_eq!(exit.status.signal(), Some(9));
                let stopped = within(AT_ONCE, "end", stopping).await.unwrap().unwrap();
                assert!(
                    matches!(stopped, Err(ReachError::Unclean { .. } | ReachError::NotThere { .. })),
                    "{stopped:?}"
                );
                within(AT_ONCE, "end of QMP", client.closed()).await.unwrap();
                console.read_to_end(&mut Vec::new()).unwrap();
                wait_until("the name is free", AT_ONCE, || entries(&machines()).is_empty());
            }
        });
    });
}

#[test]
fn many_speak_qmp_with_a_real_qemu_at_once() {
    apart("many_speak_qmp_with_a_real_qemu_at_once", || {
        play(async |stage| {
            let machine = stage.real().name("web").reachable().launch().await.unwrap();
            let web = reach::attach("web").await.unwrap();
            let mut peers = Vec::new();
            for number in 0..6 {
                let client = web.qmp(Options::default()).await.unwrap();
                let heard = client.listen(EventFilter::named("RESUME"));
                peers.push(tokio::spawn(async move {
                    for round in 0..50 {
                        let text = format!("{number} {round}");
                        let command = Command::new("human-monitor-command");
                        let arguments =
                            serde_json::json!({ "command-line": format!("print {round}+{number}") });
                        let reply = client.send(command.arguments(arguments).unwrap()).await.unwrap();
                        let value = format!("{:x}\\r\\n", round + number);
                        assert!(reply.return_text().unwrap().contains(&value), "{text}: {reply}");
                    }
                    assert!(client.capabilities().contains(&"oob".to_owned()));
                    heard.next(PATIENCE).await.unwrap();
                }));
            }
            machine.cmd("stop", ()).await.unwrap();
            let other = web.qmp(Options::default()).await.unwrap();
            let refused = other.execute("no-such-command", ()).await.unwrap_err();
            assert_eq!(refused.refusal().unwrap().class, "CommandNotFound");
            tokio::task::yield_now().await;
            machine.cmd("cont", ()).await.unwrap();

            for peer in peers {
                within(PATIENCE, "peer", peer).await.unwrap().unwrap();
            }
            machine.send_fd("ours", fs::File::open("/dev/null").unwrap()).await.unwrap();
            let theirs = Command::new("getfd").arguments(serde_json::json!({ "fdname": "theirs" })).unwrap();
            let given = other.send(theirs.fd(fs::File::open("/dev/null").unwrap())).await.unwrap();
            assert_eq!(given.error(), None);
            other.execute("closefd", serde_json::json!({ "fdname": "theirs" })).await.unwrap();
            machine.shutdown(PATIENCE).await.unwrap();
        });
    });
}

#[test]
fn a_program_that_computes_is_reached_all_the_same() {
    apart("a_program_that_computes_is_reached_all_the_same", || {
        play_blocking(|stage| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let machine = runtime.block_on(fake(stage, "web", &[]).launch()).unwrap();

            // Nobody drives the caller's runtime now.
            let web = ratite::blocking::reach::attach("web").unwrap();
            assert_eq!(web.facts().unwrap().state, "running");
            let client = web.qmp(Options::default()).unwrap();
            client.execute("query-status", ()).unwrap();
            let exit = web.shutdown(PATIENCE).unwrap();

            assert!(exit.success());
            assert_eq!(machine.exit(), Some(exit.status));
        });
    });
}

#[test]
fn a_runtime_that_watches_no_descriptors_launches_what_is_reachable() {
    apart("a_runtime_that_watches_no_descriptors_launches_what_is_reachable", || {
        play_blocking(|stage| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let machine = runtime.block_on(fake(stage, "web", &[]).launch()).unwrap();

            runtime.block_on(machine.cmd("query-status", ())).unwrap();
            let exit = runtime.block_on(machine.shutdown(PATIENCE)).unwrap();

            assert!(exit.success());
        });
    });
}

#[test]
fn what_is_typed_from_outside_reaches_the_guest_whole() {
    apart("what_is_typed_from_outside_reaches_the_guest_whole", || {
        play_blocking(|stage| {
            let config = stage.guest().name("web").reachable();
            let machine = ratite::blocking::Machine::launch(&config).unwrap();
            let console = machine.console().unwrap();
            console.expect(guest::READY, PATIENCE).unwrap();
            let web = ratite::blocking::reach::attach("web").unwrap();

            let mut attached = web.console(Some("console"), 0).unwrap();
            attached.stream.write_all(b"echo from outside\r").unwrap();
            // The end of what is typed is the end of the visit, once the guest has it.
            attached.stream.shutdown(Shutdown::Write).unwrap();
            attached.stream.read_to_end(&mut Vec::new()).unwrap();

            console.expect("from outside\r\nfrom outside", PATIENCE).unwrap();
            let refused = web.console(Some("other"), 0).unwrap_err();
            assert_says(&refused, &["refused", "no console `other`, but `console`"]);
            machine.shutdown(PATIENCE).unwrap();
        });
    });
}
