//! The crate `qapi`.

use std::os::unix::net::UnixStream;

use qapi::futures::QapiStream;
use qapi::futures::QmpStreamTokio;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;

use crate::scenario::Failure;

pub(crate) type Reading = QmpStreamTokio<ReadHalf<tokio::net::UnixStream>>;
pub(crate) type Writing = QmpStreamTokio<WriteHalf<tokio::net::UnixStream>>;

/// Begins a session, on the runtime that it is called in. No capability is asked for: it has no way to use one.
pub(crate) async fn begin(socket: UnixStream) -> Result<QapiStream<Reading, Writing>, Failure> {
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixStream::from_std(socket)?;
    Ok(QmpStreamTokio::open(socket).await?.negotiate().await?)
}
