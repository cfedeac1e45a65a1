//! Connecting: every kind of address, and what stands in the way.

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ratite_qmp::Address;
use ratite_qmp::Client;
use ratite_qmp::Disconnect;
use ratite_qmp::Error;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use rustix::io::FdFlags;
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::peer::Folder;
use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::session_over;
use crate::peer::soon;

/// Proves that a client reaches the peer which `accept` yields.
async fn check_reached<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    address: &str,
    accept: impl Future<Output = S>,
) {
    let address: Address = address.parse().unwrap();
    let (client, ()) = tokio::join!(Client::connect(&address, in_band()), async {
        let mut peer = Peer::new(accept.await);
        peer.settle().await;
        peer.echo();
    });
    let client = client.unwrap();
    let said = json!({"said": "☃"});
    assert_eq!(soon(client.execute("echo", &said)).await.unwrap(), said);
}

/// Why a client does not reach `address`.
async fn refused(address: &Address) -> String {
    match soon(Client::connect(address, Options::default())).await {
        Err(Error::Connect { address: named, source }) => {
            assert_eq!(named, *address);
            source.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_unix_path_is_reached() {
    let folder = Folder::new();
    let path = folder.join("a,b c:é.sock");
    let listener = UnixListener::bind(&path).unwrap();

    check_reached(&format!("unix:{}", path.display()), async { listener.accept().await.unwrap().0 }).await;
}

#[tokio::test]
async fn tcp_over_ipv4_is_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();

    check_reached(&format!("127.0.0.1:{port}"), async { listener.accept().await.unwrap().0 }).await;
}

#[tokio::test]
async fn tcp_over_ipv6_is_reached() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();

    check_reached(&format!("[::1]:{port}"), async { listener.accept().await.unwrap().0 }).await;
}

#[tokio::test]
async fn tcp_by_name_is_reached() {
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();

    check_reached(&format!("localhost:{port}"), async { listener.accept().await.unwrap().0 }).await;
}

#[tokio::test]
async fn an_inherited_descriptor_is_reached_by_its_number() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    rustix::io::fcntl_setfd(&ours, FdFlags::empty()).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let theirs = UnixStream::from_std(theirs).unwrap();

    check_reached(&format!("fd:{}", ours.as_raw_fd()), async { theirs }).await;
}

#[tokio::test]
async fn a_tcp_descriptor_is_reached_by_its_number() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();

    check_reached(&format!("fd:{}", ours.as_raw_fd()), async { listener.accept().await.unwrap().0 }).await;
}

#[tokio::test]
async fn a_descriptor_reached_by_its_number_stays_with_its_owner() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let address = Address::Fd(ours.as_raw_fd());

    drop(Socket::connect(&address).await.unwrap());

    assert!(ours.peer_addr().is_ok());
    drop(theirs);
}

#[tokio::test]
async fn a_descriptor_that_is_given_is_used() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ours = OwnedFd::from(ours.into_std().unwrap());

    let (client, peer) = session_over(Socket::try_from(ours).unwrap(), theirs, in_band()).await;
    peer.echo();

    assert!(soon(client.execute("echo", ())).await.is_ok());
}

#[tokio::test]
async fn a_std_stream_is_used_though_it_blocks() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let theirs = UnixStream::from_std(theirs).unwrap();

    let (client, peer) = session_over(Socket::try_from(ours).unwrap(), theirs, in_band()).await;
    peer.echo();

    assert!(soon(client.execute("echo", ())).await.is_ok());
}

#[tokio::test]
async fn where_nobody_is_the_address_and_the_systems_word_are_told() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    drop(UnixListener::bind(folder.join("dead.sock")).unwrap());
    std::fs::write(folder.join("file"), "").unwrap();

    let missing = refused(&Address::unix(folder.join("missing.sock"))).await;
    let dead = refused(&Address::unix(folder.join("dead.sock"))).await;
    let file = refused(&Address::unix(folder.join("file"))).await;
    let tcp = refused(&Address::tcp("127.0.0.1", port)).await;

    assert!(missing.contains("No such file"), "{missing}");
    for word in [dead, file, tcp] {
        assert!(word.contains("refused"), "{word}");
    }
}

#[tokio::test]
async fn a_number_that_is_no_socket_is_refused() {
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();

    for number in [file.as_raw_fd(), datagrams.as_raw_fd(), listening.as_raw_fd(), 999_999, -1] {
        let word = refused(&Address::Fd(number)).await;

        assert!(!word.is_empty(), "{number}");
    }
}

#[tokio::test]
async fn a_socket_that_is_no_connected_stream_is_refused() {
    let folder = Folder::new();
    let listening = std::os::unix::net::UnixListener::bind(folder.join("q.sock")).unwrap();
    let (datagrams, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();

    for (name, number) in
        [("listening", listening.as_raw_fd()), ("datagrams", datagrams.as_raw_fd()), ("udp", udp.as_raw_fd())]
    {
        let outcome = Socket::connect(&Address::Fd(number)).await;

        assert!(outcome.is_err(), "{name} was taken");
    }
}

#[tokio::test]
async fn a_path_that_is_too_long_is_named() {
    let path = format!("/{}", "x".repeat(200));

    let word = refused(&Address::unix(&path)).await;

    assert!(!word.is_empty());
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_waited_for_as_long_as_was_said() {
    let folder = Folder::new();
    let _listener = UnixListener::bind(folder.join("q.sock")).unwrap();
    let address = Address::unix(folder.join("q.sock"));
    let options = Options::default().connect_limit(Duration::from_millis(30));

    let outcome = soon(Client::connect(&address, options)).await;

    match outcome {
        Err(Error::TimedOut(timed_out)) => {
            assert!(timed_out.to_string().contains("q.sock"), "{timed_out}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tcp_peer_that_goes_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (theirs, _) = listener.accept().await.unwrap();
    let (client, peer) = session_over(ours, theirs, Options::default()).await;

    peer.hang_up();

    assert!(matches!(tokio::time::timeout(PATIENCE, client.closed()).await.unwrap(), Disconnect::ByPeer));
}
