//! Lists as people read them: a line for each thing, in columns under a head. Pure but for a look at the terminal.

use std::io;
use std::io::IsTerminal;
use std::time::Duration;

use crate::output::Paint;

/// How many columns the terminal has; as many as one wants, if stdout is none.
pub(crate) fn width() -> usize {
    let stdout = io::stdout();
    match rustix::termios::tcgetwinsize(&stdout) {
        Ok(size) if stdout.is_terminal() && size.ws_col > 0 => size.ws_col.into(),
        _ => usize::MAX,
    }
}

/// The rows under their head, no line wider than `width`.
pub(crate) fn table(head: &[&str; 6], rows: &[[String; 6]], width: usize, paint: Paint) -> String {
    let column = |at: usize| {
        let lengths = rows.iter().map(|row| row[at].chars().count());
        lengths.chain([head[at].len()]).max().unwrap_or_default()
    };
    let widths: [usize; 5] = std::array::from_fn(column);
    let line = |cells: &[&str; 6]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line += &format!("{cell:<width$}  ");
        }
        line += cells[5];
        line.trim_end().chars().take(width).collect::<String>()
    };
    let head = paint.bold(&line(head));
    let rows = rows.iter().map(|row| line(&row.each_ref().map(String::as_str)));
    [head].into_iter().chain(rows).map(|line| line + "\n").collect()
}

/// The two largest units that count: `7s`, `2m05s`, `3h12m`, `9d04h`.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// Bytes, in the unit that leaves up to three digits before the point: `512 B`, `4.0 KiB`, `23 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut shown, mut unit) = (bytes as f64 / 1024.0, 0);
    while shown >= 999.5 && unit + 1 < UNITS.len() {
        (shown, unit) = (shown / 1024.0, unit + 1);
    }
    let decimals = usize::from(shown < 9.95);
    format!("{shown:.decimals$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_by_its_two_largest_units() {
        for (seconds, text) in [(7, "7s"), (125, "2m05s"), (11_520, "3h12m"), (792_000, "9d04h")] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_size_has_the_unit_that_leaves_few_digits() {
        let check = |bytes, text| assert_eq!(size(bytes), text);

        check(0, "0 B");
        check(999, "999 B");
        check(1000, "1.0 KiB");
        check(24 << 20, "24 MiB");
        check(1023 << 20, "1.0 GiB");
        check(u64::MAX, "16384 PiB");
    }

    #[test]
    fn a_table_is_aligned_and_cut_to_the_terminal() {
        let rows = [["web", "7", "a", "b", "c", ""].map(str::to_owned)];
        let shown = |width| table(&["NAME", "PID", "C", "D", "E", "F"], &rows, width, Paint::NONE);

        assert_eq!(shown(usize::MAX), "NAME  PID  C  D  E  F\nweb   7    a  b  c\n");
        assert_eq!(shown(8), "NAME  PI\nweb   7 \n");
    }
}
