//! A guest with a screen, a keyboard and a mouse (`guest/screen.s`): it shows what a test can know beforehand, and tells on its
//! console what keyboard and mouse send.

use std::fs;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::MachineConfig;

use crate::scenario::PATIENCE;
use crate::scenario::Stage;

/// The guest: one boot sector.
pub const BOOT_SECTOR: &[u8; 512] = include_bytes!("../guest/screen.bin");

/// What the guest says once it listens to its keyboard.
pub const READY: &str = "ready";

/// A machine that runs the guest, with a graphics card of the id `card`.
///
/// # Panics
/// If there is no QEMU, or no room for a file.
pub fn config(stage: &Stage) -> MachineConfig {
    let disk = stage.path("screen.bin");
    fs::write(&disk, BOOT_SECTOR).expect("a file can be made");
    stage
        .real()
        .machine_type("pc")
        .accelerator("tcg")
        .with_screen()
        .args(["-display", "none", "-nodefaults", "-m", "4", "-device", "VGA,id=card"])
        .arg("-drive")
        .arg(format!("file={},format=raw,if=floppy,readonly=on", disk.display()))
        .console(ConsoleConfig::serial())
}

/// Launches the guest and waits until it listens to its keyboard.
///
/// # Panics
/// If it does not come so far.
pub async fn boot(config: MachineConfig) -> Machine {
    let machine = config.launch().await.expect("the guest launches");
    console(&machine).expect(READY, PATIENCE).await.expect("the guest boots");
    machine
}

/// The guest's console.
///
/// # Panics
/// If it has none.
#[must_use]
pub fn console(machine: &Machine) -> &Console {
    machine.console().expect("the guest has a console")
}

/// Presses a key that changes the screen, and waits until it has.
///
/// # Panics
/// If it does not.
pub async fn show(machine: &Machine, key: &str) {
    machine.input().expect("it has a monitor").send_key(key).await.expect("the key is pressed");
    console(machine).expect("!", PATIENCE).await.expect("the screen is drawn");
}
