//! From [`Running`] to [`Exit`]: the steps of an end, and their fallbacks.
//!
//! ```text
//!              ┌ monitor ─► `quit` ┐ exits within grace ─► Exited ─► cleaned ─► Exit
//! Running ─────┤                   ├
//!              └ none ──► SIGTERM ─┘ grace over ─► SIGKILL ─► Exited ─► cleaned ─► ShutdownError
//! ```
//!
//! Consoles are pumped all the while: a QEMU that blocks on its console cannot quit. Every step can be interrupted and
//! begun again, and whoever comes later gets the same [`Exit`].

use std::sync::PoisonError;
use std::time::Duration;

use ratite_qmp::Command;
use ratite_qmp::within;
use serde_json::Value;

use crate::error::ShutdownError;
use crate::error::ShutdownErrorKind;
use crate::exit::Asked;
use crate::exit::Exit;
use crate::exit::Tail;
use crate::life::Exited;
use crate::running::Running;

/// How much of the log an [`Exit`] carries.
const LOG_KEPT: usize = 16 << 20;

/// How long the end of a stream is waited for once its process is gone. Only a process that has left the machine's group
/// can hold it open.
const STREAM_END: Duration = Duration::from_secs(1);

/// How long those who are connected from other processes may take to hear of the end.
const TELLING: Duration = Duration::from_millis(100);

/// Ends the machine gracefully, by force once `grace` is over.
pub(crate) async fn shutdown(running: &Running, grace: Duration) -> Result<Exit, ShutdownError> {
    end(running, grace).await?;
    judge(finish(running).await, grace)
}

/// The same, but leaves all that comes behind its end to its owner; whether it ended within the grace.
pub(crate) async fn end(running: &Running, grace: Duration) -> Result<bool, ShutdownError> {
    if running.process.exited().is_none() {
        tracing::debug!(pid = running.process.pid(), ?grace, "asking a machine to end");
        note(running, Asked::Us);
        if within(grace, "end", end_gracefully(running)).await.is_err() {
            tracing::warn!(pid = running.process.pid(), ?grace, "a machine did not end in time");
            note(running, Asked::TimeOver);
            end_by_force(running).await?;
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ends the machine by force.
pub(crate) async fn kill(running: &Running) -> Result<Exit, ShutdownError> {
    end_at_once(running).await?;
    Ok(finish(running).await)
}

/// The same, but leaves all that comes behind its end to its owner.
pub(crate) async fn end_at_once(running: &Running) -> Result<(), ShutdownError> {
    if running.process.exited().is_none() {
        note(running, Asked::UsByForce);
        end_by_force(running).await?;
    }
    Ok(())
}

/// Waits until the machine ends by itself, and ends it by force once `limit` is over.
pub(crate) async fn wait(running: &Running, limit: Duration) -> Result<Exit, ShutdownError> {
    if within(limit, "end", running.process.wait()).await.is_err() {
        note(running, Asked::TimeOver);
        end_by_force(running).await?;
    }
    let exit = finish(running).await;
    match exit.asked {
        Asked::TimeOver => judge(exit, limit),
        _ => Ok(exit),
    }
}

async fn end_gracefully(running: &Running) {
    let ended = running.process.wait();
    tokio::pin!(ended);
    tokio::select! {
        biased;
        _ended = &mut ended => return,
        asked = ask_to_quit(running) => {
            if !asked {
                tracing::debug!(pid = running.process.pid(), "no monitor to ask by: SIGTERM");
                running.process.terminate();
            }
        }
    }
    ended.await;
}

/// Sends `quit`; whether it could be sent at all. Its reply is not needed: the process's end is what counts.
async fn ask_to_quit(running: &Running) -> bool {
    let Some(monitor) = &running.monitor else {
        return false;
    };
    // The grace bounds it. With a limit of its own, over at the same moment, SIGTERM would go out just before SIGKILL.
    match monitor.client.send(Command::new("quit").limit(Duration::MAX)).await {
        Ok(reply) => {
            if let Some(refusal) = reply.error() {
                tracing::warn!(%refusal, "QEMU refused to quit");
            }
            true
        }
        // A QEMU on its way out may close the monitor before it replies; SIGTERM does it no harm then.
        Err(error) => {
            tracing::debug!(%error, "could not ask QEMU to quit");
            false
        }
    }
}

async fn end_by_force(running: &Running) -> Result<(), ShutdownError> {
    let limit = running.timeouts.kill;
    tracing::debug!(pid = running.process.pid(), "SIGKILL");
    running.process.kill();
    let kind = ShutdownErrorKind::Unkillable { pid: running.process.pid(), limit };
    let ended = within(limit, "end", running.process.wait()).await;
    ended.map(|_| ()).map_err(|_| ShutdownError::new(kind, None))
}

/// Remembers what was asked; force counts more than asking.
fn note(running: &Running, asked: Asked) {
    let mut noted = running.asked.lock().unwrap_or_else(PoisonError::into_inner);
    if noted.is_none() || asked != Asked::Us {
        *noted = Some(asked);
    }
}

/// Gathers what is to be known of the end, and cleans up. The process has ended.
pub(crate) async fn finish(running: &Running) -> Exit {
    running.exit.get_or_init(|| gather(running)).await.clone()
}

async fn gather(running: &Running) -> Exit {
    let exited = running.process.wait().await;
    // What the machine had said before it ended is still on its way.
    let consoles = async {
        for (_, console) in &running.consoles {
            console.ended().await;
        }
    };
    let _stay_open = within(STREAM_END, "end of the consoles", consoles).await;
    if let Some(monitor) = &running.monitor {
        let _stays_open = within(STREAM_END, "end of the monitor", monitor.client.closed()).await;
    }
    if let Some(reach) = &running.reach {
        // The program may end right behind this, and with it those who tell.
        let mut told = reach.told.subscribe();
        let _slow_readers = within(TELLING, "others", told.wait_for(|told| *told)).await;
    }
    running.log.finished();
    let limit = running.timeouts.kill;
    if let Err(error) = within(limit, "removal of the work folder", running.process.release()).await {
        tracing::warn!(%error, folder = %running.work_folder.display(), "it goes on in the background");
    }

    // Nothing is waited for from here on: whoever gives up waiting must not take along what the next one needs.
    let shutdowns = running.monitor.as_ref().map(|monitor| monitor.shutdowns.take_all());
    let shutdown = shutdowns.and_then(|mut events| events.pop()).map(|event| event.data());
    let log = running.log.tail(LOG_KEPT).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not read the log");
        Tail::default()
    });
    let asked = who_asked(running, exited, shutdown.as_ref());
    match asked {
        Asked::Signal => tracing::warn!(command_line = %running.command_line, "QEMU {}", exited.status),
        _ => tracing::debug!(pid = running.process.pid(), ?asked, "QEMU {}", exited.status),
    }
    Exit {
        pid: running.process.pid(),
        status: exited.status,
        asked,
        shutdown_reason: shutdown.as_ref().and_then(|data| data["reason"].as_str()).map(str::to_owned),
        command_line: running.command_line.clone(),
        log,
        started: running.started,
        launch_time: running.launch_time,
        run_time: exited.after,
    }
}

/// Who wanted the end: QEMU's own word counts most, then what we asked, then the signal.
fn who_asked(running: &Running, exited: Exited, shutdown: Option<&Value>) -> Asked {
    let ours = *running.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let by_force = ours.filter(|asked| *asked != Asked::Us);
    let reason = shutdown.and_then(|data| data["reason"].as_str()).unwrap_or_default();
    match (exited.status.signal(), by_force) {
        (Some(KILL), Some(asked)) => return asked,
        (Some(TERM), _) if ours.is_some() => return Asked::Us,
        (Some(_), _) => return Asked::Signal,
        (None, _) => {}
    }
    match reason {
        _ if reason.starts_with("host-qmp-") => Asked::Us,
        "host-signal" if ours.is_none() => Asked::Signal,
        _ if shutdown.is_some_and(|data| data["guest"] == true) => Asked::Guest,
        _ => ours.map_or(Asked::Nobody, |_| Asked::Us),
    }
}

const KILL: i32 = 9;
const TERM: i32 = 15;

/// An exit with status 0 is clean, whoever asked for it, and so is an end by the signal that was sent for it; anything
/// else is named. Of an unknown status there is nothing bad to tell.
fn judge(exit: Exit, grace: Duration) -> Result<Exit, ShutdownError> {
    let kind = match exit.asked {
        _ if exit.success() || exit.status.is_unknown() => return Ok(exit),
        Asked::UsByForce => return Ok(exit),
        // Without a monitor SIGTERM is how we ask; it ends a QEMU that has not set up its handler yet.
        Asked::Us if exit.status.signal() == Some(TERM) => return Ok(exit),
        Asked::TimeOver => ShutdownErrorKind::TimedOut { grace },
        _ => ShutdownErrorKind::Unclean(exit.status),
    };
    Err(ShutdownError::new(kind, Some(exit)))
}
