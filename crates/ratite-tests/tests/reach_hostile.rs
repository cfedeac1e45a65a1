//! Those who reach a machine by its name and behave badly: they harm neither the machine nor each other.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::env;
use std::fs;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use ratite::ConsoleConfig;
use ratite::blocking::Machine;
use ratite::blocking::reach;
use ratite::qmp::Options;
use ratite::reach::ReachError;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::apart::apart;
use ratite_tests::scenario::apart::machines;
use ratite_tests::scenario::not_tested;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::mkfifoat;
use rustix::net;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketType;
use rustix::process::Resource;
use rustix::process::Rlimit;
use rustix::process::Signal;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use serde_json::Value;

fn launch(stage: &Stage, words: &[&str]) -> Machine {
    let config = stage.fake(words).console(ConsoleConfig::serial()).name("web").reachable();
    Machine::launch(&config).unwrap()
}

fn connect() -> UnixStream {
    let stream = UnixStream::connect(machines().join("web/control")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What the control socket answers to these bytes.
fn answer(request: &[u8]) -> Value {
    let mut stream = connect();
    // It may have heard enough before the end.
    let _turned_away = stream.write_all(request);
    let _gone = stream.shutdown(Shutdown::Write);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("{request:?}: {line:?}"))
}

#[test]
fn what_is_no_request_is_told_and_changes_nothing() {
    apart("what_is_no_request_is_told_and_changes_nothing", || {
        play_blocking(|stage| {
            let machine = launch(stage, &[]);
            let deep = format!("{{\"open\":{}", "[".repeat(60_000));
            let long = "x".repeat(70_000);
            let requests: [(&[u8], &str); 10] = [
                (b"hello\n", "could not understand"),
                (b"\n", "could not understand"),
                (b"{}\n", "open"),
                (b"{\"open\":\"sesame\"}\n", "sesame"),
                (b"{\"open\":\"console\",\"replay\":-1}\n", "could not understand"),
                (b"{\"open\":\"stop\"}\n", "grace_ms"),
                (b"\xff\xfe\n", "could not understand"),
                (b"{\"open\":\"facts\"", "ended before its line did"),
                (deep.as_bytes(), "ended before its line did"),
                (long.as_bytes(), "at most 65536 bytes"),
            ];

            for (request, reason) in requests {
                let told = answer(request);
                let error = told["error"].as_str().unwrap_or_default();
                assert!(error.contains(reason), "{}: {told}", String::from_utf8_lossy(request));
                assert_eq!(told["version"], 1);
            }
            drop(connect());

            let facts = answer(b"{\"open\":\"facts\",\"from a later version\":[1]}\n");
            assert_eq!(facts["answer"]["state"], "running");
            assert!(machine.is_running());
            machine.shutdown(PATIENCE).unwrap();
        });
    });
}

#[test]
fn visitors_have_their_number() {
    apart("visitors_have_their_number", || {
        play_blocking(|stage| {
            let machine = launch(stage, &[]);
            let mut silent: Vec<UnixStream> = (0..64).map(|_| connect()).collect();

            let refused = answer(b"{\"open\":\"facts\"}\n");
            // One that goes makes room.
            silent[0].write_all(b"{\"open\":\"wait\"}\n").unwrap();
            drop(silent.swap_remove(0));
            let start = Instant::now();
            while answer(b"{\"open\":\"facts\"}\n").get("answer").is_none() {
                assert!(start.elapsed() < AT_ONCE);
            }

            assert!(refused["error"].as_str().unwrap().contains("64 are connected already"), "{refused}");
            machine.shutdown(PATIENCE).unwrap();
        });
    });
}

#[test]
fn who_does_not_read_holds_nobody_up() {
    apart("who_does_not_read_holds_nobody_up", || {
        play_blocking(|stage| {
            let machine = launch(stage, &["console-banner=up", "console-flood=0", "event-flood=100000"]);
            let web = reach::attach("web").unwrap();
            let idle_console = web.console(None, 0).unwrap();
            let idle_log = web.log(None, true).unwrap();
            let mut idle_qmp = UnixStream::connect(machines().join("web/qmp")).unwrap();
            idle_qmp.write_all(b"{\"execute\":\"qmp_capabilities\"}").unwrap();

            let mut reader = web.console(None, 0).unwrap().stream;
            let mut piece = vec![0; 1 << 16];
            let mut seen = 0;
            while seen < 2_000_000 {
                let count = reader.read(&mut piece).unwrap();
                assert!(count > 0, "the console ended after {seen} bytes");
                seen += count;
            }
            let client = web.qmp(Options::default()).unwrap();
            client.execute("query-status", ()).unwrap();
            let start = Instant::now();
            machine.shutdown(PATIENCE).unwrap();

            // A tenth of a second is what those who do not read may cost.
            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            drop((idle_console, idle_log, idle_qmp));
        });
    });
}

#[test]
fn a_qemu_that_is_stopped_is_listed_in_an_unknown_state() {
    apart("a_qemu_that_is_stopped_is_listed_in_an_unknown_state", || {
        play_blocking(|stage| {
            let machine = launch(stage, &["console-banner=login: "]);
            machine.console().unwrap().expect("login:", PATIENCE).unwrap();
            send_signal(machine.pid(), Signal::STOP);

            let start = Instant::now();
            let listed = reach::list().unwrap();

            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            assert_eq!(
                (listed[0].state.as_str(), listed[0].consoles[0].last_line.as_str()),
                ("unknown", "login: ")
            );
            let ended = reach::attach("web").unwrap().shutdown(Duration::ZERO).unwrap_err();
            assert_eq!(ended.to_string(), "the machine did not end within 0ns and was killed");
        });
    });
}

#[test]
fn an_owner_without_descriptors_is_reached_again_once_it_has_some() {
    apart("an_owner_without_descriptors_is_reached_again_once_it_has_some", || {
        play_blocking(|stage| {
            let machine = launch(stage, &[]);
            let [control, qmp] = ["control", "qmp"].map(|name| {
                let path = SocketAddrUnix::new(machines().join("web").join(name)).unwrap();
                let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
                (socket, path)
            });
            let next = File::open("/dev/null").unwrap();
            let limit = getrlimit(Resource::Nofile);
            let current = Some(u64::try_from(next.as_raw_fd()).unwrap());
            setrlimit(Resource::Nofile, Rlimit { current, maximum: limit.maximum }).unwrap();
            drop(next);

            for (socket, path) in [&control, &qmp] {
                net::connect(socket, path).unwrap();
            }
            let [mut control, qmp] = [control, qmp].map(|(socket, _)| UnixStream::from(socket));
            // It has tried by now, and could not.
            qmp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert!((&qmp).read(&mut [0]).is_err(), "nobody can be accepted");
            setrlimit(Resource::Nofile, limit).unwrap();

            for stream in [&control, &qmp] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            control.write_all(b"{\"open\":\"facts\"}\n").unwrap();
            let said = [control, qmp].map(|stream| {
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).unwrap();
                line
            });
            assert!(said[0].contains("\"name\":\"web\"") && said[1].contains("\"QMP\""), "{said:?}");
            machine.kill().unwrap();
        });
    });
}

#[test]
fn what_only_looks_like_a_machine_holds_nobody_up() {
    apart("what_only_looks_like_a_machine_holds_nobody_up", || {
        play_blocking(|stage| {
            let machine = launch(stage, &[]);
            fs::create_dir(machines().join("pipe")).unwrap();
            mkfifoat(CWD, machines().join("pipe/lock"), Mode::from_raw_mode(0o600)).unwrap();

            let start = Instant::now();
            let listed = reach::list().unwrap();

            assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
            assert_eq!(listed.iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>(), ["web"]);
            let long = reach::attach("x".repeat(200)).unwrap_err();
            assert!(matches!(long, ReachError::NotThere { .. }), "{long:?}");
            // Somebody else could have put there what we would trust.
            fs::set_permissions(machines(), PermissionsExt::from_mode(0o777)).unwrap();
            let open = reach::attach("web").unwrap_err();
            assert!(matches!(open, ReachError::Folder { .. }), "{open:?}");
            machine.kill().unwrap();
        });
    });
}

/// Which socket another user tries.
const STRANGER: &str = "RATITE_TESTS_STRANGER";

#[test]
fn another_user_is_turned_away_even_with_the_folder_open() {
    if let Some(socket) = env::var_os(STRANGER) {
        // The part of the other user: nothing may be answered.
        let mut stream = UnixStream::connect(PathBuf::from(socket)).unwrap();
        let _turned_away = stream.write_all(b"{\"open\":\"kill\"}\n{\"execute\":\"qmp_capabilities\"}\n");
        let mut said = Vec::new();
        let _reset_is_an_end = stream.read_to_end(&mut said);
        assert_eq!(said, b"");
        return;
    }
    apart("another_user_is_turned_away_even_with_the_folder_open", || {
        if !rustix::process::geteuid().is_root() {
            return not_tested("another user, since only root can become one");
        }
        play_blocking(|stage| {
            let machine = launch(stage, &[]);
            let folder = machines().join("web");
            let runtime_folder = machines().parent().unwrap().to_owned();
            for open in [&runtime_folder, &machines(), &folder] {
                fs::set_permissions(open, PermissionsExt::from_mode(0o777)).unwrap();
            }
            // A copy that the other user can run, whatever the folders above this program are like.
            let program = runtime_folder.join("program");
            fs::copy(env::current_exe().unwrap(), &program).unwrap();
            fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();

            for socket in ["qmp", "control"] {
                let socket = folder.join(socket);
                fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).unwrap();
                let mut command = Command::new("setpriv");
                command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
                command.args(["another_user_is_turned_away_even_with_the_folder_open", "--exact"]);
                let output = command.env(STRANGER, &socket).current_dir("/").output().unwrap();
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && said.contains("1 passed"), "{said}");
            }

            fs::remove_file(program).unwrap();
            assert!(machine.is_running());
            fs::set_permissions(machines(), PermissionsExt::from_mode(0o700)).unwrap();
            machine.shutdown(PATIENCE).unwrap();
        });
    });
}
