//! The peer: a QEMU with nothing in it that answers at once, so that the client is what is measured.
//!
//! It starts as fast as a program can that is linked dynamically: no runtime, raw system calls. It takes a QEMU
//! command line and ignores what it does not know; `arguments.rs` has what it does. What it plays beyond answering
//! comes in the variable `PEER_PLAY`: `play.rs`. It reads all that is there at once and answers it in one write. It
//! ends when its monitor is closed, which no real QEMU does: a broken sample must not leave it behind.

#![no_main]

mod arguments;
mod console;
mod monitor;
mod play;
mod scan;
mod system;

use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;

use crate::arguments::Arguments;
use crate::monitor::Monitor;
use crate::play::Play;

/// What the system calls, without the runtime of Rust in between.
///
/// # Safety
/// The C library calls it, with what a program gets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the C library gives `count` strings.
    let words = unsafe { std::slice::from_raw_parts(words, count) };
    // SAFETY: each of them ends with a zero, and lives as long as the process.
    let words: Vec<&[u8]> =
        words.iter().skip(1).map(|word| unsafe { CStr::from_ptr(*word) }.to_bytes()).collect();
    let play = Play::from_environment();
    if play.fail {
        system::complain(b"peer: told to fail before the monitor is ready\n");
        return 1;
    }
    if play.hang {
        system::ignore_term();
    }
    let arguments = Arguments::parse(&words);
    let Some(mut monitor) = Monitor::open(arguments, play) else {
        system::complain(b"peer: no monitor is given, or it cannot be opened\n");
        return 1;
    };
    monitor.serve()
}
