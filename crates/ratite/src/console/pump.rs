//! What goes on in the background: the stream is read into the history and the log, and written to.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use rustix::net::SendFlags;
use tokio::io::AsyncReadExt;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::console::Shared;
use crate::console::log::LogFile;
use crate::history::BLOCK;

/// Where the stream goes when somebody wants it for himself.
pub(super) type Takeover = oneshot::Sender<io::Result<StdUnixStream>>;

#[derive(Debug)]
pub(super) struct WriteRequest {
    pub(super) bytes: Vec<u8>,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

/// Where the stream goes: into the log first, then where readers see it. Tells them that nothing more comes, however the pump ends.
pub(super) struct Recorder {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Option<LogFile>,
}

impl Recorder {
    /// Takes what is in `block`, which may come back with room for more.
    fn record(&mut self, block: &mut Vec<u8>) {
        let fault = self.write_log(block);
        let mut state = self.shared.lock();
        state.log_fault = fault.or(state.log_fault.take());
        state.record(block);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Why the log gets no more.
    fn write_log(&mut self, bytes: &[u8]) -> Option<String> {
        let log = self.log.as_mut()?;
        let error = log.write(bytes).err()?;
        // Told once; the guest must not suffer from a full disk.
        let fault = format!("could not write to {}: {error}", log.path.display());
        tracing::warn!("{fault}; the console is pumped without it");
        self.log = None;
        Some(fault)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Who knows of the end finds a log that is whole.
        self.log = None;
        let mut state = self.shared.lock();
        state.ended = true;
        state.standing.end();
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

pub(super) async fn pump(
    stream: UnixStream,
    mut recorder: Recorder,
    writes: mpsc::Receiver<WriteRequest>,
    mut takeovers: mpsc::Receiver<Takeover>,
) {
    let (mut reader, writer) = stream.into_split();
    tokio::select! {
        () = pump_in(&mut reader, &mut recorder) => {}
        () = pump_out(&writer, writes) => {}
        Some(takeover) = takeovers.recv() => {
            let stream = reader.reunite(writer).expect("they are halves of one stream").into_std();
            drop(recorder);
            // If nobody takes it, the stream closes here, as it would have with its owner.
            let _gone = takeover.send(stream.and_then(|stream| stream.set_nonblocking(false).map(|()| stream)));
        }
    }
}

async fn pump_in(reader: &mut OwnedReadHalf, recorder: &mut Recorder) {
    let mut block = Vec::new();
    while let Ok(()) = reader.readable().await {
        block.reserve_exact(BLOCK);
        match reader.read_buf(&mut block).await {
            Ok(0) => return,
            Ok(count) => {
                recorder.record(&mut block);
                // There is nothing more for now, perhaps for long: there may be many consoles that say nothing.
                if count < BLOCK {
                    block = Vec::new();
                }
            }
            Err(error) => {
                // A reset is how a killed QEMU with unread input looks from here.
                tracing::debug!(%error, "a console ended with an error");
                return;
            }
        }
    }
}

/// Writes what is asked for, one request after the other, each whole. Never returns: only the stream's end ends a pump.
async fn pump_out(writer: &OwnedWriteHalf, mut inbox: mpsc::Receiver<WriteRequest>) {
    while let Some(WriteRequest { bytes, done }) = inbox.recv().await {
        // Given up before it was begun: it never happened.
        if done.is_closed() {
            continue;
        }
        // Whoever asked may be gone by now.
        let _gone = done.send(send_all(writer, &bytes).await);
    }
    std::future::pending::<()>().await;
}

/// Writes without SIGPIPE, which a program may have set back to its default: the end of a QEMU must not be ours.
async fn send_all(writer: &OwnedWriteHalf, mut bytes: &[u8]) -> io::Result<()> {
    let stream: &UnixStream = writer.as_ref();
    while !bytes.is_empty() {
        stream.writable().await?;
        let send = || Ok(rustix::net::send(stream, bytes, SendFlags::NOSIGNAL)?);
        match stream.try_io(Interest::WRITABLE, send) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
