//! QEMU's real guest agent, run on this very system instead of in a guest, and in the Linux guest.
//!
//! The program comes from `scripts/guest-agent`. It listens on a Unix socket, where in a guest it has a virtio channel.
//! Whatever would change this system is forbidden to it twice: the agent has those commands disabled, and where the
//! superuser runs the tests it lacks the capabilities for them. In the guest it may do everything.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use cpio::newc::ModeFileType;
use ratite::MachineConfig;
use ratite::qmp::Address;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tempfile::TempDir;

use crate::linux_guest;
use crate::linux_guest::VIRTIO;
use crate::linux_guest::add;
use crate::scenario::PATIENCE;
use crate::scenario::wait_until;

/// An agent that runs; it ends with this.
#[derive(Debug)]
pub struct GuestAgent {
    child: Child,
    folder: TempDir,
}

/// What it is not to do, since this system is no guest.
pub const DISABLED: [&str; 12] = [
    "guest-shutdown",
    "guest-suspend-disk",
    "guest-suspend-ram",
    "guest-suspend-hybrid",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-freeze-list",
    "guest-fsfreeze-thaw",
    "guest-fstrim",
    "guest-set-time",
    "guest-set-vcpus",
    "guest-set-memory-blocks",
    "guest-set-user-password",
];

impl GuestAgent {
    /// Starts one, and returns once it listens.
    ///
    /// # Panics
    /// If there is none, or it does not listen.
    #[must_use]
    pub fn start() -> Self {
        let folder = target().join("guest-agent");
        let program = folder.join("qemu-ga");
        assert!(
            program.exists(),
            "no guest agent at {}: run `make setup`, which fetches it",
            program.display()
        );
        let own = tempfile::tempdir().expect("a folder for the agent's socket and state");
        let child = bound()
            .arg(&program)
            .args(["--method", "unix-listen", "--path"])
            .arg(own.path().join("socket"))
            .arg("--statedir")
            .arg(own.path())
            .arg(format!("{}={}", block_option(&folder, &program), DISABLED.join(",")))
            .env("LD_LIBRARY_PATH", folder.join("lib"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv is part of every Linux");
        let agent = Self { child, folder: own };
        wait_until("the agent listens", PATIENCE, || agent.listens());
        agent
    }

    /// Its socket is there a moment before anybody can connect to it.
    fn listens(&self) -> bool {
        /// `SO_ACCEPTCON` in the kernel's `/proc/net/unix`.
        const LISTENING: &str = "00010000";
        let socket = self.socket();
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        sockets.lines().any(|line| {
            let mut columns = line.split_ascii_whitespace();
            columns.nth(3) == Some(LISTENING)
                && columns.next_back().is_some_and(|path| socket == Path::new(path))
        })
    }

    /// Where it listens, for one client at a time.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::unix(self.socket())
    }

    /// The path of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Its process id.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; SIGSTOP makes it an agent that has fallen silent.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for GuestAgent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What becomes a program that ends with this one, and that may not harm the system.
fn bound() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if rustix::process::geteuid().is_root() {
        command.arg("--bounding-set=-sys_boot,-sys_admin,-sys_time,-sys_module");
    }
    command
}

/// A machine with the Linux guest, in which [`START`] starts an agent, and with its channel. Its file system is written to
/// `initrd`.
///
/// # Panics
/// If there is no Linux guest or no agent.
pub fn in_linux_guest(initrd: &Path) -> MachineConfig {
    let mut archive = fs::read(linux_guest::linux_guest().initrd).expect("it is there");
    // The kernel unpacks one archive after the other.
    archive.extend(agents_files().expect("memory for an archive"));
    fs::write(initrd, archive).expect("it can be written");
    // Of two such options the last counts.
    linux_guest::machine(&[VIRTIO]).agent().arg("-initrd").arg(initrd)
}

/// What a shell in the guest starts the agent with.
pub const START: &str = "/agent/ld-linux-x86-64.so.2 --library-path /agent /agent/qemu-ga \
    --path /dev/virtio-ports/org.qemu.guest_agent.0 --statedir /tmp 2>/dev/null &";

/// The agent with its libraries, and the program by which it shuts down, which busybox does not have.
fn agents_files() -> io::Result<Vec<u8>> {
    let folder = target().join("guest-agent");
    let program = folder.join("qemu-ga");
    let listed = Command::new("ldd").arg(&program).env("LD_LIBRARY_PATH", folder.join("lib")).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    let mut archive = Vec::new();
    for name in ["agent", "sbin"] {
        add(&mut archive, name, ModeFileType::Directory, 0o755, b"")?;
    }
    for file in libraries.chain([program]) {
        let name = format!("agent/{}", file.file_name().unwrap_or_default().to_string_lossy());
        add(&mut archive, &name, ModeFileType::Regular, 0o755, &fs::read(&file)?)?;
    }
    add(&mut archive, "sbin/shutdown", ModeFileType::Regular, 0o755, SHUTDOWN.as_bytes())?;
    cpio::newc::trailer(archive)
}

/// The agent calls it as `shutdown -h -P +0 …`, with `-r` or `-H` in place of `-P`.
const SHUTDOWN: &str = "#!/bin/sh\ncase \"$*\" in *-r*) reboot -f ;; *) poweroff -f ;; esac\n";

/// The option that disables commands; before QEMU 7.2 it had another name.
fn block_option(folder: &Path, program: &Path) -> &'static str {
    let help = Command::new(program).arg("--help").env("LD_LIBRARY_PATH", folder.join("lib")).output();
    let help = help.expect("the agent can be run").stdout;
    match String::from_utf8_lossy(&help).contains("--block-rpcs") {
        true => "--block-rpcs",
        false => "--blacklist",
    }
}

/// Where the scripts put what the tests need.
fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let workspace = workspace.expect("a crate's folder is two below the workspace");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());

    // An absolute path replaces what it is joined to.
    workspace.join(target)
}
