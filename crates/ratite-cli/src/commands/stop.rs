//! `ratite stop`: a machine that runs elsewhere is ended.

use std::time::Duration;

use ratite::qmp::Address;
use ratite::qmp::Command;
use ratite::qmp::ExecuteError;
use ratite::qmp::Options;
use ratite::qmp::within;
use ratite::reach::ReachError;

use crate::args::Stop;
use crate::report::Failure;
use crate::target::Target;
use crate::target::failure;
use crate::target::remote;

/// Ends the machine, and returns when it is down.
pub(crate) async fn stop(stop: &Stop) -> Result<(), Failure> {
    match &stop.target {
        Target::Name(name) => {
            let remote = remote(name).await?;
            let ended = match stop.kill {
                true => remote.kill().await,
                false => remote.shutdown(stop.grace).await,
            };
            match ended {
                // By now it is gone, which is what was wanted.
                Ok(_) | Err(ReachError::Gone { .. }) => Ok(()),
                Err(error) => Err(failure(error)),
            }
        }
        Target::Address(address) if stop.kill => Err(Failure::Usage {
            problem: format!("the QEMU at {address} cannot be killed by its address"),
            hint: "whoever listens there need not be QEMU, so its pid is not known; `ratite stop` without `--kill` asks it to quit".into(),
        }),
        Target::Address(address) => quit(&stop.target, address, stop.grace).await,
    }
}

/// Asks a QEMU that ratite has not started to quit, and waits until its monitor has closed.
async fn quit(target: &Target, address: &Address, grace: Duration) -> Result<(), Failure> {
    let client = target.qmp(Options::default()).await?;
    let asking = async {
        let reply = client.send(Command::new("quit").limit(Duration::MAX)).await;
        if let Ok(reply) = &reply
            && let Some(refusal) = reply.error()
        {
            let source = ExecuteError::Refused { command: "quit".into(), source: refusal.clone() };
            return Err(Failure::Conversation {
                doing: format!("stop the QEMU at {address}"),
                source: Box::new(source),
                exit: None,
            });
        }
        // One that closes without a reply has quit, too.
        let _how = client.closed().await;
        Ok(())
    };
    within(grace, "end", asking).await.unwrap_or_else(|_| {
        Err(Failure::TimedOut {
            what: format!("the QEMU at {address} did not quit"),
            limit: grace,
            source: None,
            exit: None,
            console: None,
        })
    })
}
