//! A machine's keyboard and mouse.

use pyo3::prelude::*;
use ratite::Button;
use ratite::InputError;
use ratite::Layout;

use crate::errors::raise;
use crate::pending::Pending;
use crate::values::Owned;
use crate::values::limit;

/// A machine's keyboard and mouse.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Input {
    inner: Owned<ratite::Input>,
}

impl Input {
    pub(crate) fn new(inner: ratite::Input) -> Self {
        Self { inner: Owned::new(inner) }
    }

    /// The wait for what `work` does.
    fn begin<F: Future<Output = Result<(), InputError>> + Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(ratite::Input) -> F,
    ) -> PyResult<Pending> {
        Ok(Pending::new(work(self.inner.get(py)?.clone()), |py, ()| Ok(py.None())))
    }
}

fn button(py: Python<'_>, name: &str) -> PyResult<Button> {
    let buttons = [Button::Left, Button::Middle, Button::Right, Button::Side, Button::Extra];
    let known = buttons.into_iter().find(|button| button.to_string() == name);
    let unknown = || format!("no button is called `{name}`; there are left, middle, right, side and extra");
    known.ok_or_else(|| raise(py, "ConfigError", unknown(), []))
}

#[pymethods]
impl Input {
    /// The same, with keys and buttons held for so many seconds.
    fn hold(&self, py: Python<'_>, seconds: f64) -> PyResult<Self> {
        Ok(Self::new(self.inner.get(py)?.clone().hold(limit(seconds)?)))
    }

    /// Presses and releases keys.
    fn send_key(&self, py: Python<'_>, keys: String) -> PyResult<Pending> {
        self.begin(py, |input| async move { input.send_key(&keys).await })
    }

    /// Types a text with the keys of a layout.
    fn type_text(&self, py: Python<'_>, text: String, layout: &str) -> PyResult<Pending> {
        let layout: Layout = layout
            .parse()
            .map_err(|error: ratite::UnknownLayout| raise(py, "ConfigError", error.to_string(), []))?;
        self.begin(py, |input| async move { input.type_text(&text, layout).await })
    }

    /// Moves the pointer to a place.
    fn move_to(&self, py: Python<'_>, x: f64, y: f64) -> PyResult<Pending> {
        self.begin(py, |input| async move { input.move_to(x, y).await })
    }

    /// Moves the pointer by a way.
    fn move_by(&self, py: Python<'_>, right: i32, down: i32) -> PyResult<Pending> {
        self.begin(py, |input| async move { input.move_by(right, down).await })
    }

    /// Presses and releases a button.
    fn click(&self, py: Python<'_>, name: &str) -> PyResult<Pending> {
        let button = button(py, name)?;
        self.begin(py, |input| async move { input.click(button).await })
    }

    /// Presses a button.
    fn press_button(&self, py: Python<'_>, name: &str) -> PyResult<Pending> {
        let button = button(py, name)?;
        self.begin(py, |input| async move { input.press_button(button).await })
    }

    /// Releases a button.
    fn release_button(&self, py: Python<'_>, name: &str) -> PyResult<Pending> {
        let button = button(py, name)?;
        self.begin(py, |input| async move { input.release_button(button).await })
    }

    /// Turns the wheel.
    fn scroll(&self, py: Python<'_>, steps: i32) -> PyResult<Pending> {
        self.begin(py, |input| async move { input.scroll(steps).await })
    }
}
