//! A peer that breaks the qtest protocol: each gets a clear error or is understood, none hangs, none fills the memory.

use std::io::ErrorKind;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use ratite::Irqs;
use ratite::Qtest;
use ratite::QtestError;
use ratite::blocking;
use ratite::qmp::Socket;
use ratite::qmp::within;
use ratite_tests::polling::after_turns;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::wait_until;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::net::UnixStream as AsyncStream;

const MEBIBYTE: usize = 1 << 20;

/// A session, and the end of its peer.
fn session() -> (Qtest, UnixStream) {
    let (ours, peer) = UnixStream::pair().expect("two sockets");
    (Qtest::over(Socket::try_from(ours).expect("a socket"), PATIENCE), peer)
}

/// Has the peer say something on a thread of its own, in pieces of `piece` bytes, and returns its end of the connection.
fn say(mut peer: UnixStream, words: Vec<u8>, piece: usize) -> JoinHandle<UnixStream> {
    thread::spawn(move || {
        for piece in words.chunks(piece) {
            match peer.write_all(piece) {
                Ok(()) => {}
                // This side has had enough.
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        peer
    })
}

/// What a command gets for an answer by a peer that says `words` to it and lives on.
async fn answered_with(words: &[u8], piece: usize) -> Result<String, QtestError> {
    let (qtest, peer) = session();
    let asked = tokio::spawn({
        let qtest = qtest.clone();
        async move { qtest.command("inb 0x60").await }
    });
    let peer = asked_for(peer, &["inb 0x60"]).await;
    let said = say(peer, words.to_vec(), piece);
    let answer = within(AT_ONCE, "answer", asked).await.expect("it does not hang").expect("nor panics");
    drop(qtest);
    drop(said.join().expect("the peer says it"));
    answer
}

/// Waits until the peer was asked just this, in this order.
async fn asked_for(peer: UnixStream, commands: &[&str]) -> UnixStream {
    peer.set_nonblocking(true).expect("a socket");
    let mut reader = BufReader::new(AsyncStream::from_std(peer).expect("a socket"));
    for command in commands {
        let mut line = String::new();
        within(AT_ONCE, "command", reader.read_line(&mut line)).await.expect("it comes").expect("in UTF-8");
        assert!(line.strip_suffix('\n') == Some(command), "{} bytes instead of `{command}`", line.len());
    }
    let peer = reader.into_inner().into_std().expect("a socket");
    peer.set_nonblocking(false).expect("a socket");
    peer
}

fn is_readable(peer: &UnixStream) -> bool {
    let mut ready = [PollFd::new(peer, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec::default())).expect("a socket can be watched") == 1
}

/// How much memory this process has in use, in bytes (proc_pid_status(5)).
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let used = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    1024 * used.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
}

#[test]
fn an_answer_that_is_no_ok_is_told_verbatim() {
    play(async |_stage| {
        let long = "x".repeat(100_000);
        let answers = [
            "",
            "garbage",
            "FAIL",
            "FAIL Unknown command 'x'",
            "ERR",
            "ERR 1 2 3",
            "NOPE",
            "OKAY",
            "ok",
            "OK\t1",
            "OK\u{0}1",
            "\0",
            "IRQ",
            "IRQ raise",
            "IRQ raise x",
            "IRQ raise -1",
            "IRQ raise 1 2",
            "IRQ fall 1",
            "irq raise 1",
            "IRQ raise 4294967296",
            "OKOK",
            &long,
        ];
        for answer in answers {
            for end in ["\n", "\r\n"] {
                let error = answered_with(format!("{answer}{end}").as_bytes(), MEBIBYTE).await.unwrap_err();

                assert!(
                    matches!(&error, QtestError::Failed { answer: told, .. } if told == answer),
                    "{error:?}"
                );
                assert_says(&error, &[&format!("QEMU answered `{answer}` to the qtest command `inb 0x60`")]);
            }
        }
    });
}

#[test]
fn an_ok_is_understood_whatever_comes_behind_it_and_in_whatever_pieces() {
    play(async |_stage| {
        let answers: [(&[u8], &str); 7] = [
            (b"OK\n", ""),
            (b"OK   \r\n", ""),
            (b"OK 1 2 3\n", "1 2 3"),
            (b"OK 0x1f 0x\n", "0x1f 0x"),
            (b"OK \0\n", "\0"),
            (b"OK \xff\xfe\n", "\u{fffd}\u{fffd}"),
            (b"IRQ raise 7\nIRQ lower 7\nOK 5\nOK 6\n", "5"),
        ];
        for (words, answer) in answers {
            for piece in [1, 2, 7, MEBIBYTE] {
                assert_eq!(answered_with(words, piece).await.unwrap(), answer, "in pieces of {piece}");
            }
        }
    });
}

#[test]
fn half_a_line_is_no_answer() {
    play(async |_stage| {
        for (words, reason) in [("", "QEMU closed it"), ("OK 0x1", "QEMU closed it in the middle of a line")]
        {
            let (qtest, mut peer) = session();
            let asked = tokio::spawn({
                let qtest = qtest.clone();
                async move { qtest.command("inb 0x60").await }
            });
            peer = asked_for(peer, &["inb 0x60"]).await;

            peer.write_all(words.as_bytes()).unwrap();
            drop(peer);

            let outcomes = [asked.await.unwrap(), qtest.command("later").await];
            for error in outcomes.map(Result::unwrap_err) {
                assert!(
                    matches!(&error, QtestError::Disconnected { reason: told, .. } if **told == *reason),
                    "{error}"
                );
            }
            let irq = qtest.wait_irq(1, true, Duration::MAX).await.unwrap_err();
            assert!(irq.to_string().ends_with(reason), "{irq}");
        }
    });
}

#[test]
fn a_line_without_an_end_ends_the_connection_before_it_fills_the_memory() {
    play(async |_stage| {
        let before = memory();
        let (qtest, peer) = session();
        let asked = tokio::spawn(async move { qtest.command("inb 0x60").await });
        let peer = asked_for(peer, &["inb 0x60"]).await;

        // Twice as long as the longest that is taken.
        let said = say(peer, vec![b'x'; 128 * MEBIBYTE], MEBIBYTE);
        let error = within(PATIENCE, "error", asked).await.unwrap().unwrap().unwrap_err();

        let peer = said.join().unwrap();
        assert!(matches!(error, QtestError::Disconnected { .. }), "{error:?}");
        assert_says(&error, &["QEMU sent a line of over 67108864 bytes"]);
        let more = memory().saturating_sub(before);
        assert!(more < 300 * MEBIBYTE, "{more} bytes more");
        drop(peer);
    });
}

#[test]
fn a_very_long_answer_arrives_whole() {
    play(async |_stage| {
        let digits = "0123456789abcdef".repeat(3 * MEBIBYTE);

        let answer = answered_with(format!("OK 0x{digits}\n").as_bytes(), MEBIBYTE).await.unwrap();

        assert_eq!(answer.len(), 2 + digits.len());
        assert!(answer.ends_with(&digits));
    });
}

#[test]
fn a_flood_of_interrupts_neither_shifts_an_answer_nor_fills_the_memory() {
    play(async |_stage| {
        let (qtest, peer) = session();
        let before = memory();
        let flood: String = (0..1000).map(|n| format!("IRQ raise {n}\nIRQ lower {n}\n")).collect();
        let asked = tokio::spawn({
            let qtest = qtest.clone();
            async move { qtest.command("inb 0x60").await }
        });
        let peer = asked_for(peer, &["inb 0x60"]).await;

        let said =
            say(peer, [flood.repeat(200), "OK 0x1f\nIRQ raise 7\n".into()].concat().into_bytes(), MEBIBYTE);

        assert_eq!(within(PATIENCE, "answer", asked).await.unwrap().unwrap().unwrap(), "0x1f");
        qtest.wait_irq(7, true, AT_ONCE).await.unwrap();
        let lowered = qtest.irqs().into_iter().filter(|(_, level)| !level).count();
        assert_eq!((lowered, qtest.irqs().len()), (999, 1000));
        let more = memory().saturating_sub(before);
        assert!(more < 64 * MEBIBYTE, "{more} bytes more");
        drop(said.join().unwrap());
    });
}

#[test]
fn interrupt_lines_without_number_end_the_connection() {
    play(async |_stage| {
        let (qtest, peer) = session();
        let lines: String = (0..100_000_u32).map(|n| format!("IRQ raise {n}\n")).collect();

        let said = say(peer, lines.into_bytes(), MEBIBYTE);
        let error = qtest.wait_irq(200_000, true, PATIENCE).await.unwrap_err();

        assert_says(&error, &["QEMU spoke of over 65536 interrupt lines"]);
        assert_eq!(qtest.irqs().len(), 65_537);
        drop(said.join().unwrap());
    });
}

#[test]
fn what_is_said_to_nobody_is_dropped() {
    play(async |_stage| {
        let (qtest, peer) = session();
        // The interrupt shows that all before it was read.
        let peer = say(peer, b"OK 1\nFAIL\ngarbage\n\n\xff\nIRQ raise 1\n".to_vec(), 3).join().unwrap();
        qtest.wait_irq(1, true, AT_ONCE).await.unwrap();
        let asked = tokio::spawn({
            let qtest = qtest.clone();
            async move { qtest.command("inb 0x60").await }
        });

        let peer = asked_for(peer, &["inb 0x60"]).await;
        let peer = say(peer, b"OK 2\n".to_vec(), MEBIBYTE).join().unwrap();

        assert_eq!(asked.await.unwrap().unwrap(), "2");
        assert_eq!(qtest.irqs(), Irqs::from([(1, true)]));
        drop(peer);
    });
}

#[test]
fn answers_after_the_end_are_nobodys() {
    play(async |_stage| {
        let (qtest, peer) = session();
        let asked = tokio::spawn({
            let qtest = qtest.clone();
            async move { qtest.command("inb 0x60").await }
        });
        let peer = asked_for(peer, &["inb 0x60"]).await;
        asked.abort();
        peer.shutdown(std::net::Shutdown::Write).unwrap();

        // It reads yet, and says no more; then the other way round.
        let error = qtest.wait_irq(1, true, PATIENCE).await.unwrap_err();
        let later = qtest.command("inb 0x61").await.unwrap_err();
        let late = (&peer).write_all(b"OK 1\n").unwrap_err();

        assert_says(&error, &["QEMU closed it"]);
        assert!(matches!(later, QtestError::Disconnected { .. }), "{later:?}");
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_silent_peer_is_waited_for_as_long_as_was_said() {
    play(async |_stage| {
        for limit in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(30)] {
            let (ours, peer) = UnixStream::pair().unwrap();
            let qtest = Qtest::over(Socket::try_from(ours).unwrap(), limit);

            let asked = within(AT_ONCE, "limit", qtest.command("inb 0x60")).await.unwrap().unwrap_err();
            let irq = within(AT_ONCE, "limit", qtest.wait_irq(1, true, limit)).await.unwrap().unwrap_err();

            for error in [asked, irq] {
                assert!(matches!(error, QtestError::TimedOut(_)), "{error:?}");
                assert_says(&error, &[&format!("within {limit:?}")]);
            }
            drop(peer);
        }
    });
}

#[test]
fn a_peer_that_never_reads_is_kept_no_command_for_that_was_given_up() {
    play(async |_stage| {
        let (qtest, peer) = session();
        let before = memory();
        let large: Arc<str> = "x".repeat(MEBIBYTE / 4).into();

        let first = tokio::spawn({
            let (qtest, large) = (qtest.clone(), large.clone());
            async move { qtest.command(&large).await }
        });
        wait_until("its first byte has come", AT_ONCE, || is_readable(&peer));
        first.abort();
        for _ in 0..120 {
            assert!(after_turns(20, qtest.command(&large)).await.is_none());
        }

        let more = memory().saturating_sub(before);
        assert!(more < 10 * MEBIBYTE, "{more} bytes more for 30 MiB of commands");
        // Once it reads, the one that was begun comes whole, and then the next that somebody waits for.
        let asked = tokio::spawn({
            let qtest = qtest.clone();
            async move { qtest.command("inb 0x60").await }
        });
        let peer = asked_for(peer, &[&large, "inb 0x60"]).await;
        let peer = say(peer, b"OK late\nOK 0x1f\n".to_vec(), MEBIBYTE).join().unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), "0x1f");
        drop(peer);
    });
}

#[test]
fn without_async_a_hostile_peer_is_no_worse() {
    play_blocking(|_stage| {
        let (ours, peer) = UnixStream::pair().unwrap();
        let qtest = blocking::Qtest::over(ours, AT_ONCE).unwrap();
        let said = say(peer, b"IRQ raise 1\nIRQ raise \xff\n".to_vec(), 1);

        qtest.wait_irq(1, true, AT_ONCE).unwrap();
        drop(said.join().unwrap());

        let error = qtest.command("inb 0x60").unwrap_err();
        assert!(matches!(error, QtestError::Disconnected { .. }), "{error:?}");
        drop(qtest);
    });
}
