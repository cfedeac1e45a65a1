//! A console with nothing but read(2), and with a log write(2).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;

use crate::scenario::Failure;

/// Reads `size` bytes into one buffer again and again, and shows each time what has come.
pub(crate) fn read_all(
    console: &UnixStream,
    size: usize,
    mut show: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut buffer = vec![0_u8; 256 << 10];
    let mut left = size;
    while left > 0 {
        // SAFETY: the buffer is writable, and as long as it says.
        let count = unsafe { libc::read(console.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        if count == 0 {
            return Err("the console has ended early".into());
        }
        show(&buffer[..count])?;
        left = left.checked_sub(count).ok_or("more came than was to come")?;
    }
    Ok(())
}

/// Writes all of `bytes` to `log`.
pub(crate) fn write_all(log: &File, mut bytes: &[u8]) -> Result<(), Failure> {
    let log: RawFd = log.as_raw_fd();
    while !bytes.is_empty() {
        // SAFETY: the bytes are readable, and as many as it says.
        let count = unsafe { libc::write(log, bytes.as_ptr().cast(), bytes.len()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Whether `text` stands in `bytes`.
pub(crate) fn contains(bytes: &[u8], text: &str) -> bool {
    // SAFETY: both are readable, and as long as it says.
    let found = unsafe { libc::memmem(bytes.as_ptr().cast(), bytes.len(), text.as_ptr().cast(), text.len()) };
    !found.is_null()
}
