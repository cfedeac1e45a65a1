//! The machine: everything that is open, and the one loop that serves it.
//!
//! Owns every descriptor, timer and burst of events until the process ends. Nothing here blocks but a console that
//! nobody reads. The protocol itself is in `qmp.rs`, as more methods of [`Machine`].

use std::collections::BTreeMap;
use std::io;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process;
use std::process::Child;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SfdFlags;
use nix::sys::signalfd::SignalFd;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use serde_json::json;

use crate::arguments::Arguments;
use crate::burst::Burst;
use crate::console::Console;
use crate::console::filler;
use crate::line::Port;
use crate::line::Watched;
use crate::monitor::Monitor;
use crate::qtest::Qtest;
use crate::words::Words;

/// A powered-on fake.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) words: Words,
    pub(crate) name: Option<String>,
    pub(crate) running: bool,
    pub(crate) monitors: Vec<Monitor>,
    pub(crate) consoles: Vec<Console>,
    pub(crate) qtests: Vec<Qtest>,
    /// Chardevs that nobody uses: open, as in QEMU, and never read.
    _idle: Vec<Port>,
    /// What `getfd` has named.
    pub(crate) descriptors: BTreeMap<String, OwnedFd>,
    pub(crate) children: Vec<Child>,
    pub(crate) signals: SignalFd,
    pub(crate) bursts: Vec<Burst>,
    timers: Vec<(Instant, Due)>,
    /// On the way out: neither monitors nor signals are heard any more.
    pub(crate) ending: bool,
    deadline: Instant,
}

/// What happens when a timer runs out.
#[derive(Debug)]
pub(crate) enum Due {
    Greeting {
        monitor: usize,
        session: u64,
    },
    Reply {
        monitor: usize,
        session: u64,
        message: String,
    },
    GuestShutdown,
    /// The end of `quit`.
    Quit(i32),
    Exit(i32),
}

/// Something that `poll` found ready.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Monitor(usize, Watched),
    Console(usize, Watched),
    Qtest(usize, Watched),
}

impl Machine {
    /// Gives each port to its user.
    pub(crate) fn assemble(
        arguments: Arguments,
        words: Words,
        mut ports: BTreeMap<String, Port>,
        children: Vec<Child>,
    ) -> Result<Self, String> {
        let deadline = Instant::now() + Duration::from_secs(words.number("lifetime").unwrap_or(120));
        let mut take = |id: &str| ports.remove(id).ok_or_else(|| format!("chardev \"{id}\" not found"));
        let (mut monitors, mut consoles, mut qtests) = (Vec::new(), Vec::new(), Vec::new());
        for monitor in arguments.monitors {
            monitors.push(Monitor::new(take(&monitor.chardev)?, monitor.pretty));
        }
        for id in arguments.consoles {
            let port = take(&id)?;
            consoles.push(Console::new(id, port, &words, deadline));
        }
        for id in arguments.qtests {
            qtests.push(Qtest::new(take(&id)?, words.has("qtest-irq")));
        }
        Ok(Self {
            name: arguments.name,
            running: !arguments.paused,
            monitors,
            consoles,
            qtests,
            _idle: ports.into_values().collect(),
            descriptors: BTreeMap::new(),
            children,
            signals: watch_signals().map_err(|error| format!("signalfd: {error}"))?,
            bursts: Vec::new(),
            timers: Vec::new(),
            ending: false,
            deadline,
            words,
        })
    }

    /// Serves until the process ends.
    pub(crate) fn run(&mut self) -> ! {
        self.begin();
        loop {
            self.run_timers();
            self.run_bursts();
            for console in &mut self.consoles {
                console.flood_on();
            }
            for source in self.wait() {
                self.serve(source);
            }
        }
    }

    fn begin(&mut self) {
        for word in ["exit-after", "fake-exit-after"] {
            if let Some(delay) = self.words.milliseconds(word) {
                self.after(delay, Due::Exit(0));
            }
        }
        for monitor in 0..self.monitors.len() {
            if self.monitors[monitor].port.line.is_some() {
                self.greet(monitor);
            }
        }
        for console in &mut self.consoles {
            console.begin(&self.words);
        }
    }

    pub(crate) fn after(&mut self, delay: Duration, due: Due) {
        self.timers.push((Instant::now() + delay, due));
    }

    fn run_timers(&mut self) {
        let now = Instant::now();
        if now >= self.deadline {
            // Nobody may read stderr; the status is what counts.
            let _ = io::stderr().write_all(b"fake-qemu: my time is over\n");
            process::exit(99);
        }
        loop {
            let earliest = self.timers.iter().enumerate().min_by_key(|(_, (at, _))| *at);
            let Some((index, _)) = earliest.filter(|(_, (at, _))| *at <= now) else {
                return;
            };
            let (_, due) = self.timers.remove(index);
            self.perform(due);
        }
    }

    fn perform(&mut self, due: Due) {
        match due {
            Due::Greeting { monitor, session } if self.is_in_session(monitor, session) => {
                self.greet_now(monitor);
            }
            Due::Reply { monitor, session, message } if self.is_in_session(monitor, session) => {
                self.monitors[monitor].message(&message);
            }
            Due::Greeting { .. } | Due::Reply { .. } => {}
            Due::GuestShutdown => self.guest_shutdown(),
            Due::Quit(status) => self.end_of_quit(status),
            Due::Exit(status) => process::exit(status),
        }
    }

    /// Whether the connection that something was meant for is still there.
    pub(crate) fn is_in_session(&self, monitor: usize, session: u64) -> bool {
        let monitor = &self.monitors[monitor];
        monitor.session_number == session && monitor.port.line.is_some()
    }

    fn wait(&self) -> Vec<Source> {
        let mut watched = Vec::new();
        let mut sources = Vec::new();
        if !self.ending {
            watched.push(PollFd::new(&self.signals, PollFlags::IN));
            sources.push(Source::Signals);
        }
        for (index, monitor) in self.monitors.iter().enumerate() {
            let read = !self.ending && !monitor.session.deaf;
            sources.extend(monitor.port.watch(read, &mut watched).map(|what| Source::Monitor(index, what)));
        }
        for (index, console) in self.consoles.iter().enumerate() {
            sources.extend(console.port.watch(true, &mut watched).map(|what| Source::Console(index, what)));
        }
        for (index, qtest) in self.qtests.iter().enumerate() {
            sources.extend(qtest.port.watch(true, &mut watched).map(|what| Source::Qtest(index, what)));
        }
        let timeout = Timespec::try_from(self.time_left()).ok();
        if poll(&mut watched, timeout.as_ref()).is_err() {
            // Interrupted: the loop comes back here.
            return Vec::new();
        }
        let ready = sources.into_iter().zip(&watched).filter(|(_, fd)| !fd.revents().is_empty());
        ready.map(|(source, _)| source).collect()
    }

    /// How long nothing has to be done.
    fn time_left(&self) -> Duration {
        if self.consoles.iter().any(Console::is_flooding) {
            return Duration::ZERO;
        }
        let timers = self.timers.iter().map(|(at, _)| *at);
        let bursts = self.bursts.iter().filter_map(|burst| self.next_event(burst));
        let next = timers.chain(bursts).chain([self.deadline]).min().unwrap_or(self.deadline);
        next.saturating_duration_since(Instant::now())
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Signals => self.obey_signal(),
            Source::Monitor(index, Watched::Listener) => {
                if self.monitors[index].port.accept() {
                    self.monitors[index].begin_session();
                    self.greet(index);
                }
            }
            Source::Monitor(index, Watched::Line) => {
                if let Some(line) = &mut self.monitors[index].port.line {
                    line.flush();
                }
                self.listen(index);
            }
            Source::Console(index, Watched::Listener) => {
                self.consoles[index].port.accept();
            }
            Source::Console(index, Watched::Line) => self.consoles[index].listen(),
            Source::Qtest(index, Watched::Listener) => {
                self.qtests[index].port.accept();
            }
            Source::Qtest(index, Watched::Line) => {
                if let Some(line) = &mut self.qtests[index].port.line {
                    line.flush();
                }
                self.qtests[index].listen();
            }
        }
    }

    fn obey_signal(&mut self) {
        let Ok(Some(signal)) = self.signals.read_signal() else {
            return;
        };
        if self.words.has("ignore-sigterm") {
            return;
        }
        let (number, sender) = (signal.ssi_signo, signal.ssi_pid);
        // Nobody may read stderr; the event and the status are what counts.
        let _ = writeln!(io::stderr(), "fake-qemu: terminating on signal {number} from pid {sender}");
        self.emit("SHUTDOWN", Some(&json!({ "guest": false, "reason": "host-signal" })));
        self.leave(0);
    }

    pub(crate) fn guest_shutdown(&mut self) {
        self.emit("SHUTDOWN", Some(&json!({ "guest": true, "reason": "guest-shutdown" })));
        self.leave(0);
    }

    fn end_of_quit(&mut self, status: i32) {
        let count = self.words.number("quit-console").unwrap_or_default();
        if let Some(console) = self.consoles.first_mut() {
            console.write(&filler(0, count));
        }
        self.leave(status);
    }

    /// Sends what is still queued, waiting for it 1 s at most, and ends the process.
    pub(crate) fn leave(&mut self, status: i32) -> ! {
        let limit = Instant::now() + Duration::from_secs(1);
        for line in self.monitors.iter_mut().filter_map(|monitor| monitor.port.line.as_mut()) {
            line.drain(limit);
        }
        process::exit(status);
    }
}

/// Has the signals that end a QEMU delivered to a descriptor.
fn watch_signals() -> nix::Result<SignalFd> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
