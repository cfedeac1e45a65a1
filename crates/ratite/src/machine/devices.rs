//! What a person has of a machine: its screen, its keyboard and mouse, and QEMU's monitor for people.

use serde_json::json;

use crate::error::MachineError;
use crate::input::Input;
use crate::machine::Machine;
use crate::screen::Screen;

impl Machine {
    /// The machine's screen. It has one if it was given a graphics card: [`crate::MachineConfig::with_screen`].
    ///
    /// # Errors
    /// [`MachineError::NoMonitor`].
    pub fn screen(&self) -> Result<Screen, MachineError> {
        self.client().map(|client| Screen::over(client.clone()))
    }

    /// The machine's keyboard and mouse.
    ///
    /// # Errors
    /// [`MachineError::NoMonitor`].
    pub fn input(&self) -> Result<Input, MachineError> {
        self.client().map(|client| Input::over(client.clone()))
    }

    /// Executes a command of QEMU's monitor for people (HMP), such as `info mtree`, and returns what it prints.
    ///
    /// What it prints is for people, differs between versions of QEMU, and also tells failures: a command that there is not is
    /// answered `unknown command: 'x'`, and is no error here. Lines end with CR LF. Bounded by [`crate::Timeouts::command`].
    ///
    /// # Errors
    /// As [`Machine::cmd`].
    pub async fn human_monitor(&self, command: &str) -> Result<String, MachineError> {
        self.cmd_as(HUMAN_MONITOR, json!({ "command-line": command })).await
    }

    /// The same for commands that are about a processor, such as `info registers`, with its number from 0 on.
    ///
    /// # Errors
    /// As [`Machine::cmd`]; QEMU refuses a number that no processor has.
    pub async fn human_monitor_on(&self, cpu: u32, command: &str) -> Result<String, MachineError> {
        self.cmd_as(HUMAN_MONITOR, json!({ "command-line": command, "cpu-index": cpu })).await
    }
}

const HUMAN_MONITOR: &str = "human-monitor-command";
