//! What QEMU writes to stdout and stderr: all of it, byte for byte, whenever it is asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use ratite::LaunchErrorKind;
use ratite::blocking::Machine;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use serde_json::json;

#[test]
fn a_log_can_be_read_while_it_grows() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=one"]).launch().await.unwrap();

        let before = machine.log().text().unwrap();
        machine.cmd("fake-stderr", json!({ "text": "two\n" })).await.unwrap();

        assert_eq!((before.as_str(), machine.log().text().unwrap().as_str()), ("one\n", "one\ntwo\n"));
        assert_eq!(machine.log().tail(4).unwrap().bytes, b"two\n");
    });
}

#[test]
fn a_log_is_kept_byte_for_byte() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=a\r\nb\r", "stderr-invalid-utf8"]).launch().await.unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert_eq!(exit.log.bytes, b"a\r\nb\r\nnot UTF-8: \xff\xfe here\n");
        assert_eq!(machine.log().bytes().unwrap(), exit.log.bytes);
        assert_eq!(exit.log.text(), "a\r\nb\r\nnot UTF-8: \u{fffd}\u{fffd} here\n");
    });
}

#[test]
fn a_log_that_somebody_deleted_is_still_read() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=one"]).log_folder(stage.path("logs")).launch().await.unwrap();
        fs::remove_dir_all(stage.path("logs")).unwrap();

        machine.cmd("fake-stderr", json!({ "text": "two\n" })).await.unwrap();
        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert_eq!(exit.log.text(), "one\ntwo\n");
    });
}

#[test]
fn a_log_that_somebody_emptied_goes_on_from_there() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=one"]).launch().await.unwrap();
        fs::File::options().write(true).truncate(true).open(machine.log().path()).unwrap();

        machine.cmd("fake-stderr", json!({ "text": "two\n" })).await.unwrap();

        assert_eq!(machine.log().text().unwrap(), "two\n");
        assert_eq!(machine.shutdown(PATIENCE).await.unwrap().log.text(), "two\n");
    });
}

#[test]
fn a_log_in_a_folder_of_its_own_stays_and_the_one_before_is_put_aside() {
    play(async |stage| {
        let logs = stage.path("new/logs");
        let run = async |text: &str| {
            let word = format!("stderr={text}");
            let config = stage.fake(&[&word]).name("vm").log_folder(&logs);
            config.launch().await.unwrap().shutdown(PATIENCE).await.unwrap();
        };

        for text in ["one", "two", "three"] {
            run(text).await;
        }

        assert_eq!(entries(&logs), ["vm.log", "vm.log.1"]);
        assert_eq!(fs::read(logs.join("vm.log")).unwrap(), b"three\n");
        assert_eq!(fs::read(logs.join("vm.log.1")).unwrap(), b"two\n");
    });
}

#[test]
fn a_log_in_the_work_folder_can_be_read_when_the_folder_is_gone() {
    play(async |stage| {
        let machine = stage.fake(&["stderr=one"]).launch().await.unwrap();
        let log = machine.log().clone();

        machine.shutdown(PATIENCE).await.unwrap();
        drop(machine);

        assert!(!log.path().exists());
        assert_eq!(log.text().unwrap(), "one\n");
    });
}

#[test]
fn of_two_machines_with_one_log_only_the_first_is_launched() {
    play(async |stage| {
        let logs = stage.path("logs");
        let config = stage.fake(&["stderr=mine"]).name("same").log_folder(&logs);
        let first = config.launch().await.unwrap();

        let second = config.launch().await.unwrap_err();

        assert!(matches!(second.kind(), LaunchErrorKind::Log { .. }));
        assert_eq!(fs::read(first.log().path()).unwrap(), b"mine\n");
        assert_eq!(entries(&logs), ["same.log"]);
    });
}

#[test]
fn of_many_launches_at_once_with_one_log_just_one_has_it() {
    play_blocking(|stage| {
        let logs = stage.path("logs");
        for round in 0..30 {
            let launch = &|number: usize| {
                let word = format!("stderr=machine {number}");
                let machine = Machine::launch(&stage.fake(&[&word]).name("same").log_folder(&logs));
                machine.ok().map(|machine| (number, machine))
            };

            let launched: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || launch(number))).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });

            assert_eq!(launched.len(), 1, "round {round}: one log, one machine");
            let (number, machine) = &launched[0];
            let log = fs::read_to_string(machine.log().path()).unwrap();
            assert_eq!(log, format!("machine {number}\n"), "round {round}: its log is another's");
            // Its QEMU writes to the log until it is gone.
            machine.kill().unwrap();
        }
    });
}

#[test]
fn a_log_is_readable_by_others_only_as_the_umask_says_and_the_folder_not_at_all() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;

        assert_eq!(mode(machine.work_folder()), 0o700);
        assert_eq!(mode(machine.log().path()) & 0o111, 0);
    });
}

#[test]
fn of_a_log_longer_than_is_kept_an_exit_has_the_end_and_the_file_all() {
    play(async |stage| {
        let length = 20 << 20;
        let word = format!("stderr-bytes={length}");
        let machine = stage.fake(&[&word]).launch().await.unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert_eq!(exit.log.bytes.len(), 16 << 20);
        assert_eq!(exit.log.omitted, length - (16 << 20));
        assert_eq!(machine.log().bytes().unwrap().len() as u64, length);
    });
}
