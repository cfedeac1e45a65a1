//! A small Linux that boots to a shell on its first serial port, for tests that need a real operating system.
//!
//! The kernel and busybox come from `scripts/linux-guest`; the file system around busybox is made here, and shared by
//! all test processes. It lives in the guest's memory, so nothing that a guest does outlives it.
//!
//! ```text
//! qemu-system-x86_64 -accel tcg -nodefaults -display none -no-reboot
//!     -kernel KERNEL -initrd INITRD -append "KERNEL ARGUMENTS" -serial …
//! ```
//!
//! Without hardware acceleration its shell is ready after 1.5 to 2 s, of which 0.5 s unpack the kernel. `pc` and `q35`,
//! and QEMU's own 128 MiB of memory, are as quick as anything; `-cpu max` and more processors take 0.1 to 0.3 s longer.
//! `poweroff -f` ends QEMU within 0.1 s; `reboot -f` does so too, thanks to `-no-reboot`.
//!
//! - The kernel has no modules here: of disks it knows NVMe only, and it has no network and no virtio.
//! - While nobody reads its console, whatever prints there waits, even a kernel on its way down.
//! - After a prompt, unless input is waiting by then, busybox asks for the cursor's place with `ESC [ 6 n`. It needs
//!   no answer.

use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use cpio::newc::Builder;
use cpio::newc::ModeFileType;
use tempfile::NamedTempFile;

/// What the guest's shell prints when it waits for a command.
pub const PROMPT: &str = "guest# ";

/// The files that QEMU boots.
#[derive(Clone, Debug)]
pub struct LinuxGuest {
    /// A Linux kernel for x86-64: QEMU's `-kernel`.
    pub kernel: PathBuf,
    /// Its file system, with busybox and the script that starts a shell: QEMU's `-initrd`.
    pub initrd: PathBuf,
}

/// Finds the guest's kernel, and makes its file system unless that is there already.
///
/// # Panics
/// When the guest has not been fetched yet, and when its file system cannot be written.
pub fn linux_guest() -> LinuxGuest {
    let folder = folder();
    let kernel = folder.join("vmlinuz");
    let busybox = folder.join("busybox");
    for file in [&kernel, &busybox] {
        assert!(file.exists(), "no Linux guest at {}: run `make setup`, which fetches it", file.display());
    }

    let initrd = folder.join("initrd.cpio");
    make_initrd(&busybox, &initrd)
        .unwrap_or_else(|error| panic!("could not make {}: {error}", initrd.display()));
    LinuxGuest { kernel, initrd }
}

/// What the kernel is told: QEMU's `-append`.
///
/// A panic ends QEMU at once, if it runs with `-no-reboot`. The last three only make the boot quicker under emulation:
/// an address chosen by chance costs up to 0.3 s, testing the ciphers 0.2 s, and rewriting the kernel for a single
/// processor 0.1 s.
pub fn kernel_arguments() -> &'static str {
    "console=ttyS0 quiet panic=-1 nokaslr cryptomgr.notests noreplace-smp"
}

/// Where `scripts/linux-guest` puts its files.
fn folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let workspace = workspace.expect("a crate's folder is two below the workspace");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());

    // An absolute path replaces what it is joined to.
    workspace.join(target).join("linux-guest")
}

/// Other processes may do the same at the same time, and a QEMU may be reading the file that is there.
fn make_initrd(busybox: &Path, path: &Path) -> io::Result<()> {
    let archive = initramfs(&fs::read(busybox)?)?;
    if fs::read(path).is_ok_and(|present| present == archive) {
        return Ok(());
    }

    let folder = path.parent().expect("the path names a file in a folder");
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&archive)?;
    file.persist(path)?;
    Ok(())
}

/// The file system as the kernel wants it: a `newc` archive.
fn initramfs(busybox: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        add(&mut archive, name, ModeFileType::Directory, 0o755, b"")?;
    }
    add(&mut archive, "bin/busybox", ModeFileType::Regular, 0o755, busybox)?;
    add(&mut archive, "init", ModeFileType::Regular, 0o755, INIT.as_bytes())?;
    cpio::newc::trailer(archive)
}

fn add(
    archive: &mut Vec<u8>,
    name: &str,
    kind: ModeFileType,
    permissions: u32,
    content: &[u8],
) -> io::Result<()> {
    let size = u32::try_from(content.len()).map_err(io::Error::other)?;
    // The permissions come first: setting them clears the kind.
    let entry = Builder::new(name).mode(permissions).set_mode_file_type(kind);

    let mut writer = entry.write(archive, size);
    writer.write_all(content)?;
    writer.finish()?;
    Ok(())
}

/// The guest's first process. It must not end, so a shell that ends is followed by another.
///
/// `setsid` and `cttyhack` give the shell a terminal of its own, without which Ctrl-C does nothing. The terminal is so
/// wide that the shell never breaks the line of a command that it echoes.
const INIT: &str = "\
#!/bin/busybox sh
export PATH=/bin HOME=/ COLUMNS=1000 PS1='guest# '
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox --install -s /bin
hostname guest
while :; do
    setsid cttyhack sh
done
";

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    #[test]
    fn the_shells_prompt_is_the_promised_one() {
        assert!(INIT.contains(&format!("PS1='{PROMPT}'")));
    }

    #[test]
    fn the_archive_holds_folders_and_executables() {
        let archive = initramfs(b"busybox").unwrap();

        let mut modes = Vec::new();
        let mut rest = archive.as_slice();
        loop {
            let reader = Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            modes.push((reader.entry().name().to_owned(), reader.entry().mode()));
            rest = reader.finish().unwrap();
        }

        let folders = ["bin", "dev", "proc", "sys", "tmp"].map(|name| (name.to_owned(), 0o040_755));
        let executables = ["bin/busybox", "init"].map(|name| (name.to_owned(), 0o100_755));
        assert_eq!(modes, [folders.as_slice(), &executables].concat());
    }

    #[test]
    fn an_initrd_that_differs_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let busybox = folder.path().join("busybox");
        let initrd = folder.path().join("initrd.cpio");
        fs::write(&busybox, "busybox").unwrap();
        fs::write(&initrd, "an older one").unwrap();

        make_initrd(&busybox, &initrd).unwrap();

        assert_eq!(fs::read(&initrd).unwrap(), initramfs(b"busybox").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
