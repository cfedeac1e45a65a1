//! The twin of what [`crate::Machine`] has for people: screen, keyboard and mouse, and the monitor for people.

use crate::blocking::input::Input;
use crate::blocking::machine::Machine;
use crate::blocking::screen::Screen;
use crate::error::MachineError;

impl Machine {
    /// The machine's screen; see [`crate::Machine::screen`].
    ///
    /// # Errors
    /// As there.
    pub fn screen(&self) -> Result<Screen, MachineError> {
        self.client().map(|client| Screen::over(&client))
    }

    /// The machine's keyboard and mouse; see [`crate::Machine::input`].
    ///
    /// # Errors
    /// As there.
    pub fn input(&self) -> Result<Input, MachineError> {
        self.client().map(|client| Input::over(&client))
    }

    /// Executes a command of QEMU's monitor for people; see [`crate::Machine::human_monitor`].
    ///
    /// # Errors
    /// As there.
    pub fn human_monitor(&self, command: &str) -> Result<String, MachineError> {
        self.background.wait("Machine::human_monitor", self.inner.human_monitor(command))
    }

    /// The same about a processor; see [`crate::Machine::human_monitor_on`].
    ///
    /// # Errors
    /// As there.
    pub fn human_monitor_on(&self, cpu: u32, command: &str) -> Result<String, MachineError> {
        self.background.wait("Machine::human_monitor_on", self.inner.human_monitor_on(cpu, command))
    }
}
