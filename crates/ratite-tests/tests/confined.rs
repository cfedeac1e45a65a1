//! Programs that may not do what others may: few threads, no /proc, no /dev/null, a strict umask, signals blocked, a pid
//! namespace; and programs to which the orphans of their machines come.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ratite_tests::orphans::Process;
use ratite_tests::orphans::children_of;
use ratite_tests::orphans::is_alive;
use ratite_tests::orphans::processes_with_mark;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::not_tested;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::program;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Pid;
use rustix::process::Signal;

/// What a controller says of a machine that ended as it was told to.
const ENDED: &str = "QEMU exited with status 0 (host-qmp-quit)";

/// A wrapper with a child in its group and one in a session of its own, both of which outlive it.
const STRAYS: &str = r#"sleep 1000 & setsid sleep 1000 & "$@"; true"#;

/// The script that runs its arguments behind `prefix`; `None`, said on stderr, where the system does not permit that.
fn confined(prefix: &str) -> Option<String> {
    let script = format!(r#"exec {prefix} "$@""#);
    let controller = program("controller");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh", "test", "-x"]).arg(controller);
    let permitted = shell.output().is_ok_and(|output| output.status.success());
    if !permitted {
        not_tested(&format!("this system does not permit `{prefix}`"));
    }
    permitted.then_some(script)
}

/// `unshare` with these options, in a user namespace where that takes no root.
fn unshare(options: &str) -> Option<String> {
    confined(&format!("unshare {}", unshare_options(options)))
}

fn unshare_options(options: &str) -> String {
    let user = if rustix::process::geteuid().is_root() { "" } else { "--user --map-root-user " };
    format!("{user}{options}")
}

/// What makes of root somebody whom limits and permissions bind, one of several.
fn as_a_mere_user(number: u32) -> String {
    let user = 54321 + number;
    match rustix::process::geteuid().is_root() {
        true => format!("setpriv --reuid={user} --regid={user} --clear-groups"),
        false => "env".to_owned(),
    }
}

/// Lets everybody make folders in the stage's base folder.
fn open_to_all(stage: &Stage) {
    fs::set_permissions(stage.base(), Permissions::from_mode(0o777)).expect("the stage is ours");
}

fn options<'a>(wrapper: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let wrapped = ["--wrapper", "sh", "--wrapper", "-c", "--wrapper", wrapper, "--wrapper", "x"];
    wrapped.into_iter().chain(more.iter().copied()).collect()
}

/// Which signals a process blocks, as proc_pid_status(5) says it.
fn blocked_signals(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
    blocked.expect("every process has a mask").to_owned()
}

#[test]
fn what_a_program_blocks_its_machines_and_its_guard_do_not() {
    play_blocking(|stage| {
        let controller = Controller::start(stage, &options(r#""$@" & wait"#, &["--block-signals"]));

        for child in controller.children() {
            assert_eq!(blocked_signals(child), "0000000000000000", "{:?}", Process::find(child));
        }

        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn a_signal_that_a_program_blocks_does_not_end_it_by_way_of_our_threads() {
    play_blocking(|stage| {
        let mut controller = Controller::start(stage, &["--block-signals"]);

        controller.signal(Signal::TERM);
        for _ in 0..20 {
            controller.order("launch");
            let answer = controller.answer();
            controller.note(&answer);
        }

        controller.order("shut down");
        for _ in 0..controller.machines.len() {
            assert_eq!(controller.answer(), ENDED);
        }
        controller.machines.clear();
        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn at_every_lack_of_threads_a_launch_works_or_fails_and_leaves_nothing() {
    play_blocking(|stage| {
        open_to_all(stage);
        let mut failures = 0;
        // Each further one gets a launch a step further.
        for threads in 0..16 {
            // A user of its own: what is left of the last one's threads for a moment would count.
            let Some(script) = confined(&as_a_mere_user(threads)) else { return };
            let options = ["--machines", "0", "--threads", &threads.to_string()];
            let mut controller = Controller::start_in_shell(&script, stage, &options);

            controller.order("launch");
            let answer = controller.answer();

            let failed = answer.starts_with("failed");
            failures += usize::from(failed);
            let clear = answer.contains("Resource temporarily unavailable");
            assert!(!failed || clear, "with {threads}: {answer}");
            let ours = format!("qemu-machine-{}-", controller.id());
            let folders = || entries(stage.base()).iter().filter(|name| name.starts_with(&ours)).count();
            let left = || folders() == usize::from(!failed);
            wait_until(&format!("nothing is left with {threads} after: {answer}"), AT_ONCE, left);
            controller.order("return");
            controller.wait();
            // There may have been too few threads even for a guard; then the user's next launch sweeps.
            let mut next = Controller::start_in_shell(&script, stage, &[]);
            next.order("shut down");
            assert_eq!(next.answer(), ENDED);
            wait_until("no folder is left", AT_ONCE, || entries(stage.base()).is_empty());
            next.order("return");
            assert!(next.wait().success());
        }
        assert!(failures > 0, "the limit has no effect");
    });
}

#[test]
fn without_proc_or_dev_null_a_failed_launch_names_what_is_missing() {
    play_blocking(|stage| {
        for (folder, missing) in [("/proc", "/proc/self/fdinfo: No such file"), ("/dev", "/dev/null")] {
            let hide = format!(r#"--mount sh -c 'mount -t tmpfs none {folder} && exec "$@"' sh"#);
            let Some(script) = unshare(&hide) else { return };
            let mut controller = Controller::start_in_shell(&script, stage, &["--machines", "0"]);

            controller.order("launch");

            let answer = controller.answer();
            assert!(answer.starts_with("failed") && answer.contains(missing), "without {folder}: {answer}");
            assert_eq!(entries(stage.base()), Vec::<String>::new());
            controller.order("return");
            assert!(controller.wait().success());
        }
    });
}

#[test]
fn with_the_strictest_umask_a_machine_runs() {
    play_blocking(|stage| {
        let Some(script) = confined(&as_a_mere_user(100)) else { return };
        open_to_all(stage);
        let script = format!("umask 0777; {script}");
        let mut controller = Controller::start_in_shell(&script, stage, &["--wrapper", "env"]);

        controller.order("shut down");
        assert_eq!(controller.answer(), ENDED);
        assert_eq!(entries(stage.base()), Vec::<String>::new());

        controller.order("return");
        assert!(controller.wait().success());
    });
}

#[test]
fn what_a_killed_program_left_is_swept_by_others_whatever_its_umask() {
    play(async |stage| {
        let Some(script) = confined(&as_a_mere_user(100)) else { return };
        open_to_all(stage);
        let killed = format!("umask 0777; {script}");
        let mut controller = Controller::start_in_shell(&killed, stage, &[]);
        let guard = controller.guard();
        send_signal(guard, Signal::KILL);
        wait_until("the guard is gone", PATIENCE, || !is_alive(guard));
        controller.signal(Signal::KILL);
        controller.wait();
        assert_eq!(entries(stage.base()).len(), 1, "nobody was left to remove it");

        let mut next = Controller::start_in_shell(&script, stage, &[]);
        next.order("shut down");
        assert_eq!(next.answer(), ENDED);

        wait_until("it is swept", AT_ONCE, || entries(stage.base()).is_empty());
        next.order("return");
        assert!(next.wait().success());
    });
}

#[test]
fn a_program_to_which_orphans_come_keeps_no_zombie_of_its_machines() {
    play_blocking(|stage| {
        let mut controller = Controller::start(stage, &options(STRAYS, &["--subreaper"]));

        for _ in 0..3 {
            controller.order("shut down");
            let _how = controller.answer();
            let children = children_of(controller.id());
            let zombies: Vec<_> = children.iter().filter(|child| child.is_zombie()).collect();
            assert!(zombies.is_empty(), "{zombies:?}");
            controller.machines.clear();
            controller.order("launch");
            let answer = controller.answer();
            controller.note(&answer);
        }

        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn what_a_program_of_another_pid_namespace_left_is_swept() {
    play(async |stage| {
        let Some(script) = unshare("--pid --fork --kill-child") else { return };
        let mut controller = Controller::start_in_shell(&script, stage, &[]);
        let init = controller.children()[0];
        let guards =
            children_of(init).into_iter().filter(|child| child.command_line.contains("ratite-guard"));
        let guard = guards.map(|guard| guard.pid).next().unwrap();

        // The kernel kills it with its namespace; but it may be quicker.
        send_signal(guard, Signal::KILL);
        wait_until("the guard is gone", PATIENCE, || !is_alive(guard));
        send_signal(init, Signal::KILL);
        controller.wait();
        assert_eq!(entries(stage.base()).len(), 1, "nobody was left to remove it");

        let machine = stage.fake(&[]).launch().await.unwrap();
        machine.shutdown(PATIENCE).await.unwrap();
        wait_until("it is swept", AT_ONCE, || entries(stage.base()).is_empty());
    });
}

#[test]
fn with_the_proc_of_another_pid_namespace_the_guard_is_told_all_it_needs() {
    play_blocking(|stage| {
        // The controller is not the namespace's first process, with which everything would end.
        let first = r#"--pid --fork --kill-child sh -c '"$@" || sleep 1000' sh"#;
        let Some(script) = unshare(first) else { return };
        let wrapper = r#"sleep 1000 & "$@""#;
        let mut unshare = Controller::start_in_shell(&script, stage, &options(wrapper, &[]));
        let init = unshare.children()[0];
        let controller = children_of(init)[0].pid;
        let machines = children_of(controller).into_iter().flat_map(|child| children_of(child.pid));
        let machines: Vec<u32> = machines.map(|machine| machine.pid).collect();
        assert!(machines.len() >= 2, "a child and a QEMU of the wrapper: {machines:?}");

        send_signal(controller, Signal::KILL);

        wait_until("the group is gone", AT_ONCE, || !machines.iter().any(|pid| is_alive(*pid)));
        wait_until("the folder is gone", AT_ONCE, || entries(stage.base()).is_empty());
        send_signal(init, Signal::KILL);
        unshare.wait();
    });
}

#[test]
fn with_the_proc_of_another_pid_namespace_no_stranger_is_killed() {
    play_blocking(|stage| {
        let Some(script) = unshare("--pid --fork --kill-child") else { return };
        let mut controller = Controller::start_in_shell(&script, stage, &options(STRAYS, &[]));
        let init = controller.children()[0];
        // The one that only its mark tells: it leads a group of its own.
        let mut number = 0;
        wait_until("the stray is there", PATIENCE, || {
            let sleeps = processes_with_mark("1-").into_iter().filter(|it| it.name == "sleep");
            let mut pids = sleeps.filter_map(|it| i32::try_from(it.pid).ok().and_then(Pid::from_raw));
            let stray = pids.find(|pid| rustix::process::getpgid(Some(*pid)) == Ok(*pid));
            number = stray.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
            number != 0
        });
        // In the namespace, somebody has the number that it has outside.
        let user = if rustix::process::geteuid().is_root() { "" } else { "--user --preserve-credentials" };
        let stranger = format!(
            "exec nsenter --target {init} --pid {user} sh -c \
             'echo {} > /proc/sys/kernel/ns_last_pid && sleep 1000' stranger",
            number - 1
        );
        let mut stranger = Command::new("sh").args(["-c", &stranger]).spawn().unwrap();
        let number_inside = |it: &Process| {
            let status = fs::read_to_string(format!("/proc/{}/status", it.pid)).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            numbers.split_ascii_whitespace().last().and_then(|it| it.parse::<u32>().ok())
        };
        let mut found = None;
        wait_until("the stranger is there, or may not be", PATIENCE, || {
            let shells = children_of(stranger.id());
            let mut sleeps = shells.iter().flat_map(|shell| children_of(shell.pid));
            found = sleeps.find(|sleep| number_inside(sleep) == Some(number) && sleep.name == "sleep");
            found.is_some() || !is_alive(stranger.id())
        });

        controller.order("shut down");
        let _how = controller.answer();

        match found {
            Some(found) => assert!(is_alive(found.pid), "a stranger was killed: {found}"),
            None => not_tested("this system lets nobody choose a pid"),
        }
        send_signal(init, Signal::KILL);
        controller.wait();
        stranger.wait().unwrap();
        wait_until("all is gone", AT_ONCE, || processes_with_mark("1-").is_empty());
    });
}
