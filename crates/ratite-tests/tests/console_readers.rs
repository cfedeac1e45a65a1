//! Several readers of one console at once: each byte is given to one of them, or told as dropped, exactly once.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::Pattern;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use tokio::time::timeout;

const LINES: usize = 500;

/// What one reader got: bytes, bytes that were dropped before them, and matches.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Got {
    bytes: u64,
    dropped: u64,
    matches: usize,
}

/// Expects line after line until the console ends, giving up each wait after `patience`.
async fn read_lines(console: Console, patience: Duration) -> Got {
    let line = Pattern::regex(r"line \d+ [ab]+\n").expect("it compiles");
    let mut got = Got::default();
    loop {
        match timeout(patience, console.expect(&line, PATIENCE)).await {
            Err(_given_up) => {}
            Ok(Ok(found)) => {
                got.bytes += (found.before.len() + found.matched.len()) as u64;
                got.dropped += found.dropped;
                got.matches += 1;
            }
            Ok(Err(ConsoleError::Ended { .. })) => return got,
            Ok(Err(error)) => panic!("{error}"),
        }
    }
}

/// Lets eight readers have at a console that keeps `history` bytes; what they got together, with what nobody took.
async fn read_by_many(history: usize) -> (Got, u64) {
    let (mut guest, ours) = UnixStream::pair().expect("a socket pair");
    let config = ConsoleConfig::serial().history(history);
    let console = Console::over(ours, &config, PATIENCE).expect("it is pumped");
    let text: String = (0..LINES).map(|number| format!("line {number} aabbab\n")).collect();
    let length = text.len() as u64;
    let guest = tokio::task::spawn_blocking(move || guest.write_all(text.as_bytes()));
    let readers = (0..8).map(|number| {
        // One of them gives up again and again.
        let patience = if number == 7 { Duration::from_micros(50) } else { PATIENCE };
        tokio::spawn(read_lines(console.clone(), patience))
    });
    let mut sum = Got::default();
    for reader in readers.collect::<Vec<_>>() {
        let got = reader.await.expect("it reads to the end");
        sum.bytes += got.bytes;
        sum.dropped += got.dropped;
        sum.matches += got.matches;
    }
    guest.await.expect("it writes").expect("everything is taken");
    loop {
        match console.take() {
            Ok(rest) if rest.is_empty() => return (sum, length),
            Ok(rest) => sum.bytes += rest.len() as u64,
            Err(ConsoleError::Lagged { dropped }) => sum.dropped += dropped,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn of_all_who_expect_at_once_each_gets_lines_of_its_own() {
    play(async |_| {
        let (got, length) = read_by_many(1 << 20).await;

        assert_eq!(got, Got { bytes: length, dropped: 0, matches: LINES });
    });
}

#[test]
fn what_many_readers_lose_is_told_once() {
    play(async |_| {
        for history in [200, 20] {
            let (got, length) = read_by_many(history).await;

            assert_eq!(got.bytes + got.dropped, length, "with a history of {history}: {got:?}");
        }
    });
}

#[test]
fn readers_of_their_own_each_get_everything() {
    play(async |_| {
        let (mut guest, ours) = UnixStream::pair().expect("a socket pair");
        let console = Console::over(ours, &ConsoleConfig::serial(), PATIENCE).expect("it is pumped");
        guest.write_all(b"login: ").expect("it is taken");
        console.expect("login", PATIENCE).await.expect("it is there");

        let (whole, later) = (console.reader(), console.reader_from_now());
        let here = console.reader_from_here();
        guest.write_all(b"root\n# ").expect("it is taken");
        drop(guest);

        assert_eq!(whole.expect("# ", PATIENCE).await.expect("it is there").before, b"login: root\n");
        assert_eq!(later.expect("# ", PATIENCE).await.expect("it is there").before, b"root\n");
        assert_eq!(here.expect("# ", PATIENCE).await.expect("it is there").before, b": root\n");
        assert_eq!(console.clone().expect("# ", PATIENCE).await.expect("it is there").before, b": root\n");
        assert_eq!(console.read(PATIENCE).await.expect("the end"), b"");
    });
}
