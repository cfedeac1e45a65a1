//! The crate `qapi`.

use std::os::unix::net::UnixStream;

use qapi::Any;
use qapi::Command;
use qapi::futures::QapiStream;
use qapi::futures::QmpStreamTokio;
use qapi::qmp::QmpCommand;
use serde::Serialize;
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

/// What executes commands once the events are somebody else's.
pub(crate) type Service = qapi::futures::QapiService<Writing>;

/// A command without arguments whose reply is taken as a value.
macro_rules! command {
    ($(#[$doc:meta])* $type:ident, $name:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize)]
        pub(crate) struct $type {}

        impl Command for $type {
            type Ok = Any;
            const NAME: &'static str = $name;
            const ALLOW_OOB: bool = false;
        }

        impl QmpCommand for $type {}
    };
}

command! {
    /// Its own wants more of a status than the peer has.
    QueryStatus, "query-status"
}
command! {
    /// The peer floods with events from then on.
    StartFlood, "start-flood"
}
command! {
    /// Its own is typed.
    QuerySchema, "query-qmp-schema"
}
