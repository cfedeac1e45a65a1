//! The system calls that the peer makes.

use std::ffi::CString;
use std::ffi::c_int;

/// Reads at the end of `into`; false at the end of the stream.
pub(crate) fn read_more(fd: c_int, into: &mut Vec<u8>) -> bool {
    into.reserve(64 << 10);
    let space = into.spare_capacity_mut();
    // SAFETY: the space is writable, and as long as it says.
    let count = unsafe { libc::read(fd, space.as_mut_ptr().cast(), space.len()) };
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else { return false };
    // SAFETY: the kernel has filled that much.
    unsafe { into.set_len(into.len() + count) };
    true
}

/// Writes all of it; false when nobody reads any more.
pub(crate) fn write_all(fd: c_int, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        // SAFETY: the bytes are readable, and as many as it says.
        let count = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(count) {
            Ok(count) => bytes = &bytes[count..],
            Err(_) => return false,
        }
    }
    true
}

/// Which of the descriptors have something to read, after at most `timeout` milliseconds.
pub(crate) fn readable(polled: &mut [libc::pollfd], timeout: c_int) -> bool {
    // SAFETY: it is a slice of what poll takes.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) > 0 }
}

/// Takes one connection on a listening socket.
pub(crate) fn accept(listening: c_int) -> Option<c_int> {
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept(listening, std::ptr::null_mut(), std::ptr::null_mut()) };
    (fd >= 0).then_some(fd)
}

/// Connects to the Unix socket at `path`, or listens there.
pub(crate) fn unix_socket(path: &[u8], listens: bool) -> Option<c_int> {
    // SAFETY: an address of zeros is an address, and the path fits into it.
    unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        if path.len() >= address.sun_path.len() {
            return None;
        }
        for (to, from) in address.sun_path.iter_mut().zip(path) {
            *to = from.cast_signed();
        }
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        let address = (&raw const address).cast();
        let done = if listens {
            libc::bind(fd, address, length) == 0 && libc::listen(fd, 1) == 0
        } else {
            libc::connect(fd, address, length) == 0
        };
        done.then_some(fd)
    }
}

/// Reads a file whole.
pub(crate) fn read_file(path: &[u8]) -> Option<Vec<u8>> {
    let path = CString::new(path).ok()?;
    // SAFETY: the path ends with a zero.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let mut content = Vec::new();
    while fd >= 0 && read_more(fd, &mut content) {}
    (fd >= 0).then_some(content)
}

/// Does not end by SIGTERM.
pub(crate) fn ignore_term() {
    // SAFETY: to ignore a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// Waits until it is killed.
pub(crate) fn wait_for_ever() -> ! {
    loop {
        // SAFETY: it only waits.
        unsafe { libc::pause() };
    }
}

/// Says why it ends.
pub(crate) fn complain(text: &[u8]) {
    // SAFETY: the text is readable; where nobody hears it, the status has to do.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}
