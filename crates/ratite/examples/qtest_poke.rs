//! Pokes at a PC's real-time clock under qtest, with no guest code running.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use ratite::MachineConfig;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `tcg` instead of the qtest accelerator, which some distributions leave out; `-S` keeps the CPU from running.
    let machine = MachineConfig::new("qemu-system-x86_64")
        .machine_type("pc")
        .accelerator("tcg")
        .qtest()
        .arg("-S")
        .launch()
        .await?;
    let qtest = machine.qtest().ok_or("the machine has no qtest")?;

    // Register 0x0b of the MC146818 holds the clock's format.
    qtest.command("outb 0x70 0x0b").await?;
    println!("RTC register B is {}", qtest.command("inb 0x71").await?);

    machine.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
