//! Being connected to: binding, accepting, and leaving nothing behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::Client;
use ratite_qmp::Error;
use ratite_qmp::Options;
use ratite_qmp::PeerCredentials;
use ratite_qmp::Server;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::peer::Folder;
use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::poll_once;
use crate::peer::soon;

fn anybody(_: Option<PeerCredentials>) -> bool {
    true
}

/// Why `path` cannot be listened on.
async fn refused(path: impl AsRef<Path>) -> String {
    match Server::bind(&Address::unix(path)).await {
        Err(Error::Bind { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

async fn bind(path: impl AsRef<Path>) -> Server {
    Server::bind(&Address::unix(path)).await.unwrap()
}

fn port_of(server: &Server) -> u16 {
    match server.address() {
        Address::Tcp { port, .. } => *port,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_connects_is_greeted_with_a_session() {
    let folder = Folder::new();
    let path = folder.join("q.sock");
    let server = bind(&path).await;

    let (client, ()) = tokio::join!(Client::accept(&server, anybody, in_band()), async {
        let mut peer = Peer::new(UnixStream::connect(&path).await.unwrap());
        peer.settle().await;
        peer.echo();
    });

    let said = json!({"a": 1});
    assert_eq!(soon(client.unwrap().execute("echo", &said)).await.unwrap(), said);
}

#[tokio::test]
async fn a_peer_over_tcp_is_greeted_with_a_session() {
    for host in ["127.0.0.1", "::1", "localhost"] {
        let server = Server::bind(&Address::tcp(host, 0)).await.unwrap();
        let port = port_of(&server);

        let (client, ()) = tokio::join!(Client::accept(&server, anybody, in_band()), async {
            let mut peer = Peer::new(TcpStream::connect((host, port)).await.unwrap());
            peer.settle().await;
        });

        assert!(client.is_ok() && port != 0, "{host}");
    }
}

#[tokio::test]
async fn a_port_of_zero_becomes_the_real_one() {
    let server = Server::bind(&Address::tcp("127.0.0.1", 0)).await.unwrap();

    let port = port_of(&server);

    assert_ne!(port, 0);
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::tcp("127.0.0.1", taken.local_addr().unwrap().port());

    let error = Server::bind(&address).await.unwrap_err();

    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_refused() {
    let outcome = Server::bind(&Address::tcp("no-such-host.invalid", 0)).await;

    assert!(matches!(outcome, Err(Error::Bind { .. })));
}

#[tokio::test]
async fn a_descriptor_cannot_be_listened_on() {
    let outcome = Server::bind(&Address::Fd(0)).await;

    assert!(matches!(outcome, Err(Error::Bind { .. })));
}

#[tokio::test]
async fn the_peers_credentials_are_told() {
    let folder = Folder::new();
    let server = bind(folder.join("q.sock")).await;
    let _peer = UnixStream::connect(folder.join("q.sock")).await.unwrap();

    let mut seen = None;
    let socket = server.accept(PATIENCE, |peer| {
        seen = peer;
        true
    });

    assert!(socket.await.is_ok());
    let seen = seen.unwrap();
    assert_eq!(seen.pid, i32::try_from(std::process::id()).ok());
    assert_eq!(seen.uid, rustix::process::geteuid().as_raw());
    assert_eq!(seen.gid, rustix::process::getegid().as_raw());
}

#[tokio::test]
async fn a_peer_that_is_not_welcome_is_turned_away_and_the_next_one_taken() {
    let folder = Folder::new();
    let server = bind(folder.join("q.sock")).await;
    let mut stranger = UnixStream::connect(folder.join("q.sock")).await.unwrap();
    let _friend = UnixStream::connect(folder.join("q.sock")).await.unwrap();

    let mut asked = 0;
    let socket = server.accept(PATIENCE, |_| {
        asked += 1;
        asked == 2
    });

    assert!(socket.await.is_ok());
    assert_eq!(asked, 2);
    assert_eq!(soon(stranger.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_comes_is_waited_for_as_long_as_was_said() {
    let folder = Folder::new();
    let server = bind(folder.join("q.sock")).await;

    let outcome = server.accept(Duration::from_secs(3), anybody).await;

    match outcome {
        Err(Error::TimedOut(timed_out)) => {
            assert_eq!(timed_out.limit, Duration::from_secs(3));
            assert!(timed_out.to_string().contains("q.sock"), "{timed_out}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn unwelcome_peers_do_not_prolong_the_wait() {
    let folder = Folder::new();
    let path = folder.join("q.sock");
    let server = bind(&path).await;
    let strangers = tokio::spawn(async move {
        while UnixStream::connect(&path).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });

    let outcome = soon(server.accept(Duration::from_millis(100), |_| false)).await;

    assert!(matches!(outcome, Err(Error::TimedOut(_))));
    drop(server);
    soon(strangers).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_accept_loses_no_peer() {
    let folder = Folder::new();
    let server = bind(folder.join("q.sock")).await;
    let mut cancelled = Box::pin(server.accept(PATIENCE, anybody));
    assert!(poll_once(cancelled.as_mut()).await.is_pending());

    let _peer = UnixStream::connect(folder.join("q.sock")).await.unwrap();
    tokio::task::yield_now().await;
    drop(cancelled);

    assert!(server.accept(PATIENCE, anybody).await.is_ok());
}

#[tokio::test]
async fn the_socket_file_is_for_its_owner_only() {
    let folder = Folder::new();
    let _server = bind(folder.join("q.sock")).await;

    let mode = std::fs::metadata(folder.join("q.sock")).unwrap().permissions().mode();

    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_socket_file_goes_with_the_server() {
    let folder = Folder::new();
    let server = bind(folder.join("q.sock")).await;

    drop(server);

    assert!(!folder.join("q.sock").exists());
}

#[tokio::test]
async fn a_session_survives_its_server() {
    let folder = Folder::new();
    let path = folder.join("q.sock");
    let server = bind(&path).await;
    let (client, ()) = tokio::join!(Client::accept(&server, anybody, in_band()), async {
        let mut peer = Peer::new(UnixStream::connect(&path).await.unwrap());
        peer.settle().await;
        peer.echo();
    });

    drop(server);

    assert!(soon(client.unwrap().execute("x", ())).await.is_ok());
}

#[tokio::test]
async fn a_file_that_took_the_place_of_the_socket_is_left_alone() {
    let folder = Folder::new();
    let path = folder.join("q.sock");
    for replace in [
        (|path: &Path| std::fs::write(path, "mine").unwrap()) as fn(&Path),
        |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        |path| std::fs::create_dir(path).unwrap(),
        |path| std::os::unix::fs::symlink("/dev/null", path).unwrap(),
    ] {
        let server = bind(&path).await;
        // Kept under another name: a socket made now may get the inode of one that is gone.
        std::fs::rename(&path, folder.join("old.sock")).unwrap();
        replace(&path);

        drop(server);

        let left = std::fs::symlink_metadata(&path).unwrap();
        if left.is_dir() {
            std::fs::remove_dir(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_server_whose_file_is_gone_goes_quietly() {
    let folder = Folder::new();
    let server = bind(folder.join("q.sock")).await;
    std::fs::remove_file(folder.join("q.sock")).unwrap();

    drop(server);
}

#[tokio::test]
async fn a_dead_socket_is_replaced() {
    let folder = Folder::new();
    drop(std::os::unix::net::UnixListener::bind(folder.join("q.sock")).unwrap());

    let server = bind(folder.join("q.sock")).await;

    assert!(UnixStream::connect(folder.join("q.sock")).await.is_ok());
    drop(server);
}

#[tokio::test]
async fn a_live_socket_is_refused_and_left_alone() {
    let folder = Folder::new();
    let owner = UnixListener::bind(folder.join("q.sock")).unwrap();

    let reason = refused(folder.join("q.sock")).await;

    assert_eq!(reason, "somebody else listens there");
    let _visitor = UnixStream::connect(folder.join("q.sock")).await.unwrap();
    assert!(soon(owner.accept()).await.is_ok());
}

#[tokio::test]
async fn a_live_socket_whose_queue_is_full_is_refused_and_left_alone() {
    let folder = Folder::new();
    let path = folder.join("q.sock");
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();

    let reason = soon(refused(&path)).await;

    assert!(!reason.is_empty() && path.exists());
}

#[tokio::test]
async fn what_is_no_socket_is_refused_and_left_alone() {
    let folder = Folder::new();
    std::fs::write(folder.join("file"), "mine").unwrap();
    std::os::unix::fs::symlink(folder.join("nowhere"), folder.join("link")).unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();

    for name in ["file", "link", "folder"] {
        let reason = refused(folder.join(name)).await;

        assert_eq!(reason, "there is a file that is no socket", "{name}");
        assert!(std::fs::symlink_metadata(folder.join(name)).is_ok());
    }
    assert_eq!(std::fs::read(folder.join("file")).unwrap(), b"mine");
}

#[tokio::test]
async fn a_socket_of_another_kind_is_refused_and_left_alone() {
    let folder = Folder::new();
    let _datagrams = std::os::unix::net::UnixDatagram::bind(folder.join("q.sock")).unwrap();

    let reason = refused(folder.join("q.sock")).await;

    assert!(!reason.is_empty() && folder.join("q.sock").exists());
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_refused() {
    let folder = Folder::new();

    let error = Server::bind(&Address::unix(folder.join("missing/q.sock"))).await;

    assert!(
        matches!(error, Err(Error::Bind { source, .. }) if source.kind() == std::io::ErrorKind::NotFound)
    );
}

#[tokio::test]
async fn the_longest_path_is_taken_and_one_byte_more_is_named() {
    let folder = Folder::new();
    let prefix = folder.path().as_os_str().len() + 1;
    let longest = folder.join(&"x".repeat(107 - prefix));
    let too_long = folder.join(&"x".repeat(108 - prefix));

    let server = bind(&longest).await;
    let reason = refused(&too_long).await;

    assert!(UnixStream::connect(&longest).await.is_ok());
    assert_eq!(reason, "the path is 108 bytes long and a socket's may have 107");
    drop(server);
}

#[tokio::test]
async fn a_relative_path_is_made_absolute() {
    let folder = Folder::new();
    let up = std::env::current_dir().unwrap().components().count() - 1;
    let relative: PathBuf = std::iter::repeat_n("..", up)
        .collect::<PathBuf>()
        .join(folder.path().strip_prefix("/").unwrap())
        .join("q.sock");

    let server = bind(&relative).await;

    let Address::Unix(path) = server.address() else { panic!("{server:?}") };
    assert!(relative.is_relative() && path.is_absolute());
    assert!(UnixStream::connect(path).await.is_ok());
}

#[tokio::test]
async fn two_servers_do_not_share_a_path() {
    let folder = Folder::new();
    let first = bind(folder.join("q.sock")).await;

    let reason = refused(folder.join("q.sock")).await;

    assert_eq!(reason, "somebody else listens there");
    assert!(folder.join("q.sock").exists());
    drop(first);
}

#[tokio::test]
async fn an_accepted_peer_that_says_nothing_is_waited_for_as_long_as_was_said() {
    let folder = Folder::new();
    let server = bind(folder.join("q.sock")).await;
    let _peer = UnixStream::connect(folder.join("q.sock")).await.unwrap();
    let options = Options::default().connect_limit(Duration::from_millis(30));

    let outcome = soon(Client::accept(&server, anybody, options)).await;

    assert!(matches!(outcome, Err(Error::TimedOut(_))));
}

#[test]
fn of_two_that_bind_at_once_over_a_dead_socket_one_gets_it() {
    let folder = Folder::new();
    let path = folder.join("q.sock");
    for round in 0..500 {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let start = Arc::new(Barrier::new(2));

        let binders = [(); 2].map(|()| {
            let (start, path) = (start.clone(), path.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                start.wait();
                let server = runtime.block_on(Server::bind(&Address::unix(&path)));
                // Kept until both have tried.
                start.wait();
                let _context = runtime.enter();
                server.is_ok()
            })
        });

        let got = binders.map(|binder| binder.join().unwrap());
        assert!(got.contains(&true), "round {round}: nobody got it");
        assert!(got.contains(&false), "round {round}: both were told that they have it");
    }
}
