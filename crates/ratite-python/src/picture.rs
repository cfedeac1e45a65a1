//! Pictures of screens, and the text in them: plain data, which belongs to no process.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ratite::Difference;
use ratite::Region;
use ratite::Tolerance;

use crate::errors::raise;

/// Red, green and blue, each from 0 to 255.
type Colour = (u8, u8, u8);

/// Left, top, width and height of a part of a screen.
type Part = (u32, u32, u32, u32);

/// What a screen shows.
///
/// Two pictures are equal if all of their pixels are.
#[pyclass(frozen, eq, hash, module = "ratite")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) inner: ratite::Picture,
}

impl std::hash::Hash for Picture {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.rgb().hash(state);
    }
}

pub(crate) fn tolerance(channel: u8, share: f64, ignoring: Vec<Part>) -> Tolerance {
    let exact = Tolerance::exact().channel(channel).share(share);
    let region = |(x, y, width, height)| Region { x, y, width, height };
    ignoring.into_iter().map(region).fold(exact, Tolerance::ignoring)
}

#[pymethods]
impl Picture {
    /// A picture of `width * height` pixels, three bytes each: red, green and blue, row by row.
    #[new]
    fn new(py: Python<'_>, width: u32, height: u32, rgb: Vec<u8>) -> PyResult<Self> {
        let length = rgb.len();
        let wrong = || {
            let message = format!("{length} bytes are not {width} x {height} pixels of three bytes");
            raise(py, "ConfigError", message, [])
        };
        ratite::Picture::from_rgb(width, height, rgb).map(|inner| Self { inner }).ok_or_else(wrong)
    }

    /// Reads a PNG.
    #[staticmethod]
    fn from_png(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let read = ratite::Picture::from_png(data);
        read.map(|inner| Self { inner }).map_err(|error| raise(py, "ConfigError", error.to_string(), []))
    }

    /// Width and height in pixels.
    #[getter]
    fn size(&self) -> (u32, u32) {
        (self.inner.width(), self.inner.height())
    }

    /// The picture as the bytes of a PNG, without loss.
    #[getter]
    fn png<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let png = py.detach(|| self.inner.to_png());
        PyBytes::new(py, &png)
    }

    /// All pixels, row by row, three bytes each.
    #[getter]
    fn rgb<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.rgb())
    }

    /// Red, green and blue of a pixel, counted from the left and from the top, from 0 on; `None` outside.
    fn pixel(&self, x: u32, y: u32) -> Option<Colour> {
        self.inner.pixel(x, y).map(Into::into)
    }

    /// Writes it to a file, as a PNG, over an older one.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.inner.save_png(path)).map_err(|error| crate::errors::raise_io(py, error))
    }

    /// How it differs from another, in words; `None` if that is within the tolerance.
    ///
    /// `channel` says how far red, green and blue may be off before a pixel counts as different, `share` how many pixels may be
    /// different, from 0.0 to 1.0; parts of the screen (left, top, width, height) in `ignoring` do not count.
    #[pyo3(signature = (other, *, channel=0, share=0.0, ignoring=None))]
    fn difference(
        &self,
        py: Python<'_>,
        other: &Self,
        channel: u8,
        share: f64,
        ignoring: Option<Vec<Part>>,
    ) -> Option<String> {
        let tolerance = tolerance(channel, share, ignoring.unwrap_or_default());
        let difference: Difference = py.detach(|| self.inner.difference(&other.inner, &tolerance));
        (!difference.is_within(&tolerance)).then(|| difference.to_string())
    }

    /// The text in it, read by its glyphs; `None` if it is no screen of text.
    fn text(&self, py: Python<'_>) -> Option<ScreenText> {
        py.detach(|| ratite::ScreenText::read(&self.inner)).map(|inner| ScreenText { inner })
    }

    fn __repr__(&self) -> String {
        format!("<Picture of {} x {} pixels>", self.inner.width(), self.inner.height())
    }

    fn __getnewargs__<'py>(&self, py: Python<'py>) -> (u32, u32, Bound<'py, PyBytes>) {
        (self.inner.width(), self.inner.height(), self.rgb(py))
    }
}

/// The text on a screen; `str()` of it is all lines, without the blanks at their ends.
#[pyclass(frozen, eq, hash, module = "ratite")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScreenText {
    pub(crate) inner: ratite::ScreenText,
}

impl std::hash::Hash for ScreenText {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.inner.text().hash(state);
    }
}

#[pymethods]
impl ScreenText {
    /// The lines from top to bottom, without the blanks at their ends.
    #[getter]
    fn lines(&self) -> Vec<String> {
        self.inner.lines()
    }

    /// How many characters a line has, and how many lines there are.
    #[getter]
    fn size(&self) -> (usize, usize) {
        (self.inner.columns(), self.inner.rows())
    }

    /// Column and row of the cursor, from 0 on, if it is there to be seen: it blinks.
    #[getter]
    fn cursor(&self) -> Option<(usize, usize)> {
        self.inner.cursor()
    }

    /// How many characters are in no font; each is U+FFFD.
    #[getter]
    fn unknown(&self) -> usize {
        self.inner.unknown()
    }

    /// The character in a column and a row, its colour, and the one behind it; `None` outside.
    fn cell(&self, column: usize, row: usize) -> Option<(char, Colour, Colour)> {
        let cell = self.inner.cell(column, row)?;
        Some((cell.character, cell.foreground.into(), cell.background.into()))
    }

    fn __str__(&self) -> String {
        self.inner.text()
    }

    fn __repr__(&self) -> String {
        format!("<ScreenText of {} x {} characters>", self.inner.columns(), self.inner.rows())
    }
}
