//! A console of a machine: which device it is, and what is kept of it.

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

/// A console of a machine: which device it is, and what is kept of it. Any byte stream between guest and host counts: a
/// serial port, a `virtconsole`, a `virtserialport` with a protocol of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleConfig {
    pub(crate) name: String,
    pub(crate) device: Device,
    pub(crate) index: Option<u32>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) timestamps: bool,
    pub(crate) history: usize,
    /// What stands in the last line before the guest says anything: that of a guest that was frozen there.
    pub(crate) standing: Vec<u8>,
}

/// What the guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// A serial port (`-serial`).
    Serial,
    /// A device of this type (`-device`), on whatever bus it finds.
    Other(OsString),
    /// A port of a virtio-serial bus; with a name it is a `virtserialport`, without one a `virtconsole`.
    Virtio {
        /// The name by which the guest finds it, in `/dev/virtio-ports/`.
        port: Option<OsString>,
        /// The bus; ratite's own if none is named.
        bus: Option<OsString>,
    },
}

impl ConsoleConfig {
    /// The name of a console that is given none.
    pub const NAME: &str = "console";

    /// A serial port: the first that no other console has.
    #[must_use]
    pub fn serial() -> Self {
        Self::of(Device::Serial)
    }

    /// A console device of this type (`-device`), such as `isa-serial` or `sclpconsole`. A bus that it needs is for
    /// [`crate::MachineConfig::args`].
    pub fn device(device_type: impl Into<OsString>) -> Self {
        Self::of(Device::Other(device_type.into()))
    }

    /// A virtio console: `/dev/hvc0` of a Linux guest that has the driver, and so on with further ones.
    ///
    /// The bus for it, `virtio-serial` with the id `ratite-serial`, is one for all consoles of a machine.
    #[must_use]
    pub fn virtconsole() -> Self {
        Self::of(Device::Virtio { port: None, bus: None })
    }

    /// A virtio channel, which a Linux guest has as `/dev/virtio-ports/PORT`; on the same bus as
    /// [`ConsoleConfig::virtconsole`]. Its name is `port`, too, until another is given.
    pub fn virtserialport(port: impl Into<OsString>) -> Self {
        let port = port.into();
        let name = port.to_string_lossy().into_owned();
        Self { name, ..Self::of(Device::Virtio { port: Some(port), bus: None }) }
    }

    fn of(device: Device) -> Self {
        let name = Self::NAME.into();
        Self {
            name,
            device,
            index: None,
            log: None,
            timestamps: false,
            history: 1 << 20,
            standing: Vec::new(),
        }
    }

    /// The name under which [`crate::Machine::console_named`] has it; `console` by default. Letters, digits, `-`, `.` and
    /// `_`, a letter first, since it becomes part of a QEMU id.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Which serial port it is, counted from 0. Ports before it that no console has get a `-serial null` each.
    ///
    /// For a device of [`ConsoleConfig::device`] this is only how many serial ports there are before it.
    #[must_use]
    pub fn index(mut self, index: u32) -> Self {
        self.index = Some(index);
        self
    }

    /// The virtio-serial bus of a virtio console, such as `vser0.0`, in place of ratite's own; for machines whose virtio
    /// devices do not sit on PCI. Other consoles have no bus.
    #[must_use]
    pub fn bus(mut self, name: impl Into<OsString>) -> Self {
        if let Device::Virtio { bus, .. } = &mut self.device {
            *bus = Some(name.into());
        }
        self
    }

    /// A file that gets every byte of the console, from the first on. It is truncated at launch, never opened
    /// through a symbolic link.
    #[doc(alias = "console_log")]
    #[must_use]
    pub fn log(mut self, path: impl AsRef<Path>) -> Self {
        self.log = Some(path.as_ref().to_owned());
        self
    }

    /// Begins each line of the log with the seconds since its console was there, as the Linux kernel's log does:
    /// `[    3.141593] `. It is when the line's first byte came; the rest of the log is unchanged.
    #[must_use]
    pub fn timestamps(mut self) -> Self {
        self.timestamps = true;
        self
    }

    /// How many of the last bytes are kept for readers; 1 MiB by default. What nobody read in time is dropped and
    /// counted; the guest never waits.
    #[must_use]
    pub fn history(mut self, bytes: usize) -> Self {
        self.history = bytes;
        self
    }
}
