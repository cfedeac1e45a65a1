//! Listens to a machine's events while it is stopped, continued and ended.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use ratite::MachineConfig;
use ratite::qmp::EventFilter;
use ratite::qmp::ListenError;

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = MachineConfig::new("qemu-system-x86_64").machine_type("none").launch().await?;
    // A queue of its own, armed before anything happens.
    let events = machine.listen(EventFilter::any())?;

    machine.cmd("stop", ()).await?;
    machine.cmd("cont", ()).await?;
    machine.event_wait(EventFilter::named("RESUME"), LIMIT).await?;
    machine.shutdown(LIMIT).await?;

    loop {
        match events.next(LIMIT).await {
            Ok(event) => println!("{} {}", event.name(), event.data_text().unwrap_or("")),
            Err(ListenError::Disconnected(why)) => break println!("the end: {why}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
