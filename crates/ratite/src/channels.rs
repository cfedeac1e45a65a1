//! Socket pairs shared with QEMU: `ours` and `theirs`, and the numbers under which QEMU finds its ends.
//!
//! Everything is close-on-exec; a child gets exactly what [`Channels::open`] lists for it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use ratite_qmp::Address;
use ratite_qmp::Server;
use ratite_qmp::SocketFile;

use crate::command_line::ChildEnds;
use crate::command_line::MonitorEnd;
use crate::config::ExtraMonitor;
use crate::config::MachineConfig;
use crate::config::Monitor;
use crate::config::Place;

/// Our ends of everything that a machine is connected by, and what the child is to have.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) monitor: MonitorChannel,
    /// Those of the consoles, in their order.
    pub(crate) consoles: Vec<UnixStream>,
    pub(crate) agent: Option<UnixStream>,
    pub(crate) qtest: Option<UnixStream>,
    /// The files of the sockets that the child serves; they go with the machine.
    pub(crate) files: Vec<SocketFile>,
    /// Where the child finds its ends.
    pub(crate) ends: ChildEnds,
    /// The child's descriptors, by their number in the child.
    pub(crate) theirs: Vec<(RawFd, OwnedFd)>,
}

/// Our end of the monitor.
#[derive(Debug)]
pub(crate) enum MonitorChannel {
    Pair(UnixStream),
    Server(Server),
    Off,
}

impl Channels {
    /// Opens what `config` asks for. Boxed, as it passes through several futures, each of which would have room for it.
    pub(crate) async fn open(config: &MachineConfig) -> Result<Box<Self>, OpenError> {
        let mut numbers = Numbers::beside(config);
        let mut theirs = Vec::new();
        let mut ends = ChildEnds::default();
        let mut pair = || -> io::Result<(UnixStream, RawFd)> {
            let (ours, child) = UnixStream::pair()?;
            let number = numbers.next();
            theirs.push((number, child.into()));
            Ok((ours, number))
        };
        let monitor = match &config.monitor {
            Monitor::Off => MonitorChannel::Off,
            Monitor::SocketPair => {
                let (ours, number) = pair()?;
                ends.monitor = Some(MonitorEnd::Fd(number));
                MonitorChannel::Pair(ours)
            }
            Monitor::Unix(path) => {
                let server = Server::bind(&Address::unix(path)).await?;
                if let Address::Unix(path) = server.address() {
                    ends.monitor = Some(MonitorEnd::Unix(path.clone().into()));
                }
                MonitorChannel::Server(server)
            }
            Monitor::Tcp { host, port } => {
                let server = Server::bind(&Address::tcp(host, *port)).await?;
                if let Address::Tcp { host, port } = server.address() {
                    ends.monitor = Some(MonitorEnd::Tcp(host.clone(), *port));
                }
                MonitorChannel::Server(server)
            }
        };
        let mut consoles = Vec::new();
        for _ in &config.consoles {
            let (ours, number) = pair()?;
            ends.consoles.push(number);
            consoles.push(ours);
        }
        let agent = if config.agent.is_some() {
            let (ours, number) = pair()?;
            ends.agent = Some(number);
            Some(ours)
        } else {
            None
        };
        let qtest = if config.qtest {
            let (ours, number) = pair()?;
            ends.qtest = Some(number);
            Some(ours)
        } else {
            None
        };
        theirs.iter().filter(|(number, _)| ends.consoles.contains(number)).for_each(|(_, end)| widen(end));
        let mut files = Vec::new();
        for monitor in &config.extra_monitors {
            let (ExtraMonitor::Qmp(path) | ExtraMonitor::Human(path)) = monitor else { continue };
            let (socket, file) = Server::bind(&Address::unix(path)).await?.into_parts()?;
            files.extend(file);
            let number = numbers.next();
            ends.extra_monitors.push(number);
            theirs.push((number, socket));
        }
        for passed in &config.fds {
            let number = match passed.place {
                Place::Number(number) => number,
                Place::Set { .. } => numbers.next(),
            };
            ends.passed.push(number);
            theirs.push((number, passed.fd.try_clone()?));
        }
        Ok(Box::new(Self { monitor, consoles, agent, qtest, files, ends, theirs }))
    }
}

/// Has as much as possible fit between QEMU and the console's pump. A guest writes byte by byte, and each write takes the room
/// of a packet: not 300 fit by default (socket(7), `SO_SNDBUF`), and some of QEMU's devices drop what does not fit at once.
fn widen(console: &OwnedFd) {
    let forced = rustix::net::sockopt::set_socket_send_buffer_size_force(console, ROOM);
    // Only root may go beyond the system's limit; without it there is room for twice as much as by default.
    if forced.is_err()
        && let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(console, ROOM)
    {
        tracing::debug!(%error, "a console keeps its small buffer");
    }
}

/// How many bytes may be on their way, the kernel's own accounts included.
const ROOM: usize = 4 << 20;

/// Why a channel could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Monitor(ratite_qmp::Error),
    System(io::Error),
}

impl From<ratite_qmp::Error> for OpenError {
    fn from(error: ratite_qmp::Error) -> Self {
        Self::Monitor(error)
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Descriptor numbers for the child: from 3 on, around those that the user has chosen.
struct Numbers {
    next: RawFd,
    chosen: Vec<RawFd>,
}

impl Numbers {
    fn beside(config: &MachineConfig) -> Self {
        let chosen = config.fds.iter().filter_map(|fd| match fd.place {
            Place::Number(number) => Some(number),
            Place::Set { .. } => None,
        });
        Self { next: 3, chosen: chosen.collect() }
    }

    fn next(&mut self) -> RawFd {
        while self.chosen.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }
}
