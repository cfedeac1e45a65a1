//! Which descriptors QEMU has: those that are meant for it, under their numbers, and no other.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::MachineError;
use ratite::Monitor;
use ratite::PassedFd;
use ratite::qmp::ExecuteError;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::descriptors_of;
use ratite_tests::scenario::play;
use rustix::io::FdFlags;
use serde_json::json;

/// QEMU's descriptors as it sees them itself, without the standard three.
///
/// What this program holds inheritably (whoever runs the tests may have left it some) is covered by `/dev/null`, since
/// nothing can be closed between fork and exec without `unsafe`.
async fn descriptors(machine: &Machine) -> BTreeMap<u32, String> {
    let open: BTreeMap<String, String> =
        machine.cmd_as("fake-fds", ()).await.expect("the fake lists its descriptors");
    let open =
        open.into_iter().map(|(number, target)| (number.parse().expect("a descriptor is a number"), target));
    open.filter(|(number, target)| *number > 2 && target != "/dev/null").collect()
}

fn target_of(fd: impl AsFd) -> String {
    let target = fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).expect("it is open");
    target.to_string_lossy().into_owned()
}

fn make_inheritable(fd: impl AsFd) {
    rustix::io::fcntl_setfd(fd, FdFlags::empty()).expect("it is open");
}

#[test]
fn a_plain_qemu_has_its_monitor_and_nothing_else() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        let open = descriptors(&machine).await;

        assert_eq!(open.len(), 1, "{open:?}");
        assert!(open[&3].starts_with("socket:"), "{open:?}");
        let standard: BTreeMap<u32, String> = descriptors_of(machine.pid()).into_iter().collect();
        assert_eq!(standard[&0], "/dev/null");
        assert_eq!(standard[&1], machine.log().path().to_string_lossy());
        assert_eq!(standard[&2], standard[&1]);
    });
}

#[test]
fn on_a_named_monitor_qemu_inherits_nothing_at_all() {
    play(async |stage| {
        let config = stage.fake(&[]).monitor(Monitor::Unix(stage.path("monitor")));
        let machine = config.launch().await.unwrap();

        let open = descriptors(&machine).await;

        // The connection it made itself.
        assert_eq!(open.len(), 1, "{open:?}");
    });
}

#[test]
fn what_the_program_holds_inheritably_does_not_reach_qemu() {
    play(async |stage| {
        let (reader, writer) = std::io::pipe().unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        let file = File::create(stage.path("file")).unwrap();
        let ours: [OwnedFd; 5] = [reader.into(), writer.into(), socket.into(), peer.into(), file.into()];
        ours.iter().for_each(make_inheritable);
        let secrets: Vec<String> = ours.iter().map(target_of).collect();

        let machine = stage.fake(&[]).console(ConsoleConfig::serial()).qtest().launch().await.unwrap();

        let open = descriptors(&machine).await;
        assert!(!open.values().any(|target| secrets.contains(target)), "{open:?}");
        assert_eq!(open.len(), 3, "{open:?}");
        assert!(open.values().all(|target| target.starts_with("socket:")), "{open:?}");
    });
}

#[test]
fn what_the_program_holds_inheritably_does_not_reach_the_guard() {
    play(async |stage| {
        // The controller has its stdout a second time, inheritably, at 7.
        let controller = Controller::start_in_shell(r#"exec "$@" 7>&1"#, stage, &[]);

        let open = |pid: u32| descriptors_of(pid).into_iter().collect::<BTreeMap<_, _>>();
        let (ours, guards) = (open(controller.id()), open(controller.guard()));
        assert!(ours[&7].starts_with("pipe:"), "{ours:?}");
        assert!(!guards.values().any(|target| *target == ours[&7]), "{guards:?}");
        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn descriptors_have_the_numbers_and_sets_that_were_asked_for() {
    play(async |stage| {
        let file = |name: &str| File::create(stage.path(name)).unwrap();
        let config = stage
            .fake(&[])
            .fd(PassedFd::at(file("at-3"), 3))
            .fd(PassedFd::at(file("at-40"), 40))
            .fd(PassedFd::in_set(file("in-7"), 7).opaque("a,b").options("x=y"))
            .fd(PassedFd::at(file("at-4"), 4));

        let machine = config.launch().await.unwrap();

        let open = descriptors(&machine).await;
        let path = |name: &str| stage.path(name).to_string_lossy().into_owned();
        assert_eq!((&open[&3], &open[&4], &open[&40]), (&path("at-3"), &path("at-4"), &path("at-40")));
        let (number, _) = open.iter().find(|(_, target)| **target == path("in-7")).unwrap();
        let line = machine.command_line().to_string();
        assert!(line.contains(&format!("-add-fd 'fd={number},set=7,opaque=a,,b,x=y'")), "{line}");
        assert_eq!(open.len(), 5, "{open:?}");
    });
}

#[test]
fn any_number_can_be_given_whatever_the_program_has_there() {
    play(async |stage| {
        for number in 3..60 {
            let file = File::create(stage.path(&format!("at-{number}"))).unwrap();

            let machine = stage.fake(&[]).fd(PassedFd::at(file, number)).launch().await.unwrap();

            let open = descriptors(&machine).await;
            let expected = stage.path(&format!("at-{number}")).to_string_lossy().into_owned();
            assert_eq!(open[&u32::try_from(number).unwrap()], expected, "{open:?}");
            assert_eq!(open.len(), 2, "{open:?}");
        }
    });
}

#[test]
fn a_number_that_the_system_does_not_allow_is_refused_as_that() {
    play(async |stage| {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap();
        for number in [i32::try_from(most).unwrap(), i32::MAX] {
            let null = File::open("/dev/null").unwrap();

            let error = stage.fake(&[]).fd(PassedFd::at(null, number)).launch().await.unwrap_err();

            assert!(error.exit().is_none(), "it was not tried: {error:?}");
            assert_says(&error, &[&number.to_string()]);
        }
    });
}

#[test]
fn two_passed_descriptors_may_swap_their_numbers() {
    play(async |stage| {
        let (one, two) = (File::create(stage.path("one")).unwrap(), File::create(stage.path("two")).unwrap());
        let (of_one, of_two) = (one.as_raw_fd(), two.as_raw_fd());
        let config = stage.fake(&[]).fd(PassedFd::at(one, of_two)).fd(PassedFd::at(two, of_one));

        let machine = config.launch().await.unwrap();

        let open = descriptors(&machine).await;
        let number = |fd: i32| u32::try_from(fd).unwrap();
        assert!(
            open[&number(of_two)].ends_with("/one") && open[&number(of_one)].ends_with("/two"),
            "{open:?}"
        );
    });
}

#[test]
fn a_passed_descriptor_serves_every_launch_and_closes_with_the_description() {
    play(async |stage| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let config = stage.fake(&[]).fd(PassedFd::at(writer, 9));

        for _ in 0..3 {
            let machine = config.launch().await.unwrap();
            assert!(descriptors(&machine).await[&9].starts_with("pipe:"));
            machine.shutdown(PATIENCE).await.unwrap();
        }
        drop(config);

        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "nobody holds it any more");
    });
}

#[test]
fn a_descriptor_sent_with_a_command_arrives_under_its_name() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let target = target_of(&writer);

        machine.send_fd("net0", writer).await.unwrap();
        let has = descriptors(&machine).await;
        machine.cmd("closefd", json!({ "fdname": "net0" })).await.unwrap();

        assert!(has.values().any(|held| *held == target), "{has:?}");
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "nobody holds it any more");
        let refused = machine.cmd("closefd", json!({ "fdname": "net0" })).await.unwrap_err();
        assert_says(&refused, &["File descriptor named 'net0' not found"]);
    });
}

#[test]
fn a_tcp_monitor_carries_no_descriptors_and_says_so() {
    play(async |stage| {
        let host = "127.0.0.1".to_owned();
        let machine = stage.fake(&[]).monitor(Monitor::Tcp { host, port: 0 }).launch().await.unwrap();

        let error = machine.send_fd("x", File::open("/dev/null").unwrap()).await.unwrap_err();

        assert!(matches!(error, MachineError::Command(ExecuteError::NoDescriptors { .. })), "{error:?}");
        assert_says(&error, &["only a Unix socket carries descriptors"]);
        assert!(machine.cmd("query-status", ()).await.is_ok());
    });
}

#[test]
fn launches_of_many_threads_share_no_socket() {
    play(async |stage| {
        let config = Arc::new(stage.fake(&[]).console(ConsoleConfig::serial()));
        for _ in 0..12 {
            let launches: Vec<_> = (0..8)
                .map(|_| {
                    let config = config.clone();
                    tokio::spawn(async move {
                        let machine = config.launch().await.unwrap();
                        let open = descriptors(&machine).await;
                        (machine, open)
                    })
                })
                .collect();
            let mut seen = BTreeSet::new();
            let mut machines = Vec::new();
            for launch in launches {
                let (machine, open) = launch.await.unwrap();
                assert_eq!(open.len(), 2, "{open:?}");
                for target in open.into_values() {
                    assert!(seen.insert(target), "two machines share a socket");
                }
                machines.push(machine);
            }

            // The death of one is seen by its owner at once, while the others live.
            let first = machines.remove(0);
            let start = std::time::Instant::now();
            let waiting = first.cmd("fake-never", ());
            let killing =
                async { rustix::process::kill_process(pid_of(&first), rustix::process::Signal::KILL) };
            let (told, killed) = tokio::join!(waiting, killing);
            killed.unwrap();
            assert!(matches!(told, Err(MachineError::Exited { .. })));
            assert!(start.elapsed() < AT_ONCE);
        }
    });
}

fn pid_of(machine: &Machine) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(machine.pid().try_into().expect("a pid is positive"))
        .expect("a pid is positive")
}

#[test]
fn a_memory_file_arrives_as_the_very_same_file() {
    play(async |stage| {
        let disk = File::from(ratite::guest::boot_sector().unwrap());
        let ours = disk.metadata().unwrap();

        let machine = stage.fake(&[]).fd(PassedFd::at(disk, 20)).launch().await.unwrap();

        let theirs = fs::metadata(format!("/proc/{}/fd/20", machine.pid())).unwrap();
        assert_eq!((theirs.dev(), theirs.ino()), (ours.dev(), ours.ino()));
        machine.shutdown(Duration::from_secs(5)).await.unwrap();
    });
}
