//! A console: what the guest would write, and what is typed to it.
//!
//! Writes block, as QEMU's do: if nobody reads, the whole machine stands still, its monitor too.

use std::collections::VecDeque;
use std::mem;
use std::time::Instant;

use crate::line::Port;
use crate::line::Received;
use crate::words::Words;

/// One console.
#[derive(Debug)]
pub(crate) struct Console {
    pub(crate) id: String,
    pub(crate) port: Port,
    /// What was typed and not yet asked for by `fake-console-read`; at most 1 MiB.
    typed: Vec<u8>,
    echo: bool,
    unfinished_line: Vec<u8>,
    flood: Option<Flood>,
    /// When a write that nobody reads gives up: the end of the whole program.
    deadline: Instant,
}

/// How much is queued at once of what is written.
const PIECE: usize = 256 << 10;

/// A running `console-flood`.
#[derive(Debug)]
struct Flood {
    written: u64,
    total: u64,
}

impl Console {
    pub(crate) fn new(id: String, port: Port, words: &Words, deadline: Instant) -> Self {
        let flood = words.number("console-flood").map(|total| Flood { written: 0, total: endless(total) });
        let echo = words.has("console-echo");
        Self { id, port, typed: Vec::new(), echo, unfinished_line: Vec::new(), flood, deadline }
    }

    /// Says what it has to say at power-on.
    pub(crate) fn begin(&mut self, words: &Words) {
        if let Some(banner) = words.bytes("console-banner") {
            self.write(banner);
        }
        if words.has("console-close") {
            self.port.line = None;
        }
    }

    /// Writes, and waits until the other side has taken it. What is written to nobody is lost.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let Some(line) = &mut self.port.line else { return };
        for piece in bytes.chunks(PIECE) {
            line.send(piece);
            line.drain(self.deadline);
        }
    }

    pub(crate) fn is_flooding(&self) -> bool {
        self.flood.is_some() && self.port.line.is_some()
    }

    /// Writes the next piece of the flood.
    pub(crate) fn flood_on(&mut self) {
        let Some(mut flood) = self.flood.take() else {
            return;
        };
        let count = (flood.total - flood.written).min(64 << 10);
        self.write(&filler(flood.written, count));
        flood.written += count;
        self.flood = (flood.written < flood.total).then_some(flood);
    }

    /// Reads what is typed, and answers it if asked to.
    pub(crate) fn listen(&mut self) {
        let Some(line) = &self.port.line else { return };
        // A descriptor makes no sense here; it is closed at once.
        match line.receive(&mut VecDeque::new()) {
            Received::Bytes(bytes) => self.hear(&bytes),
            Received::Nothing => {}
            Received::Closed => self.port.line = None,
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let room = (1_usize << 20).saturating_sub(self.typed.len());
        self.typed.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if !self.echo {
            return;
        }
        for &byte in bytes {
            if !matches!(byte, b'\r' | b'\n') {
                self.unfinished_line.push(byte);
            } else if !self.unfinished_line.is_empty() {
                let line = mem::take(&mut self.unfinished_line);
                self.write(&[b"you said: ", line.as_slice(), b"\n"].concat());
            }
        }
    }

    /// What was typed since the last call.
    pub(crate) fn take_typed(&mut self) -> Vec<u8> {
        mem::take(&mut self.typed)
    }
}

/// `0` stands for "for ever".
pub(crate) fn endless(number: u64) -> u64 {
    if number == 0 { u64::MAX } else { number }
}

/// `count` bytes of the endless filler text, from `offset` on: lines of 63 equal letters, `a` to `z` in turn.
pub(crate) fn filler(offset: u64, count: u64) -> Vec<u8> {
    let lines = (b'a'..=b'z').map(|letter| [[letter; 63].as_slice(), b"\n"].concat());
    let period: Vec<u8> = lines.flatten().collect();
    let skip = usize::try_from(offset % period.len() as u64).unwrap_or_default();
    let end = skip + usize::try_from(count).unwrap_or_default();
    // Whole periods at once: byte by byte, a gibibyte takes a debug build a quarter of a minute.
    let mut bytes = period.repeat(end.div_ceil(period.len()));
    bytes.truncate(end);
    bytes.drain(..skip);
    bytes
}
