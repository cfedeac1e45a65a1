//! What to run: plain data.
//!
//! A [`MachineConfig`] can be built, cloned and printed without a runtime; nothing is opened or checked
//! until [`MachineConfig::launch`].

mod console;

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use console::ConsoleConfig;
pub(crate) use console::Device;

/// What to run: a QEMU, its arguments, and how ratite is to hold it.
///
/// Every method takes and returns the configuration, does nothing but store, and cannot fail.
///
/// ```
/// use ratite::{ConsoleConfig, MachineConfig};
///
/// let config = MachineConfig::new("qemu-system-x86_64")
///     .machine_type("q35")
///     .accelerator("tcg")
///     .args(["-m", "256"])
///     .console(ConsoleConfig::serial());
/// ```
#[derive(Debug, Clone)]
#[must_use = "a configuration runs nothing until it is launched"]
pub struct MachineConfig {
    pub(crate) binary: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) wrapper: Vec<OsString>,
    pub(crate) name: Option<OsString>,
    pub(crate) reachable: bool,
    pub(crate) freezable: bool,
    /// Whether its QMP session is to go on while the caller's runtime stands still.
    pub(crate) in_background: bool,
    pub(crate) base_folder: PathBuf,
    pub(crate) log_folder: Option<PathBuf>,
    pub(crate) keep_folder: bool,
    pub(crate) environment: Vec<(OsString, Option<OsString>)>,
    pub(crate) working_folder: WorkingFolder,
    pub(crate) machine_type: Option<OsString>,
    pub(crate) accelerators: Vec<OsString>,
    pub(crate) headless: bool,
    pub(crate) monitor: Monitor,
    pub(crate) extra_monitors: Vec<ExtraMonitor>,
    pub(crate) fds: Vec<PassedFd>,
    pub(crate) consoles: Vec<ConsoleConfig>,
    pub(crate) agent: Option<AgentChannel>,
    pub(crate) qtest: bool,
    pub(crate) timeouts: Timeouts,
    pub(crate) own_process_group: bool,
    pub(crate) exit_with_parent: bool,
    pub(crate) transcript: Option<ratite_qmp::Transcript>,
}

impl MachineConfig {
    /// A machine of `binary`, a path or a name that is searched in `PATH`.
    pub fn new(binary: impl Into<OsString>) -> Self {
        Self {
            binary: binary.into(),
            args: Vec::new(),
            wrapper: Vec::new(),
            name: None,
            reachable: false,
            freezable: false,
            in_background: false,
            base_folder: PathBuf::from("/var/tmp"),
            log_folder: None,
            keep_folder: false,
            environment: Vec::new(),
            working_folder: WorkingFolder::Callers,
            machine_type: None,
            accelerators: Vec::new(),
            headless: true,
            monitor: Monitor::SocketPair,
            extra_monitors: Vec::new(),
            fds: Vec::new(),
            consoles: Vec::new(),
            agent: None,
            qtest: false,
            timeouts: Timeouts::default(),
            own_process_group: true,
            exit_with_parent: true,
            transcript: None,
        }
    }

    /// Adds one argument behind those already there. Yours come after all of ratite's, so QEMU's rules for repeated
    /// options let them win.
    #[doc(alias = "add_args")]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments behind those already there.
    #[doc(alias = "add_args")]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The words to put before the binary, such as `["valgrind", "--quiet"]`; none by default.
    pub fn wrapper<I: IntoIterator<Item: Into<OsString>>>(mut self, wrapper: I) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// The machine's name, which names its log file; by default one that no other machine has.
    pub fn name(mut self, name: impl Into<OsString>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the machine reachable by its name for other processes of the same user, over sockets in a folder of mode 0700
    /// below `XDG_RUNTIME_DIR`: see [`crate::reach`]. Off by default.
    ///
    /// A name of letters, digits, `.`, `_` and `-` has to be given by [`MachineConfig::name`], and no machine that runs may
    /// have it. Whoever reaches the machine can do all that its owner can.
    pub fn reachable(mut self) -> Self {
        self.reachable = true;
        self
    }

    /// Launches the machine so that [`crate::Machine::freeze`] can make a template of it in the best way. Off by default.
    ///
    /// - Its RAM is in a file in memory (memfd_create(2)), which a freeze copies to [`MachineConfig::base_folder`]; each machine that
    ///   is restored changes a copy of that, page by page. The size has to be said (`-m`), except for a PC.
    /// - Each disk that it can write to and that is given by `-drive` (or `-hda` and the like) is put under an overlay in the work
    ///   folder. The caller's image is never written to, and must stay as it is for as long as the template is used.
    /// - A PC gets the devices `vmgenid`, by which a restored guest learns that it is one, and `virtio-rng-pci`, unless the arguments
    ///   have them.
    pub fn freezable(mut self) -> Self {
        self.freezable = true;
        self
    }

    /// The folder in which the work folder is made; `/var/tmp` by default.
    #[doc(alias = "base_temp_dir")]
    pub fn base_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.base_folder = folder.as_ref().to_owned();
        self
    }

    /// The folder for `NAME.log`, made if missing, and kept; by default the log lives and goes with the work folder.
    ///
    /// A log of an earlier run is kept as `NAME.log.1`.
    #[doc(alias = "log_dir")]
    pub fn log_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.log_folder = Some(folder.as_ref().to_owned());
        self
    }

    /// Leaves the work folder behind when the machine has ended, for a look at what went wrong. Setting `RATITE_KEEP=1`
    /// in the environment does the same for every machine.
    pub fn keep_folder(mut self) -> Self {
        self.keep_folder = true;
        self
    }

    /// Sets a variable in QEMU's environment, which otherwise is the caller's.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Removes a variable from QEMU's environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// QEMU's working folder; the caller's by default.
    pub fn working_folder(mut self, folder: impl AsRef<Path>) -> Self {
        self.working_folder = WorkingFolder::At(folder.as_ref().to_owned());
        self
    }

    /// Makes the work folder QEMU's working folder, so that arguments can name files in it by relative paths. A relative
    /// path of the binary is looked up from there, too.
    pub fn in_work_folder(mut self) -> Self {
        self.working_folder = WorkingFolder::Work;
        self
    }

    /// The machine type (`-machine`); by default nothing is said and QEMU chooses.
    ///
    /// Only the type: its commas are doubled. Options go into [`MachineConfig::args`].
    #[doc(alias = "set_machine")]
    pub fn machine_type(mut self, machine_type: impl Into<OsString>) -> Self {
        self.machine_type = Some(machine_type.into());
        self
    }

    /// Leaves out `-display none -vga none`, with which a machine has no screen that nobody asked for.
    pub fn with_screen(mut self) -> Self {
        self.headless = false;
        self
    }

    /// Adds an accelerator (`-accel`); QEMU takes the first that works. By default nothing is said.
    pub fn accelerator(mut self, accelerator: impl Into<OsString>) -> Self {
        self.accelerators.push(accelerator.into());
        self
    }

    /// How QEMU's monitor is reached; by default over a socket pair that nobody else can reach.
    #[doc(alias = "monitor_address")]
    pub fn monitor(mut self, monitor: Monitor) -> Self {
        self.monitor = monitor;
        self
    }

    /// Runs the machine without QMP: no commands, no events; it is ended by SIGTERM.
    #[doc(alias = "set_qmp_monitor")]
    pub fn without_monitor(self) -> Self {
        self.monitor(Monitor::Off)
    }

    /// Adds a further monitor for others to use.
    #[doc(alias = "add_monitor_null")]
    pub fn extra_monitor(mut self, monitor: ExtraMonitor) -> Self {
        self.extra_monitors.push(monitor);
        self
    }

    /// Hands a descriptor to QEMU.
    #[doc(alias = "add_fd")]
    pub fn fd(mut self, fd: PassedFd) -> Self {
        self.fds.push(fd);
        self
    }

    /// Gives the machine a console that ratite reads from the first byte on; it replaces one of the same name.
    #[doc(alias = "set_console")]
    pub fn console(mut self, console: ConsoleConfig) -> Self {
        match self.consoles.iter_mut().find(|other| other.name == console.name) {
            Some(other) => *other = console,
            None => self.consoles.push(console),
        }
        self
    }

    /// Gives the guest's agent (`qemu-guest-agent`) its channel, `org.qemu.guest_agent.0`, and the machine
    /// [`crate::Machine::agent`]. It is on the same bus as [`ConsoleConfig::virtconsole`].
    pub fn agent(mut self) -> Self {
        self.agent = Some(AgentChannel { bus: None });
        self
    }

    /// The same on a virtio-serial bus of yours, such as `vser0.0`; for machines whose virtio devices do not sit on PCI.
    pub fn agent_on(mut self, bus: impl Into<OsString>) -> Self {
        self.agent = Some(AgentChannel { bus: Some(bus.into()) });
        self
    }

    /// Runs the machine under qtest: with `-accel qtest`, unless [`MachineConfig::accelerator`] names others (some
    /// distributions build QEMU without the qtest accelerator; `tcg` serves too).
    #[doc(alias = "QEMUQtestMachine")]
    pub fn qtest(mut self) -> Self {
        self.qtest = true;
        self
    }

    /// How long things may take.
    #[doc(alias = "qmp_timer")]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Leaves QEMU in the caller's process group, so that a terminal's Ctrl-C reaches it too; for a QEMU that itself
    /// uses the terminal (`-serial mon:stdio`). Only the process that was started is signalled then; what a wrapper has
    /// started is ended after it.
    pub fn in_callers_process_group(mut self) -> Self {
        self.own_process_group = false;
        self
    }

    /// Does not pass `-run-with exit-with-parent=on` to QEMU.
    ///
    /// Where there is a wrapper, ratite asks the binary (`-help`, once) whether it has that option, and uses it. That is
    /// wrong where the wrapper runs another binary than the one at this path here: in a container, on another host.
    pub fn without_exit_with_parent(mut self) -> Self {
        self.exit_with_parent = false;
        self
    }

    /// The binary, as it was given.
    #[must_use]
    pub fn binary(&self) -> &OsStr {
        &self.binary
    }

    /// The arguments that were added.
    #[must_use]
    pub fn arguments(&self) -> &[OsString] {
        &self.args
    }

    /// The arguments that were added, to be changed in place.
    #[must_use]
    pub fn arguments_mut(&mut self) -> &mut Vec<OsString> {
        &mut self.args
    }

    /// The `PATH` in which programs are searched: that of QEMU's environment.
    pub(crate) fn search_path(&self) -> Option<OsString> {
        let own = self.environment.iter().rev().find(|(name, _)| name == "PATH");
        own.map_or_else(|| std::env::var_os("PATH"), |(_, value)| value.clone())
    }

    /// Whether the binary is to be asked if it can end with its parent. What ratite itself starts ends with it anyway
    /// (PR_SET_PDEATHSIG).
    pub(crate) fn asks_exit_with_parent(&self) -> bool {
        self.exit_with_parent && !self.wrapper.is_empty()
    }

    /// Shows every QMP message in both directions to `transcript`.
    pub fn transcript(mut self, transcript: ratite_qmp::Transcript) -> Self {
        self.transcript = Some(transcript);
        self
    }
}

/// The channel of the guest's agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentChannel {
    /// The virtio-serial bus; ratite's own if none is named.
    pub(crate) bus: Option<OsString>,
}

/// Where QEMU runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WorkingFolder {
    Callers,
    Work,
    At(PathBuf),
}

impl WorkingFolder {
    /// Where that is for a machine with this work folder, if not where the caller is.
    pub(crate) fn beside(&self, work_folder: &Path) -> Option<PathBuf> {
        match self {
            Self::Callers => None,
            Self::Work => Some(work_folder.to_owned()),
            Self::At(folder) => Some(folder.clone()),
        }
    }
}

/// How QEMU's monitor is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Monitor {
    /// Over a socket pair that QEMU inherits: no path, no port, nobody else.
    SocketPair,
    /// Over a Unix socket that ratite makes at this path (mode 0600) and QEMU connects to.
    Unix(PathBuf),
    /// Over a TCP port that ratite listens on and QEMU connects to.
    Tcp {
        /// The host to listen on, such as `127.0.0.1`, `::1` or a name.
        host: String,
        /// The port; 0 lets the system choose.
        port: u16,
    },
    /// Not at all.
    Off,
}

/// A further monitor, for others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExtraMonitor {
    /// `-monitor null`: keeps QEMU from putting its human monitor anywhere.
    Null,
    /// A QMP monitor that QEMU serves on a Unix socket at this path, for other programs. ratite makes the socket (mode
    /// 0600), refuses a path that is taken, and removes it with the machine.
    Qmp(PathBuf),
    /// A human monitor that QEMU serves on a Unix socket at this path, made and removed in the same way.
    Human(PathBuf),
}

/// A descriptor to be handed to QEMU. Cheap to clone; the descriptor closes with the last clone.
#[derive(Debug, Clone)]
pub struct PassedFd {
    pub(crate) fd: Arc<OwnedFd>,
    pub(crate) place: Place,
}

#[derive(Debug, Clone)]
pub(crate) enum Place {
    Number(RawFd),
    Set { set: u32, opaque: Option<OsString>, options: Option<OsString> },
}

impl PassedFd {
    /// Lets QEMU have `fd` under this very number, for arguments such as `-netdev tap,fd=10`.
    ///
    /// 0 to 2 are taken by stdin, stdout and stderr.
    pub fn at(fd: impl Into<OwnedFd>, number: RawFd) -> Self {
        Self { fd: Arc::new(fd.into()), place: Place::Number(number) }
    }

    /// Puts `fd` into QEMU's descriptor set `set` (`-add-fd`), to be opened as `/dev/fdset/SET`.
    pub fn in_set(fd: impl Into<OwnedFd>, set: u32) -> Self {
        Self { fd: Arc::new(fd.into()), place: Place::Set { set, opaque: None, options: None } }
    }

    /// The free text that `query-fdsets` shows; only a descriptor in a set has one.
    #[must_use]
    pub fn opaque(mut self, text: impl Into<OsString>) -> Self {
        if let Place::Set { opaque, .. } = &mut self.place {
            *opaque = Some(text.into());
        }
        self
    }

    /// Further options of `-add-fd`, put behind the others as they are; only for a descriptor in a set.
    #[must_use]
    pub fn options(mut self, text: impl Into<OsString>) -> Self {
        if let Place::Set { options, .. } = &mut self.place {
            *options = Some(text.into());
        }
        self
    }
}

/// How long things may take. [`Duration::MAX`] waits for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the start of the process to its monitor being ready; 30 s by default.
    pub connect: Duration,
    /// A QMP or qtest command; 60 s by default.
    pub command: Duration,
    /// A write to the console; 30 s by default.
    pub console: Duration,
    /// From SIGKILL to the end of the process; 60 s by default.
    pub kill: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            command: Duration::from_secs(60),
            console: Duration::from_secs(30),
            kill: Duration::from_secs(60),
        }
    }
}
