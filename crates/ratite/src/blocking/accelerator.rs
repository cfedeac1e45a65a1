//! The twin of [`crate::Accelerators`].

use std::ffi::OsString;
use std::time::Duration;

use crate::accelerator::AcceleratorError;
use crate::blocking::wait::Background;
use crate::error::LaunchError;
use crate::error::LaunchErrorKind;
use crate::speed::Measurement;

/// The accelerators of one QEMU binary; see [`crate::Accelerators`].
#[derive(Debug, Clone)]
pub struct Accelerators {
    inner: crate::accelerator::Accelerators,
    background: Background,
}

impl Accelerators {
    /// Asks `binary` which accelerators it was built with; see [`crate::Accelerators::of`].
    ///
    /// # Errors
    /// As there.
    pub fn of(binary: impl Into<OsString>) -> Result<Self, AcceleratorError> {
        let background =
            Background::start().map_err(|error| LaunchError::new(LaunchErrorKind::Channel(error)))?;
        let inner = background.wait("Accelerators::of", crate::accelerator::Accelerators::of(binary))?;
        Ok(Self { inner, background })
    }

    /// What the binary lists; see [`crate::Accelerators::listed`].
    #[must_use]
    pub fn listed(&self) -> &[String] {
        &self.inner.listed
    }

    /// Runs guest code on `accelerator`; see [`crate::Accelerators::measure`].
    ///
    /// # Errors
    /// As there.
    pub fn measure(&self, accelerator: &str, limit: Duration) -> Result<Measurement, AcceleratorError> {
        self.background.wait("Accelerators::measure", self.inner.measure(accelerator, limit))
    }

    /// Measures all that are listed; see [`crate::Accelerators::measure_all`].
    ///
    /// # Errors
    /// As there.
    pub fn measure_all(&self, limit: Duration) -> Result<Vec<Measurement>, AcceleratorError> {
        self.background.wait("Accelerators::measure_all", self.inner.measure_all(limit))
    }
}
