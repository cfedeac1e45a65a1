//! The protocol against a scripted peer: in memory where time or order matters, over real sockets where the system does.
//!
//! One program, so that it is linked once; what counts a whole process's descriptors or memory is in `resources.rs`.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report, also in what they share")]

mod agent;
mod agent_peer;
mod agent_visitors;
mod agent_work;
mod arguments;
mod blocked;
mod commands;
mod descriptors;
mod endings;
mod events;
mod flood;
mod handshake;
mod hostile;
mod idle;
mod oob;
mod peer;
mod properties;
mod relay;
mod replies;
mod server;
mod transcript;
mod transports;
