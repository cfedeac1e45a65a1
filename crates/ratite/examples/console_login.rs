//! Talks with a guest over its serial console, until the guest powers itself off.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use ratite::ConsoleConfig;
use ratite::MachineConfig;
use ratite::PassedFd;
use ratite::Pattern;
use ratite::guest;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = MachineConfig::new("qemu-system-x86_64")
        .accelerator("tcg")
        .console(ConsoleConfig::serial())
        .fd(PassedFd::in_set(guest::boot_sector()?, 1))
        .args(["-nodefaults", "-drive", "file=/dev/fdset/1,format=raw,if=floppy,readonly=on"])
        .launch()
        .await?;
    let console = machine.console().ok_or("the machine has no console")?;

    console.expect(guest::PROMPT, LIMIT).await?;
    console.write("echo hello\r").await?;
    let answer = console.expect(Pattern::regex(r"\n(h\w+)\r\n")?, LIMIT).await?;
    println!("the guest says {:?}", answer.text().trim());

    console.expect(guest::PROMPT, LIMIT).await?;
    console.write("off\r").await?;
    let exit = machine.wait(LIMIT).await?;
    println!("{exit}, asked by {:?}", exit.asked);
    Ok(())
}
