//! The shell driver on a Linux guest: busybox, its login, the kernel's messages, and the guest's end.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::Duration;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::Login;
use ratite::MachineConfig;
use ratite::Shell;
use ratite::ShellError;
use ratite_tests::linux_guest::PROMPT;
use ratite_tests::linux_guest::USERS;
use ratite_tests::linux_guest::VIRTIO;
use ratite_tests::linux_guest::machine;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::play;

/// Against hangs only: a boot takes two seconds, and a loaded machine some more.
const LIMIT: Duration = Duration::from_secs(60);

/// Boots, and plays with the console of a guest that has these words in its kernel's arguments.
fn with_guest(words: &[&str], scenario: impl AsyncFnOnce(&Console)) {
    play(async |stage| {
        let config: MachineConfig = machine(words).base_folder(stage.base());
        let machine = config.launch().await.unwrap();
        scenario(machine.console().unwrap()).await;
        machine.kill().await.unwrap();
    });
}

async fn check(shell: &mut Shell, command: &str, status: i32, output: &str) {
    let ran = shell.run(command, LIMIT).await.unwrap();
    assert_eq!((ran.status, ran.output.as_str(), ran.dropped), (status, output, 0), "{command}");
}

#[test]
fn commands_in_a_guest_have_their_output_and_their_status() {
    with_guest(&[], async |console| {
        let mut shell = Shell::attach(console, LIMIT).await.unwrap();

        check(&mut shell, "uname -s; echo $((6 * 7))", 0, "Linux\n42\n").await;
        check(&mut shell, "false", 1, "").await;
        check(&mut shell, "(exit 255)", 255, "").await;
        check(&mut shell, "printf 'no line end\\033[31m'", 0, "no line end").await;
        check(&mut shell, "cat <<END\n\ttab é \"q\" 'r'\nEND", 0, "\ttab é \"q\" 'r'\n").await;
        // Between the moments at which the driver has doubts: what it types then is echoed long before.
        check(&mut shell, &format!("printf '{PROMPT}'; sleep 0.7; echo on"), 0, "guest# on\n").await;
        let missing = shell.run("no-such-command", LIMIT).await.unwrap();
        assert_eq!((missing.status, missing.output.ends_with("no-such-command: not found\n")), (127, true));
        assert_eq!(shell.run("sh -c 'kill -SEGV $$'", LIMIT).await.unwrap().status, 139);
        assert!(!shell.run("if", LIMIT).await.unwrap().success());
        check(&mut shell, "cd /proc && pwd", 0, "/proc\n").await;
        check(&mut shell, "pwd", 0, "/proc\n").await;
    });
}

#[test]
fn megabytes_and_long_commands_pass_a_serial_line_whole() {
    with_guest(&[], async |console| {
        let mut shell = Shell::attach(console, LIMIT).await.unwrap();

        let numbers = shell.check("seq 1 200000", LIMIT).await.unwrap();

        let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
        assert!(expected.len() > 1 << 20, "more than the console keeps");
        assert!(numbers.output == expected, "{} of {}", numbers.output.len(), expected.len());
        let words = "0123456789 ".repeat(1000);
        check(&mut shell, &format!("echo '{words}' | wc -c"), 0, "11001\n").await;
    });
}

#[test]
fn messages_of_the_kernel_do_not_hide_the_end_of_a_command() {
    with_guest(&[], async |console| {
        let mut shell = Shell::attach(console, LIMIT).await.unwrap();
        shell.check("dmesg -n 8", LIMIT).await.unwrap();
        // A job that makes the kernel speak all the time.
        shell.check("while :; do echo '<1>kernel speaking' >/dev/kmsg; done &", LIMIT).await.unwrap();

        for number in 1..=20 {
            let ran = shell.run(&format!("echo one; usleep 20000; (exit {number})"), LIMIT).await.unwrap();

            // A message may have come in the middle of the word.
            assert_eq!((ran.status, ran.output.contains("kernel speaking")), (number, true), "{ran:?}");
        }
        shell.run("kill $!", LIMIT).await.unwrap();
        check(&mut shell, "echo calm", 0, "calm\n").await;
    });
}

#[test]
fn out_of_time_and_cancelled_commands_leave_a_shell_that_works() {
    with_guest(&[], async |console| {
        let mut shell = Shell::attach(console, LIMIT).await.unwrap();

        let outcome = shell.run("echo before; sleep 1000", Duration::from_secs(1)).await;
        let Err(ShellError::TimedOut { output, .. }) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(output, "before\n");
        check(&mut shell, "echo again", 0, "again\n").await;

        let cancelled = tokio::time::timeout(Duration::from_millis(300), shell.run("cat", LIMIT)).await;
        assert!(cancelled.is_err());
        check(&mut shell, "echo again", 0, "again\n").await;
    });
}

#[test]
fn a_user_logs_in_with_a_password() {
    with_guest(&["ratite.login=ttyS0"], async |console| {
        let (user, password) = USERS[1];
        let login = Login::new(user).password(password);

        let mut shell = Shell::login(console, &login, LIMIT).await.unwrap();

        check(&mut shell, "id -un; echo \"$HOME\"", 0, "guest\n/tmp\n").await;
        let outcome = shell.run("exit", LIMIT).await;
        assert!(matches!(outcome, Err(ShellError::Gone { .. })), "{outcome:?}");
        let mut root = Shell::login(console, &Login::new("root").password(USERS[0].1), LIMIT).await.unwrap();
        check(&mut root, "id -un", 0, "root\n").await;
        let record = console.tail(usize::MAX).bytes;
        assert!(!String::from_utf8_lossy(&record).contains(password));
    });
}

#[test]
fn a_refused_login_is_told_as_that() {
    with_guest(&["ratite.login=ttyS0"], async |console| {
        // Somebody has read the prompt already.
        console.expect("login:", LIMIT).await.unwrap();

        let outcome = Shell::login(console, &Login::new("root").password("wr0ng-one"), LIMIT).await;

        let Err(ShellError::Refused { user, said }) = &outcome else { panic!("{outcome:?}") };
        assert_eq!((user.as_str(), said.as_str()), ("root", "Login incorrect"));
        let none = Shell::login(console, &Login::new("root"), LIMIT).await;
        assert!(matches!(&none, Err(ShellError::Refused { said, .. }) if said == "Password: "), "{none:?}");
        let attached = Shell::attach(console, LIMIT).await;
        assert!(matches!(attached, Err(ShellError::LoginWanted { .. })), "{attached:?}");
        for outcome in [outcome, none] {
            assert!(!format!("{outcome:?}").contains("wr0ng-one"));
        }
        let mut shell = Shell::login(console, &Login::new("root").password(USERS[0].1), LIMIT).await.unwrap();
        check(&mut shell, "echo in", 0, "in\n").await;
    });
}

#[test]
fn a_shell_that_has_ended_and_come_again_is_another() {
    with_guest(&[], async |console| {
        let mut shell = Shell::attach(console, LIMIT).await.unwrap();

        let outcome = shell.run("x=1; exit 4", LIMIT).await;

        assert!(matches!(outcome, Err(ShellError::Gone { .. })), "{outcome:?}");
        let mut next = Shell::attach(console, LIMIT).await.unwrap();
        check(&mut next, "echo \"<$x>\"", 0, "<>\n").await;
    });
}

#[test]
fn the_end_of_the_guest_ends_a_command_at_once() {
    with_guest(&[], async |console| {
        let mut shell = Shell::attach(console, LIMIT).await.unwrap();

        let ending = shell.run("echo going down; poweroff -f; sleep 1000", LIMIT);
        let outcome = tokio::time::timeout(AT_ONCE, ending).await.unwrap();

        let Err(ShellError::Ended { output, .. }) = &outcome else { panic!("{outcome:?}") };
        assert!(output.starts_with("going down\n"), "{output}");
        let again = tokio::time::timeout(AT_ONCE, shell.run("true", LIMIT)).await.unwrap();
        assert!(matches!(again, Err(ShellError::Ended { .. })), "{again:?}");
    });
}

#[test]
fn a_virtio_console_has_a_shell_without_the_kernels_messages() {
    play(async |stage| {
        let config = machine(&[VIRTIO, "ratite.login=ttyS1", "loglevel=8"])
            .base_folder(stage.base())
            .console(ConsoleConfig::serial().name("second"))
            .console(ConsoleConfig::virtconsole().name("hvc"))
            .console(ConsoleConfig::virtserialport("org.ratite.test"));
        let machine = config.launch().await.unwrap();
        let named = |name| machine.console_named(name).unwrap();

        let mut shell = Shell::attach(named("hvc"), LIMIT).await.unwrap();
        check(&mut shell, "tty; echo '<1>spoken' >/dev/kmsg", 0, "/dev/hvc0\n").await;
        machine.console().unwrap().expect("spoken", LIMIT).await.unwrap();
        check(&mut shell, "echo hello >/dev/virtio-ports/org.ratite.test", 0, "").await;
        named("org.ratite.test").expect("hello\n", LIMIT).await.unwrap();
        let login = Login::new("root").password(USERS[0].1);
        let mut second = Shell::login(named("second"), &login, LIMIT).await.unwrap();
        check(&mut second, "tty", 0, "/dev/ttyS1\n").await;

        machine.kill().await.unwrap();
    });
}
