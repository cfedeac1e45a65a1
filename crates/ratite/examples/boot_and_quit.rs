//! Starts a machine, asks it two questions, and ends it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use ratite::MachineConfig;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = MachineConfig::new("qemu-system-x86_64").machine_type("none").launch().await?;

    let version = machine.cmd("query-version", ()).await?;
    let status = machine.cmd("query-status", ()).await?;
    println!("QEMU {}.{} is {}", version["qemu"]["major"], version["qemu"]["minor"], status["status"]);

    let exit = machine.shutdown(Duration::from_secs(5)).await?;
    println!("{exit} after {:?}", exit.run_time);
    Ok(())
}
