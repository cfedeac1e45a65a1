//! The user's terminal, made raw for a guest and put back.

use std::io;
use std::io::IsTerminal;
use std::io::Read;

use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use tokio::sync::mpsc;

/// A terminal on stdin in which every key goes to the program as it is. Dropped, it is what it was before.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
    raw: Termios,
}

impl RawTerminal {
    /// Makes the terminal raw; `None` if stdin is none.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = rustix::termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = Self { before, raw };
        terminal.again()?;
        Ok(Some(terminal))
    }

    /// Makes it raw again, after somebody else had it.
    pub(crate) fn again(&self) -> io::Result<()> {
        Ok(rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.raw)?)
    }

    /// Puts it back as it was.
    pub(crate) fn restore(&self) {
        // A terminal that is gone needs nothing any more.
        let _gone = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// What is typed, piece by piece; a thread of its own reads, because it cannot be told to stop. It ends with the program.
pub(crate) fn typed() -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (pieces, typed) = mpsc::channel(1);
    std::thread::Builder::new().name("ratite-stdin".into()).spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = io::stdin().read(&mut piece) {
            if pieces.blocking_send(piece[..count].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(typed)
}
