//! The signals that ask the program to end, as something to wait for.

use std::fmt;
use std::io;

use tokio::signal::unix;
use tokio::signal::unix::SignalKind;

/// A signal that ends the program, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The terminal is gone.
    Hangup,
    /// Ctrl-C.
    Interrupt,
    /// Nobody reads stdout any more. Rust ignores the signal itself; the failing write stands for it.
    Pipe,
    /// Somebody wants the program to end.
    Terminate,
}

impl Signal {
    /// Its number, the same on every Linux.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Pipe => 13,
            Self::Terminate => 15,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Pipe => "SIGPIPE",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The signals that have come and will come. As long as it exists, none of them ends the program by itself.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: Option<unix::Signal>,
    interrupt: Option<unix::Signal>,
    terminate: Option<unix::Signal>,
}

impl Signals {
    /// Begins to listen. What was ignored when the program started (`nohup`, a shell's `&`) stays ignored.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let listen = |signal: Signal, kind: SignalKind| {
            let is_ignored = ignored & (1 << (signal.number() - 1)) != 0;
            (!is_ignored).then(|| unix::signal(kind)).transpose()
        };
        Ok(Self {
            hangup: listen(Signal::Hangup, SignalKind::hangup())?,
            interrupt: listen(Signal::Interrupt, SignalKind::interrupt())?,
            terminate: listen(Signal::Terminate, SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. Cancelling loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            () = arrival(&mut self.terminate) => Signal::Terminate,
            () = arrival(&mut self.interrupt) => Signal::Interrupt,
            () = arrival(&mut self.hangup) => Signal::Hangup,
        }
    }
}

async fn arrival(signal: &mut Option<unix::Signal>) {
    match signal {
        // It ends only with the runtime.
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that this process ignores, as the kernel's mask; none if it does not tell.
fn ignored() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| ignored_in(&status))
        .unwrap_or_default()
}

fn ignored_in(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_mask_is_read() {
        let status = "Name:\tratite\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\t0\n";

        assert_eq!(ignored_in(status), Some(0x1003));
        assert_eq!(ignored_in("Name:\tx\n"), None);
    }
}
