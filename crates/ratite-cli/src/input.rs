//! stdin as something to wait for.

use std::io;
use std::io::Read;

use tokio::sync::mpsc;

/// What comes on stdin, piece by piece. A thread of its own reads, because nothing may come for long; at most one piece
/// waits to be taken. It ends with the program.
#[derive(Debug)]
pub(crate) struct Stdin {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
}

/// How much is read at once.
const PIECE: usize = 256 << 10;

impl Stdin {
    /// Starts the thread that reads.
    pub(crate) fn read() -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(1);
        std::thread::Builder::new().name("ratite-stdin".into()).spawn(move || {
            let mut stdin = io::stdin().lock();
            loop {
                let mut piece = vec![0; PIECE];
                let read = stdin.read(&mut piece).map(|count| {
                    piece.truncate(count);
                    piece
                });
                let is_last = !matches!(&read, Ok(piece) if !piece.is_empty());
                // Whoever waited may have gone.
                if sender.blocking_send(read).is_err() || is_last {
                    break;
                }
            }
        })?;
        Ok(Self { pieces })
    }

    /// Waits for the next piece; `None` at the end.
    ///
    /// # Errors
    /// What the system said when reading failed.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.pieces.recv().await {
            Some(Ok(piece)) if !piece.is_empty() => Ok(Some(piece)),
            Some(Err(error)) => Err(error),
            _ => Ok(None),
        }
    }
}
