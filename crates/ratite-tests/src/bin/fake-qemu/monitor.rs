//! One QMP monitor: its connection, and the state of its session.
//!
//! Knows how a message looks on the wire, but not what is said.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::json;
use crate::json::Splitter;
use crate::line::Port;

/// A monitor. A new connection starts a new [`Session`].
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) port: Port,
    /// Counts the connections, so that a late answer does not reach the next client.
    pub(crate) session_number: u64,
    pub(crate) session: Session,
    /// Whether sessions start with `pretty=on`.
    pretty: bool,
}

/// What was agreed on, and what has come in.
#[derive(Debug, Default)]
pub(crate) struct Session {
    pub(crate) negotiated: bool,
    pub(crate) oob: bool,
    pub(crate) pretty: bool,
    pub(crate) newline: Newline,
    /// Nothing is read any more.
    pub(crate) deaf: bool,
    pub(crate) input: Splitter,
    /// Descriptors that came along with bytes, and that no command has taken yet.
    pub(crate) received: VecDeque<OwnedFd>,
}

/// What ends a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Newline {
    #[default]
    CrLf,
    Lf,
    None,
}

impl Monitor {
    pub(crate) fn new(port: Port, pretty: bool) -> Self {
        let mut monitor = Self { port, session_number: 0, session: Session::default(), pretty };
        monitor.begin_session();
        monitor
    }

    pub(crate) fn begin_session(&mut self) {
        self.session_number += 1;
        self.session = Session { pretty: self.pretty, ..Session::default() };
    }

    /// Sends one message, given as JSON on one line.
    pub(crate) fn message(&mut self, json: &str) {
        let end = match self.session.newline {
            Newline::CrLf => "\r\n",
            Newline::Lf => "\n",
            Newline::None => "",
        };
        let mut text = match self.session.pretty {
            true if end.is_empty() => json::pretty(json),
            true => json::pretty(json).replace('\n', end),
            false => json.to_owned(),
        };
        text.push_str(end);
        self.raw(text.as_bytes());
    }

    /// Sends bytes as they are; without a connection they are lost.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if let Some(line) = &mut self.port.line {
            line.send(bytes);
        }
    }

    pub(crate) fn close(&mut self) {
        if let Some(line) = &mut self.port.line {
            line.flush();
        }
        self.port.line = None;
        self.session = Session::default();
    }
}
