//! A qtest session with a peer that says anything: who gets which answer, and which interrupts are known.
//!
//! An input is: cuts; then for each command that is sent, at most nine, one digit-like byte: bit 0 for a caller that goes
//! away, bit 1 for one that wants what is behind `OK`; a NUL; what the peer says, after which it goes away.

use std::collections::VecDeque;
use std::time::Duration;

use ratite::Irqs;
use ratite::Qtest;
use ratite::QtestError;
use ratite::qmp::Socket;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use crate::fuzzing::pieces::Cuts;

/// Beyond every need: the peer goes away, so nobody should wait for a limit to end.
const LIMIT: Duration = Duration::from_secs(10);

/// Checks that each command gets the answer that is its own, and that nobody waits for ever.
///
/// # Panics
/// When a promise is broken.
pub fn qtest_reader(data: &[u8]) {
    let (cuts, rest) = Cuts::take(data);
    let Some(nul) = rest.iter().position(|byte| *byte == 0) else { return };
    let (callers, said) = (&rest[..nul.min(9)], &rest[nul + 1..]);
    let callers: Vec<Caller> = callers.iter().map(|byte| Caller::from_byte(*byte)).collect();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime without a driver needs nothing").block_on(session(&callers, said, &cuts));
}

/// Somebody who sends one command.
#[derive(Debug, Clone, Copy)]
struct Caller {
    goes_away: bool,
    wants_ok: bool,
}

impl Caller {
    fn from_byte(byte: u8) -> Self {
        Self { goes_away: byte & 1 == 1, wants_ok: byte & 2 == 2 }
    }
}

async fn session(callers: &[Caller], said: &[u8], cuts: &Cuts) {
    let (socket, peer) = Socket::pair();
    let qtest = Qtest::over(socket, LIMIT);
    let mut peer = BufReader::new(peer);
    let mut asked = VecDeque::new();
    for (number, caller) in callers.iter().enumerate() {
        asked.push_back(ask(&qtest, *caller, number, &mut peer).await);
    }

    let expected = reference(said);
    let mut waiting = peer.into_inner();
    for piece in cuts.pieces(said) {
        waiting.write_all(piece).await.expect("the reader goes on reading");
        tokio::task::yield_now().await;
    }
    waiting.shutdown().await.expect("the reader is still there");

    for (number, (caller, asked)) in callers.iter().zip(asked).enumerate() {
        let answer = expected.answers.get(number);
        if let Some(asked) = asked {
            check_outcome(asked.await.expect("a command does not panic"), *caller, number, answer);
        }
    }
    check_afterwards(&qtest, &expected.irqs).await;
    check_silence(waiting).await;
}

/// Sends the command `cN`; what becomes of it, unless its caller goes away.
async fn ask(
    qtest: &Qtest,
    caller: Caller,
    number: usize,
    peer: &mut BufReader<DuplexStream>,
) -> Option<JoinHandle<Result<String, QtestError>>> {
    let (qtest, command) = (qtest.clone(), format!("c{number}"));
    let sent = format!("{command}\n");
    let asked = tokio::spawn(async move {
        if caller.wants_ok { qtest.command(&command).await } else { qtest.raw(&command).await }
    });
    let mut line = String::new();
    peer.read_line(&mut line).await.expect("the writer goes on writing");
    assert_eq!(line, sent);
    if caller.goes_away {
        asked.abort();
        assert!(asked.await.is_err(), "it had no answer yet");
        return None;
    }
    Some(asked)
}

fn check_outcome(
    outcome: Result<String, QtestError>,
    caller: Caller,
    number: usize,
    answer: Option<&String>,
) {
    match (outcome, answer) {
        (Ok(told), Some(answer)) if caller.wants_ok => {
            let rest = answer.strip_prefix("OK").expect("only OK is a success");
            assert!(rest.is_empty() || rest.starts_with(' '), "{answer:?} is no OK");
            assert_eq!(told, rest.trim());
        }
        (Ok(told), Some(answer)) => assert_eq!(told, *answer),
        (Err(QtestError::Failed { command, answer: told }), Some(answer)) => {
            assert!(caller.wants_ok && *answer != "OK" && !answer.starts_with("OK "), "{answer:?} is an OK");
            assert_eq!((command, &told), (format!("c{number}"), answer));
        }
        (Err(QtestError::Disconnected { command, .. }), None) => assert_eq!(command, format!("c{number}")),
        (outcome, answer) => panic!("command {number}: {outcome:?}, answered {answer:?}"),
    }
}

/// Once the peer is gone the last levels stay known, and whoever asks is told so at once.
async fn check_afterwards(qtest: &Qtest, irqs: &Irqs) {
    let later = qtest.command("later").await;
    assert!(matches!(later, Err(QtestError::Disconnected { .. })), "{later:?}");
    assert_eq!(qtest.irqs(), *irqs);
    for (number, level) in irqs {
        qtest.wait_irq(*number, *level, LIMIT).await.expect("that is its level");
        let other = qtest.wait_irq(*number, !level, LIMIT).await;
        assert!(matches!(other, Err(QtestError::Disconnected { .. })), "{other:?}");
    }
}

/// Nothing but the commands was sent; of those that came too late, perhaps one.
async fn check_silence(mut peer: DuplexStream) {
    let mut rest = String::new();
    peer.read_to_string(&mut rest).await.expect("the stream ends");
    assert!(rest.is_empty() || rest == "later\n", "{rest:?}");
}

/// What a peer said: its answers, and the interrupts it spoke of.
struct Said {
    answers: Vec<String>,
    irqs: Irqs,
}

/// Cuts what is said into lines; a line without its end was never said.
fn reference(said: &[u8]) -> Said {
    let complete = said.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let mut reference = Said { answers: Vec::new(), irqs: Irqs::new() };
    for line in String::from_utf8_lossy(&said[..complete]).split_terminator('\n') {
        let line = line.trim_end_matches('\r');
        match interrupt(line) {
            Some((number, level)) => drop(reference.irqs.insert(number, level)),
            None => reference.answers.push(line.to_owned()),
        }
    }
    reference
}

/// `IRQ raise N` or `IRQ lower N`, where N is a decimal number, with blanks around it at most.
fn interrupt(line: &str) -> Option<(u32, bool)> {
    let (level, number) = match line.strip_prefix("IRQ raise ") {
        Some(number) => (true, number),
        None => (false, line.strip_prefix("IRQ lower ")?),
    };
    let number = number.trim();
    let decimal = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((decimal.then(|| number.parse().ok()).flatten()?, level))
}
