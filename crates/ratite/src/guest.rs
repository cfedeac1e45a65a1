//! A guest of 512 bytes: boots within a tenth of a second, greets on the first serial port, and obeys a few commands.
//!
//! For trying things out, for examples and for tests: anything that needs a machine whose guest answers, but no
//! operating system. It runs on the `pc`, `q35` and `isapc` machines of `qemu-system-x86_64` and `qemu-system-i386`.
//! `guest/README.md` in this crate lists its commands, and `guest/boot.s` is its source.
//!
//! [`SPEED_FIRMWARE`] is another one, that shows how fast a machine is; [`crate::Accelerators`] uses it.
//!
//! Knows nothing of machines: it hands out bytes, or a descriptor that holds them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SealFlags;

use crate::config::ConsoleConfig;
use crate::config::MachineConfig;
use crate::config::PassedFd;

/// The guest: one boot sector, which is the first and only sector of its disk.
pub const BOOT_SECTOR: &[u8; 512] = include_bytes!("../guest/boot.bin");

/// The firmware that runs guest code on demand (`guest/speed.s`): the end of a ROM in the BIOS's place.
pub const SPEED_FIRMWARE: &[u8; 512] = include_bytes!("../guest/speed.bin");

/// The least that QEMU takes for a BIOS, which begins at a multiple of this.
const ROM: usize = 64 << 10;

/// What the guest prints once it is up, before its first [`PROMPT`].
pub const READY: &str = "ratite guest ready";

/// What the guest prints, at the start of a line, when it waits for a command.
pub const PROMPT: &str = "> ";

/// Puts [`BOOT_SECTOR`] into memory that QEMU can open as a disk, without a file to name or to remove.
///
/// The memory is sealed, so neither QEMU nor anyone else can change it, and it is gone when its last descriptor is
/// closed. It reaches QEMU in a descriptor set:
///
/// ```no_run
/// use ratite::MachineConfig;
/// use ratite::PassedFd;
/// use ratite::guest;
///
/// let config = MachineConfig::new("qemu-system-x86_64")
///     .args(["-accel", "tcg", "-nodefaults"])
///     .args(["-drive", "file=/dev/fdset/1,format=raw,if=floppy,readonly=on"])
///     .fd(PassedFd::in_set(guest::boot_sector()?, 1));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The descriptor is read-only, so the drive needs `readonly=on`, or `snapshot=on` where it must be writable.
///
/// # Errors
/// When the system lacks memory or descriptors, or has no `/proc`.
pub fn boot_sector() -> io::Result<OwnedFd> {
    sealed(BOOT_SECTOR)
}

/// Puts a ROM that ends with [`SPEED_FIRMWARE`] into such memory, for `-bios /proc/self/fd/N`.
pub(crate) fn speed_rom() -> io::Result<OwnedFd> {
    let mut rom = vec![0; ROM - SPEED_FIRMWARE.len()];
    rom.extend(SPEED_FIRMWARE);
    sealed(&rom)
}

/// Memory that holds these bytes for good, and is read through this descriptor.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("ratite-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut memory = File::from(memory);
    memory.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(
        &memory,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;

    // QEMU takes from a descriptor set only what was opened in the mode it asks for, and for a read-only disk it
    // asks for read-only. A fresh descriptor also has a position of its own, at the start.
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A machine of `qemu` that runs the guest, with a console, under TCG: nothing but what the guest needs, so that it is up
/// soonest.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ratite::guest;
/// use std::time::Duration;
///
/// let machine = guest::machine("qemu-system-x86_64")?.launch().await?;
/// let console = machine.console().expect("it has one");
/// console.expect(guest::PROMPT, Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`boot_sector`].
pub fn machine(qemu: impl Into<OsString>) -> io::Result<MachineConfig> {
    Ok(MachineConfig::new(qemu)
        .accelerator("tcg")
        .console(ConsoleConfig::serial())
        .fd(PassedFd::in_set(boot_sector()?, 1))
        .args(["-nodefaults", "-drive", "file=/dev/fdset/1,format=raw,if=floppy,readonly=on"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_boot_sector_ends_with_the_signature_of_one() {
        assert_eq!(BOOT_SECTOR.len(), 512);
        assert_eq!(BOOT_SECTOR[510..], [0x55, 0xaa]);
    }

    #[test]
    fn the_boot_sector_holds_the_greeting_and_the_prompt() {
        let wanted = format!("{READY}\r\n{PROMPT}\0");

        assert!(BOOT_SECTOR.windows(wanted.len()).any(|window| window == wanted.as_bytes()));
    }

    #[test]
    fn the_descriptor_reads_as_the_boot_sector_from_its_first_byte() {
        let mut disk = File::from(boot_sector().unwrap());

        let mut bytes = Vec::new();
        disk.read_to_end(&mut bytes).unwrap();

        assert_eq!(bytes, BOOT_SECTOR);
    }

    #[test]
    fn the_descriptor_is_read_only_and_sealed() {
        let disk = boot_sector().unwrap();

        let mode = rustix::fs::fcntl_getfl(&disk).unwrap() & OFlags::RWMODE;
        let seals = rustix::fs::fcntl_get_seals(&disk).unwrap();

        assert_eq!(mode, OFlags::RDONLY);
        assert_eq!(seals, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL);
    }
}
