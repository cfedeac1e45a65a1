//! The big reply: what a real QEMU answers to `query-qmp-schema`, recorded once for the peer to repeat.

use std::fs;
use std::path::PathBuf;

use crate::floor::qmp::RawSession;
use crate::other_end;
use crate::other_end::OtherEnd;
use crate::scenario::Failure;

/// The file with the recorded reply, without an id, as `YARDSTICK_REPLY` names it.
pub(crate) fn reply_file() -> Result<PathBuf, Failure> {
    other_end::beside("YARDSTICK_REPLY", "query-qmp-schema.json")
}

/// Records the reply of the QEMU that is installed.
pub(crate) fn record() -> Result<PathBuf, Failure> {
    let (_qemu, socket) = OtherEnd::anywhere(other_end::real())?;
    let mut session = RawSession::begin(socket, "")?;
    session.write(br#"{"execute":"query-qmp-schema"}"#)?;
    let mut reply = Vec::new();
    while !reply.ends_with(b"\n") {
        reply.extend_from_slice(session.read()?);
    }
    let file = reply_file()?;
    fs::write(&file, reply)?;
    Ok(file)
}
