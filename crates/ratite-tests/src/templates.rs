//! Machines to be frozen, and what is asked of those that are restored, for the tests of templates.

use std::ffi::OsString;

use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::Spawn;
use ratite::guest;
use ratite::qmp::EventFilter;
use serde_json::json;

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

/// Writes a byte's `value` all over a sector of a disk, as the guest would.
///
/// # Panics
/// If QEMU does not take the command.
pub async fn fill_sector(machine: &Machine, disk: &str, sector: u64, value: u8) {
    let line = format!("qemu-io {disk} \"write -P {value} {} 512\"", sector * 512);
    machine.human_monitor(&line).await.expect("so far all is well");
}

/// All that the guest would read from a disk. (`qemu-io` says what it reads on QEMU's output, where nobody waits for it.)
///
/// # Panics
/// If QEMU does not copy it.
pub async fn content(machine: &Machine, disk: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("so far all is well");
    let target = folder.path().join("copy");
    let copy = json!({ "device": disk, "job-id": "copy", "target": target, "sync": "full", "format": "raw" });
    machine.cmd("drive-backup", copy).await.expect("so far all is well");
    let filter = EventFilter::named("BLOCK_JOB_COMPLETED");
    let completed = machine.event_wait(filter, PATIENCE).await.expect("so far all is well");
    assert!(completed.data()["error"].is_null(), "{completed:?}");
    std::fs::read(&target).expect("so far all is well")
}

/// Whether the guest is run, as QEMU says.
///
/// # Panics
/// If QEMU does not say.
pub async fn is_running(machine: &Machine) -> bool {
    machine.cmd("query-status", ()).await.expect("so far all is well")["running"] == true
}
