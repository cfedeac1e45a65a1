//! The shell driver, on shells of this system: each behaves as it would at a guest's serial line.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::Duration;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::Shell;
use ratite::ShellError;
use ratite::ShellOutput;
use ratite::blocking;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::shell_on_pty::ShellOnPty;

/// bash with its line editor, and two without one.
const SHELLS: [&[&str]; 4] = [
    &["bash", "--norc", "--noprofile", "-i"],
    &["bash", "--norc", "--noprofile", "--noediting", "-i"],
    &["bash", "--norc", "--noprofile", "--posix", "-i"],
    &["dash", "-i"],
];

/// Plays with each of the shells.
fn with_shells(scenario: impl AsyncFn(&mut Shell)) {
    play(async |_| {
        for words in SHELLS {
            let (_shell, stream) = ShellOnPty::start(words).unwrap();
            let console = Console::over(stream, &ConsoleConfig::serial(), PATIENCE).unwrap();
            let mut shell = Shell::attach(&console, PATIENCE).await.unwrap();
            scenario(&mut shell).await;
        }
    });
}

/// Runs a command that does what it is to do.
async fn run(shell: &mut Shell, command: &str) -> ShellOutput {
    shell.run(command, PATIENCE).await.unwrap()
}

async fn check(shell: &mut Shell, command: &str, status: i32, output: &str) {
    let ran = run(shell, command).await;
    assert_eq!((ran.status, ran.output.as_str(), ran.dropped), (status, output, 0), "{command}");
}

#[test]
fn output_and_status_are_told_exactly() {
    with_shells(async |shell| {
        check(shell, "echo hello", 0, "hello\n").await;
        check(shell, "true", 0, "").await;
        check(shell, "false", 1, "").await;
        check(shell, "printf 'no line end'", 0, "no line end").await;
        check(shell, "(exit 255)", 255, "").await;
        assert_eq!(run(shell, "sh -c 'kill -9 $$'").await.status, 137);
        assert_eq!(run(shell, "no-such-command-here").await.status, 127);
        check(shell, "", 0, "").await;
        check(shell, "printf 'a\\r\\nb\\n\\n'", 0, "a\nb\n\n").await;
        check(shell, "printf ' 10%%\\r100%%\\n\\033[31mred\\033[0m'", 0, "100%\nred").await;
    });
}

#[test]
fn the_shell_keeps_its_state() {
    with_shells(async |shell| {
        check(shell, "cd /usr; x='a b'; f() { echo \"f $1\"; }", 0, "").await;
        check(shell, "pwd; echo \"$x\"; f y", 0, "/usr\na b\nf y\n").await;
    });
}

#[test]
fn a_command_may_look_like_anything() {
    with_shells(async |shell| {
        check(shell, "echo \"it's\" 'a \"b\"' \\\\ `echo c` $(echo d)", 0, "it's a \"b\" \\ c d\n").await;
        check(shell, "echo one # two", 0, "one\n").await;
        check(shell, "for i in 1 2\ndo\n\techo $i\ndone", 0, "1\n2\n").await;
        check(shell, "cat <<END\n\tžluťoučký $((1 + 1)) !! 'x'\nEND", 0, "\tžluťoučký 2 !! 'x'\n").await;
        check(shell, "cat <<'END'\n$x `y`\nEND", 0, "$x `y`\n").await;
        check(shell, "echo 'a!b' \"c!d\" %s -n", 0, "a!b c!d %s -n\n").await;
        check(shell, "-n 2>/dev/null", 127, "").await;
        check(shell, "echo a; \n\n", 0, "a\n").await;
        check(shell, "if false; then echo x; fi && echo y", 0, "y\n").await;
        check(shell, "cat /dev/null; printf '<%s>' x:1:e:0", 0, "<x:1:e:0>").await;
        check(shell, "stty -echo; PS1='$ '", 0, "").await;
        check(shell, "echo still; stty echo", 0, "still\n").await;
    });
}

#[test]
fn the_prompt_in_the_output_is_output() {
    with_shells(async |shell| {
        check(shell, "PS1='guest# '", 0, "").await;
        check(shell, "echo one", 0, "one\n").await;
        check(shell, "printf 'guest# \\nguest# '", 0, "guest# \nguest# ").await;
        check(shell, "printf 'guest# '; sleep 0.3; echo more", 0, "guest# more\n").await;
        check(shell, "printf 'host login: '; sleep 0.3; echo more", 0, "host login: more\n").await;
    });
}

#[test]
fn a_trace_of_the_shell_hides_no_mark() {
    with_shells(async |shell| {
        run(shell, "set -x").await;

        let traced = run(shell, "echo traced").await;

        assert!(traced.output.contains("+ echo traced\ntraced\n"), "{}", traced.output);
        assert_eq!(traced.status, 0);
        run(shell, "set +x").await;
        check(shell, "echo quiet", 0, "quiet\n").await;
    });
}

#[test]
fn a_mistake_in_a_command_is_a_status() {
    with_shells(async |shell| {
        for mistake in
            ["if", "echo $((1 / 0))", "echo ${nothing?is set}", ")", "readonly r=1; r=2", "echo 'open"]
        {
            let ran = shell.run(mistake, PATIENCE).await.unwrap();
            assert!(!ran.success() && !ran.output.is_empty(), "{mistake}: {ran:?}");
        }
        check(shell, "echo on", 0, "on\n").await;
    });
}

#[test]
fn megabytes_come_whole() {
    with_shells(async |shell| {
        let ran = run(shell, "seq 1 400000").await;

        assert_eq!((ran.status, ran.dropped), (0, 0));
        let expected: String = (1..=400_000).map(|number| format!("{number}\n")).collect();
        assert!(expected.len() > 2 << 20);
        assert!(ran.output == expected, "{} bytes of {}", ran.output.len(), expected.len());
        assert_eq!(ran.bytes.len(), expected.len() + 400_000);
    });
}

#[test]
fn a_command_of_any_length_is_typed() {
    with_shells(async |shell| {
        let words = "word 'it''s' ".repeat(2000);

        let ran = run(shell, &format!("echo \"{words}\"é | wc -c; echo \"$#\"")).await;

        assert_eq!(ran.output.trim(), format!("{}\n0", words.len() + 3));
    });
}

#[test]
fn a_job_in_the_background_does_not_hold_up() {
    with_shells(async |shell| {
        let ran = run(shell, "sleep 1000 & echo started").await;
        assert!(ran.output.ends_with("started\n"), "{}", ran.output);

        assert!(run(shell, "kill $!").await.success());
    });
}

#[test]
fn out_of_time_tells_what_came_and_the_next_command_works() {
    with_shells(async |shell| {
        let outcome = shell.run("echo before; sleep 1000; echo after", Duration::from_secs(1)).await;
        let Err(ShellError::TimedOut { output, wait }) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(output, "before\n");
        assert_eq!(wait.what, "end of `echo before; sleep 1000; echo after`");
        let error = outcome.unwrap_err();
        assert!(error.to_string().ends_with("within 1s; last line: before"));
        assert_eq!(error.output(), Some("before\n"));
        assert!(format!("{error:?}").ends_with("last line: before\n    | before"), "{error:?}");

        check(shell, "echo again", 0, "again\n").await;
    });
}

#[test]
fn a_cancelled_command_is_interrupted_by_the_next() {
    with_shells(async |shell| {
        for _ in 0..3 {
            let cancelled =
                tokio::time::timeout(Duration::from_millis(200), shell.run("sleep 1000", PATIENCE)).await;
            assert!(cancelled.is_err());
        }

        check(shell, "echo again", 0, "again\n").await;
    });
}

#[test]
fn a_command_that_reads_the_terminal_is_interrupted_on_demand() {
    with_shells(async |shell| {
        assert!(shell.run("cat", Duration::from_millis(500)).await.is_err());

        shell.interrupt(PATIENCE).await.unwrap();

        check(shell, "echo again", 0, "again\n").await;
    });
}

#[test]
fn a_program_that_ignores_the_interrupt_is_made_to_quit() {
    with_shells(async |shell| {
        let stubborn = "sh -c 'trap \"\" INT; while :; do sleep 1; done'";
        assert!(shell.run(stubborn, Duration::from_millis(500)).await.is_err());

        check(shell, "echo again", 0, "again\n").await;
    });
}

#[test]
fn the_end_of_the_shell_is_told_at_once() {
    with_shells(async |shell| {
        let outcome = tokio::time::timeout(AT_ONCE, shell.run("echo bye; exit 3", PATIENCE)).await.unwrap();

        let Err(ShellError::Ended { output, .. }) = &outcome else { panic!("{outcome:?}") };
        assert!(output.starts_with("bye\n"), "{output}");
        assert!(shell.run("true", PATIENCE).await.is_err());
    });
}

#[test]
fn another_shell_in_its_place_is_told() {
    with_shells(async |shell| {
        let outcome = shell.run("PS1='nested$ ' exec sh -i", PATIENCE).await;

        let Err(ShellError::Gone { command, .. }) = &outcome else { panic!("{outcome:?}") };
        assert_eq!(command, "PS1='nested$ ' exec sh -i");
        assert!(matches!(shell.run("true", PATIENCE).await, Err(ShellError::Gone { .. })));
        let mut next = Shell::attach(shell.console(), PATIENCE).await.unwrap();
        check(&mut next, "echo next", 0, "next\n").await;
    });
}

#[test]
fn a_failure_is_an_error_for_who_wants_it() {
    with_shells(async |shell| {
        let outcome = shell.check("echo why; exit_status() { return 7; }; exit_status", PATIENCE).await;

        let Err(ShellError::Failed { output, .. }) = &outcome else { panic!("{outcome:?}") };
        assert_eq!((output.status, output.output.as_str()), (7, "why\n"));
        let said = outcome.unwrap_err().to_string();
        assert!(said.ends_with("exited with status 7; last line: why"), "{said}");
        assert!(matches!(shell.run("a\0b", PATIENCE).await, Err(ShellError::Untypable { .. })));
    });
}

#[test]
fn the_twin_drives_a_shell_too() {
    play_blocking(|_| {
        let (_shell, stream) = ShellOnPty::start(SHELLS[0]).unwrap();
        let console = blocking::Console::over(stream, &ConsoleConfig::serial(), PATIENCE).unwrap();
        let mut shell = blocking::Shell::attach(&console, PATIENCE).unwrap();

        assert_eq!(shell.check("echo hello", PATIENCE).unwrap().output, "hello\n");
        assert!(shell.run("cat", Duration::from_millis(200)).is_err());
        shell.interrupt(PATIENCE).unwrap();
        assert_eq!(shell.run("(exit 9)", PATIENCE).unwrap().status, 9);
        assert!(shell.console().bytes_seen() > 0);
    });
}
