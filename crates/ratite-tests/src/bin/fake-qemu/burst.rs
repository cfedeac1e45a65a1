//! Rows of numbered events, at the pace of their reader.
//!
//! A burst lives in the machine until its last event is sent or its client is gone. It never queues more than
//! [`BACKLOG`] bytes for its client, so it may be endless.

use std::mem;
use std::time::Duration;
use std::time::Instant;

use crate::machine::Machine;
use crate::qmp::event;

/// A row of events, sent as fast as the monitor's reader takes them, or one by one.
#[derive(Debug)]
pub(crate) struct Burst {
    pub(crate) monitor: usize,
    pub(crate) session: u64,
    pub(crate) name: String,
    /// The data of each event, as JSON on one line; `seq` is added to it.
    pub(crate) data: String,
    pub(crate) next: u64,
    pub(crate) count: u64,
    pub(crate) delay: Duration,
    pub(crate) due: Instant,
    /// What is sent after the last event.
    pub(crate) last: Option<String>,
}

impl Machine {
    /// Sends what can be sent at once, and leaves the rest to the loop.
    pub(crate) fn start_burst(&mut self, burst: Burst) {
        self.bursts.push(burst);
        self.run_bursts();
    }

    pub(crate) fn run_bursts(&mut self) {
        for mut burst in mem::take(&mut self.bursts) {
            for _ in 0..EVENTS_AT_ONCE {
                let is_due = self.next_event(&burst).is_some_and(|due| due <= Instant::now());
                if burst.next == burst.count || !is_due {
                    break;
                }
                let seq = format!("\"seq\": {}}}", burst.next);
                let data = match burst.data.strip_suffix('}') {
                    None | Some("{") => format!("{{{seq}"),
                    Some(data) => format!("{data}, {seq}"),
                };
                self.tell(&event(&burst.name, Some(&data)));
                burst.next += 1;
                burst.due += burst.delay;
            }
            if !self.is_in_session(burst.monitor, burst.session) {
                continue;
            }
            if burst.next < burst.count {
                self.bursts.push(burst);
            } else if let Some(message) = burst.last {
                self.monitors[burst.monitor].message(&message);
            }
        }
    }

    /// When the next event of `burst` is to be sent; `None` while the reader has to catch up.
    pub(crate) fn next_event(&self, burst: &Burst) -> Option<Instant> {
        (self.monitors[burst.monitor].port.backlog() < BACKLOG).then_some(burst.due)
    }
}

/// How many events one turn of the loop sends, so that commands get their turn too.
const EVENTS_AT_ONCE: usize = 512;

/// How many bytes may wait for a slow reader before a burst waits for it too.
const BACKLOG: usize = 256 << 10;
