//! `--screenshot-on-exit`: a last picture of the screen, taken while QEMU is still there.
//!
//! A guest that powers itself off would take QEMU with it, so QEMU is told to stay (`-no-shutdown`), and is ended when the
//! picture is there. What ends QEMU at once (a crash, a SIGKILL, `isa-debug-exit`) leaves none.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use ratite::Machine;

use crate::report::Failure;
use crate::signals::Signals;
use crate::verdict::Cause;

/// How long a picture may take; a fraction of a second is common.
const LIMIT: Duration = Duration::from_secs(5);

/// What QEMU is told when a last picture is wanted.
pub(super) const STAY: &str = "-no-shutdown";

/// Looks for the folder that the picture goes to, so that a wrong name is told before anything is started.
pub(super) fn check(file: &Path) -> Result<(), Failure> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let is_folder = fs::metadata(folder).and_then(|found| match found.is_dir() {
        true if !file.is_dir() => Ok(()),
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    is_folder.map_err(|source| Failure::File { doing: "write the screenshot", path: file.to_owned(), source })
}

/// Takes the picture, unless it is too late, or the user has asked again for the end; why there is none.
pub(super) async fn take(
    machine: &Machine,
    file: &Path,
    cause: Cause,
    signals: &mut Signals,
) -> Result<(), String> {
    if matches!(cause, Cause::Itself) {
        return Err("QEMU had ended before a picture could be taken".into());
    }
    let screen = machine.screen().map_err(|error| error.to_string())?;
    let png = tokio::select! {
        biased;
        signal = signals.next() => return Err(format!("{signal} came while the picture was taken")),
        png = screen.screenshot_png(LIMIT) => png.map_err(|error| error.to_string())?,
    };
    fs::write(file, png).map_err(|error| format!("could not write `{}`: {error}", file.display()))
}
