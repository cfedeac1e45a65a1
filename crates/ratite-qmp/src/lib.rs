//! A client for QMP, the QEMU Machine Protocol.
//!
//! QMP is how a program talks with a running QEMU: it sends *commands* and receives *replies* and *events*, each a
//! JSON object (see QEMU's `docs/interop/qmp-spec.rst`). This crate speaks the protocol over any socket and knows
//! nothing of processes; the crate `ratite` starts machines and uses this one to speak with them.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ratite_qmp::{Client, EventFilter, Options};
//! use std::time::Duration;
//!
//! let client = Client::connect(&"/run/vm/qmp.sock".parse()?, Options::default()).await?;
//! let resumed = client.listen(EventFilter::named("RESUME"));
//! client.execute("cont", ()).await?;
//! println!("{}", resumed.next(Duration::from_secs(5)).await?.text());
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - Any number of tasks and threads may use one [`Client`] at once; a reply finds its command by id.
//! - Every wait has a limit. A command that timed out, or whose future was dropped, leaves the connection usable,
//!   and its late reply is dropped.
//! - Every [`Listener`] has a bounded queue of its own; when it overflows, the oldest event goes and is counted.
//! - Whatever the peer sends ends in a typed outcome: no panic, no hang, no quadratic time, and memory is bounded
//!   by [`Limits`].
//!
//! The connection's task is spawned on the tokio runtime that [`Client::connect`] is called in.

#![forbid(unsafe_code)]

mod address;
mod agent;
mod berth;
mod client;
mod codec;
mod command;
mod connection;
mod deadline;
mod envelope;
mod error;
mod event;
mod filter;
mod finite;
mod greeting;
mod handshake;
mod json;
mod listener;
mod malformed;
mod message;
mod nearest;
mod options;
mod patience;
mod pending;
mod registry;
mod relay;
mod reply;
mod request;
mod schema;
mod server;
mod socket;
mod transcript;
mod wire;

pub use address::Address;
pub use address::BadAddress;
pub use agent::Agent;
pub use agent::AgentCommand;
pub use agent::AgentError;
pub use agent::AgentInfo;
pub use agent::FsState;
pub use agent::GuestAddress;
pub use agent::GuestExit;
pub use agent::GuestFile;
pub use agent::GuestInterface;
pub use agent::GuestOutput;
pub use agent::GuestProgram;
pub use agent::ShutdownMode;
pub use agent::SuspendMode;
pub use agent::Trimmed;
pub use client::Client;
pub use codec::Decoder;
pub use codec::Limits;
pub use command::Command;
pub use command::CommandError;
pub use deadline::TimedOut;
pub use deadline::within;
pub use error::Disconnect;
pub use error::Error;
pub use error::ExecuteError;
pub use error::ListenError;
pub use event::Event;
pub use event::Timestamp;
pub use filter::EventFilter;
pub use greeting::Greeting;
pub use greeting::Version;
pub use listener::Listener;
pub use listener::Subscription;
pub use malformed::Malformed;
pub use message::Message;
pub use nearest::nearest;
pub use options::Options;
pub use patience::on_this_thread;
pub use relay::Relay;
pub use reply::Reply;
pub use schema::AlternateType;
pub use schema::ArrayType;
pub use schema::CommandSchema;
pub use schema::EnumType;
pub use schema::EnumValue;
pub use schema::EventSchema;
pub use schema::Member;
pub use schema::ObjectType;
pub use schema::Schema;
pub use schema::Type;
pub use server::PeerCredentials;
pub use server::Server;
pub use server::SocketFile;
pub use socket::Socket;
pub use transcript::Direction;
pub use transcript::Transcript;
pub use transcript::TranscriptEntry;
