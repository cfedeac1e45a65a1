//! `ratite wait`: tells how a machine that runs elsewhere ended, once it has.

use std::io;
use std::io::Write;
use std::time::Duration;

use ratite::qmp::EventFilter;
use ratite::qmp::Options;
use ratite::qmp::within;
use ratite::reach::ReachError;

use crate::args::Wait;
use crate::report::Failure;
use crate::target::Target;
use crate::target::failure;
use crate::target::remote;

/// Waits for the machine's end.
pub(crate) async fn wait(wait: &Wait) -> Result<(), Failure> {
    let limit = wait.timeout.unwrap_or(Duration::MAX);
    match &wait.target {
        Target::Name(name) => match remote(name).await?.wait(limit).await {
            Ok(exit) if exit.success() => told(&exit.to_string()),
            Ok(exit) => badly(&exit.to_string()),
            Err(ReachError::TimedOut(_)) => {
                Err(too_late(&format!("the machine `{name}` did not end"), limit))
            }
            Err(error) => Err(failure(error)),
        },
        Target::Address(address) => {
            let client = wait.target.qmp(Options::default()).await?;
            let shutdowns = client.listen(EventFilter::named("SHUTDOWN"));
            let Ok(why) = within(limit, "end", client.closed()).await else {
                return Err(too_late(&format!("the QEMU at {address} did not end"), limit));
            };
            let reason = shutdowns.take_all().pop().map(|event| event.data()["reason"].clone());
            match reason.as_ref().and_then(|reason| reason.as_str()) {
                Some(reason) => told(&format!("QEMU ended ({reason})")),
                None => badly(&format!("{why}, and QEMU did not say that it ends")),
            }
        }
    }
}

fn told(how: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{how}").and_then(|()| stdout.flush()).map_err(Failure::output)
}

fn badly(how: &str) -> Result<(), Failure> {
    told(how)?;
    Err(Failure::EndedBadly { how: how.to_owned() })
}

fn too_late(what: &str, limit: Duration) -> Failure {
    Failure::TimedOut { what: what.to_owned(), limit, source: None, exit: None, console: None }
}
