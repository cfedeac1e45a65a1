//! `ratite accel`: a line for each accelerator, as soon as it is measured.

use std::io;
use std::io::Write;

use ratite::AcceleratorError;
use ratite::Accelerators;
use ratite::Measurement;
use ratite::Verdict;

use crate::args::Accel;
use crate::report::Failure;
use crate::signals::Signals;

/// What is told of whether it is there or not.
const ALWAYS: [&str; 2] = ["tcg", "kvm"];

/// Lists and measures the accelerators of a binary.
pub(crate) async fn accel(accel: &Accel, signals: &mut Signals) -> Result<(), Failure> {
    tokio::select! {
        biased;
        // What is being measured is dropped, and so ended.
        signal = signals.next() => Err(Failure::Signal { signal, source: None }),
        told = tell(accel) => told,
    }
}

async fn tell(accel: &Accel) -> Result<(), Failure> {
    let accelerators = Accelerators::of(&accel.binary).await.map_err(failure)?;
    let others = accelerators.listed.iter().map(String::as_str).filter(|name| !ALWAYS.contains(name));
    let mut tcg: Option<Measurement> = None;
    let mut any_is_usable = false;
    write(["ACCELERATOR", "LISTED", "USABLE", "SPEED", "WHY"])?;
    for name in ALWAYS.into_iter().chain(others) {
        let measured = accelerators.measure(name, accel.limit).await.map_err(failure)?;
        let measured = match &tcg {
            Some(tcg) => measured.compared_with(tcg),
            None => measured,
        };
        write(row(&measured).each_ref().map(String::as_str))?;
        any_is_usable |= measured.is_usable();
        tcg = tcg.or(Some(measured));
    }
    match any_is_usable {
        true => Ok(()),
        false => Err(Failure::NoneUsable { binary: accel.binary.to_string_lossy().into_owned() }),
    }
}

fn row(measured: &Measurement) -> [String; 5] {
    let loops = measured.speed.and_then(|speed| speed.loops_per_second);
    let usable = match measured.verdict {
        Verdict::Usable => "yes",
        Verdict::Unusable => "no",
        Verdict::NotMeasured => "unknown",
    };
    [
        measured.accelerator.clone(),
        if measured.listed { "yes" } else { "no" }.into(),
        usable.into(),
        loops.map_or_else(|| "-".into(), shown),
        measured.why.clone(),
    ]
}

fn write([accelerator, listed, usable, speed, why]: [&str; 5]) -> Result<(), Failure> {
    let line = format!("{accelerator:<11}  {listed:<6}  {usable:<7}  {speed:>8}  {why}");
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{}", line.trim_end()).and_then(|()| stdout.flush());
    written.map_err(Failure::output)
}

/// A rate with the three digits that count: `488 k/s`, `1.18 G/s`.
fn shown(per_second: f64) -> String {
    let (number, unit) = match per_second {
        ..999.5 => (per_second, ""),
        ..999.5e3 => (per_second / 1e3, "k"),
        ..999.5e6 => (per_second / 1e6, "M"),
        _ => (per_second / 1e9, "G"),
    };
    let digits = match number {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{number:.digits$} {unit}/s")
}

/// A failed question to a QEMU.
pub(super) fn failure(error: AcceleratorError) -> Failure {
    match error {
        AcceleratorError::Launch(error) => Failure::Launch(error),
        AcceleratorError::TimedOut { binary, limit } => Failure::TimedOut {
            what: format!("`{binary}` did not list its accelerators"),
            limit,
            source: None,
            exit: None,
            console: None,
        },
        error => Failure::Accelerators(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_three_digits_that_count() {
        let rates = [12.0, 488_123.0, 2.164e6, 999.7e6];

        assert_eq!(rates.map(shown), ["12.0 /s", "488 k/s", "2.16 M/s", "1.00 G/s"]);
    }
}
