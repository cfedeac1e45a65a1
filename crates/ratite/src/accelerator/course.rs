//! One measurement: the orders to the guest, the clock, and what it means when it breaks off.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use ratite_qmp::EventFilter;

use crate::console::Console;
use crate::console::ConsoleError;
use crate::error::MachineError;
use crate::exit::Exit;
use crate::exit::Tail;
use crate::machine::Machine;
use crate::speed::Speed;
use crate::speed::Verdict;
use crate::speed::Work;
use crate::speed::shown;

/// The target that the guest code is for.
pub(super) const TARGET: &str = "x86_64";

/// How long a round of work has to take for its time to count: far above what an order takes to the guest and back.
const ROUND: Duration = Duration::from_millis(20);

/// How long it has to take where its work comes out as unusable: far above the same where all processors are busy.
const LONG_ROUND: Duration = Duration::from_millis(150);

/// How many short rounds count. The fastest is taken: what else the system does makes a round slower, never faster.
const ROUNDS: usize = 3;

/// How many orders for nothing show how long an order itself takes, and how many times longer a round has to take.
const ORDERS: usize = 5;
const FAR_ABOVE: u32 = 8;

/// The most work in a round, as a power of two; what does more in its time does nothing.
const MOST: u8 = 40;

/// One measurement, and what is known when it breaks off.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) stage: Stage,
    pub(super) speed: Option<Speed>,
}

impl Course {
    /// One that begins with a machine that is paused.
    pub(super) fn new() -> Self {
        Self { stage: Stage::Paused, speed: None }
    }

    /// Has the guest do its work. When the future is dropped, `self` is what is known.
    pub(super) async fn run(&mut self, machine: &Machine, accelerator: &str) -> Result<(), Fault> {
        match target(machine).await {
            Ok(target) if target == TARGET => {}
            Ok(target) => return Err(Fault::Foreign(Finding::foreign(&target, accelerator))),
            Err(error) if error.refusal().is_some() => return Err(Fault::Foreign(Finding::without_target())),
            Err(_) => return Err(Fault::Ended),
        }
        tokio::select! {
            outcome = self.work(machine) => outcome,
            stopped = machine.event_wait(EventFilter::named("STOP"), Duration::MAX) => match stopped {
                Ok(_) => Err(Fault::Stopped(status(machine).await)),
                Err(_) => Err(Fault::Ended),
            },
        }
    }

    async fn work(&mut self, machine: &Machine) -> Result<(), Fault> {
        let console = machine.console().expect("it is configured with one");
        let start = Instant::now();
        machine.cmd("cont", ()).await.map_err(|_| Fault::Ended)?;
        self.stage = Stage::Started;
        hear(console, b'r').await?;
        self.stage = Stage::RealMode;
        hear(console, b'R').await?;
        let mut speed = Speed::of(machine.launch_time(), start.elapsed());
        self.speed = Some(speed);
        self.stage = Stage::LongMode;
        let mut slowest = Duration::ZERO;
        for _ in 0..ORDERS {
            slowest = slowest.max(round(console, NOTHING, 0).await?);
        }
        for work in Work::ALL {
            speed.set(work, self.rate(console, work, slowest * FAR_ABOVE).await?);
            self.speed = Some(speed);
        }
        Ok(())
    }

    /// How often a second the guest does its work: more and more in a round, until that takes its time.
    async fn rate(&mut self, console: &Console, work: Work, least: Duration) -> Result<f64, Fault> {
        let mut exponent = 0;
        loop {
            let mut fastest = self.round(console, work, exponent).await?;
            let mut again = 1..ROUNDS;
            while (ROUND..LONG_ROUND).contains(&fastest) && again.next().is_some() {
                fastest = fastest.min(self.round(console, work, exponent).await?);
            }
            let rate = per_second(1 << exponent, fastest);
            if fastest >= time_that_counts(work, rate, least) || exponent == MOST {
                return Ok(rate);
            }
            exponent = (exponent + step(fastest)).min(MOST);
        }
    }

    async fn round(&mut self, console: &Console, work: Work, exponent: u8) -> Result<Duration, Fault> {
        self.stage = Stage::Working { work, times: 1 << exponent, since: Instant::now() };
        round(console, work.letter(), exponent).await
    }
}

/// An order that no work has.
const NOTHING: u8 = b'n';

/// How long the guest takes to obey an order, 2^`exponent` times, and say so.
async fn round(console: &Console, letter: u8, exponent: u8) -> Result<Duration, Fault> {
    let since = Instant::now();
    console.write([letter, b'0' + exponent]).await?;
    hear(console, letter).await?;
    Ok(since.elapsed())
}

fn per_second(times: u64, took: Duration) -> f64 {
    times as f64 / took.as_secs_f64()
}

/// How long a round with this outcome has to take, so that its order's way to the guest and back, which is in its time,
/// does not matter. `least` is what that way itself asks for.
fn time_that_counts(work: Work, rate: f64, least: Duration) -> Duration {
    let is_poor = rate < 2.0 * work.least();
    least.min(2 * LONG_ROUND).max(if is_poor { LONG_ROUND } else { ROUND })
}

/// How many times the work is to be doubled after a round that did not count. Never by much at once: what took so little
/// time was mostly the order's way to the guest and back.
fn step(took: Duration) -> u8 {
    if took * 8 < ROUND {
        4
    } else if took * 4 < LONG_ROUND {
        2
    } else {
        1
    }
}

/// Waits for the guest to send `expected`, or something that ends the wait from outside.
async fn hear(console: &Console, expected: u8) -> Result<(), Fault> {
    loop {
        match *console.read_at_most(1, Duration::MAX).await? {
            [] => return Err(Fault::Ended),
            [byte, ..] if byte == expected => return Ok(()),
            // Not the firmware's: a debug port of somebody's, on the same console.
            _ => {}
        }
    }
}

/// What QEMU says of a guest that it has stopped.
async fn status(machine: &Machine) -> String {
    let status = machine.cmd("query-status", ()).await.unwrap_or_default();
    status["status"].as_str().unwrap_or("for an unknown reason").to_owned()
}

/// What QEMU says its target is, such as `x86_64`.
pub(super) async fn target(machine: &Machine) -> Result<String, MachineError> {
    let target = machine.cmd("query-target", ()).await?;
    Ok(target["arch"].as_str().unwrap_or_default().to_owned())
}

/// How far a measurement has come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Paused,
    Started,
    RealMode,
    LongMode,
    Working { work: Work, times: u64, since: Instant },
}

/// How long a busy system may keep a machine from running at all: less than that decides nothing.
const HICCUP: Duration = Duration::from_millis(250);

impl Stage {
    pub(super) fn late(self, limit: Duration) -> Finding {
        let why = match self {
            Self::Paused => format!("did not let its guest start within {limit:?}"),
            Self::Started => format!("opens, but ran no guest code within {limit:?}"),
            Self::RealMode => {
                format!("opens, but ran too slowly to get to 64-bit mode within {limit:?}")
            }
            Self::LongMode => format!("opens, but its guest obeyed no orders within {limit:?}"),
            Self::Working { work, times, since } => {
                let elapsed = since.elapsed();
                let most = per_second(times, elapsed);
                if most >= work.least() || elapsed < HICCUP {
                    let why = format!("ran for {limit:?}, which was too short to count its {}", work.name());
                    return Finding { verdict: Verdict::NotMeasured, why };
                }
                format!("opens, but ran fewer than {} {} a second", shown(most), work.name())
            }
        };
        Finding::unusable(why)
    }

    pub(super) fn ended(self, exit: Option<&Exit>) -> String {
        let end = exit.map_or_else(|| "QEMU ended".into(), Exit::to_string);
        format!("opens, but {end} {}{}", self.place(), said(exit))
    }

    pub(super) fn stopped(self, status: &str, exit: Option<&Exit>) -> String {
        format!("opens, but QEMU stopped the guest ({status}) {}{}", self.place(), said(exit))
    }

    fn place(self) -> &'static str {
        match self {
            Self::Paused => "before the guest was started",
            Self::Started => "before it ran guest code",
            Self::RealMode => "on the way to 64-bit mode",
            Self::LongMode | Self::Working { .. } => "while it ran guest code",
        }
    }
}

fn said(exit: Option<&Exit>) -> String {
    let words = exit.map(|exit| last_words(&exit.log)).unwrap_or_default();
    if words.is_empty() { words } else { format!(": {words}") }
}

/// Why a measurement ended before its time.
#[derive(Debug)]
pub(super) enum Fault {
    /// QEMU ended, or its connections did.
    Ended,
    /// QEMU runs, but runs no guest code any more.
    Stopped(String),
    /// There is no guest code for this one.
    Foreign(Finding),
}

impl From<ConsoleError> for Fault {
    fn from(_: ConsoleError) -> Self {
        Self::Ended
    }
}

/// A verdict and its reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) why: String,
}

impl Finding {
    pub(super) fn unusable(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unusable, why: why.into() }
    }

    pub(super) fn of(speed: Option<Speed>) -> Self {
        match speed.and_then(|speed| speed.shortfall()) {
            Some(why) => Self::unusable(why),
            None => Self { verdict: Verdict::Usable, why: String::new() },
        }
    }

    /// For another target there is no guest code: what is left are facts that decide nothing.
    pub(super) fn foreign(target: &str, accelerator: &str) -> Self {
        let mut why = format!("was not run: the guest code is for {TARGET}, and this QEMU for {target}");
        if accelerator == "kvm" {
            let opened = OpenOptions::new().read(true).write(true).open(Path::new("/dev/kvm"));
            why += &opened.map_or_else(
                |error| format!("; /dev/kvm does not open: {error}"),
                |_| "; /dev/kvm opens".into(),
            );
        }
        Self { verdict: Verdict::NotMeasured, why }
    }

    fn without_target() -> Self {
        let why = "was not run: this QEMU does not tell what its target is".into();
        Self { verdict: Verdict::NotMeasured, why }
    }
}

/// QEMU's last lines in one, without its own name.
pub(super) fn last_words(log: &Tail) -> String {
    let text = log.text();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(2));
    let bare = last.map(|line| match line.split_once(": ") {
        Some((name, words)) if name.starts_with("qemu-") => words,
        _ => line,
    });
    bare.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_last_words_are_one_line_without_its_name() {
        let said = b"one\nCould not access KVM kernel module: Permission denied\n\
            qemu-system-x86_64: failed to initialize kvm: Permission denied\n";
        let log = Tail { bytes: said.to_vec(), ..Tail::default() };

        let words = "Could not access KVM kernel module: Permission denied; failed to initialize kvm: Permission denied";
        assert_eq!(last_words(&log), words);
        assert_eq!(last_words(&Tail::default()), "");
    }

    #[test]
    fn a_limit_that_was_too_short_decides_nothing() {
        let since = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let late = |times| Stage::Working { work: Work::Loops, times, since }.late(Duration::from_secs(2));

        assert_eq!(late(1 << 30).verdict, Verdict::NotMeasured);
        assert_eq!(late(1 << 10).verdict, Verdict::Unusable);
        let just_begun = Stage::Working { work: Work::Loops, times: 1, since: Instant::now() };
        assert_eq!(just_begun.late(Duration::from_millis(40)).verdict, Verdict::NotMeasured);
        assert!(late(1 << 10).why.starts_with("opens, but ran fewer than 1.0"), "{}", late(1 << 10).why);
    }

    #[test]
    fn work_is_doubled_until_it_takes_its_time() {
        assert_eq!(step(Duration::ZERO), 4);
        assert_eq!(step(ROUND / 4), 2);
        assert_eq!(step(LONG_ROUND / 2), 1);
    }

    #[test]
    fn what_comes_out_as_unusable_or_is_slow_to_answer_has_to_take_longer() {
        let wanted = |rate, least| time_that_counts(Work::Cpuids, rate, least);

        assert_eq!(wanted(1e6, Duration::ZERO), ROUND);
        assert_eq!(wanted(1e6, Duration::from_millis(100)), Duration::from_millis(100));
        assert_eq!(wanted(10.0, Duration::ZERO), LONG_ROUND);
        assert_eq!(wanted(10.0, Duration::from_secs(10)), 2 * LONG_ROUND);
    }
}
