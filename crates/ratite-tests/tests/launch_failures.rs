//! What a launch says when no process came to run: the cause first, and the thing named.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;

use ratite::ConsoleConfig;
use ratite::LaunchError;
use ratite::LaunchErrorKind;
use ratite::MachineConfig;
use ratite::PassedFd;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::chain;
use ratite_tests::scenario::entries;
use ratite_tests::scenario::fake_qemu;
use ratite_tests::scenario::play;

/// A machine of some binary on this stage.
fn of(stage: &Stage, binary: impl AsRef<Path>) -> MachineConfig {
    MachineConfig::new(binary.as_ref()).base_folder(stage.base())
}

/// A file of the test's own.
fn file(stage: &Stage, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = stage.path(name);
    fs::write(&path, content).expect("a file can be made");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a file can have a mode");
    path
}

async fn refused(config: &MachineConfig) -> LaunchError {
    let error = config.launch().await.map(drop).expect_err("the launch must fail");
    assert_eq!(error.to_string(), "could not launch the machine");
    error
}

/// Checks that no process was started, and that the error names each of `words`.
#[track_caller]
fn check_not_started(error: &LaunchError, words: &[&str]) {
    assert!(matches!(error.kind(), LaunchErrorKind::Spawn { .. }), "{error:?}");
    assert!(error.exit().is_none() && error.log().bytes.is_empty(), "{error:?}");
    assert!(error.command_line().is_some(), "the command line is told");
    assert_says(error, words);
}

#[test]
fn a_missing_binary_is_named_by_its_path() {
    play(async |stage| {
        let error = refused(&of(stage, "/nope/qemu")).await;

        check_not_started(&error, &["`/nope/qemu`", "there is no such file"]);
        assert!(error.command_line().unwrap().to_string().starts_with("/nope/qemu -display none"));
    });
}

#[test]
fn a_missing_name_is_said_to_be_in_no_folder_of_path() {
    play(async |stage| {
        let error = refused(&of(stage, "qemu-system-nope")).await;

        check_not_started(&error, &["`qemu-system-nope`", "no folder in PATH has it"]);
    });
}

#[test]
fn what_is_no_program_is_said_to_be_what_it_is() {
    play(async |stage| {
        let script = file(stage, "script", "#!/bin/sh\n", 0o644);
        let text = file(stage, "text", "neither a script nor a program", 0o755);
        let empty = file(stage, "empty", "", 0o755);
        let broken = file(stage, "broken", "\x7fELF and no more", 0o755);
        let orphaned = file(stage, "orphaned", "#!/nope/python3 -u\n", 0o755);
        symlink("nowhere", stage.path("dangling")).unwrap();

        let check = async |binary: &Path, words: &[&str]| {
            check_not_started(&refused(&of(stage, binary)).await, words);
        };
        check(&script, &["script` is not executable"]).await;
        check(stage.base(), &["is a folder"]).await;
        check(&text, &["text` is no program of this machine's format"]).await;
        check(&empty, &["empty` is no program of this machine's format"]).await;
        check(&broken, &["broken` is no program of this machine's format"]).await;
        check(&orphaned, &["orphaned` needs the interpreter `/nope/python3`, which is missing"]).await;
        check(&stage.path("dangling"), &["dangling", "there is no such file"]).await;
    });
}

#[test]
fn a_program_for_another_kind_of_machine_is_not_run_by_a_shell() {
    play(async |stage| {
        let mut program = fs::read("/bin/sh").unwrap();
        // SPARC's, which no machine runs beside its own.
        program[18..20].copy_from_slice(&[2, 0]);
        let foreign = file(stage, "foreign", &program, 0o755);

        let error = refused(&of(stage, &foreign)).await;

        // Where formats are registered with the kernel (binfmt_misc), only it knows.
        let told = ["foreign` is no program of this machine's format", "before its monitor was ready"];
        let text = chain(&error);
        assert!(told.iter().any(|words| text.contains(words)), "{text}");
    });
}

#[test]
fn a_program_without_its_loader_names_the_loader() {
    play(async |stage| {
        let mut program = fs::read("/bin/sh").unwrap();
        // The first is the loader's path in PT_INTERP, such as `/lib64/ld-linux-x86-64.so.2`.
        let at = program.windows(4).position(|window| window == b"/ld-").unwrap();
        program[at..][..4].copy_from_slice(b"/xy-");
        let broken = file(stage, "broken", &program, 0o755);

        let error = refused(&of(stage, &broken)).await;

        check_not_started(&error, &["broken` needs the interpreter `/lib", "/xy-", "which is missing"]);
    });
}

#[test]
fn a_name_is_looked_for_where_the_system_does() {
    play(async |stage| {
        let folder = fake_qemu().parent().unwrap().to_owned();
        let with_path = |name: &str| of(stage, name).env("PATH", &folder);

        let found = with_path("fake-qemu").launch().await.unwrap();
        let missing = refused(&with_path("sh")).await;

        assert!(found.is_running());
        check_not_started(&missing, &["the binary `sh`", "no folder in PATH has it"]);
    });
}

#[test]
fn a_missing_wrapper_is_not_taken_for_the_binary() {
    play(async |stage| {
        let by_path = refused(&stage.fake(&[]).wrapper(["/nope/valgrind", "-q"])).await;
        let by_name = refused(&stage.fake(&[]).wrapper(["valgrind-nope"])).await;

        check_not_started(&by_path, &["the wrapper `/nope/valgrind`", "there is no such file"]);
        check_not_started(&by_name, &["`valgrind-nope`", "no folder in PATH has it"]);
    });
}

#[test]
fn a_missing_working_folder_is_named() {
    play(async |stage| {
        let error = refused(&stage.fake(&[]).working_folder("/nope/here")).await;

        check_not_started(&error, &["the working folder `/nope/here` is no folder"]);
    });
}

#[test]
fn an_argument_list_that_is_too_long_is_said_to_be_so() {
    play(async |stage| {
        // One argument may have 128 KiB on Linux.
        let error = refused(&stage.fake(&[]).arg("x".repeat(200_000))).await;

        check_not_started(&error, &["its arguments and environment are too long for the system"]);
    });
}

#[test]
fn a_missing_base_folder_is_named() {
    play(async |stage| {
        let base = stage.path("nope");

        let error = refused(&stage.fake(&[]).base_folder(&base)).await;

        assert!(matches!(error.kind(), LaunchErrorKind::WorkFolder { base: told, .. } if *told == base));
        assert_says(&error, &["could not make a work folder in", "nope`", "No such file or directory"]);
    });
}

#[test]
fn a_base_folder_that_is_a_file_is_named() {
    play(async |stage| {
        let base = file(stage, "base", "precious", 0o644);

        let error = refused(&stage.fake(&[]).base_folder(&base)).await;

        assert_says(&error, &["base`", "Not a directory"]);
        assert_eq!(fs::read(&base).unwrap(), b"precious");
    });
}

#[test]
fn a_log_folder_that_cannot_be_is_named() {
    play(async |stage| {
        let a_file = file(stage, "file", "precious", 0o644);

        let in_file = refused(&stage.fake(&[]).log_folder(a_file.join("logs"))).await;
        let on_file = refused(&stage.fake(&[]).log_folder(&a_file)).await;
        // Nobody can make files there, not even root.
        let unwritable = refused(&stage.fake(&[]).log_folder("/proc/self/task")).await;

        for error in [&in_file, &on_file, &unwritable] {
            assert!(matches!(error.kind(), LaunchErrorKind::Log { .. }), "{error:?}");
            assert!(error.exit().is_none() && error.command_line().is_none());
        }
        assert_says(&in_file, &["could not make the log file in", "file/logs`", "Not a directory"]);
        assert_says(&on_file, &["/file`"]);
        assert_says(&unwritable, &["/proc/self/task"]);
        assert_eq!(fs::read(&a_file).unwrap(), b"precious");
    });
}

#[test]
fn a_log_that_is_something_else_is_left_alone() {
    play(async |stage| {
        let logs = stage.path("logs");
        fs::create_dir_all(logs.join("folder.log")).unwrap();
        let victim = file(stage, "victim", "precious", 0o644);
        symlink(&victim, logs.join("link.log")).unwrap();
        let config = stage.fake(&[]).log_folder(&logs);

        let folder = refused(&config.clone().name("folder")).await;
        let link = refused(&config.name("link")).await;

        assert_says(&folder, &["folder.log: it is no plain file"]);
        assert_says(&link, &["link.log: it is a symbolic link"]);
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(entries(&logs), ["folder.log", "link.log"]);
    });
}

#[test]
fn a_log_that_a_living_machine_writes_to_is_not_taken() {
    play(async |stage| {
        let config = stage.fake(&["stderr=first"]).log_folder(stage.path("logs")).name("one");
        let living = config.launch().await.unwrap();

        let error = refused(&config).await;

        assert_says(&error, &["one.log: another machine writes to it"]);
        assert_eq!(living.log().text().unwrap(), "first\n");
        assert!(living.is_running());
    });
}

#[test]
fn a_console_log_that_cannot_be_is_named() {
    play(async |stage| {
        let victim = file(stage, "victim", "precious", 0o644);
        let link = stage.path("link");
        symlink(&victim, &link).unwrap();
        let config = |path: &Path| stage.fake(&[]).console(ConsoleConfig::serial().log(path));

        let missing = refused(&config(Path::new("/nope/console.log"))).await;
        let folder = refused(&config(stage.base())).await;
        let linked = refused(&config(&link)).await;

        for error in [&missing, &folder, &linked] {
            assert!(matches!(error.kind(), LaunchErrorKind::Console(_)), "{error:?}");
        }
        assert_says(&missing, &["/nope/console.log", "No such file"]);
        assert_says(&folder, &["Is a directory"]);
        assert_says(&linked, &["link"]);
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    });
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_made() {
    play(async |stage| {
        let null = || fs::File::open("/dev/null").unwrap();
        let fake = || stage.fake(&[]);
        let check = async |config: MachineConfig, words: &str| {
            let error = refused(&config).await;
            assert!(matches!(error.kind(), LaunchErrorKind::Config(_)), "{error:?}");
            assert_says(&error, &[words]);
        };

        check(fake().name("a/b"), "the name \"a/b\" cannot name a log file: it holds a `/`").await;
        check(fake().name("a\0b"), "NUL").await;
        check(fake().name("x".repeat(260)), "255 bytes").await;
        check(fake().name(""), "it is empty").await;
        check(fake().arg("-x\0"), "the argument \"-x\\0\" holds a NUL byte").await;
        check(fake().wrapper(["e\0nv"]), "NUL").await;
        check(fake().env("A\0", "b"), "the variable").await;
        check(fake().machine_type("a\0"), "NUL").await;
        check(fake().accelerator("a\0"), "NUL").await;
        check(fake().working_folder("a\0"), "NUL").await;
        check(fake().console(ConsoleConfig::device("a\0")), "NUL").await;
        check(fake().fd(PassedFd::in_set(null(), 1).opaque("a\0")), "NUL").await;
        check(of(stage, ""), "empty").await;
        check(fake().base_folder(""), "empty").await;
        check(fake().arg("-daemonize"), "takes QEMU out of ratite's hands").await;
        check(fake().arg("--daemonize"), "`-daemonize`").await;
        check(fake().fd(PassedFd::at(null(), 1)), "descriptor number 1 cannot be given").await;
        check(fake().fd(PassedFd::at(null(), 9)).fd(PassedFd::at(null(), 9)), "given twice").await;
    });
}

#[test]
fn a_variable_that_no_environment_can_hold_is_refused() {
    play(async |stage| {
        for name in ["", "A=B"] {
            let error = refused(&stage.fake(&[]).env(name, "x")).await;

            assert!(matches!(error.kind(), LaunchErrorKind::Config(_)), "{error:?}");
        }
    });
}

#[test]
fn a_failed_launch_leaves_the_next_one_intact() {
    play(async |stage| {
        let logs = stage.path("logs");
        let config = stage.fake(&[]).log_folder(&logs).name("same");
        refused(&config.clone().wrapper(["/nope/wrapper"])).await;
        refused(&config.clone().args(["-fake", "exit-before-monitor=4"])).await;

        let machine = config.launch().await.unwrap();

        assert!(machine.is_running());
        assert_eq!(entries(&logs), ["same.log", "same.log.1"]);
    });
}

#[test]
fn a_missing_binary_is_told_whatever_descriptors_are_passed() {
    play(async |stage| {
        for number in 3..64 {
            let null = fs::File::open("/dev/null").unwrap();

            let error = refused(&of(stage, "/nope/qemu").fd(PassedFd::at(null, number))).await;

            check_not_started(&error, &["there is no such file"]);
        }
    });
}
