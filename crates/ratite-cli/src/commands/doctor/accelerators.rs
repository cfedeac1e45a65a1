//! Which accelerators run guest code, measured.

use std::path::Path;
use std::time::Duration;

use ratite::Accelerators;
use ratite::Measurement;
use ratite::Verdict;

use crate::commands::doctor::Finding;
use crate::commands::doctor::State;

/// What is told of also when it is of no use; others are only when they are.
const ALWAYS: [&str; 2] = ["tcg", "kvm"];

/// Measures the accelerators of a QEMU, each for at most `limit`.
pub(super) async fn look(qemu: &Path, limit: Duration) -> Vec<Finding> {
    let name = qemu.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let measured = match Accelerators::of(qemu).await {
        Ok(accelerators) => accelerators.measure_all(limit).await,
        Err(error) => Err(error),
    };
    match measured {
        Ok(measured) => {
            // Any one is enough.
            let unusable = match measured.iter().any(|it| it.verdict != Verdict::Unusable) {
                true => State::Warning,
                false => State::Missing,
            };
            measured.iter().filter_map(|it| about(it, unusable)).collect()
        }
        Err(error) => {
            let causes =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            vec![Finding::new("accelerator", name, State::Missing, format!("{error}{causes}"))]
        }
    }
}

fn about(measured: &Measurement, unusable: State) -> Option<Finding> {
    let is_common = ALWAYS.contains(&measured.accelerator.as_str());
    let (state, says) = match measured.verdict {
        Verdict::Usable if measured.why.is_empty() => (State::Ok, "runs guest code".to_owned()),
        Verdict::Usable => (State::Ok, measured.why.clone()),
        Verdict::NotMeasured => (State::Warning, measured.why.clone()),
        Verdict::Unusable if is_common => (unusable, measured.why.clone()),
        Verdict::Unusable => return None,
    };
    Some(Finding::new("accelerator", &measured.accelerator, state, says))
}
