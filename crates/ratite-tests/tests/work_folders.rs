//! The work folders of machines: kept when that is asked for, swept when their program died, and nobody else's.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use ratite::LaunchErrorKind;
use ratite::WorkFolder;
use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::controller::Controller;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play;
use ratite_tests::scenario::send_signal;
use ratite_tests::scenario::wait_until;
use rustix::process::Signal;

/// Launches a machine on this stage, which sweeps its base folder, and ends it.
async fn launch_and_end(stage: &Stage) {
    stage.fake(&[]).launch().await.expect("it launches").shutdown(PATIENCE).await.expect("it ends cleanly");
}

/// Kills a controller after its guard, so that nobody is left to remove its folder, and returns that folder.
fn abandoned_folder(stage: &Stage) -> PathBuf {
    let mut controller = Controller::start(stage, &[]);
    let (pid, folder) = controller.machines[0].clone();
    send_signal(controller.guard(), Signal::KILL);
    controller.signal(Signal::KILL);
    controller.wait();
    wait_until("the machine is gone", AT_ONCE, || !is_alive(pid));
    assert!(folder.exists());
    folder
}

/// Makes a folder as a program of this pid and start time would have left it.
fn left_by(stage: &Stage, pid: u32, start: u64) -> PathBuf {
    let folder = stage.base().join(format!("qemu-machine-{pid}-{start}-aaaaaaaa-bbbbbbbb"));
    fs::create_dir(&folder).expect("the base folder is there");
    fs::write(folder.join("owner.lock"), "").expect("the folder is there");
    folder
}

#[test]
fn a_folder_is_kept_when_that_is_asked_for() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=evidence"]).keep_folder().launch().await.unwrap();
        let folder = machine.work_folder().to_owned();
        machine.shutdown(PATIENCE).await.unwrap();
        drop(machine);
        let dropped = stage.fake(&[]).keep_folder().launch().await.unwrap().work_folder().to_owned();
        let log = entries(&folder).into_iter().find(|name| name.ends_with(".log")).unwrap();

        launch_and_end(stage).await;

        assert_eq!(fs::read(folder.join(log)).unwrap(), b"evidence\n");
        assert!(dropped.exists());
        fs::remove_dir_all(folder).unwrap();
        fs::remove_dir_all(dropped).unwrap();
    });
}

#[test]
fn a_folder_that_was_made_ahead_serves_and_goes_with_its_last_user() {
    play(async |stage| {
        let folder = WorkFolder::create(stage.base()).unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("disk"), "an image").unwrap();

        let machine = stage.fake(&[]).in_work_folder().launch_in(&folder).await.unwrap();
        drop(folder);

        assert_eq!(machine.work_folder(), path);
        assert_eq!(machine.cmd("fake-cwd", ()).await.unwrap(), path.to_str().unwrap());
        assert_eq!(fs::read(path.join("disk")).unwrap(), b"an image");
        assert_eq!(entries(stage.base()).len(), 1);
        machine.shutdown(PATIENCE).await.unwrap();
        assert!(!path.exists());
    });
}

#[test]
fn a_folder_that_was_made_ahead_to_be_kept_is_there_when_all_is_over() {
    play(async |stage| {
        let folder = WorkFolder::create_kept(stage.base()).unwrap();
        let path = folder.path().to_owned();

        let machine = stage.fake(&["stderr=evidence"]).launch_in(&folder).await.unwrap();
        machine.shutdown(PATIENCE).await.unwrap();
        drop((machine, folder));
        launch_and_end(stage).await;

        let log = entries(&path).into_iter().find(|name| name.ends_with(".log")).unwrap();
        assert_eq!(fs::read(path.join(log)).unwrap(), b"evidence\n");
        fs::remove_dir_all(path).unwrap();
    });
}

#[test]
fn a_folder_that_was_made_ahead_serves_one_machine_after_the_other() {
    play(async |stage| {
        let folder = WorkFolder::create(stage.base()).unwrap();
        stage.fake(&["exit=1"]).launch_in(&folder).await.unwrap_err();
        for _ in 0..2 {
            let machine = stage.fake(&[]).launch_in(&folder).await.unwrap();
            machine.shutdown(PATIENCE).await.unwrap();
        }
        assert!(folder.path().exists());

        drop(folder);

        assert_eq!(entries(stage.base()), Vec::<String>::new());
        let nowhere = WorkFolder::create(stage.path("nowhere")).unwrap_err();
        assert!(matches!(nowhere.kind(), LaunchErrorKind::WorkFolder { .. }), "{nowhere:?}");
    });
}

#[test]
fn a_variable_keeps_the_folders_of_every_machine() {
    play(async |stage| {
        let mut controller =
            Controller::start_in_shell(r#"RATITE_KEEP=1 exec "$@""#, stage, &["--machines", "2"]);

        controller.order("return");
        assert!(controller.wait().success());
        launch_and_end(stage).await;

        assert_eq!(entries(stage.base()).len(), 2);
        for (pid, folder) in &controller.machines {
            assert!(!is_alive(*pid));
            fs::remove_dir_all(folder).unwrap();
        }
    });
}

#[test]
fn a_variable_with_another_value_keeps_nothing() {
    play(async |stage| {
        for value in ["", "0", "no"] {
            let script = format!(r#"RATITE_KEEP="{value}" exec "$@""#);

            let controller = Controller::start_in_shell(&script, stage, &[]);

            controller.end_by(|controller| controller.order("return"));
        }
    });
}

#[test]
fn the_next_launch_sweeps_what_a_killed_program_left() {
    play(async |stage| {
        let folder = abandoned_folder(stage);

        launch_and_end(stage).await;

        wait_until("the folder is swept", AT_ONCE, || !folder.exists());
    });
}

#[test]
fn the_folder_of_a_living_program_is_never_swept() {
    play(async |stage| {
        let mut controller = Controller::start(stage, &[]);
        let swept = abandoned_folder(stage);

        for _ in 0..5 {
            launch_and_end(stage).await;
        }
        wait_until("the other folder is swept", AT_ONCE, || !swept.exists());

        let (_, folder) = controller.machines[0].clone();
        assert!(folder.join("owner.lock").exists());
        controller.order("shut down");
        assert_eq!(controller.answer(), "QEMU exited with status 0 (host-qmp-quit)");
        assert!(!folder.exists());
    });
}

#[test]
fn a_stopped_programs_folder_is_not_swept() {
    play(async |stage| {
        let controller = Controller::start(stage, &[]);
        controller.signal(Signal::STOP);

        launch_and_end(stage).await;
        let gone = abandoned_folder(stage);
        launch_and_end(stage).await;
        wait_until("another folder is swept", AT_ONCE, || !gone.exists());

        assert!(controller.machines[0].1.exists());
        controller.signal(Signal::CONT);
        controller.end_by(|controller| controller.order("return"));
    });
}

#[test]
fn a_reused_pid_confuses_nobody() {
    play(async |stage| {
        let reused = left_by(stage, std::process::id(), 1);

        launch_and_end(stage).await;

        wait_until("the folder is swept", AT_ONCE, || !reused.exists());
    });
}

#[test]
fn what_is_not_a_dead_programs_folder_is_left_alone() {
    play(async |stage| {
        let precious = stage.path("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("owner.lock"), "precious").unwrap();
        let base = stage.base();
        symlink(&precious, base.join("qemu-machine-1-1-link")).unwrap();
        fs::write(base.join("qemu-machine-1-1-file"), "precious").unwrap();
        fs::create_dir(base.join("qemu-machine-nobody")).unwrap();
        fs::create_dir(base.join("qemu-machine-4294967296-1-x")).unwrap();
        fs::create_dir(base.join("something-else")).unwrap();
        let dead = left_by(stage, 1 << 30, 1);

        launch_and_end(stage).await;
        wait_until("the dead one is swept", AT_ONCE, || !dead.exists());

        assert_eq!(entries(base).len(), 5);
        assert_eq!(fs::read(precious.join("owner.lock")).unwrap(), b"precious");
        fs::remove_dir_all(base).unwrap();
        fs::create_dir(base).unwrap();
    });
}

#[test]
fn files_that_somebody_puts_into_a_work_folder_go_with_it() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let folder = machine.work_folder().to_owned();
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/file"), "x").unwrap();
        symlink("/", folder.join("root")).unwrap();

        machine.shutdown(PATIENCE).await.unwrap();

        assert!(!folder.exists());
        assert!(PathBuf::from("/proc").exists());
    });
}

#[test]
fn a_work_folder_that_somebody_removed_is_no_problem() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=hello"]).launch().await.unwrap();
        fs::remove_dir_all(machine.work_folder()).unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert_eq!(exit.log.text(), "hello\n");
    });
}

#[test]
fn a_base_folder_may_have_an_odd_name() {
    play(async |stage| {
        for name in ["with blank", "*", "$HOME", "-rf", "a,b", "'\"", "line\nbreak", "ü"] {
            let base = stage.path(name);
            fs::create_dir(&base).unwrap();
            let stage_there = stage.fake(&[]).base_folder(&base);

            let machine = stage_there.launch().await.unwrap();
            assert_eq!(machine.work_folder().parent(), Some(base.as_path()));
            machine.shutdown(PATIENCE).await.unwrap();

            assert_eq!(entries(&base), Vec::<String>::new());
        }
    });
}

#[test]
fn a_relative_base_folder_is_the_callers() {
    play(async |stage| {
        let here = std::env::current_dir().unwrap();
        let climb: PathBuf = here.components().skip(1).map(|_| "..").collect();
        let base = climb.join(stage.base().strip_prefix("/").unwrap());

        let machine = stage.fake(&[]).base_folder(base).working_folder("/").launch().await.unwrap();

        assert!(machine.work_folder().is_absolute());
        assert_eq!(entries(stage.base()).len(), 1);
        assert!(machine.log().path().is_absolute());
    });
}
