//! `ratite console` in a real terminal: what is typed goes to the guest, and the terminal is given back however it ends.

use std::fs;
use std::path::Path;

use ratite::guest;
use rustix::process::Signal;

use crate::harness::Ratite;
use crate::harness::fake;
use crate::harness::send;
use crate::harness::wait_for_fact;
use crate::reach::Place;
use crate::reach::Stranger;
use crate::terminal::CTRL_C;
use crate::terminal::Settings;
use crate::terminal::Terminal;

/// What ctrl-] is on the wire.
const ESCAPE: &[u8] = b"\x1d";

/// A terminal that is attached to the console of `target`.
fn attach(place: &Place, target: &str) -> Terminal {
    let folder = place.path().to_str().unwrap();
    let terminal = Terminal::ratite_with(&[("XDG_RUNTIME_DIR", folder)], &["console", target]);
    // A guest may have another screen up by now.
    terminal.wait_for_raw(b"attached to ");
    terminal.wait_until_raw();
    terminal
}

/// How a terminal is that nobody has changed.
fn unchanged() -> Settings {
    Terminal::start(&[], &["true"]).finish().settings
}

#[track_caller]
fn stop(place: &Place, machine: Ratite) {
    place.ratite(&["stop", "web"]).assert_code(0);
    machine.finish().assert_code(0);
}

#[test]
fn one_attaches_types_and_detaches() {
    let place = Place::new();
    let machine = place.run_guest("web");

    let terminal = attach(&place, "web");
    // What was said before is there.
    terminal.wait_for(guest::READY);
    terminal.wait_for("note: attached to `web`, console `console`; ctrl-] detaches");
    terminal.type_line("echo typed here");
    terminal.wait_for("> echo typed here\ntyped here");
    terminal.type_bytes(ESCAPE);

    let ended = terminal.finish();
    assert_eq!(ended.code, 0, "{}", ended.screen);
    assert_eq!(ended.settings, unchanged());
    assert!(ended.screen.ends_with("note: detached; the machine runs on"), "{}", ended.screen);
    stop(&place, machine);
}

#[test]
fn every_key_goes_to_the_guest() {
    let place = Place::new();
    let machine = place.run("web", &fake(&["console-banner=up\r\n", "console-echo"]), "up");

    let terminal = attach(&place, "web");
    terminal.type_bytes(CTRL_C);
    terminal.type_bytes(b"\x1a\x04\x1c\x13\x11\xff\n");
    terminal.wait_for_raw(b"you said: \x03\x1a\x04\x1c\x13\x11\xff");
    // With other keys in one piece, too.
    terminal.type_bytes(b"last\n\x1dnever\n");

    assert_eq!(terminal.finish().code, 0);
    let followed = place.ratite(&["log", "web"]).stdout();
    assert!(followed.contains("last") && !followed.contains("never"), "{followed}");
    stop(&place, machine);
}

#[test]
fn several_are_attached_at_once_and_a_window_may_change_its_size() {
    let place = Place::new();
    let machine = place.run_guest("web");

    let terminals = [attach(&place, "web"), attach(&place, "web"), attach(&place, "web")];
    for (number, terminal) in terminals.iter().enumerate() {
        terminal.resize(100, 30);
        terminal.type_line(&format!("echo from {number}"));
        terminals.iter().for_each(|other| other.wait_for(&format!("\nfrom {number}")));
    }

    for terminal in terminals {
        terminal.type_bytes(ESCAPE);
        assert_eq!(terminal.finish().code, 0);
    }
    stop(&place, machine);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let place = Place::new();
    let machine = place.run_guest("web");

    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let terminal = attach(&place, "web");
        terminal.signal(signal);

        let ended = terminal.finish();
        assert_eq!((ended.code, ended.settings), (code, unchanged()));
    }
    stop(&place, machine);
}

#[test]
fn the_machines_end_gives_the_terminal_back() {
    let place = Place::new();
    for is_killed in [false, true] {
        let machine = place.run_guest("web");
        let terminal = attach(&place, "web");
        terminal.wait_for(guest::PROMPT);

        match is_killed {
            true => machine.signal(Signal::KILL),
            false => terminal.type_line("off"),
        }

        let ended = terminal.finish();
        assert_eq!((ended.code, &ended.settings), (0, &unchanged()));
        assert!(ended.screen.ends_with("note: the console has ended"), "{}", ended.screen);
        machine.finish();
    }
}

#[test]
fn what_a_guest_has_made_of_the_screen_is_undone() {
    let place = Place::new();
    let banner = "console-banner=\u{1b}[?1049h\u{1b}[?25l\u{1b}[?1000h\u{1b}[31mfull screen";
    let machine = place.run("web", &fake(&[banner]), "full screen");

    let terminal = attach(&place, "web");
    terminal.wait_for("full screen");
    terminal.type_bytes(ESCAPE);
    terminal.wait_for_raw(b"\x1b[?1000l\x1b[?1049l");
    terminal.wait_for_raw(b"\x1b[?25h");

    let ended = terminal.finish();
    // The user's own screen is back.
    assert!(ended.screen.contains("attached to `web`"), "{}", ended.screen);
    assert!(!ended.screen.contains("full screen"), "{}", ended.screen);
    stop(&place, machine);
}

#[test]
fn a_program_that_is_stopped_gives_the_terminal_away_for_that_time() {
    let place = Place::new();
    let machine = place.run_guest("web");
    let terminal = attach(&place, "web");

    terminal.signal(Signal::TSTP);
    let state = || fs::read_to_string(format!("/proc/{}/stat", terminal.pid())).unwrap_or_default();
    assert!(wait_for_fact(|| state().contains(") T ").then_some(())).is_some(), "{}", state());
    assert_eq!(terminal.settings(), unchanged());
    send(terminal.pid(), Signal::CONT);
    terminal.wait_until_raw();
    terminal.type_line("echo again");
    terminal.wait_for("\nagain");

    terminal.type_bytes(ESCAPE);
    assert_eq!(terminal.finish().settings, unchanged());
    stop(&place, machine);
}

#[test]
fn a_guest_that_reads_nothing_keeps_nobody_from_leaving() {
    let place = Place::new();
    let machine = place.run("web", &fake(&["console-banner=up\r\n"]), "up");
    let qemu = machine.qemu();
    send(qemu, Signal::STOP);
    let terminal = attach(&place, "web");

    for _ in 0..200 {
        terminal.type_bytes(&[b'x'; 1000]);
    }
    terminal.type_bytes(ESCAPE);

    assert_eq!(terminal.finish().code, 0);
    send(qemu, Signal::CONT);
    stop(&place, machine);
}

#[test]
fn a_pipe_is_copied_both_ways() {
    let place = Place::new();
    let machine = place.run_guest("web");

    let typed = place.start_with_stdin("echo by pipe\r", &["console", "web", "--replay", "100"]);

    typed.assert_code(0);
    assert!(typed.stdout().starts_with(guest::READY), "{}", typed.stdout());
    assert_eq!(typed.stderr, "");
    let log = wait_for_fact(|| {
        let log = place.ratite(&["log", "web"]).stdout();
        log.contains("> echo by pipe\r\nby pipe\r\n").then_some(log)
    });
    assert!(log.is_some());
    stop(&place, machine);
}

#[test]
fn the_console_of_a_stranger_is_attached_by_its_address() {
    let place = Place::new();
    let _stranger = Stranger::start(&place);
    let address = place.path().join("serial").display().to_string();
    assert!(Path::new(&address).exists());

    let terminal = attach(&place, &address);
    terminal.type_line("echo hello");
    terminal.wait_for("hello\nhello");
    terminal.type_line("off");

    let ended = terminal.finish();
    assert_eq!((ended.code, ended.settings), (0, unchanged()));
}

#[test]
fn what_a_guest_asked_of_a_terminal_before_is_not_answered_now() {
    let place = Place::new();
    let machine = place.run("web", &fake(&["console-banner=~ # \x1b[6nup"]), "up");

    let terminal = attach(&place, "web");
    terminal.wait_for_raw(b"~ # up");
    place.ratite(&["cmd", "--no-check", "web", "fake-console", "text=\x1b[6nasked"]).assert_code(0);
    terminal.wait_for_raw(b"\x1b[6nasked");
    terminal.type_bytes(ESCAPE);

    assert_eq!(terminal.finish().code, 0);
    stop(&place, machine);
}
