//! Events, in the order in which they came.

use std::sync::Arc;

use pyo3::prelude::*;
use ratite::qmp;
use ratite::qmp::Event;
use ratite::qmp::EventFilter;
use serde_json::Value;

use crate::errors::Raise;
use crate::errors::raise;
use crate::json;
use crate::pending::Pending;
use crate::values::Owned;
use crate::values::limit;

/// What is wanted of an event, one alternative each: its name if not any, and JSON text that it has to contain.
pub(crate) type Wanted = Vec<(Option<String>, Option<String>)>;

/// A queue of events, each as its JSON text.
#[pyclass(frozen, module = "ratite._core")]
pub(crate) struct Listener {
    inner: Owned<Arc<qmp::Listener>>,
}

impl Listener {
    pub(crate) fn new(inner: qmp::Listener) -> Self {
        Self { inner: Owned::new(Arc::new(inner)) }
    }
}

/// # Errors
/// `ArgumentsError` for text that is no JSON.
pub(crate) fn filter(py: Python<'_>, wanted: Wanted) -> PyResult<EventFilter> {
    let mut filter = EventFilter::none();
    for (name, subset) in wanted {
        let mut alternative = name.map_or_else(EventFilter::any, EventFilter::named);
        if let Some(text) = subset {
            let subset: Value = serde_json::from_str(&text).map_err(|error| {
                raise(py, "ArgumentsError", format!("could not read a match: {error}"), [])
            })?;
            alternative = alternative.matching(subset);
        }
        filter = filter.or(alternative);
    }
    Ok(filter)
}

/// An event as its JSON text, for Python.
pub(crate) fn text(py: Python<'_>, event: &Event) -> PyResult<Py<PyAny>> {
    Ok(event.text().into_pyobject(py)?.into_any().unbind())
}

#[pymethods]
impl Listener {
    /// Takes the oldest event that is wanted; others stay.
    fn next(&self, py: Python<'_>, wanted: Wanted, seconds: f64) -> PyResult<Pending> {
        let (inner, wanted, limit) = (Arc::clone(self.inner.get(py)?), filter(py, wanted)?, limit(seconds)?);
        if let Ok(Some(event)) = inner.try_next_matching(&wanted) {
            return Ok(Pending::done(text(py, &event)?));
        }
        let next = async move { inner.next_matching(&wanted, limit).await };
        Ok(Pending::new(next, |py, event| text(py, &event)))
    }

    /// Waits until `try_next` has something to take.
    fn ready(&self, py: Python<'_>, wanted: Wanted, seconds: f64) -> PyResult<Pending> {
        let (inner, wanted, limit) = (Arc::clone(self.inner.get(py)?), filter(py, wanted)?, limit(seconds)?);
        let ready = async move { inner.ready(&wanted, limit).await };
        Ok(Pending::light(ready, |py, ()| Ok(py.None())))
    }

    /// Takes the oldest event that is wanted, if there is one.
    fn try_next(&self, py: Python<'_>, wanted: Wanted) -> PyResult<Option<String>> {
        let event =
            self.inner.get(py)?.try_next_matching(&filter(py, wanted)?).map_err(|error| error.raise(py))?;
        Ok(event.map(|event| event.text().to_owned()))
    }

    /// The same as a value.
    fn pop<'py>(&self, py: Python<'py>, wanted: Wanted) -> PyResult<Option<Bound<'py, PyAny>>> {
        let event =
            self.inner.get(py)?.try_next_matching(&filter(py, wanted)?).map_err(|error| error.raise(py))?;
        event.map(|event| json::value(py, event.text())).transpose()
    }

    /// Takes all events that are there.
    fn take_all(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.inner.get(py)?.take_all().iter().map(|event| event.text().to_owned()).collect())
    }

    /// How many events were dropped because nobody read them.
    #[getter]
    fn dropped(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.inner.get(py)?.dropped())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.inner.get(py)?.len())
    }
}
