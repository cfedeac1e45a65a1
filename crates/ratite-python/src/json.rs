//! JSON text as values of Python's, made without Python's parser, which takes three times as long over an event.
//!
//! What is out of the ordinary is left to that parser: wrong text, the halves of characters, huge numbers, deep nesting. So the
//! values are the same, and so are the errors.

use std::sync::Mutex;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBool;
use pyo3::types::PyDict;
use pyo3::types::PyFloat;
use pyo3::types::PyList;
use pyo3::types::PyString;

/// A message from its text, as `json.loads` reads it.
#[pyfunction]
pub(crate) fn loads<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    match text.to_cow() {
        Ok(read) => value(text.py(), &read),
        // One that is no Unicode is for Python's parser, too.
        Err(_) => by_python(text),
    }
}

/// The same for a text that is not Python's yet.
pub(crate) fn value<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    match read(py, text) {
        Ok(value) => Ok(value),
        Err(Other::Python(error)) => Err(error),
        Err(Other::Unusual) => by_python(&PyString::new(py, text)),
    }
}

fn by_python<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
    PYTHONS.import(text.py(), "json", "loads")?.call1((text,))
}

static PYTHONS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// Why there is no value.
enum Other {
    /// It is nothing for this reader.
    Unusual,
    Python(PyErr),
}

impl From<PyErr> for Other {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

type Read<'py> = Result<Bound<'py, PyAny>, Other>;

fn read<'py>(py: Python<'py>, text: &str) -> Read<'py> {
    // Busy where this began within itself: in what Python does when it collects its garbage.
    let mut known = KNOWN.try_lock().ok();
    let mut reader = Reader { py, text, at: 0, known: known.as_deref_mut() };
    let value = reader.value(DEEPEST)?;
    reader.skip_blanks();
    if reader.at == text.len() { Ok(value) } else { Err(Other::Unusual) }
}

/// How deeply it may be nested.
const DEEPEST: usize = 100;

struct Reader<'a, 'py> {
    py: Python<'py>,
    text: &'a str,
    at: usize,
    known: Option<&'a mut Known>,
}

impl<'a, 'py> Reader<'a, 'py> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// What comes behind blanks.
    fn next(&mut self) -> Option<u8> {
        self.skip_blanks();
        self.peek()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Other> {
        if self.next() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(Other::Unusual)
    }

    fn word(&mut self, word: &str) -> Result<(), Other> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(Other::Unusual)
    }

    fn value(&mut self, deeper: usize) -> Read<'py> {
        if deeper == 0 {
            return Err(Other::Unusual);
        }
        let py = self.py;
        match self.next().ok_or(Other::Unusual)? {
            b'{' => self.object(deeper),
            b'[' => self.array(deeper),
            b'"' => match self.string()? {
                Text::Plain(text) => Ok(PyString::new(py, text).into_any()),
                Text::Escaped(text) => Ok(PyString::new(py, &text).into_any()),
            },
            b't' => self.word("true").map(|()| PyBool::new(py, true).to_owned().into_any()),
            b'f' => self.word("false").map(|()| PyBool::new(py, false).to_owned().into_any()),
            b'n' => self.word("null").map(|()| py.None().into_bound(py)),
            _ => self.number(),
        }
    }

    fn object(&mut self, deeper: usize) -> Read<'py> {
        let members = PyDict::new(self.py);
        self.expect(b'{')?;
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(members.into_any());
        }
        loop {
            let name = self.name()?;
            self.expect(b':')?;
            members.set_item(name, self.value(deeper - 1)?)?;
            if self.goes_on(b'}')? {
                continue;
            }
            return Ok(members.into_any());
        }
    }

    fn array(&mut self, deeper: usize) -> Read<'py> {
        let items = PyList::empty(self.py);
        self.expect(b'[')?;
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(items.into_any());
        }
        loop {
            items.append(self.value(deeper - 1)?)?;
            if self.goes_on(b']')? {
                continue;
            }
            return Ok(items.into_any());
        }
    }

    /// Whether another one follows, or else the end.
    fn goes_on(&mut self, end: u8) -> Result<bool, Other> {
        match self.next() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(Other::Unusual),
        }
    }

    fn name(&mut self) -> Result<Bound<'py, PyString>, Other> {
        let py = self.py;
        if self.next() != Some(b'"') {
            return Err(Other::Unusual);
        }
        Ok(match (self.string()?, &mut self.known) {
            (Text::Plain(name), Some(known)) => known.name(py, name),
            (Text::Plain(name), None) => PyString::new(py, name),
            (Text::Escaped(name), _) => PyString::new(py, &name),
        })
    }

    fn string(&mut self) -> Result<Text<'a>, Other> {
        self.at += 1;
        let rest = &self.text.as_bytes()[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).ok_or(Other::Unusual)?;
        match rest[end] {
            b'"' => {
                let text = &self.text[self.at..self.at + end];
                self.at += end + 1;
                Ok(Text::Plain(text))
            }
            b'\\' => self.escaped().map(Text::Escaped),
            _ => Err(Other::Unusual),
        }
    }

    fn escaped(&mut self) -> Result<String, Other> {
        let mut text = String::new();
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let end =
                rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20)).ok_or(Other::Unusual)?;
            text.push_str(&self.text[self.at..self.at + end]);
            self.at += end + 1;
            match rest[end] {
                b'"' => return Ok(text),
                b'\\' => text.push(self.escape()?),
                _ => return Err(Other::Unusual),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Other> {
        let kind = self.peek().ok_or(Other::Unusual)?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return char::from_u32(unit).ok_or(Other::Unusual);
                }
                self.word("\\u")?;
                let second =
                    self.unit()?.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(Other::Unusual)?;
                char::from_u32(0x10000 + ((unit - 0xd800) << 10) + second).ok_or(Other::Unusual)?
            }
            _ => return Err(Other::Unusual),
        })
    }

    /// The four digits of `\u`.
    fn unit(&mut self) -> Result<u32, Other> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Other::Unusual)?;
        self.at += 4;
        digits
            .iter()
            .try_fold(0, |unit, digit| Ok(unit << 4 | char::from(*digit).to_digit(16).ok_or(Other::Unusual)?))
    }

    fn number(&mut self) -> Read<'py> {
        let rest = &self.text[self.at..];
        let end = rest
            .find(|letter| !matches!(letter, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let number = &rest[..end];
        let digits = number.strip_prefix('-').unwrap_or(number);
        let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
        if whole == 0 || (whole > 1 && digits.starts_with('0')) {
            return Err(Other::Unusual);
        }
        self.at += end;
        if whole == digits.len() {
            return match (number.parse::<i64>(), number.parse::<u64>()) {
                (Ok(number), _) => Ok(number.into_bound_py_any(self.py)?),
                (_, Ok(number)) => Ok(number.into_bound_py_any(self.py)?),
                _ => Err(Other::Unusual),
            };
        }
        if !is_fraction(&digits[whole..]) {
            return Err(Other::Unusual);
        }
        let number: f64 = number.parse().map_err(|_| Other::Unusual)?;
        Ok(PyFloat::new(self.py, number).into_any())
    }
}

/// Whether this is what JSON allows behind a whole number.
fn is_fraction(text: &str) -> bool {
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (fraction, exponent) = match text.split_once(['e', 'E']) {
        Some((fraction, exponent)) => (fraction, Some(exponent)),
        None => (text, None),
    };
    let is_exponent = |text: &str| are_digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    (fraction.is_empty() || fraction.strip_prefix('.').is_some_and(are_digits))
        && exponent.is_none_or(is_exponent)
}

enum Text<'a> {
    Plain(&'a str),
    Escaped(String),
}

/// Names of members that were met: they are the same few again and again.
struct Known([Option<(Box<str>, Py<PyString>)>; 512]);

static KNOWN: Mutex<Known> = Mutex::new(Known([const { None }; 512]));

/// How long a name is at most that is kept.
const LONGEST: usize = 32;

impl Known {
    fn name<'py>(&mut self, py: Python<'py>, name: &str) -> Bound<'py, PyString> {
        if name.len() > LONGEST {
            return PyString::new(py, name);
        }
        // FNV-1a.
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = name.bytes().fold(0x811c_9dc5, step);
        let place = &mut self.0[(hash ^ hash >> 16) as usize % 512];
        match place {
            Some((known, made)) if **known == *name => made.bind(py).clone(),
            _ => {
                let made = PyString::new(py, name);
                *place = Some((name.into(), made.clone().unbind()));
                made
            }
        }
    }
}
