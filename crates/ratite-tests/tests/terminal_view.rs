//! A console, read as a person at a terminal sees it.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Pattern;
use ratite::blocking;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;

fn console() -> (Console, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Console::over(ours, &ConsoleConfig::serial(), PATIENCE).unwrap(), theirs)
}

/// A menu as a boot loader draws it: frame, entries in any order, the chosen one in reverse.
const MENU: &[u8] = b"\x1b[2J\x1b[1;1H\x1b(0lqqqqqqqqk\x1b(B\x1b[4;1H\x1b(0mqqqqqqqqj\x1b(B\
    \x1b[3;1H\x1b(0x\x1b(B Rescue \x1b(0x\x1b(B\x1b[2;1H\x1b(0x\x1b(B\x1b[7m Linux  \x1b[0m\x1b(0x\x1b(B";

#[test]
fn a_menu_is_waited_for_as_it_is_drawn() {
    play(async |_| {
        let (console, mut guest) = console();
        let mut view = console.terminal(20, 5);
        let writer = tokio::task::spawn_blocking(move || {
            for piece in MENU.chunks(3) {
                guest.write_all(piece).unwrap();
            }
            guest
        });

        let screen = view.wait_for(Pattern::regex(r"Linux .*\n.* Rescue").unwrap(), PATIENCE).await.unwrap();

        assert_eq!(screen.text(), "┌────────┐\n│ Linux  │\n│ Rescue │\n└────────┘");
        // Everybody else has it as it came.
        console.expect("Rescue", PATIENCE).await.unwrap();
        drop(writer.await.unwrap());
    });
}

#[test]
fn a_limit_counts_while_there_is_much_to_draw() {
    play(async |_| {
        let (console, mut guest) = console();
        let writer = tokio::task::spawn_blocking(move || {
            guest.write_all(&b"x".repeat(1 << 20)).unwrap();
            guest
        });
        let guest = writer.await.unwrap();
        let start = Instant::now();

        // All of it would take minutes on a screen of this size.
        let outcome =
            console.terminal(1000, 1000).wait_for("y", Duration::from_millis(200)).await.map(|_| ());

        assert!(matches!(outcome, Err(ConsoleError::TimedOut { .. })), "{outcome:?}");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        drop(guest);
    });
}

#[test]
fn what_was_drawn_over_is_not_on_the_screen() {
    play(async |_| {
        let (console, mut guest) = console();
        guest.write_all(b"first\x1b[2J\x1b[Hsecond").unwrap();
        let mut view = console.terminal(20, 5);

        let screen = view.wait_for("second", PATIENCE).await.unwrap();

        assert_eq!(screen.lines()[0], "second");
        assert!(view.wait_for("first", Duration::from_millis(100)).await.is_err());
        view.resize(10, 3);
        assert_eq!(view.now().lines(), ["second", "", ""]);
    });
}

#[test]
fn the_end_and_what_was_cancelled_lose_nothing() {
    play(async |_| {
        let (console, mut guest) = console();
        let mut view = console.terminal(20, 5);
        let cancelled =
            tokio::time::timeout(Duration::from_millis(50), view.wait_for("never", PATIENCE)).await;
        assert!(cancelled.is_err());
        guest.write_all(b"\x1b[3;3Hlast words").unwrap();
        drop(guest);

        let outcome = tokio::time::timeout(AT_ONCE, view.wait_for("never", PATIENCE)).await.unwrap();

        let Err(ConsoleError::Ended { what, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(
            (what.as_str(), view.now().text().as_str()),
            ("`never` on the screen", "\n\n  last words")
        );
    });
}

#[test]
fn a_view_tells_what_nobody_looked_at_in_time() {
    play(async |_| {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let console = Console::over(ours, &ConsoleConfig::serial().history(100), PATIENCE).unwrap();
        let mut view = console.terminal(20, 5);

        guest.write_all(&[b'x'; 300]).unwrap();
        guest.write_all(b"\r\nend").unwrap();

        console.reader().expect("end", PATIENCE).await.unwrap();
        view.wait_for("end", PATIENCE).await.unwrap();
        assert_eq!(view.dropped(), 205);
    });
}

#[test]
fn the_twin_sees_the_same() {
    play_blocking(|_| {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let console = blocking::Console::over(ours, &ConsoleConfig::serial(), PATIENCE).unwrap();
        guest.write_all(MENU).unwrap();
        let mut view = console.terminal(20, 5);

        view.wait_for("└────────┘", PATIENCE).unwrap();

        view.resize(30, 4);
        assert_eq!(view.now().lines()[1], "│ Linux  │");
        assert_eq!(view.dropped(), 0);
    });
}

#[test]
fn much_that_is_to_be_drawn_holds_up_neither_the_limit_nor_others() {
    play(async |_| {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let console = Console::over(ours, &ConsoleConfig::serial().history(8 << 20), PATIENCE).unwrap();
        let writer = tokio::task::spawn_blocking(move || {
            guest.write_all(&b"=\x1b[65535b".repeat(8 << 17)).unwrap();
            guest
        });
        while console.bytes_seen() < 8 << 20 {
            console.reader_from_now().ready(PATIENCE).await.unwrap();
        }
        let mut view = console.terminal(80, 25);
        let began = Instant::now();

        let outcome = view.wait_for("never", Duration::from_millis(100)).await;

        assert!(matches!(outcome, Err(ConsoleError::TimedOut { .. })), "{outcome:?}");
        // To draw it all takes minutes.
        assert!(began.elapsed() < PATIENCE);
        drop(writer.await.unwrap());
    });
}
