//! Monitors on sockets with a name: whose they are, who may connect, and what becomes of the file.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

use ratite::ConfigError;
use ratite::ExtraMonitor;
use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::MachineConfig;
use ratite::Monitor;
use ratite::qmp::Address;
use ratite::qmp::Client;
use ratite::qmp::Options;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::wait_until;

fn at(stage: &Stage, words: &[&str], path: &Path) -> MachineConfig {
    stage.fake(words).monitor(Monitor::Unix(path.to_owned()))
}

async fn refused(config: &MachineConfig) -> LaunchError {
    let error = config.launch().await.map(drop).expect_err("the address is not to be had");
    assert!(matches!(error.kind(), LaunchErrorKind::MonitorAddress(_)), "{error:?}");
    error
}

/// Launches in the background, and returns once somebody can connect to the monitor's socket.
fn launching(
    config: MachineConfig,
    path: &Path,
) -> tokio::task::JoinHandle<Result<ratite::Machine, LaunchError>> {
    let launch = tokio::spawn(async move { config.launch().await });
    wait_until("the monitor's socket is there", PATIENCE, || {
        fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == 0o600)
    });
    launch
}

#[test]
fn a_path_that_is_too_long_is_refused_with_its_length() {
    play(async |stage| {
        let path = stage.path(&"x".repeat(120));

        let error = refused(&at(stage, &[], &path)).await;

        let told = format!("the path is {} bytes long and a socket's may have 107", path.as_os_str().len());
        assert_says(&error, &[&path.display().to_string(), &told]);
    });
}

#[test]
fn a_path_of_just_the_longest_length_works() {
    play(async |stage| {
        let folder = stage.path("");
        let path = folder.join("x".repeat(107 - folder.as_os_str().len()));
        assert_eq!(path.as_os_str().len(), 107);

        let machine = at(stage, &[], &path).launch().await.unwrap();

        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn whatever_is_no_dead_socket_is_left_alone_and_refused() {
    play(async |stage| {
        let file = stage.path("file");
        fs::write(&file, "precious").unwrap();
        let living = stage.path("living");
        let listener = UnixListener::bind(&living).unwrap();

        let on_file = refused(&at(stage, &[], &file)).await;
        let on_folder = refused(&at(stage, &[], stage.base())).await;
        let on_living = refused(&at(stage, &[], &living)).await;
        let nowhere = refused(&at(stage, &[], Path::new("/nope/monitor"))).await;

        assert_says(&on_file, &["/file", "there is a file that is no socket"]);
        assert_says(&on_folder, &["there is a file that is no socket"]);
        assert_says(&on_living, &["/living", "somebody else listens there"]);
        assert_says(&nowhere, &["/nope/monitor", "No such file or directory"]);
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        assert!(UnixStream::connect(&living).is_ok(), "the other's socket still works");
        drop(listener);
    });
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    play(async |stage| {
        let path = stage.path("stale");
        drop(UnixListener::bind(&path).unwrap());

        let machine = at(stage, &[], &path).launch().await.unwrap();

        assert!(machine.is_running());
    });
}

#[test]
fn a_failed_launch_takes_its_socket_with_it_and_nothing_else() {
    play(async |stage| {
        let path = stage.path("monitor");

        let failed = at(stage, &["exit-before-monitor=1"], &path).launch().await;

        assert!(failed.is_err());
        assert!(!path.exists());
    });
}

#[test]
fn a_file_that_took_the_sockets_place_is_not_removed() {
    play(async |stage| {
        let path = stage.path("monitor");
        let config = at(stage, &["greeting-delay=500"], &path);
        let launch = launching(config, &path);
        // The fake has connected, or will find nobody; both ends are fine for what is shown here.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();

        let outcome = launch.await.unwrap();

        drop(outcome);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn an_impostor_is_turned_away_and_qemu_is_still_taken() {
    play(async |stage| {
        let path = stage.path("monitor");
        // The wrapper lets QEMU start only once the impostor was there.
        let go = stage.path("go");
        let wait = format!("until [ -e {} ]; do sleep 0.01; done; exec \"$@\"", go.display());
        let config = at(stage, &[], &path).wrapper(["sh", "-c", &wait, "sh"]);
        let launch = launching(config, &path);

        let mut impostors: Vec<_> = (0..5).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for impostor in &mut impostors {
            impostor.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(impostor.read(&mut [0; 16]).unwrap(), 0, "it is turned away without a word");
        }
        fs::write(go, "").unwrap();

        let machine = launch.await.unwrap().unwrap();
        assert_eq!(machine.cmd("query-version", ()).await.unwrap()["package"], "fake");
    });
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    play(async |stage| {
        let path = stage.path("monitor");

        let launch = launching(at(stage, &["greeting-delay=300"], &path), &path);

        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        launch.await.unwrap().unwrap();
    });
}

#[test]
fn a_relative_path_is_the_callers_whatever_qemus_working_folder() {
    play(async |stage| {
        // Below the current folder, which is the package's and not to be littered: a path that climbs out of it.
        let here = std::env::current_dir().unwrap();
        let climb: PathBuf = here.components().skip(1).map(|_| "..").collect();
        let relative = climb.join(stage.path("monitor").strip_prefix("/").unwrap());
        let config = at(stage, &[], &relative).working_folder("/");

        let machine = config.launch().await.unwrap();

        assert!(machine.is_running());
        assert!(!stage.path("monitor").exists());
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    play(async |stage| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let host = "127.0.0.1".to_owned();

        let error = refused(&stage.fake(&[]).monitor(Monitor::Tcp { host, port })).await;

        assert_says(&error, &[&format!("127.0.0.1:{port} is not to be had"), "Address already in use"]);
    });
}

#[test]
fn an_empty_host_and_an_unknown_one_are_refused() {
    play(async |stage| {
        let tcp = |host: &str| stage.fake(&[]).monitor(Monitor::Tcp { host: host.into(), port: 0 });

        let empty = tcp("").launch().await.unwrap_err();
        let unknown = refused(&tcp("no-such-host.invalid")).await;

        assert!(matches!(empty.kind(), LaunchErrorKind::Config(ConfigError::EmptyHost)));
        assert_says(&unknown, &["no-such-host.invalid"]);
    });
}

#[test]
fn further_monitors_are_for_others() {
    play(async |stage| {
        let path = stage.path("ot,her");
        let config =
            stage.fake(&[]).extra_monitor(ExtraMonitor::Null).extra_monitor(ExtraMonitor::Qmp(path.clone()));
        let machine = config.launch().await.unwrap();

        let other = Client::connect(&Address::unix(&path), Options::default()).await.unwrap();
        let version = other.execute("query-version", ()).await.unwrap();
        machine.cmd("stop", ()).await.unwrap();

        assert_eq!(version["package"], "fake");
        assert_eq!(
            machine.event_wait(ratite::qmp::EventFilter::named("STOP"), AT_ONCE).await.unwrap().name(),
            "STOP"
        );
        assert_eq!(machine.cmd("query-status", ()).await.unwrap()["running"], false);
    });
}
