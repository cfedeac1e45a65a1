//! Makes the tests' Linux guest, for people to play with, and tells where it is.

use std::io;
use std::io::Write;

use ratite_tests::linux_guest::LinuxGuest;
use ratite_tests::linux_guest::linux_guest;

fn main() -> io::Result<()> {
    let LinuxGuest { kernel, initrd } = linux_guest();
    writeln!(io::stdout(), "kernel  {}\ninitrd  {}", kernel.display(), initrd.display())
}
