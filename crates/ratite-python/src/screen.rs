//! A machine's screen.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::console;
use crate::pending::Pending;
use crate::picture::Picture;
use crate::picture::ScreenText;
use crate::picture::tolerance;
use crate::values::Owned;
use crate::values::limit;

/// A machine's screen.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Screen {
    inner: Owned<ratite::Screen>,
}

/// How far red, green and blue may be off, how many pixels may be different, and what does not count.
type Tolerance = (u8, f64, Vec<(u32, u32, u32, u32)>);

impl Screen {
    pub(crate) fn new(inner: ratite::Screen) -> Self {
        Self { inner: Owned::new(inner) }
    }
}

fn picture(py: Python<'_>, inner: ratite::Picture) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, Picture { inner })?.into_any())
}

fn text(py: Python<'_>, inner: ratite::ScreenText) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, ScreenText { inner })?.into_any())
}

#[pymethods]
impl Screen {
    /// The screen of another card.
    fn of(&self, py: Python<'_>, device: String, head: u32) -> PyResult<Self> {
        Ok(Self::new(self.inner.get(py)?.clone().device(device).head(head)))
    }

    /// The same, looked at every so many seconds.
    fn every(&self, py: Python<'_>, seconds: f64) -> PyResult<Self> {
        Ok(Self::new(self.inner.get(py)?.clone().every(limit(seconds)?)))
    }

    /// Takes a picture.
    fn screenshot(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        let (screen, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        Ok(Pending::new(async move { screen.screenshot(limit).await }, picture))
    }

    /// Takes a picture as the bytes of a PNG.
    fn png(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        let (screen, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let png = async move { screen.screenshot_png(limit).await };
        Ok(Pending::new(png, |py, png| Ok(PyBytes::new(py, &png).into_any().unbind())))
    }

    /// Waits until the screen no longer looks like `before`.
    fn changed_from(
        &self,
        py: Python<'_>,
        before: &Picture,
        within: Tolerance,
        seconds: f64,
    ) -> PyResult<Pending> {
        let (screen, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let (before, tolerance) = (before.inner.clone(), tolerance(within.0, within.1, within.2));
        Ok(Pending::new(async move { screen.changed_from(&before, &tolerance, limit).await }, picture))
    }

    /// Waits until the screen looks like `reference`.
    fn looks_like(
        &self,
        py: Python<'_>,
        reference: &Picture,
        within: Tolerance,
        seconds: f64,
    ) -> PyResult<Pending> {
        let (screen, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let (reference, tolerance) = (reference.inner.clone(), tolerance(within.0, within.1, within.2));
        Ok(Pending::new(async move { screen.looks_like(&reference, &tolerance, limit).await }, picture))
    }

    /// Waits until the screen has stayed as it is for `time` seconds.
    fn still(&self, py: Python<'_>, time: f64, within: Tolerance, seconds: f64) -> PyResult<Pending> {
        let (screen, time, limit) = (self.inner.get(py)?.clone(), limit(time)?, limit(seconds)?);
        let tolerance = tolerance(within.0, within.1, within.2);
        Ok(Pending::new(async move { screen.still(time, &tolerance, limit).await }, picture))
    }

    /// Reads the text that the screen shows now.
    fn text(&self, py: Python<'_>, seconds: f64) -> PyResult<Pending> {
        let (screen, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        Ok(Pending::new(async move { screen.text(limit).await }, text))
    }

    /// Waits until the text, or what the regular expression means, is on the screen.
    fn wait_text(&self, py: Python<'_>, wanted: String, regex: bool, seconds: f64) -> PyResult<Pending> {
        let (screen, limit) = (self.inner.get(py)?.clone(), limit(seconds)?);
        let pattern = console::pattern(py, wanted, regex)?;
        Ok(Pending::new(async move { screen.wait_text(pattern, limit).await }, text))
    }
}
