//! How fast guest code ran, and whether that is usable. Pure: the clock and the machine are `accelerator`'s.

use std::time::Duration;

/// How fast an accelerator ran guest code, in 64-bit mode. What was not measured in time is `None`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Speed {
    /// From the start of QEMU to its monitor being ready.
    pub launch: Duration,
    /// From there to guest code in 64-bit mode; there is no BIOS in between.
    pub boot: Duration,
    /// Loops of five instructions, a load and a store among them: plain computing.
    pub loops_per_second: Option<f64>,
    /// CPUID instructions, which a hypervisor answers itself.
    pub cpuids_per_second: Option<f64>,
    /// Writes to a port, which QEMU itself takes.
    pub port_writes_per_second: Option<f64>,
    /// Changes of a page table, each with INVLPG and a read of the page.
    pub page_moves_per_second: Option<f64>,
}

/// Whether an accelerator can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It ran guest code, fast enough.
    Usable,
    /// It is not there, does not start, ran no guest code, or ran it too slowly.
    Unusable,
    /// Nobody knows: nothing was run, or not for long enough.
    NotMeasured,
}

/// What became of one accelerator when it was measured.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Measurement {
    /// The accelerator, as `-accel` takes it.
    pub accelerator: String,
    /// Whether the binary lists it.
    pub listed: bool,
    /// Whether it can be used.
    pub verdict: Verdict,
    /// Why, as the end of a sentence that begins with the accelerator; empty for one that is usable and was compared with
    /// nothing.
    pub why: String,
    /// How fast it was, if it ran guest code in 64-bit mode at all.
    pub speed: Option<Speed>,
}

/// What the guest is told to do, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Loops,
    Cpuids,
    PortWrites,
    PageMoves,
}

/// The least that is usable of what leaves the guest, a second. A Linux needs some hundred thousand of them to boot.
const LEAST_EXITS: f64 = 2e3;

/// The least loops a second: TCG does a hundred times as many on a common machine, and a tenth of that on a busy one.
const LEAST_LOOPS: f64 = 5e6;

/// How many times more slowly than TCG an accelerator may compute: what two measurements of the same thing can differ by
/// on a busy machine. One that is only emulated is hundreds of times slower.
const TOLERANCE: f64 = 4.0;

impl Work {
    pub(crate) const ALL: [Self; 4] = [Self::Loops, Self::Cpuids, Self::PortWrites, Self::PageMoves];

    /// The order to the guest; see `guest/README.md`.
    pub(crate) fn letter(self) -> u8 {
        match self {
            Self::Loops => b'c',
            Self::Cpuids => b'i',
            Self::PortWrites => b'p',
            Self::PageMoves => b'm',
        }
    }

    pub(crate) fn least(self) -> f64 {
        match self {
            Self::Loops => LEAST_LOOPS,
            Self::Cpuids | Self::PortWrites | Self::PageMoves => LEAST_EXITS,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loops => "loops of guest code",
            Self::Cpuids => "CPUIDs",
            Self::PortWrites => "port writes",
            Self::PageMoves => "page table changes",
        }
    }
}

impl Speed {
    pub(crate) fn of(launch: Duration, boot: Duration) -> Self {
        Self {
            launch,
            boot,
            loops_per_second: None,
            cpuids_per_second: None,
            port_writes_per_second: None,
            page_moves_per_second: None,
        }
    }

    pub(crate) fn set(&mut self, work: Work, per_second: f64) {
        *match work {
            Work::Loops => &mut self.loops_per_second,
            Work::Cpuids => &mut self.cpuids_per_second,
            Work::PortWrites => &mut self.port_writes_per_second,
            Work::PageMoves => &mut self.page_moves_per_second,
        } = Some(per_second);
    }

    fn get(&self, work: Work) -> Option<f64> {
        match work {
            Work::Loops => self.loops_per_second,
            Work::Cpuids => self.cpuids_per_second,
            Work::PortWrites => self.port_writes_per_second,
            Work::PageMoves => self.page_moves_per_second,
        }
    }

    /// The first of what was measured that is too slow, in words.
    pub(crate) fn shortfall(&self) -> Option<String> {
        let measured = Work::ALL.into_iter().filter_map(|work| Some((work, self.get(work)?)));
        let (work, rate) = measured.into_iter().find(|(work, rate)| *rate < work.least())?;
        Some(format!("opens, but ran only {} {} a second", shown(rate), work.name()))
    }
}

impl Measurement {
    /// Whether the accelerator is known to be usable.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.verdict == Verdict::Usable
    }

    /// The same, judged by what TCG does on this machine: an accelerator that computes less than a quarter as fast is
    /// of no use. Whatever was not measured in both stays as it is.
    #[must_use]
    pub fn compared_with(self, tcg: &Self) -> Self {
        let loops = |it: &Self| it.speed.and_then(|speed| speed.loops_per_second);
        let (Some(own), Some(theirs)) = (loops(&self), loops(tcg)) else { return self };
        match theirs / own {
            _ if self.accelerator == tcg.accelerator => self,
            slower if slower > TOLERANCE => {
                let why = format!("opens, but ran guest code {} times more slowly than TCG", times(slower));
                Self { verdict: Verdict::Unusable, why, ..self }
            }
            _ if !self.is_usable() => self,
            slower if slower > 1.25 => {
                Self { why: format!("ran guest code {} times more slowly than TCG", times(slower)), ..self }
            }
            slower if slower > 0.8 => Self { why: "ran guest code about as fast as TCG".into(), ..self },
            slower => {
                Self { why: format!("ran guest code {} times as fast as TCG", times(1.0 / slower)), ..self }
            }
        }
    }
}

/// A factor that is above 1, as exactly as it deserves: `1.6`, `12`, `960`.
fn times(factor: f64) -> String {
    if factor < 10.0 { format!("{factor:.1}") } else { format!("{factor:.0}") }
}

/// A number with the three digits that count: `0.25`, `12.3`, `964`, `498 thousand`, `2.16 million`.
pub(crate) fn shown(number: f64) -> String {
    let (number, unit) = match number {
        ..999.5 => (number, ""),
        ..999.5e3 => (number / 1e3, " thousand"),
        ..999.5e6 => (number / 1e6, " million"),
        _ => (number / 1e9, " billion"),
    };
    match number {
        ..9.995 => format!("{number:.2}{unit}"),
        ..99.95 => format!("{number:.1}{unit}"),
        _ => format!("{number:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(accelerator: &str, loops: f64) -> Measurement {
        let mut speed = Speed::of(Duration::ZERO, Duration::ZERO);
        speed.set(Work::Loops, loops);
        Measurement {
            accelerator: accelerator.into(),
            listed: true,
            verdict: Verdict::Usable,
            why: String::new(),
            speed: Some(speed),
        }
    }

    #[test]
    fn what_is_slower_than_tcg_is_of_no_use_and_says_how_much() {
        let tcg = measured("tcg", 480e6);

        let slow = measured("kvm", 0.5e6).compared_with(&tcg);
        let busy = measured("kvm", 200e6).compared_with(&tcg);
        let even = measured("kvm", 400e6).compared_with(&tcg);
        let fast = measured("kvm", 960e6).compared_with(&tcg);

        assert_eq!(
            (slow.verdict, &*slow.why),
            (Verdict::Unusable, "opens, but ran guest code 960 times more slowly than TCG")
        );
        assert_eq!(
            (busy.verdict, &*busy.why),
            (Verdict::Usable, "ran guest code 2.4 times more slowly than TCG")
        );
        assert_eq!((even.verdict, &*even.why), (Verdict::Usable, "ran guest code about as fast as TCG"));
        assert_eq!((fast.verdict, &*fast.why), (Verdict::Usable, "ran guest code 2.0 times as fast as TCG"));
        assert_eq!(tcg.clone().compared_with(&tcg), tcg);
    }

    #[test]
    fn a_comparison_makes_nothing_usable_and_needs_both() {
        let tcg = measured("tcg", 480e6);
        let exits_slowly = Measurement { verdict: Verdict::Unusable, ..measured("kvm", 900e6) };
        let refused = Measurement { verdict: Verdict::Unusable, speed: None, ..measured("kvm", 1.0) };

        assert_eq!(exits_slowly.clone().compared_with(&tcg), exits_slowly);
        assert_eq!(refused.clone().compared_with(&tcg), refused);
        assert_eq!(tcg.clone().compared_with(&refused), tcg);
    }

    #[test]
    fn each_kind_of_work_has_its_least() {
        let mut speed = Speed::of(Duration::ZERO, Duration::ZERO);
        speed.set(Work::Loops, 600e6);
        assert_eq!(speed.shortfall(), None);

        speed.set(Work::PortWrites, 130.0);

        assert_eq!(speed.shortfall().unwrap(), "opens, but ran only 130 port writes a second");
    }

    #[test]
    fn numbers_are_shown_with_what_counts() {
        let numbers = [0.25, 12.34, 964.4, 999.7, 498_213.0, 2.164e6, 4.8e8, 1.2e9];

        assert_eq!(
            numbers.map(shown),
            [
                "0.25",
                "12.3",
                "964",
                "1.00 thousand",
                "498 thousand",
                "2.16 million",
                "480 million",
                "1.20 billion"
            ]
        );
    }
}
