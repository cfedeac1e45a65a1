//! `--accel auto`: measures what a QEMU has, and takes the fastest that is of use.

use std::ffi::OsStr;
use std::time::Duration;

use ratite::Accelerators;
use ratite::Measurement;
use ratite::Verdict;

use crate::commands::accel;
use crate::progress::Progress;
use crate::report::Failure;

/// What every build has but those that are made for one accelerator alone.
const TCG: &str = "tcg";

/// Runs no guest code, by its nature.
const QTEST: &str = "qtest";

/// What was chosen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) accelerator: String,
    /// Why it and not the others, in one line.
    pub(super) why: String,
}

/// Measures the accelerators of `binary`, each for at most `limit`.
pub(super) async fn choose(binary: &OsStr, limit: Duration, progress: &Progress) -> Result<Choice, Failure> {
    let accelerators = Accelerators::of(binary).await.map_err(accel::failure)?;
    let (tcg, others): (Vec<_>, Vec<_>) = accelerators.listed.iter().partition(|name| *name == TCG);
    let mut measured: Vec<Measurement> = Vec::new();
    for name in tcg.into_iter().chain(others).filter(|name| *name != QTEST) {
        progress.phase(format!("measuring {name}"));
        let measurement = accelerators.measure(name, limit).await.map_err(accel::failure)?;
        let first = measured.first().filter(|first| first.accelerator == TCG);
        measured.push(match first {
            Some(tcg) => measurement.compared_with(tcg),
            None => measurement,
        });
    }
    best(&measured).ok_or_else(|| Failure::NoneUsable { binary: binary.to_string_lossy().into_owned() })
}

/// The fastest that is usable; TCG where nothing is known to be, which works wherever it is slow.
fn best(measured: &[Measurement]) -> Option<Choice> {
    let loops = |it: &&Measurement| it.speed.and_then(|speed| speed.loops_per_second).unwrap_or_default();
    let usable = measured.iter().filter(|it| it.is_usable());
    let fastest = usable.max_by(|one, other| loops(one).total_cmp(&loops(other)));
    let chosen = fastest.or_else(|| measured.iter().find(|it| it.accelerator == TCG))?;
    let others = measured.iter().filter(|other| other.accelerator != chosen.accelerator);
    let reasons = [chosen].into_iter().chain(others).filter(|it| !it.why.is_empty()).map(reason);
    Some(Choice { accelerator: chosen.accelerator.clone(), why: reasons.collect::<Vec<_>>().join("; ") })
}

fn reason(measured: &Measurement) -> String {
    let unknown = if measured.verdict == Verdict::NotMeasured { " (not measured)" } else { "" };
    format!("`{}` {}{unknown}", measured.accelerator, measured.why)
}
