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
//! More words in the kernel's arguments make it more of a Linux, and the boot a little longer:
//!
//! - `ratite.virtio` ([`VIRTIO`], about 1 s) loads the drivers of the PCI bus's virtio devices: consoles, disks (`/dev/vda`),
//!   networks and random numbers (`/dev/hwrng`). A `virtconsole` gets a shell on `hvc0`, and each `virtserialport` with a
//!   name `/dev/virtio-ports/NAME`.
//! - `ratite.login=ttyS1` puts busybox's `getty` and `login` on that terminal, which knows [`USERS`]. On `ttyS0` it takes the
//!   place of the shell. A wrong password costs 3 s.
//! - `ratite.shell=ttyS1` puts another shell on that terminal.
//!
//! What else is worth knowing:
//!
//! - Without `ratite.virtio` the kernel has no modules: of disks it knows NVMe only, and it has no network.
//! - `/dev/hwrng` is there even without a device; what it reads from stands in `/sys/class/misc/hw_random/rng_current`.
//! - Debian 12's kernel for virtual machines lacks the driver of `vmgenid`. Debian 13's has it built in.
//! - While nobody reads its console, whatever prints there waits, even a kernel on its way down.
//! - After a prompt, unless input is waiting by then, busybox asks for the cursor's place with `ESC [ 6 n`. It needs
//!   no answer, but waits 20 ms for one behind the next line that it gets.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use cpio::newc::Builder;
use cpio::newc::ModeFileType;
use ratite::ConsoleConfig;
use ratite::MachineConfig;
use tempfile::NamedTempFile;

/// What the guest's shell prints when it waits for a command. One that was logged into prints busybox's own prompt.
pub const PROMPT: &str = "guest# ";

/// The word of the kernel's arguments that loads the drivers for virtio.
pub const VIRTIO: &str = "ratite.virtio";

/// Who can log in, and with which password.
pub const USERS: [(&str, &str); 2] = [("root", "let me in"), ("guest", "me too")];

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
    let modules = folder.join("modules");
    for file in [&kernel, &busybox, &modules.join("wanted")] {
        assert!(file.exists(), "no Linux guest at {}: run `make setup`, which fetches it", file.display());
    }

    let initrd = folder.join("initrd.cpio");
    make_initrd(&busybox, &modules, &initrd)
        .unwrap_or_else(|error| panic!("could not make {}: {error}", initrd.display()));
    LinuxGuest { kernel, initrd }
}

/// A machine of `qemu-system-x86_64` that boots it, with a console on the first serial port; `words` are added to the
/// kernel's arguments.
///
/// # Panics
/// As [`linux_guest`].
pub fn machine(words: &[&str]) -> MachineConfig {
    let guest = linux_guest();
    MachineConfig::new("qemu-system-x86_64")
        .accelerator("tcg")
        .console(ConsoleConfig::serial())
        .args(["-nodefaults", "-no-reboot", "-kernel"])
        .arg(guest.kernel)
        .arg("-initrd")
        .arg(guest.initrd)
        .args(["-append", &[&[kernel_arguments()], words].concat().join(" ")])
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
fn make_initrd(busybox: &Path, modules: &Path, path: &Path) -> io::Result<()> {
    let archive = initramfs(busybox, modules)?;
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
fn initramfs(busybox: &Path, modules: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for name in ["bin", "dev", "etc", "lib", "lib/modules", "proc", "sys", "tmp"] {
        add(&mut archive, name, ModeFileType::Directory, 0o755, b"")?;
    }
    add(&mut archive, "bin/busybox", ModeFileType::Regular, 0o755, &fs::read(busybox)?)?;
    add(&mut archive, "init", ModeFileType::Regular, 0o755, INIT)?;
    for (name, permissions, content) in ETC {
        add(&mut archive, name, ModeFileType::Regular, permissions, content.as_bytes())?;
    }
    let modules =
        fs::read_dir(modules)?.map(|entry| Ok(entry?.path())).collect::<io::Result<BTreeSet<_>>>()?;
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        add(&mut archive, &format!("lib/modules/{name}"), ModeFileType::Regular, 0o644, &fs::read(&module)?)?;
    }
    cpio::newc::trailer(archive)
}

/// Adds one file or folder to an archive.
pub(crate) fn add(
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

/// The guest's first process.
const INIT: &[u8] = include_bytes!("../guest/init");

/// What `getty` and `login` read. The passwords are those of [`USERS`], hashed with SHA-256 by `openssl passwd -5`.
const ETC: [(&str, u32, &str); 4] = [
    ("etc/passwd", 0o644, "root:x:0:0:root:/:/bin/sh\nguest:x:1000:1000:guest:/tmp:/bin/sh\n"),
    ("etc/group", 0o644, "root:x:0:\nguest:x:1000:\n"),
    (
        "etc/shadow",
        0o600,
        "root:$5$ratite$3jBNG5v2PO5pvVF2pJ.r./IQCt5Isqk6VOz.hO2tps3:19000::::::\nguest:$5$guest$WW5effo3rno2VlnKfY6JvSvc.gnI1ykh9ogeBNrGau6:19000::::::\n",
    ),
    ("etc/issue", 0o644, "ratite's Linux guest on \\l\n"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;
    use tempfile::TempDir;

    #[test]
    fn the_shells_prompt_is_the_promised_one() {
        let promised = format!("PS1='{PROMPT}'");

        assert!(INIT.windows(promised.len()).any(|window| window == promised.as_bytes()));
    }

    #[test]
    fn the_archive_holds_folders_executables_and_drivers() {
        let folder = parts();
        let archive = initramfs(&folder.path().join("busybox"), &folder.path().join("modules")).unwrap();

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

        for folder in ["bin", "dev", "proc", "sys", "tmp", "lib/modules"] {
            assert!(modes.contains(&(folder.to_owned(), 0o040_755)), "{modes:?}");
        }
        for executable in ["bin/busybox", "init"] {
            assert!(modes.contains(&(executable.to_owned(), 0o100_755)), "{modes:?}");
        }
        for file in ["etc/passwd", "lib/modules/virtio.ko", "lib/modules/wanted"] {
            assert!(modes.contains(&(file.to_owned(), 0o100_644)), "{modes:?}");
        }
    }

    #[test]
    fn an_initrd_that_differs_is_replaced_and_nothing_else_is_left() {
        let folder = parts();
        let (busybox, modules) = (folder.path().join("busybox"), folder.path().join("modules"));
        let initrd = folder.path().join("initrd.cpio");
        fs::write(&initrd, "an older one").unwrap();

        make_initrd(&busybox, &modules, &initrd).unwrap();

        assert_eq!(fs::read(&initrd).unwrap(), initramfs(&busybox, &modules).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    /// A folder as `scripts/linux-guest` makes it.
    fn parts() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("modules")).unwrap();
        for file in ["busybox", "modules/virtio.ko", "modules/wanted"] {
            fs::write(folder.path().join(file), file).unwrap();
        }
        folder
    }
}
