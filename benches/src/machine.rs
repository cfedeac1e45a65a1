//! The machine that is measured on, as a page has to name it.

use std::fs;
use std::process::Command;

use serde::Deserialize;
use serde::Serialize;

use crate::other_end;

/// What a figure depends on that is not the program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) qemu: String,
    pub(crate) rust: String,
    /// The day, in UTC.
    pub(crate) date: String,
}

impl Machine {
    /// Looks around. What cannot be found is told as unknown.
    pub(crate) fn look() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: known(model.map_or("", |(_, model)| model)),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: known(&kernel),
            qemu: first_line(Command::new(other_end::qemu_program()).arg("--version")),
            rust: first_line(Command::new("rustc").arg("--version")),
            date: first_line(Command::new("date").args(["-u", "+%F"])),
        }
    }
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    known(String::from_utf8_lossy(&output).lines().next().unwrap_or_default())
}

fn known(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
}
