//! The guests and the starter in the repository are what their sources describe.

use std::path::Path;
use std::process::Command;

use ratite::guest::BOOT_SECTOR;
use ratite::guest::SPEED_FIRMWARE;
use ratite_tests::screen_guest::BOOT_SECTOR as SCREEN_GUEST;

#[test]
#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    ignore = "the assembler of this machine does not know the guest's instructions"
)]
fn the_boot_sector_is_what_its_source_assembles_to() {
    check("../ratite/guest/boot", ["--32", "elf_i386", "0x7c00"], BOOT_SECTOR);
}

#[test]
#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    ignore = "the assembler of this machine does not know the guest's instructions"
)]
fn the_speed_firmware_is_what_its_source_assembles_to() {
    check("../ratite/guest/speed", ["--64", "elf_x86_64", "0x8000"], SPEED_FIRMWARE);
}

#[test]
#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    ignore = "the assembler of this machine does not know the guest's instructions"
)]
fn the_screen_guest_is_what_its_source_assembles_to() {
    check("guest/screen", ["--32", "elf_i386", "0x7c00"], SCREEN_GUEST);
}

#[test]
#[cfg_attr(
    not(target_arch = "x86_64"),
    ignore = "the assembler of this machine does not know the starter's instructions"
)]
fn the_starter_is_what_its_source_assembles_to() {
    let embedded = include_bytes!("../../ratite/starter/starter.bin");
    check("../ratite/starter/starter", ["--64", "elf_x86_64", "0x400000"], embedded);
}

#[track_caller]
fn check(name: &str, [width, format, address]: [&str; 3], embedded: &[u8]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{name}.s"));
    let folder = tempfile::tempdir().expect("a folder of our own");
    let object = folder.path().join("guest.o");
    let binary = folder.path().join("guest.bin");

    run(Command::new("as").arg(width).arg("-o").arg(&object).arg(&source));
    run(Command::new("ld")
        .args(["-m", format, "-Ttext", address, "--oformat", "binary", "-o"])
        .arg(&binary)
        .arg(&object));

    let assembled = std::fs::read(&binary).expect("the linker has made it");
    assert!(
        assembled == embedded,
        "{name}.bin is not what {name}.s assembles to: assemble it as is written there, or in README.md"
    );
}

/// Runs one program of binutils.
#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "could not start `{}` ({error}): it belongs to binutils, which comes with the C toolchain that Rust needs",
            command.get_program().display()
        )
    });

    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
