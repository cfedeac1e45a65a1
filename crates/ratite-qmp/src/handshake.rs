//! Greeting, capabilities, ready: the only place that knows the order in which a session begins.
//!
//! ```text
//! connected ─► greeting ─► qmp_capabilities sent ─► its reply ─► ready
//! ```
//!
//! Where it is known what the greeting will offer, `qmp_capabilities` goes out before it: QEMU reads it in its time. If the offer is
//! another one, it refuses, and is asked again.
//!
//! Events may come at any point after the greeting and go to the listeners that are already there.

use serde_json::json;

use crate::codec::encode;
use crate::command::Command;
use crate::error::Disconnect;
use crate::error::Error;
use crate::greeting::Greeting;
use crate::listener::Subscription;
use crate::malformed::Malformed;
use crate::malformed::excerpt;
use crate::message::Message;
use crate::reply::Reply;
use crate::reply::ReplyId;
use crate::wire::Wire;

/// The id of `qmp_capabilities`; commands count on from the next one.
pub(crate) const NEGOTIATION_ID: u64 = 0;

/// What a handshake settled.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) greeting: Greeting,
    /// The capabilities that are now on.
    pub(crate) capabilities: Vec<String>,
}

/// Brings the peer from its greeting to where it takes commands.
///
/// # Errors
/// [`Error::Greeting`], [`Error::Negotiation`] with the peer's own words, or [`Error::Disconnected`].
pub(crate) async fn handshake(
    wire: &mut Wire,
    wanted: &[String],
    foreseen: Option<&[String]>,
    subscriptions: &[Subscription],
) -> Result<Session, Error> {
    // Granted, nothing can be asked for any more: only what leaves nothing to be wished is asked for ahead.
    let asked = foreseen.map(|offered| common(wanted, offered)).filter(|asked| asked.len() == wanted.len());
    if let Some(asked) = &asked {
        ask(wire, asked);
    }
    let (greeting, early) = expect_greeting(wire, asked.is_some()).await?;
    let capabilities = common(wanted, &greeting.capabilities);
    let capabilities = match asked {
        Some(asked) => match granted(wire, early, subscriptions).await {
            // What was asked for in vain is not on, whatever the peer says.
            Ok(()) => common(&asked, &capabilities),
            Err(Error::Negotiation(_)) if asked != capabilities => {
                negotiate(wire, capabilities, subscriptions).await?
            }
            Err(error) => return Err(error),
        },
        None => negotiate(wire, capabilities, subscriptions).await?,
    };
    // The task that reads from here on has its first turn behind other handshakes.
    wire.give_room_back();
    Ok(Session { greeting, capabilities })
}

/// Those of `wanted` that are offered.
fn common(wanted: &[String], offered: &[String]) -> Vec<String> {
    wanted.iter().filter(|wanted| offered.contains(wanted)).cloned().collect()
}

/// The greeting, and a reply that came before it to what was `asked` before it: a peer may answer first and greet then.
async fn expect_greeting(wire: &mut Wire, asked: bool) -> Result<(Greeting, Option<Reply>), Error> {
    let mut early = None;
    let first = match wire.exchange().await {
        Ok(Message::Reply(reply)) if asked && reply.id() == ReplyId::Ours(NEGOTIATION_ID) => {
            early = Some(reply);
            wire.exchange().await
        }
        first => first,
    };
    let got = match first {
        Ok(Message::Greeting(greeting)) => return Ok((greeting, early)),
        Ok(Message::Reply(reply)) => excerpt(reply.text().as_bytes()),
        Ok(Message::Event(event)) => excerpt(event.text().as_bytes()),
        // What is no message at all is no greeting either; its first words say most about who this is.
        Err(Disconnect::Malformed(
            Malformed::NotAnObject { excerpt }
            | Malformed::NotJson { excerpt, .. }
            | Malformed::UnexpectedShape { excerpt, .. },
        )) => excerpt,
        Err(why) => return Err(Error::Disconnected(why)),
    };
    Err(Error::Greeting { got })
}

async fn negotiate(
    wire: &mut Wire,
    capabilities: Vec<String>,
    subscriptions: &[Subscription],
) -> Result<Vec<String>, Error> {
    ask(wire, &capabilities);
    granted(wire, None, subscriptions).await?;
    Ok(capabilities)
}

fn ask(wire: &mut Wire, capabilities: &[String]) {
    let mut command = Command::new("qmp_capabilities");
    if !capabilities.is_empty() {
        command = command.arguments(json!({ "enable": capabilities })).expect("strings serialise");
    }
    wire.push(NEGOTIATION_ID, encode(&command, NEGOTIATION_ID), Vec::new(), false);
}

/// Waits until what was asked is granted; `early` is what the peer said to that before.
async fn granted(
    wire: &mut Wire,
    mut early: Option<Reply>,
    subscriptions: &[Subscription],
) -> Result<(), Error> {
    loop {
        let next = match early.take() {
            Some(reply) => Message::Reply(reply),
            None => wire.exchange().await.map_err(Error::Disconnected)?,
        };
        let reply = match next {
            Message::Reply(reply) => reply,
            Message::Event(event) => {
                for subscription in subscriptions {
                    subscription.deliver(std::slice::from_ref(&event));
                }
                continue;
            }
            Message::Greeting(greeting) => {
                return Err(Error::Disconnected(Disconnect::Malformed(Malformed::shape(
                    greeting.text(),
                    "it greets twice",
                ))));
            }
        };
        match (reply.id(), reply.error()) {
            // Without an id it can only be about what we sent, and we sent one command.
            (ReplyId::Ours(NEGOTIATION_ID) | ReplyId::Absent, Some(error)) => {
                return Err(Error::Negotiation(error.clone()));
            }
            (ReplyId::Ours(NEGOTIATION_ID), None) if reply.return_text().is_some() => return Ok(()),
            (ReplyId::Ours(NEGOTIATION_ID), None) => {
                return Err(Error::Disconnected(Disconnect::Malformed(Malformed::shape(
                    reply.text(),
                    "it neither grants nor refuses the capabilities",
                ))));
            }
            _ => tracing::warn!(?reply, "dropped a reply to nothing that was asked"),
        }
    }
}
