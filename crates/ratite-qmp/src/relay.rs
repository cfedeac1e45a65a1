//! Serves one session to any number of other peers, each of which finds what QEMU's own monitor would show it.
//!
//! ```text
//! peer ─► its commands, one in band and one out of band at a time ─► the session's client ─► QEMU
//! peer ◄─ replies under the peer's own ids, and every event from a queue of its own
//! ```
//!
//! Holds the session's client only weakly: the relay ends with the session, and never keeps it alive. Knows nothing of
//! what the commands mean, but for `qmp_capabilities`, which each peer negotiates for itself.

mod peer;

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::client::WeakClient;
use crate::deadline::within;
use crate::error::Error;
use crate::relay::peer::Peer;
use crate::relay::peer::Session;
use crate::request::Refusal;
use crate::request::refusal_text;
use crate::server::PeerCredentials;
use crate::server::Server;
use crate::socket::Socket;

/// Lets other peers use a session: each gets a greeting, negotiates, sends commands and receives every event, as if it were
/// alone with QEMU.
///
/// Cheap to clone. It does not keep the session alive: it ends with it, and its peers' connections with it, each when it
/// has what was still on its way to it.
///
/// What QEMU ties to a monitor the peers share: descriptors that were passed with `getfd`, and the error of a
/// message that QEMU cannot read, which is why a peer's message is checked before it is passed on.
#[derive(Debug, Clone)]
pub struct Relay {
    client: WeakClient,
    session: Arc<Session>,
}

/// How many peers are served at once.
const MOST_PEERS: usize = 64;

/// How long it takes until the next try when the system takes no connection.
const SHORTAGE: Duration = Duration::from_millis(500);

/// How long a peer that is one too many has to take the reason.
const REFUSAL: Duration = Duration::from_secs(1);

impl Relay {
    /// A relay of the session of `client`; `None` for a session without a greeting, such as a guest agent's.
    #[must_use]
    pub fn of(client: &Client) -> Option<Self> {
        let oob = client.capabilities().iter().any(|capability| capability == "oob");
        let mut greeting: Value = serde_json::from_str(client.greeting()?.text()).ok()?;
        greeting["QMP"]["capabilities"] = if oob { json!(["oob"]) } else { json!([]) };
        let greeting = greeting.to_string();
        Some(Self { client: client.downgrade(), session: Arc::new(Session { greeting, oob }) })
    }

    /// Serves all who connect to `server` and are welcome, 64 at once, until the session ends and each of them has what was
    /// on its way to it. See [`Server::accept`] for `welcome`.
    ///
    /// # Errors
    /// [`Error::Connect`] when the system takes no more connections. A program that is short of descriptors or memory tries again
    /// every half a second.
    pub async fn serve(
        &self,
        server: Server,
        mut welcome: impl FnMut(Option<PeerCredentials>) -> bool,
    ) -> Result<(), Error> {
        let mut peers = JoinSet::new();
        let ended = self.client.closed();
        tokio::pin!(ended);
        let outcome = loop {
            tokio::select! {
                biased;
                _why = &mut ended => break Ok(()),
                Some(_served) = peers.join_next(), if !peers.is_empty() => {}
                accepted = server.accept(Duration::MAX, &mut welcome) => match accepted {
                    Ok(socket) if peers.len() < MOST_PEERS => {
                        let relay = self.clone();
                        peers.spawn(async move { relay.attend(socket).await });
                    }
                    Ok(socket) => drop(tokio::spawn(refuse(socket))),
                    Err(error) if is_passing(&error) => {
                        tracing::warn!(%error, "nobody can connect for now");
                        if within(SHORTAGE, "end of the session", &mut ended).await.is_ok() {
                            break Ok(());
                        }
                    }
                    Err(error) => break Err(error),
                },
            }
        };
        drop(server);
        while peers.join_next().await.is_some() {}
        outcome
    }

    /// Serves one peer until it or the session ends.
    ///
    /// A peer that leaves 16384 events, or 64 MiB of them, unread is hung up on. One that only ends its own direction gets
    /// the replies to what it had sent, within the session's limit for commands.
    pub async fn attend(&self, socket: impl Into<Socket>) {
        let end = Peer::new(socket.into(), self.client.clone(), self.session.clone()).serve().await;
        match end.deserves_a_warning() {
            true => tracing::warn!("hung up on a peer: {end}"),
            false => tracing::debug!("a peer's connection ended: {end}"),
        }
    }
}

/// Whether it may be possible again later: the program or the system has no descriptor or no memory left, or the peer has gone.
fn is_passing(error: &Error) -> bool {
    const SHORT: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::CONNABORTED];
    let Error::Connect { source, .. } = error else { return false };
    SHORT.iter().any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
}

/// Tells a peer that there are too many.
async fn refuse(mut socket: Socket) {
    let text = refusal_text(
        &Refusal::generic(format!("{MOST_PEERS} peers are connected already, and that is the limit")),
        None,
    );
    tracing::warn!("turned away a peer: {MOST_PEERS} are connected already");
    let _unheard = within(REFUSAL, "room for a refusal", socket.write_all(text.as_bytes())).await;
}
