//! `-l`: every message in both directions, with its time, into a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use ratite::qmp::Direction;
use ratite::qmp::Transcript;

use crate::json;
use crate::report;
use crate::report::Failure;

/// Appends to the file at `path`, which is made if there is none.
pub(super) fn into_file(path: &Path) -> Result<Transcript, Failure> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    let file = opened.map_err(|source| Failure::Conversation {
        doing: format!("open `{}`", path.display()),
        source: Box::new(source),
        exit: None,
    })?;
    let file = Mutex::new(Some(file));
    let shown = path.display().to_string();
    Ok(Transcript::new(move |entry| {
        let mut place = file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = place.as_mut() else { return };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let arrow = match entry.direction {
            Direction::Sent => "->",
            Direction::Received => "<-",
        };
        let line = format!("{} {arrow} {}\n", written(since), json::one_line(entry.text));
        if let Err(error) = file.write_all(line.as_bytes()) {
            report::remark(&format!("`{shown}` is not complete: {error}"));
            *place = None;
        }
    }))
}

/// A time since 1970 as `2026-01-31T23:59:59.123456Z`.
fn written(since: Duration) -> String {
    let seconds = since.as_secs();
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// Year, month and day, from days since 1970-01-01.
fn date(mut day: u64) -> (u64, u64, u64) {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000007Z"),
        ] {
            assert_eq!(written(Duration::from_secs(seconds) + Duration::from_micros(7)), expected);
        }
    }
}
