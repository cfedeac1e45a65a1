//! Durations as people write and read them. Pure.

use std::time::Duration;

/// Reads `500ms`, `30s`, `1.5m`, `2h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let unit_at =
        text.find(|character: char| character != '.' && !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err(format!("the unit is missing; {EXAMPLES}")),
        _ => return Err(format!("`{unit}` is no unit of time; {EXAMPLES}")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{number}` is no number; {EXAMPLES}"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| "it is too long".into())
}

const EXAMPLES: &str = "a duration is written like `500ms`, `30s`, `2m` or `1h`";

/// Writes a duration with three digits that count, or whole milliseconds: `0.21 ms`, `41 ms`, `1.24 s`.
pub(crate) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let milliseconds = seconds * 1000.0;
    match seconds {
        ..0.01 => format!("{milliseconds:.2} ms"),
        ..0.9995 => format!("{milliseconds:.0} ms"),
        ..60.0 => format!("{seconds:.2} s"),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in
            [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000), ("1.5s", 1_500), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[track_caller]
    fn check_refused(text: &str, reason: &str) {
        let message = parse(text).unwrap_err();
        assert!(message.starts_with(reason), "{text}: {message}");
    }

    #[test]
    fn what_is_no_duration_is_told_apart() {
        check_refused("30", "the unit is missing; a duration is written like `500ms`");
        check_refused("soon", "`soon` is no unit of time");
        check_refused("5 s", "` s` is no unit of time");
        check_refused("-5s", "`-5s` is no unit of time");
        check_refused("s", "`` is no number");
        check_refused("1.2.3s", "`1.2.3` is no number");
        check_refused("99999999999999999999h", "it is too long");
    }

    #[test]
    fn durations_are_written_with_what_counts() {
        for (microseconds, text) in [
            (212, "0.21 ms"),
            (41_300, "41 ms"),
            (999_700, "1.00 s"),
            (1_240_000, "1.24 s"),
            (90_000_000, "90 s"),
        ] {
            assert_eq!(shown(Duration::from_micros(microseconds)), text);
        }
    }
}
