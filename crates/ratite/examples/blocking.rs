//! The same without `async`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use ratite::MachineConfig;
use ratite::blocking::Machine;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let machine = Machine::launch(&MachineConfig::new("qemu-system-x86_64").machine_type("none"))?;

    let commands = machine.cmd("query-commands", ())?;
    println!("this QEMU knows {} commands", commands.as_array().map_or(0, Vec::len));

    println!("{}", machine.shutdown(Duration::from_secs(5))?);
    Ok(())
}
