//! The monitor, and what its commands start: floods of events, bytes on a console.

use std::ffi::c_int;

use crate::arguments::Arguments;
use crate::arguments::Chardev;
use crate::arguments::Place;
use crate::console;
use crate::play::Events;
use crate::play::Play;
use crate::scan::Command;
use crate::scan::next_command;
use crate::system;

/// The peer, once it runs.
#[derive(Debug)]
pub(crate) struct Monitor {
    fd: c_int,
    consoles: Vec<c_int>,
    play: Play,
    flooding: bool,
}

/// What a command leaves to be done when the replies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    Flood,
    Console,
    Quit,
}

/// An event of 145 bytes, line end included.
const EVENT: &[u8; 145] = b"{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 123456}, \
    \"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 12345678, \"qom-path\": \"/machine/rtc\"}}\r\n";

/// How many events are written at once.
const BATCH: usize = 1024;

/// How many at once while commands are answered in between: the less, the sooner a command is seen.
const SMALL_BATCH: usize = 64;

impl Monitor {
    pub(crate) fn open(arguments: Arguments<'_>, play: Play) -> Option<Self> {
        let fd = open(arguments.monitor?)?;
        let consoles = arguments.consoles.iter().filter_map(|console| open(*console)).collect();
        Some(Self { fd, consoles, play, flooding: false })
    }

    /// Serves until the end, and returns the status to end with.
    pub(crate) fn serve(&mut self) -> c_int {
        let capabilities = if self.play.oob { "\"oob\"" } else { "" };
        let greeting = format!(
            "{{\"QMP\": {{\"version\": {{\"qemu\": {{\"micro\": 0, \"minor\": 0, \"major\": 9}}, \"package\": \"peer\"}}, \
             \"capabilities\": [{capabilities}]}}}}\r\n"
        );
        if !system::write_all(self.fd, greeting.as_bytes()) {
            return 0;
        }
        let (mut input, mut output) = (Vec::new(), Vec::new());
        let batch = EVENT.repeat(SMALL_BATCH);
        loop {
            if self.flooding && !self.is_readable() {
                if !system::write_all(self.fd, &batch) {
                    return 0;
                }
                continue;
            }
            if !self.wait() || !system::read_more(self.fd, &mut input) {
                return self.end();
            }
            let mut begin = 0;
            while let Some((command, length)) = next_command(&input[begin..]) {
                let next = self.answer(&command, &mut output);
                begin += length;
                if next == Next::Nothing {
                    continue;
                }
                if !system::write_all(self.fd, &output) {
                    return self.end();
                }
                output.clear();
                match next {
                    Next::Quit => return self.end(),
                    Next::Flood if !self.flood() => return 0,
                    Next::Console => self.fill_console(),
                    _ => {}
                }
            }
            input.drain(..begin);
            if !output.is_empty() && !system::write_all(self.fd, &output) {
                return self.end();
            }
            output.clear();
        }
    }

    fn answer(&self, command: &Command<'_>, output: &mut Vec<u8>) -> Next {
        if command.name == b"query-qmp-schema" && !self.play.reply.is_empty() {
            output.extend_from_slice(self.play.reply.trim_ascii_end().strip_suffix(b"}").unwrap_or_default());
        } else if command.name == b"quit" && self.play.hang {
            return Next::Quit;
        } else {
            output.extend_from_slice(b"{\"return\": {}");
        }
        if let Some(id) = command.id {
            output.extend_from_slice(b", \"id\": ");
            output.extend_from_slice(id);
        }
        output.extend_from_slice(b"}\r\n");
        match command.name {
            b"start-flood" => Next::Flood,
            b"start-console" => Next::Console,
            b"quit" => Next::Quit,
            _ => Next::Nothing,
        }
    }

    /// Ends, unless it is to hang.
    fn end(&self) -> c_int {
        if self.play.hang {
            system::wait_for_ever();
        }
        0
    }

    /// Waits until the monitor can be read; what comes on the consoles is read and forgotten.
    fn wait(&self) -> bool {
        if self.consoles.is_empty() {
            return true;
        }
        let watch = |fd: &c_int| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
        let mut polled: Vec<_> = std::iter::once(&self.fd).chain(&self.consoles).map(watch).collect();
        while system::readable(&mut polled, -1) {
            for console in polled.iter_mut().skip(1).filter(|console| console.revents != 0) {
                if !system::read_more(console.fd, &mut Vec::new()) {
                    console.fd = -1;
                }
            }
            if polled[0].revents != 0 {
                return true;
            }
        }
        false
    }

    fn is_readable(&self) -> bool {
        system::readable(&mut [libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 }], 0)
    }

    /// Writes the events that are to come now; false when nobody reads them.
    fn flood(&mut self) -> bool {
        let Events::Count(mut left) = self.play.events else {
            self.flooding = true;
            return true;
        };
        let batch = EVENT.repeat(BATCH.min(left));
        while left > 0 {
            let now = left.min(BATCH);
            if !system::write_all(self.fd, &batch[..now * EVENT.len()]) {
                return false;
            }
            left -= now;
        }
        true
    }

    fn fill_console(&self) {
        if let Some(first) = self.consoles.first() {
            console::fill(*first, self.play.console);
        }
    }
}

fn open(chardev: Chardev<'_>) -> Option<c_int> {
    let fd = match chardev.place {
        Place::Fd(fd) => fd,
        Place::Path(path) => system::unix_socket(path, chardev.listens)?,
    };
    if chardev.listens { system::accept(fd) } else { Some(fd) }
}
