//! The boot sector in the repository is the one that its source describes.

use std::path::Path;
use std::process::Command;

use ratite::guest::BOOT_SECTOR;

#[test]
#[cfg_attr(
    not(any(target_arch = "x86", target_arch = "x86_64")),
    ignore = "the assembler of this machine does not know the guest's instructions"
)]
fn the_boot_sector_is_what_its_source_assembles_to() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ratite/guest/boot.s");
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("boot.o");
    let binary = folder.path().join("boot.bin");

    run(Command::new("as").arg("--32").arg("-o").arg(&object).arg(&source));
    run(Command::new("ld")
        .args(["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o"])
        .arg(&binary)
        .arg(&object));

    let assembled = std::fs::read(&binary).unwrap();
    assert!(
        assembled == BOOT_SECTOR,
        "guest/boot.bin is not what guest/boot.s assembles to: assemble it as guest/README.md says"
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
