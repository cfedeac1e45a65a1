//! The time at the beginning of each line of a log. Pure but for its clock.

use std::time::Duration;
use std::time::Instant;

/// Puts the time before each line of a stream that comes in pieces.
#[derive(Debug)]
pub(super) struct Stamps {
    began: Instant,
    at_line_start: bool,
}

impl Stamps {
    /// The time is that since now.
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), at_line_start: true }
    }

    /// The next piece of the stream, with the time before each line that begins in it.
    pub(super) fn stamp(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.stamp_at(self.began.elapsed(), bytes)
    }

    fn stamp_at(&mut self, time: Duration, bytes: &[u8]) -> Vec<u8> {
        let stamp = format!("[{:5}.{:06}] ", time.as_secs(), time.subsec_micros());
        let lines = memchr::memchr_iter(b'\n', bytes).count() + 1;
        let mut stamped = Vec::with_capacity(bytes.len() + lines * stamp.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
            let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
            if self.at_line_start {
                stamped.extend_from_slice(stamp.as_bytes());
            }
            stamped.extend_from_slice(line);
            self.at_line_start = end.is_some();
            rest = behind;
        }
        stamped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_time_of_its_first_byte() {
        let mut stamps = Stamps::begin();
        let at = |seconds: u64| Duration::from_millis(seconds * 1000 + 5);

        let text = [
            stamps.stamp_at(at(0), b"one\r\ntw"),
            stamps.stamp_at(at(1), b"o\n"),
            stamps.stamp_at(at(2), b""),
            stamps.stamp_at(at(123_456), b"\n"),
        ];

        let expected = "[    0.005000] one\r\n[    0.005000] two\n[123456.005000] \n";
        assert_eq!(String::from_utf8(text.concat()).unwrap(), expected);
    }
}
