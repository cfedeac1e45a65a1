//! Serves a reachable machine to other processes of its user: QMP as QEMU speaks it, and on the control socket all else.
//!
//! ```text
//! launched ─► accepting ─ the process's end ─► name given back ─► all who are connected told ─► over
//! ```
//!
//! Runs on the background runtime, so that others are served while the owner computes, and holds the machine only weakly:
//! it lives as long as its owner wants. Nobody who is connected can hold the machine up, or another of them.

mod visit;

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use ratite_qmp::Client;
use ratite_qmp::EventFilter;
use ratite_qmp::Listener;
use ratite_qmp::PeerCredentials;
use ratite_qmp::Relay;
use ratite_qmp::Server;
use ratite_qmp::within;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::life::Exited;
use crate::reach_folder::ReachFolder;
use crate::reach_words::WireExit;
use crate::running::Running;
use crate::runtime::aside;
use crate::runtime::background;
use visit::Visit;
use visit::refuse;

/// How many are served at once on the control socket.
const MOST_VISITS: usize = 64;

/// How long it takes until the next try when the system takes no connection.
const SHORTAGE: Duration = Duration::from_millis(500);

/// How long QEMU's monitor may stay open behind its process's end; only one that has left the machine's group holds it.
const MONITOR_END: Duration = Duration::from_millis(500);

/// Serves the machine from now on, if it is to be reachable.
pub(crate) fn serve(running: &Arc<Running>) {
    let Some(reach) = &running.reach else { return };
    let sockets = reach.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
    let told = Told(reach.told.clone());
    // The runtime was there when the sockets were made.
    let (Some(sockets), Ok(runtime)) = (sockets, background()) else { return };
    let client = running.monitor.as_ref().map(|monitor| monitor.client.clone());
    let ended = running.process.wait();
    let shutdowns = client.as_ref().map(|client| client.listen(EventFilter::named("SHUTDOWN")));
    let desk = Arc::new(Desk {
        name: reach.name.clone(),
        machine: Arc::downgrade(running),
        folder: reach.folder.clone(),
        end: watch::Sender::new(None),
    });
    let relay = client.as_ref().and_then(Relay::of);
    runtime.spawn(async move {
        let _told = told;
        let mut visits = JoinSet::new();
        match relay {
            Some(relay) => drop(visits.spawn(serve_qmp(relay, sockets.qmp))),
            // Nobody is to wait for a greeting that never comes.
            None => drop(sockets.qmp),
        }
        let exited = accept(&sockets.control, &desk, &mut visits, ended).await;
        desk.give_the_name_back().await;
        // Who had connected in time is told, too.
        accept(&sockets.control, &desk, &mut visits, std::future::ready(())).await;
        drop(sockets.control);
        desk.close(exited, shutdowns).await;
        while visits.join_next().await.is_some() {}
    });
}

/// What everybody who is served has to do with.
#[derive(Debug)]
struct Desk {
    name: String,
    machine: Weak<Running>,
    folder: Arc<ReachFolder>,
    /// How the machine ended, once it has.
    end: watch::Sender<Option<WireExit>>,
}

impl Desk {
    async fn give_the_name_back(&self) {
        let folder = self.folder.clone();
        aside(move || folder.remove()).await;
    }

    /// Tells everybody of the end.
    async fn close(&self, exited: Exited, shutdowns: Option<Listener>) {
        let reason = match &shutdowns {
            Some(shutdowns) => last_reason(shutdowns).await,
            None => None,
        };
        self.end.send_replace(Some(WireExit::new(exited.status, reason, exited.after)));
    }
}

/// Says that all have been told, however that ended.
struct Told(watch::Sender<bool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

async fn serve_qmp(relay: Relay, server: Server) {
    let welcome = |peer: Option<PeerCredentials>| peer.is_some_and(|peer| is_our_user(peer.uid));
    if let Err(error) = relay.serve(server, welcome).await {
        tracing::warn!(%error, "nobody can connect to a machine's QMP any more");
    }
}

/// Serves all who come until `end`; those who are there already come first.
async fn accept<T>(
    control: &UnixListener,
    desk: &Arc<Desk>,
    visits: &mut JoinSet<()>,
    end: impl Future<Output = T>,
) -> T {
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            Some(_over) = visits.join_next(), if !visits.is_empty() => {}
            accepted = control.accept() => match accepted {
                Ok((socket, _)) if of_our_user(&socket) => welcome(socket, desk, visits),
                Ok(_) => tracing::warn!(name = desk.name, "turned away a visitor of another user"),
                Err(error) => {
                    tracing::warn!(name = desk.name, %error, "nobody can connect to a machine for now");
                    // Mostly the program has no descriptors left, and has some again later: nobody tells when.
                    if let Ok(over) = within(SHORTAGE, "end", &mut end).await {
                        return over;
                    }
                }
            },
            over = &mut end => return over,
        }
    }
}

fn welcome(socket: UnixStream, desk: &Arc<Desk>, visits: &mut JoinSet<()>) {
    // One of them is for all of QMP.
    if visits.len() <= MOST_VISITS {
        visits.spawn(Visit::new(socket, desk.clone()).attend());
    } else {
        tracing::warn!(name = desk.name, "turned away a visitor: {MOST_VISITS} are connected already");
        let reason = format!("{MOST_VISITS} are connected already, and that is the limit");
        drop(tokio::spawn(refuse(socket, reason)));
    }
}

/// The kernel tells who has connected; the folder's mode keeps all others but root away already.
fn of_our_user(socket: &UnixStream) -> bool {
    socket.peer_cred().is_ok_and(|peer| is_our_user(peer.uid()))
}

fn is_our_user(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw()
}

/// The reason of the last `SHUTDOWN`, once the monitor has ended.
async fn last_reason(shutdowns: &Listener) -> Option<String> {
    let mut last = None;
    let all = async {
        while let Ok(event) = shutdowns.next(Duration::MAX).await {
            last = event.data()["reason"].as_str().map(str::to_owned);
        }
    };
    let _stays_open = within(MONITOR_END, "end of the monitor", all).await;
    last
}

/// What QEMU says of its state, if it does so within `limit`.
async fn state_of(client: &Client, limit: Duration) -> Option<String> {
    let command = ratite_qmp::Command::new("query-status").limit(limit);
    let reply = client.send(command).await.ok()?.message().ok()?;
    reply["return"]["status"].as_str().map(str::to_owned)
}
