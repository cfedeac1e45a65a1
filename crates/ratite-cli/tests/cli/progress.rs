//! The progress line in a real terminal: where it is drawn, that it stays in one place, and that it goes.

use std::fs;

use crate::harness::fake;
use crate::harness::run;
use crate::terminal::CTRL_C;
use crate::terminal::Terminal;

const XTERM: (&str, &str) = ("TERM", "xterm");

const BANNER: &str = "console-banner=booting\r\n\x1b[32mthe last line\x1b[0m\r\n";

fn words(options: &[&str], command: &[String]) -> Vec<String> {
    let options = ["run"].iter().chain(options).chain(["--"].iter()).map(|&word| word.to_owned());
    options.chain(command.iter().cloned()).collect()
}

#[test]
fn while_the_console_is_not_shown_a_line_tells_what_goes_on() {
    let terminal = Terminal::ratite_with(&[XTERM], &words(&["--quiet", "--timeout", "1h"], &fake(&[BANNER])));

    terminal.wait_for("running 0 s of 3600 s │ the last line");
    terminal.wait_for("running 1 s of 3600 s │ the last line");
    let drawn: Vec<_> = terminal.rows().into_iter().filter(|row| row.contains("the last line")).collect();
    terminal.type_bytes(CTRL_C);

    let ended = terminal.finish();
    assert_eq!(drawn.len(), 1, "it is not in one place: {drawn:?}");
    assert_eq!(ended.code, 130);
    let left = ended.screen.trim();
    assert_eq!(left, "error: ended by SIGINT");
}

#[test]
fn what_a_guest_asks_of_the_terminal_is_not_asked_where_nobody_reads_the_answer() {
    let terminal = Terminal::ratite_with(&[XTERM], &words(&[], &fake(&["console-banner=~ # \x1b[6nup"])));

    terminal.wait_for_raw(b"~ # up");
    terminal.type_bytes(CTRL_C);

    assert_eq!(terminal.finish().code, 130);
}

#[test]
fn a_console_that_goes_into_a_file_is_none_the_worse() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out");
    let script = r#"exec "$@" > "$FILE""#;
    let ratite = env!("CARGO_BIN_EXE_ratite").to_owned();
    let shell = ["sh", "-c", script, "sh"].map(str::to_owned);
    let command = fake(&[BANNER, "guest-shutdown-after=1500"]);
    let words = [shell.to_vec(), vec![ratite], words(&[], &command)].concat();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let environment = [XTERM, ("FILE", file.to_str().unwrap())];

    let terminal = Terminal::start(&environment, &words);
    terminal.wait_for("running 0 s │ the last line");

    let ended = terminal.finish();
    assert_eq!(ended.code, 0);
    assert_eq!(ended.screen.trim(), "");
    assert_eq!(fs::read_to_string(file).unwrap(), "booting\r\n\x1b[32mthe last line\x1b[0m\r\n");
}

#[test]
fn a_terminal_that_becomes_narrower_keeps_no_remains() {
    let long = format!("console-banner={}\r\n", "x".repeat(200));
    let terminal = Terminal::ratite_with(&[XTERM], &words(&["--quiet"], &fake(&[&long])));
    terminal.wait_for("running 0 s │ xxx");

    terminal.resize(30, 24);
    terminal.wait_for("running 1 s │ xxx");
    let rows: Vec<_> = terminal.rows().into_iter().filter(|row| !row.is_empty()).collect();
    terminal.type_bytes(CTRL_C);

    terminal.finish();
    assert_eq!(rows, [format!("running 1 s │ {}…", "x".repeat(12))]);
}

#[test]
fn an_interrupt_that_the_terminal_shows_leaves_no_remains_of_a_full_row() {
    let long = format!("console-banner={}\r\n", "x".repeat(200));
    let terminal = Terminal::ratite_with(&[XTERM], &words(&["--quiet"], &fake(&[&long])));
    terminal.wait_for("xxx…");

    terminal.type_bytes(CTRL_C);

    assert_eq!(terminal.finish().screen.trim(), "error: ended by SIGINT");
}

#[test]
fn there_is_none_where_the_console_is_shown_or_nobody_looks() {
    let shown = Terminal::ratite_with(&[XTERM], &words(&[], &fake(&[BANNER, "guest-shutdown-after=500"])));
    let shown = shown.finish();
    assert_eq!(shown.screen.trim(), "booting\nthe last line");

    let quiet = words(&["--quiet"], &fake(&[BANNER, "guest-shutdown-after=500"]));
    let dumb = Terminal::ratite_with(&[("TERM", "dumb")], &quiet).finish();
    assert_eq!(dumb.screen.trim(), "");
    let logged = Terminal::ratite_with(&[XTERM, ("RATITE_LOG", "error")], &quiet).finish();
    assert_eq!(logged.screen.trim(), "");

    let piped = run(&["--quiet"], &fake(&[BANNER, "guest-shutdown-after=500"]));
    assert_eq!((piped.stdout().as_str(), piped.stderr.as_str()), ("", ""));
}

#[test]
fn it_has_no_colours_where_none_are_wanted() {
    let quiet = words(&["--quiet"], &fake(&[BANNER, "guest-shutdown-after=500"]));
    let drawn = |environment: &[(&str, &str)]| {
        let terminal = Terminal::ratite_with(environment, &quiet);
        terminal.wait_for("│ the last line");
        let raw = String::from_utf8_lossy(&terminal.raw()).into_owned();
        assert_eq!(terminal.finish().code, 0);
        raw
    };

    assert!(drawn(&[XTERM]).contains("\x1b[2mrunning"));
    assert!(!drawn(&[XTERM, ("NO_COLOR", "1")]).contains("\x1b[2m"));
}
