//! Which accelerators are of use, found by running guest code on them.

use std::ffi::OsString;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use ratite::AcceleratorError;
use ratite::Accelerators;
use ratite::Measurement;
use ratite::Verdict;

use crate::errors::Raise;
use crate::errors::chain;
use crate::errors::raise;
use crate::pending::Pending;
use crate::values::limit;

impl Raise for AcceleratorError {
    fn raise(self, py: Python<'_>) -> PyErr {
        match self {
            Self::Launch(error) => error.raise(py),
            other => raise(py, "Error", chain(&other), []),
        }
    }
}

/// Measures one accelerator of `binary`, or all that it lists, each for at most so many seconds.
///
/// Each as (accelerator, listed, verdict, why, speed); the speed as its six figures, in their order.
#[pyfunction]
pub(crate) fn measure(binary: OsString, accelerator: Option<String>, seconds: f64) -> PyResult<Pending> {
    let limit = limit(seconds)?;
    let measurements = async move {
        let accelerators = Accelerators::of(binary).await?;
        match accelerator {
            Some(accelerator) => Ok(vec![accelerators.measure(&accelerator, limit).await?]),
            None => accelerators.measure_all(limit).await,
        }
    };
    Ok(Pending::new(measurements, |py, measurements: Vec<Measurement>| {
        let told: Vec<_> = measurements.into_iter().map(told).collect();
        told.into_py_any(py)
    }))
}

type Told = (String, bool, &'static str, String, Option<Figures>);
type Figures = (f64, f64, Option<f64>, Option<f64>, Option<f64>, Option<f64>);

fn told(measurement: Measurement) -> Told {
    let verdict = match measurement.verdict {
        Verdict::Usable => "usable",
        Verdict::Unusable => "unusable",
        Verdict::NotMeasured => "not-measured",
    };
    let figures = measurement.speed.map(|speed| {
        let times = (speed.launch.as_secs_f64(), speed.boot.as_secs_f64());
        let (loops, cpuids) = (speed.loops_per_second, speed.cpuids_per_second);
        (times.0, times.1, loops, cpuids, speed.port_writes_per_second, speed.page_moves_per_second)
    });
    (measurement.accelerator, measurement.listed, verdict, measurement.why, figures)
}
