//! What goes on in the background: the stream is read into the history and the log, and written to.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::net::SendFlags;
use tokio::io::AsyncReadExt;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::console::Shared;
use crate::console::stamps::Stamps;

/// Where the stream goes when somebody wants it for himself.
pub(super) type Takeover = oneshot::Sender<io::Result<StdUnixStream>>;

#[derive(Debug)]
pub(super) struct WriteRequest {
    pub(super) bytes: Vec<u8>,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    file: File,
    stamps: Option<Stamps>,
}

/// How much is read at once.
const BLOCK: usize = 64 << 10;

/// Tells readers that nothing more comes, however the pump ends.
pub(super) struct EndOnDrop(pub(super) Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.log = None;
        drop(state);
        self.0.changed.notify_waiters();
    }
}

pub(super) async fn pump(
    stream: UnixStream,
    end: EndOnDrop,
    writes: mpsc::Receiver<WriteRequest>,
    mut takeovers: mpsc::Receiver<Takeover>,
) {
    let (mut reader, writer) = stream.into_split();
    tokio::select! {
        () = pump_in(&mut reader, &end.0) => {}
        () = pump_out(&writer, writes) => {}
        Some(takeover) = takeovers.recv() => {
            let stream = reader.reunite(writer).expect("they are halves of one stream").into_std();
            drop(end);
            // If nobody takes it, the stream closes here, as it would have with its owner.
            let _gone = takeover.send(stream.and_then(|stream| stream.set_nonblocking(false).map(|()| stream)));
        }
    }
}

async fn pump_in(reader: &mut OwnedReadHalf, shared: &Shared) {
    let mut block = vec![0; BLOCK];
    loop {
        match reader.read(&mut block).await {
            Ok(0) => return,
            Ok(count) => {
                shared.lock().record(&block[..count]);
                shared.changed.notify_waiters();
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

impl LogFile {
    pub(super) fn create(path: &Path, stamped: bool) -> io::Result<Self> {
        // Non-blocking for what is no plain file: a pipe that nobody reads must hold up neither launch nor guest.
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.to_owned(), file, stamps: stamped.then(Stamps::begin) })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stamps {
            None => self.file.write_all(bytes),
            Some(stamps) => self.file.write_all(&stamps.stamp(bytes)),
        }
    }
}
