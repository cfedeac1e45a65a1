//! The qtest protocol: a line in, a line out.
//!
//! Memory is what was written to it, ports read as zero, and the clock goes only when told to.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::process;

use crate::line::Port;
use crate::line::Received;

/// One qtest connection, and the machine it pokes.
#[derive(Debug)]
pub(crate) struct Qtest {
    pub(crate) port: Port,
    unfinished_line: Vec<u8>,
    memory: BTreeMap<u64, u8>,
    clock: u64,
    irq_first: bool,
}

impl Qtest {
    pub(crate) fn new(port: Port, irq_first: bool) -> Self {
        Self { port, unfinished_line: Vec::new(), memory: BTreeMap::new(), clock: 0, irq_first }
    }

    /// Reads what has come, and answers each whole line.
    pub(crate) fn listen(&mut self) {
        let Some(line) = &self.port.line else { return };
        match line.receive(&mut VecDeque::new()) {
            Received::Bytes(bytes) => self.unfinished_line.extend(bytes),
            Received::Nothing => {}
            Received::Closed => self.port.line = None,
        }
        while let Some(at) = self.unfinished_line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unfinished_line.drain(..=at).collect();
            self.obey(&String::from_utf8_lossy(&line));
        }
    }

    fn obey(&mut self, command: &str) {
        let words: Vec<_> = command.split_whitespace().collect();
        let number = |index: usize| words.get(index).and_then(|word| number(word)).unwrap_or_default();
        let Some(&name) = words.first() else {
            // QEMU asserts that there is a word (`g_assert(command)`).
            process::abort();
        };
        let answer = match name {
            "fake-silent" => return,
            "fake-exit" => process::exit(0),
            "fake-irq" => return self.say(&format!("IRQ raise {}", number(1))),
            "clock_step" => {
                self.clock += number(1);
                format!("OK {}", self.clock)
            }
            "clock_set" => {
                self.clock = number(1);
                format!("OK {}", self.clock)
            }
            "inb" | "inw" | "inl" => "OK 0x0000".to_owned(),
            "outb" | "outw" | "outl" | "irq_intercept_in" | "irq_intercept_out" | "set_irq_in" => {
                "OK".to_owned()
            }
            "endianness" => "OK little".to_owned(),
            "readb" | "readw" | "readl" | "readq" => {
                format!("OK 0x{:016x}", self.load(number(1), width(name)))
            }
            "writeb" | "writew" | "writel" | "writeq" => {
                self.store(number(1), width(name), number(2));
                "OK".to_owned()
            }
            _ => format!("FAIL Unknown command '{name}'"),
        };
        if self.irq_first {
            self.say("IRQ raise 8");
        }
        self.say(&answer);
    }

    fn load(&self, address: u64, width: u64) -> u64 {
        let byte =
            |at: u64| u64::from(self.memory.get(&address.wrapping_add(at)).copied().unwrap_or_default());
        (0..width).fold(0, |value, at| value | byte(at) << (8 * at))
    }

    fn store(&mut self, address: u64, width: u64, value: u64) {
        for (at, byte) in (0..width).zip(value.to_le_bytes()) {
            self.memory.insert(address.wrapping_add(at), byte);
        }
    }

    fn say(&mut self, answer: &str) {
        if let Some(line) = &mut self.port.line {
            line.send(format!("{answer}\n").as_bytes());
        }
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn width(command: &str) -> u64 {
    match command.chars().last() {
        Some('b') => 1,
        Some('w') => 2,
        Some('l') => 4,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Read;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use crate::line::Line;

    #[track_caller]
    fn check(irq_first: bool, said: &str, expected: &str) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let port = Port { listener: None, line: Some(Line::new(theirs.into())) };
        let mut qtest = Qtest::new(port, irq_first);
        ours.write_all(said.as_bytes()).unwrap();

        qtest.listen();
        drop(qtest);

        let mut answers = String::new();
        ours.read_to_string(&mut answers).unwrap();
        assert_eq!(answers, expected, "after {said:?}");
    }

    #[test]
    fn each_line_is_answered_by_a_line() {
        check(false, "clock_step\nclock_step 10\n", "OK 0\nOK 10\n");
        check(false, "inb 0x60\nnonsense 1\n", "OK 0x0000\nFAIL Unknown command 'nonsense'\n");
        check(false, "writel 0x10 0xdeadbeef\nreadw 18\n", "OK\nOK 0x000000000000dead\n");
        check(false, "fake-silent\nunfinished", "");
    }

    #[test]
    fn an_interrupt_comes_before_an_answer() {
        check(true, "clock_step\n", "IRQ raise 8\nOK 0\n");
    }
}
