//! `ratite shell` in a real terminal: keys, what is shown, and how the terminal is left.

use std::fs;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::ratite;
use crate::harness::wait_for_fact;
use crate::qemu::Qemu;
use crate::terminal::CTRL_C;
use crate::terminal::Ended;
use crate::terminal::Settings;
use crate::terminal::Terminal;

const CTRL_D: &[u8] = b"\x04";

/// A shell in a terminal, with a history of its own.
struct Shell {
    terminal: Terminal,
    before: Settings,
    state: TempDir,
}

impl Shell {
    fn start(words: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), words)
    }

    fn start_in(state: TempDir, words: &[&str]) -> Self {
        let environment = [("XDG_STATE_HOME", state.path().to_str().unwrap())];
        let terminal = Terminal::ratite_with(&environment, &[&["shell"], words].concat());
        let before = terminal.settings();
        terminal.wait_for("(QEMU) ");
        Self { terminal, before, state }
    }

    #[track_caller]
    fn finish(self, code: i32) -> Ended {
        let ended = self.terminal.finish();
        assert_eq!(ended.code, code, "{}", ended.screen);
        assert_eq!(ended.settings, self.before, "{}", ended.screen);
        ended
    }
}

#[test]
fn it_greets_answers_and_leaves_with_ctrl_d() {
    let qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);
    shell.terminal.type_line("query-status");
    shell.terminal.wait_for("\"status\": \"running\"");
    shell.terminal.type_line("help stop");
    shell.terminal.wait_for("takes no arguments\n(QEMU)");
    shell.terminal.type_bytes(CTRL_D);

    let ended = shell.finish(0);

    assert!(
        ended.screen.starts_with("Welcome to ratite's QMP shell!\nConnected to QEMU "),
        "{}",
        ended.screen
    );
    assert!(!ended.screen.contains("error"), "{}", ended.screen);
}

#[test]
fn tab_completes_commands_arguments_and_values() {
    let qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);

    shell.terminal.type_bytes(b"blockdev-a\tdri\tnull-c\tnode-n\tdisk size=4096\r");
    shell.terminal.wait_for("(QEMU) blockdev-add driver=null-co node-name=disk size=4096\n{\"return\": {}}");
    shell.terminal.type_bytes(b"query-st\t\t");
    shell.terminal.wait_for("query-stats          query-stats-schemas  query-status\n(QEMU) query-stat");

    shell.terminal.type_bytes(CTRL_C);
    shell.terminal.wait_for("(QEMU) query-stat\n(QEMU)");
    shell.terminal.type_line("exit");
    shell.finish(0);
}

#[test]
fn an_event_appears_above_the_line_that_is_being_written() {
    let qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);
    shell.terminal.type_bytes(b"query-sta");
    shell.terminal.wait_for("(QEMU) query-sta");

    ratite(&["cmd", &qemu.two(), "stop"]).assert_code(0);

    shell.terminal.wait_for("\"event\": \"STOP\"}\n(QEMU) query-sta");
    shell.terminal.type_line("tus");
    shell.terminal.wait_for("\"status\": \"paused\"");
    assert!(shell.terminal.screen().contains("\"STOP\"}\n(QEMU) query-status\n{\"return\""));
    shell.terminal.type_line("exit");
    shell.finish(0);
}

#[test]
fn ctrl_c_gives_up_the_line_and_the_transaction() {
    let qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);
    shell.terminal.type_line("transaction(");
    shell.terminal.wait_for("TRANS> ");
    shell.terminal.type_line("abort");
    shell.terminal.type_bytes(b"abo");
    shell.terminal.wait_for("TRANS> abort\nTRANS> abo");

    shell.terminal.type_bytes(CTRL_C);

    shell.terminal.wait_for("note: the transaction is given up\n(QEMU)");
    shell.terminal.type_line("query-name");
    shell.terminal.wait_for("(QEMU) query-name\n{\"return\": {}}");
    shell.terminal.type_line("exit");
    shell.finish(0);
}

#[test]
fn ctrl_c_gives_up_the_wait_for_a_reply() {
    let qemu = Qemu::start();
    let log = qemu.file("log");
    let shell = Shell::start(&["-l", &log, &qemu.one()]);
    qemu.signal(Signal::STOP);
    shell.terminal.type_line("query-name");
    let is_sent = || fs::read_to_string(&log).unwrap().contains("{\"execute\":\"query-name\"").then_some(());
    assert!(wait_for_fact(is_sent).is_some());

    shell.terminal.type_bytes(CTRL_C);

    shell.terminal.wait_for("the wait for the reply to `query-name` is given up");
    qemu.signal(Signal::CONT);
    shell.terminal.type_line("query-status");
    shell.terminal.wait_for("\"status\": \"running\"");
    shell.terminal.type_line("exit");
    shell.finish(0);
}

#[test]
fn what_is_typed_ahead_is_not_lost() {
    let qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);

    shell.terminal.type_bytes(b"query-name\rstop\rquery-status\rexit\r");

    let ended = shell.finish(0);
    assert!(
        ended.screen.contains("(QEMU) query-status\n{\"return\": {\"status\": \"paused\""),
        "{}",
        ended.screen
    );
}

#[test]
fn a_machine_that_dies_at_the_prompt_leaves_the_terminal_as_it_was() {
    let mut qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);
    shell.terminal.type_bytes(b"query-sta");
    shell.terminal.wait_for("(QEMU) query-sta");

    qemu.kill();

    let ended = shell.finish(1);
    let end = "(QEMU) query-sta\nerror: could not speak with the machine any longer\n  caused by: the peer closed the connection";
    assert!(ended.screen.ends_with(end), "{}", ended.screen);
}

#[test]
fn a_machine_that_ends_while_the_editor_asks_shows_all_its_events() {
    let mut qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);
    shell.terminal.type_bytes(b"\t\t");
    shell.terminal.wait_for("possibilities? (y or n)");

    for command in ["stop", "cont", "stop", "quit"] {
        ratite(&["cmd", &qemu.two(), command]).assert_code(0);
    }

    let ended = shell.finish(0);
    let events: Vec<&str> =
        ended.screen.split("\"event\": \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(events, ["STOP", "RESUME", "STOP", "SHUTDOWN"], "{}", ended.screen);
    assert!(ended.screen.ends_with("note: the machine has ended"), "{}", ended.screen);
    qemu.wait();
}

#[test]
fn a_machine_that_ends_at_the_prompt_shows_its_last_event() {
    let mut qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);

    ratite(&["cmd", &qemu.two(), "quit"]).assert_code(0);

    let ended = shell.finish(0);
    assert!(ended.screen.contains("\"SHUTDOWN\""), "{}", ended.screen);
    assert!(ended.screen.ends_with("note: the machine has ended"), "{}", ended.screen);
    qemu.wait();
}

#[test]
fn quit_ends_it_without_another_prompt() {
    let shell = Shell::start(&["--", "qemu-system-x86_64", "-accel", "tcg", "-machine", "none"]);

    shell.terminal.type_line("quit");

    let ended = shell.finish(0);
    assert!(ended.screen.ends_with("{\"return\": {}}\nnote: the machine has ended"), "{}", ended.screen);
}

#[test]
fn signals_leave_the_terminal_as_it_was() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let qemu = Qemu::start();
        let shell = Shell::start(&[&qemu.one()]);
        shell.terminal.type_bytes(b"half a li");
        shell.terminal.wait_for("(QEMU) half a li");

        shell.terminal.signal(signal);

        shell.finish(code);
    }
}

#[test]
fn ctrl_c_from_elsewhere_gives_up_the_line_too() {
    let qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);
    shell.terminal.type_bytes(b"half a li");
    shell.terminal.wait_for("(QEMU) half a li");

    shell.terminal.signal(Signal::INT);

    shell.terminal.wait_for("(QEMU) half a li\n(QEMU)");
    shell.terminal.type_line("exit");
    shell.finish(0);
}

#[test]
fn lines_are_remembered_but_for_those_that_begin_with_a_blank() {
    let qemu = Qemu::start();
    let first = Shell::start(&[&qemu.one()]);
    first.terminal.type_line("query-name");
    first.terminal.type_line(" stop");
    first.terminal.wait_for("\"STOP\"}\n{\"return\": {}}\n(QEMU)");
    first.terminal.type_bytes(CTRL_D);
    let Shell { terminal, state, .. } = first;
    assert_eq!(terminal.finish().code, 0);

    let second = Shell::start_in(state, &[&qemu.one()]);
    second.terminal.type_bytes(b"\x1b[A\r");
    second.terminal.wait_for("(QEMU) query-name\n{\"return\": {}}\n(QEMU)");

    second.terminal.type_bytes(CTRL_D);
    second.finish(0);
}

#[test]
fn a_line_survives_another_size_of_the_terminal() {
    let qemu = Qemu::start();
    let shell = Shell::start(&[&qemu.one()]);
    shell.terminal.type_bytes(b"query-na");
    shell.terminal.wait_for("(QEMU) query-na");

    shell.terminal.resize(40, 10);
    shell.terminal.type_line("me");

    shell.terminal.wait_for("(QEMU) query-name\n{\"return\": {}}\n(QEMU)");
    shell.terminal.type_line("exit");
    shell.finish(0);
}

#[test]
fn hmp_completes_what_its_help_tells() {
    let qemu = Qemu::start();
    let shell = Shell::start(&["-H", &qemu.one()]);

    shell.terminal.type_bytes(b"info versi\t\r");

    shell.terminal.wait_for("(QEMU) info version\n");
    shell.terminal.type_line("info status");
    shell.terminal.wait_for("VM status: running\n(QEMU)");
    shell.terminal.type_bytes(CTRL_D);
    shell.finish(0);
}

#[test]
fn a_dumb_terminal_shows_events_before_the_next_prompt() {
    let qemu = Qemu::start();
    let terminal =
        Terminal::ratite_with(&[("TERM", "dumb"), ("XDG_STATE_HOME", "/dev/null")], &["shell", &qemu.one()]);
    terminal.wait_for("(QEMU) ");
    ratite(&["cmd", &qemu.two(), "stop"]).assert_code(0);

    // The reply comes behind the event, on one socket.
    terminal.type_bytes(b"query-name\n");

    terminal.wait_for("\"event\": \"STOP\"}\n{\"return\": {}}\n(QEMU)");
    terminal.type_bytes(b"exit\n");
    assert_eq!(terminal.finish().code, 0);
}
