//! What ratite's libraries log, on stderr: errors, or what `RATITE_LOG` asks for.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;

use crate::output::Paint;
use crate::report::Failure;

/// The environment variable that chooses what is logged, such as `debug` or `ratite=trace`.
const VARIABLE: &str = "RATITE_LOG";

/// Begins to show diagnostics.
pub(crate) fn show() -> Result<(), Failure> {
    let directives = std::env::var(VARIABLE).unwrap_or_default();
    let wanted = if directives.is_empty() { "error" } else { &directives };
    let filter = EnvFilter::try_new(wanted).map_err(|error| Failure::Usage {
        problem: format!("could not understand {VARIABLE}=`{directives}`: {error}"),
        hint: format!("{VARIABLE} is a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by crate: `ratite_qmp=trace`"),
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(Paint::of(&io::stderr()).is_on())
        .with_timer(uptime())
        .init();
    Ok(())
}
