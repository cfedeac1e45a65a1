//! The side that waits to be connected to: QEMU connects to us, or a test's client does.
//!
//! Owns the listening sockets and, for a Unix path, the file; removes that file if it is still the one it made.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use tokio::net::TcpListener;
use tokio::net::UnixListener;

use crate::address::Address;
use crate::deadline::within;
use crate::error::Error;
use crate::socket::Socket;

/// A QMP server socket that has not been connected to yet.
///
/// A Unix socket is made with mode 0600. Dropping the server closes it and removes the socket file, unless somebody
/// has put another file in its place.
#[derive(Debug)]
pub struct Server {
    address: Address,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Unix(UnixListener, SocketFile),
    Tcp(Vec<TcpListener>),
}

/// Who is at the other end of a Unix socket, as the kernel tells it (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The process that connected; `None` where the system does not tell.
    pub pid: Option<i32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// The longest path that fits into a `sockaddr_un` with its final NUL (unix(7)).
const LONGEST_PATH: usize = 107;

impl Server {
    /// Listens on `address`.
    ///
    /// A Unix path must be free or hold a socket that nobody listens on any more; everything else is left alone and
    /// refused. A TCP host may be a name with several addresses: all are listened on. Port 0 lets the system choose;
    /// [`Server::address`] tells the choice.
    ///
    /// # Errors
    /// [`Error::Bind`] with what is in the way.
    pub async fn bind(address: &Address) -> Result<Self, Error> {
        let outcome = match address {
            Address::Unix(path) => bind_unix(path).await,
            Address::Tcp { host, port } => bind_tcp(host, *port).await,
            Address::Fd(_) => Err(refusal("a descriptor cannot be listened on", io::ErrorKind::Unsupported)),
        };
        outcome.map_err(|Refusal { reason, source }| Error::Bind { address: address.clone(), reason, source })
    }

    /// Where a peer has to connect to: absolute for a path, with the real port for TCP.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for a peer that `welcome` takes, at most for `limit`; others are turned away.
    ///
    /// `welcome` sees the peer's credentials where the system tells them (Unix sockets), else `None`. Cancelling the
    /// wait loses no peer that was welcome.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or [`Error::Connect`] when the system refuses.
    pub async fn accept(
        &self,
        limit: Duration,
        mut welcome: impl FnMut(Option<PeerCredentials>) -> bool,
    ) -> Result<Socket, Error> {
        let what = format!("connection to {}", self.address);
        let connection = async {
            loop {
                let (socket, peer) = poll_fn(|cx| self.poll_accept(cx)).await?;
                if welcome(peer) {
                    return Ok(socket);
                }
                tracing::warn!(address = %self.address, ?peer, "turned away a peer that is not ours");
            }
        };
        within(limit, what, connection)
            .await?
            .map_err(|source: io::Error| Error::Connect { address: self.address.clone(), source })
    }

    /// The listening socket itself, to be handed to somebody else, and the file that is to be removed after it.
    ///
    /// # Errors
    /// [`Error::Bind`] for an address with several sockets.
    pub fn into_parts(self) -> Result<(OwnedFd, Option<SocketFile>), Error> {
        let address = self.address;
        let fault = |source| Error::Bind { address, reason: "it is not one socket".into(), source };
        match self.sockets {
            Sockets::Unix(listener, file) => Ok((listener.into_std().map_err(fault)?.into(), Some(file))),
            Sockets::Tcp(mut listeners) => match (listeners.pop(), listeners.is_empty()) {
                (Some(listener), true) => Ok((listener.into_std().map_err(fault)?.into(), None)),
                _ => Err(fault(io::ErrorKind::Unsupported.into())),
            },
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Option<PeerCredentials>)>> {
        match &self.sockets {
            Sockets::Unix(listener, _) => listener.poll_accept(cx).map_ok(|(stream, _)| {
                let peer = stream.peer_cred().ok();
                let peer = peer.map(|c| PeerCredentials { pid: c.pid(), uid: c.uid(), gid: c.gid() });
                (Socket::made_here(stream), peer)
            }),
            Sockets::Tcp(listeners) => {
                for listener in listeners {
                    if let Poll::Ready(outcome) = listener.poll_accept(cx) {
                        return Poll::Ready(outcome.map(|(stream, _)| (stream.into(), None)));
                    }
                }
                Poll::Pending
            }
        }
    }
}

#[derive(Debug)]
struct Refusal {
    reason: String,
    source: io::Error,
}

fn refusal(reason: impl Into<String>, kind: io::ErrorKind) -> Refusal {
    Refusal { reason: reason.into(), source: kind.into() }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Self { reason: "the system refused".into(), source }
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(source: rustix::io::Errno) -> Self {
        io::Error::from(source).into()
    }
}

/// How many may wait to be accepted; the system has a limit of its own. Beyond that a connection fails at once, with `EAGAIN`.
const BACKLOG: i32 = 1024;

async fn bind_unix(path: &Path) -> Result<Server, Refusal> {
    // Absolute from here on: the current folder may change before the file is removed.
    let path = std::path::absolute(path)?;
    let length = path.as_os_str().len();
    if length > LONGEST_PATH {
        let reason = format!("the path is {length} bytes long and a socket's may have {LONGEST_PATH}");
        return Err(refusal(reason, io::ErrorKind::InvalidFilename));
    }
    make_way(&path).await?;
    // Made and listening under a name of its own first: nobody must find at `path` a socket that does not listen yet,
    // take it for a dead one, and remove it.
    let aside = aside(&path)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&aside.short)?)?;
    let unnamed = SocketFile::at(&aside.path)?;
    // Before `listen`, so that nobody can connect while the mode is still what the umask made of it.
    std::fs::set_permissions(&aside.path, PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    // A link is made only where nothing is, and by one of all who try.
    std::fs::hard_link(&aside.path, &path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => refusal("somebody else has just taken it", io::ErrorKind::AddrInUse),
        _ => source.into(),
    })?;
    let file = SocketFile::at(&path)?;
    drop(unnamed);
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    Ok(Server { address: Address::Unix(path), sockets: Sockets::Unix(listener, file) })
}

/// A name beside another, in the same folder.
struct Aside {
    path: PathBuf,
    /// The same through this process's descriptor of the folder, so that it is short enough for a socket in any case.
    short: PathBuf,
    /// Held, not read: `short` leads through it.
    #[expect(dead_code, reason = "holding it keeps the short path alive")]
    folder: OwnedFd,
}

fn aside(path: &Path) -> Result<Aside, Refusal> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let name = format!(".ratite-{:016x}", u64::from_ne_bytes(random));
    let parent = path.parent().ok_or_else(|| refusal("it has no folder", io::ErrorKind::InvalidFilename))?;
    let folder = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    Ok(Aside { path: parent.join(name), short, folder })
}

/// Removes a dead socket at `path`; refuses whatever else is there.
async fn make_way(path: &Path) -> Result<(), Refusal> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !metadata.file_type().is_socket() {
        return Err(refusal("there is a file that is no socket", io::ErrorKind::AlreadyExists));
    }
    if !is_dead(path).await? {
        return Err(refusal("somebody else listens there", io::ErrorKind::AddrInUse));
    }
    // Moved aside and asked again: another may have put a living one there since.
    let aside = aside(path)?;
    match std::fs::rename(path, &aside.path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if !is_dead(&aside.short).await? {
        std::fs::hard_link(&aside.path, path)?;
        std::fs::remove_file(&aside.path)?;
        return Err(refusal("somebody else has just taken it", io::ErrorKind::AddrInUse));
    }
    tracing::debug!(path = %path.display(), "replacing a socket that nobody listens on");
    Ok(std::fs::remove_file(&aside.path)?)
}

/// Whether nobody listens on the socket at `path`.
async fn is_dead(path: &Path) -> Result<bool, Refusal> {
    match Socket::connect(&Address::unix(path)).await {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        // Gone meanwhile: deader than dead.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Refusal { reason: "there is a socket that cannot be asked".into(), source }),
    }
}

async fn bind_tcp(host: &str, port: u16) -> Result<Server, Refusal> {
    let mut resolved: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    resolved.dedup();
    let mut listeners = Vec::new();
    let mut port = port;
    for mut address in resolved {
        // With port 0, the first address chooses for all.
        address.set_port(port);
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Refusal { reason: format!("{address} is not to be had"), source })?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err(refusal("the name has no address", io::ErrorKind::AddrNotAvailable));
    }
    Ok(Server { address: Address::tcp(host, port), sockets: Sockets::Tcp(listeners) })
}

/// The file of a socket that ratite made; removed on drop, if it is still that very file.
///
/// A file that somebody has put in its place since is told by its device and inode, and left alone.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    fn is_still_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| {
            metadata.file_type().is_socket() && (metadata.dev(), metadata.ino()) == (self.device, self.inode)
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_still_there()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove a socket file");
        }
    }
}
