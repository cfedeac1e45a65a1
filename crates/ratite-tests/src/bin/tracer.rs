//! A debugger that does nothing: `tracer PID` traces a process until its own input ends.
//!
//! Says `traced`, or `refused` and why, where the system does not permit it.

use std::io;
use std::io::Read;
use std::io::Write;

use nix::sys::ptrace;
use nix::unistd::Pid;

fn main() -> io::Result<()> {
    let pid = std::env::args().nth(1).and_then(|word| word.parse().ok()).map(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("tracer PID"))?;
    match ptrace::seize(pid, ptrace::Options::empty()) {
        Ok(()) => writeln!(io::stdout(), "traced")?,
        Err(error) => writeln!(io::stdout(), "refused: {error}")?,
    }
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}
