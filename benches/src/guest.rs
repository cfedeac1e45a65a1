//! A Linux guest that waits for commands, by each way that leads to one.
//!
//! What a way needs to be prepared once, a template or a disk with a saved machine, lies in the folder of the run, from the
//! first sample that wants it on.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ratite::Console;
use ratite::Machine;
use ratite::MachineConfig;
use ratite::RamTransfer;
use ratite::Template;
use ratite::TemplateCache;
use ratite_tests::linux_guest;
use tempfile::NamedTempFile;
use tempfile::TempDir;

use crate::other_end;
use crate::scenario::Failure;

/// The variable with the run's folder for what is prepared. A sample alone has one beside this program, which stays.
pub(crate) const FOLDER: &str = "YARDSTICK_TEMPLATES";

/// The limit of every wait for a guest. 32 that boot at once take a minute.
const LIMIT: Duration = Duration::from_secs(180);

/// A folder for a run, beside this program: on a disk, and where what a killed run leaves behind is looked for.
pub(crate) fn temporary_folder() -> Result<TempDir, Failure> {
    let program = std::env::current_exe()?;
    let beside = program.parent().ok_or("this program is in no folder")?;
    Ok(tempfile::Builder::new().prefix("templates.").tempdir_in(beside)?)
}

/// The guest with so many MiB of RAM.
///
/// It does not try its timer out: where 32 guests share two cores, too few ticks may come in time, and the kernel gives up.
pub(crate) fn config(mib: u32) -> MachineConfig {
    linux_guest::machine(&["no_timer_check"]).machine_type("q35").arg("-m").arg(mib.to_string())
}

/// Waits for the guest's prompt, and tells it the cursor's place, which busybox asks for, as a terminal does: a shell that was told
/// nothing waits 20 ms for it behind each line that it gets.
pub(crate) async fn prompted(machine: &Machine) -> Result<(), Failure> {
    let console = console(machine)?;
    console.expect(linux_guest::PROMPT, LIMIT).await?;
    console.expect("\x1b[6n", LIMIT).await?;
    // What is typed behind it is read behind it: once that has come, the guest knows.
    console.write("\x1b[1;8Rx").await?;
    console.expect("x", LIMIT).await?;
    console.write("\x7f").await?;
    console.expect("\x08", LIMIT).await?;
    Ok(())
}

/// Has the guest at its prompt answer on its console.
pub(crate) async fn answers(machine: &Machine) -> Result<(), Failure> {
    let console = console(machine)?;
    console.write("echo $((6*7))\n").await?;
    console.expect("\n42\r\n", LIMIT).await?;
    Ok(())
}

/// Has it answer something else, ahead, and be at its prompt again.
pub(crate) async fn ready(machine: Machine) -> Result<(), Failure> {
    let console = console(&machine)?;
    console.write("echo ready\n").await?;
    console.expect("\nready\r\n", LIMIT).await?;
    prompted(&machine).await
}

fn console(machine: &Machine) -> Result<&Console, Failure> {
    machine.console().ok_or_else(|| "it has no console".into())
}

/// The run's template of the guest at its prompt, with its RAM to be mapped.
pub(crate) async fn mapped(mib: u32) -> Result<Template, Failure> {
    let template = cached(&format!("mapped-{mib}"), &config(mib)).await?;
    match template.ram() {
        RamTransfer::Mapped => Ok(template),
        other => Err(format!("its RAM is not mapped: {other:?}").into()),
    }
}

/// The same as a stream, since its RAM is not ratite's to map.
pub(crate) async fn streamed(mib: u32) -> Result<Template, Failure> {
    let backend = format!("memory-backend-ram,id=own,size={mib}M");
    let config = config(mib).args(["-object", &backend, "-machine", "memory-backend=own"]);
    let template = cached(&format!("streamed-{mib}"), &config).await?;
    match template.ram() {
        RamTransfer::Mapped => Err("its RAM is mapped".into()),
        _ => Ok(template),
    }
}

/// A key has one machine: of those with the same key few are kept.
async fn cached(key: &str, config: &MachineConfig) -> Result<Template, Failure> {
    Ok(TemplateCache::at(folder()?).cached(key, config, prompted).await?)
}

/// A machine that QEMU itself restores as it starts, from the run's disk with the guest at its prompt.
pub(crate) async fn config_with_saved(mib: u32) -> Result<MachineConfig, Failure> {
    let path = folder()?.join(format!("saved-{mib}.qcow2"));
    let on = |disk: &str| config(mib).args(["-drive", &format!("if=none,format=qcow2,file={disk}")]);
    if !path.exists() {
        let disk = empty_disk()?;
        let machine = on(&disk.path().to_string_lossy()).launch().await?;
        prompted(&machine).await?;
        let fault = machine.human_monitor("savevm prompt").await?;
        machine.kill().await?;
        if !fault.is_empty() {
            return Err(format!("QEMU does not save the machine: {fault}").into());
        }
        disk.persist(&path)?;
    }
    Ok(on(&path.to_string_lossy()).args(["-loadvm", "prompt"]))
}

fn empty_disk() -> Result<NamedTempFile, Failure> {
    let disk = NamedTempFile::new_in(folder()?)?;
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2"]).arg(disk.path()).arg("1M");
    if create.status()?.success() { Ok(disk) } else { Err("`qemu-img create` fails".into()) }
}

/// Where what is prepared lies.
fn folder() -> Result<PathBuf, Failure> {
    let folder = other_end::beside(FOLDER, "templates")?;
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
