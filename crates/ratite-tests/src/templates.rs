//! Machines to be frozen, and what is asked of those that are restored, for the tests of templates.

use std::ffi::OsString;

use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::Spawn;
use ratite::guest;

use crate::scenario::PATIENCE;
use crate::scenario::Stage;

/// The embedded guest on a machine that can be frozen.
///
/// # Panics
/// If its disk cannot be written.
pub fn config(stage: &Stage) -> MachineConfig {
    let boot = stage.path("boot.img");
    std::fs::write(&boot, guest::BOOT_SECTOR).expect("so far all is well");
    let mut drive = OsString::from("if=floppy,format=raw,readonly=on,file=");
    drive.push(boot);
    plain(stage).console(ConsoleConfig::serial()).arg("-drive").arg(drive).freezable()
}

/// A machine of 16 MiB without a guest, of which nobody has thought that it might be frozen.
pub fn plain(stage: &Stage) -> MachineConfig {
    MachineConfig::new("qemu-system-x86_64")
        .accelerator("tcg")
        .args(["-nodefaults", "-m", "16"])
        .base_folder(stage.base())
}

/// The embedded guest, at its prompt.
///
/// # Panics
/// If it does not get there.
pub async fn at_prompt(config: &MachineConfig) -> Machine {
    let machine = config.launch().await.expect("so far all is well");
    machine
        .console()
        .expect("so far all is well")
        .expect(guest::PROMPT, PATIENCE)
        .await
        .expect("so far all is well");
    machine
}

/// A spawn in the base folder of `stage`.
pub fn here(stage: &Stage) -> Spawn {
    Spawn::new().base_folder(stage.base())
}

/// Has the embedded guest echo a text.
///
/// # Panics
/// If it does not.
pub async fn echoes(machine: &Machine, text: &str) {
    let console = machine.console().expect("so far all is well");
    console.write(format!("echo {text}\n")).await.expect("so far all is well");
    console.expect(format!("\n{text}\r\n").as_str(), PATIENCE).await.expect("so far all is well");
}

/// Whether the guest is run, as QEMU says.
///
/// # Panics
/// If QEMU does not say.
pub async fn is_running(machine: &Machine) -> bool {
    machine.cmd("query-status", ()).await.expect("so far all is well")["running"] == true
}
