//! `ratite agent cat` and `write`: files of the guest, from and to a pipe.

use std::time::Duration;

use ratite::qmp::GuestFile;
use ratite::qmp::within;

use crate::args::AgentChannel;
use crate::commands::agent::connect;
use crate::commands::agent::failure;
use crate::commands::unless_signalled;
use crate::input::Stdin;
use crate::output::Bytes;
use crate::report::Failure;
use crate::signals::Signals;

/// How long a file of the guest may take to close once a signal or an error has ended the work on it.
const LAST_CLOSE: Duration = Duration::from_secs(1);

/// Writes a file of the guest to stdout.
pub(super) async fn cat(channel: &AgentChannel, path: &str, signals: &mut Signals) -> Result<(), Failure> {
    let mut opened = None;
    let read = async {
        let file = open(channel, path, "r").await?;
        copy_out(opened.insert(file), path).await
    };
    let outcome = unless_signalled(signals, read).await;
    finish(outcome, opened, path).await
}

/// Writes stdin into a file of the guest.
pub(super) async fn write(
    channel: &AgentChannel,
    path: &str,
    append: bool,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut opened = None;
    let written = async {
        let file = open(channel, path, if append { "a" } else { "w" }).await?;
        copy_in(opened.insert(file), path).await
    };
    let outcome = unless_signalled(signals, written).await;
    finish(outcome, opened, path).await
}

async fn open(channel: &AgentChannel, path: &str, mode: &str) -> Result<GuestFile, Failure> {
    let agent = connect(&channel.target, channel.timeout).await?;
    agent.open_file(path, mode).await.map_err(failure(format!("open `{path}` in the guest")))
}

async fn copy_out(file: &mut GuestFile, path: &str) -> Result<(), Failure> {
    let stdout = Bytes::to_stdout().map_err(Failure::System)?;
    while let Some(piece) = file.read().await.map_err(failure(format!("read `{path}` in the guest")))? {
        let Some(room) = stdout.room().await else { break };
        room.send(piece);
    }
    stdout.finish().await.map_err(Failure::output)
}

async fn copy_in(file: &mut GuestFile, path: &str) -> Result<(), Failure> {
    let mut stdin = Stdin::read().map_err(Failure::System)?;
    while let Some(piece) = stdin.next().await.map_err(Failure::Input)? {
        file.write(&piece).await.map_err(failure(format!("write `{path}` in the guest")))?;
    }
    Ok(())
}

/// Closes the file, whatever became of the work on it.
async fn finish(outcome: Result<(), Failure>, file: Option<GuestFile>, path: &str) -> Result<(), Failure> {
    let Some(file) = file else { return outcome };
    match outcome {
        Ok(()) => file.close().await.map_err(failure(format!("close `{path}` in the guest"))),
        Err(failure) => {
            // What is worth telling is why it ended.
            let _closed = within(LAST_CLOSE, "end of the file", file.close()).await;
            Err(failure)
        }
    }
}
