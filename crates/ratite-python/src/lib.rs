//! The Rust half of the Python package `ratite`: the async API of ratite, one class for each of its types.
//!
//! What waits returns a `Pending`, which Python either blocks on or awaits; everything else is a plain call.
//! No policy lives here, and no default: those are Python's, where users can read and override them.

#![deny(unsafe_code)]

mod accelerators;
mod agent;
mod awaited;
mod client;
mod config;
mod console;
mod errors;
mod exit;
mod gate;
mod input;
mod json;
mod listener;
mod machine;
mod mailbox;
mod pending;
mod picture;
mod pool;
mod qtest;
mod screen;
mod shell;
mod template;
mod template_cache;
mod template_errors;
mod terminal;
mod values;
mod work_folder;

use pyo3::prelude::*;

/// The compiled half of ratite. Private: `ratite` is the interface.
#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::accelerators::measure;
    #[pymodule_export]
    use super::agent::Agent;
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::client::Server;
    #[pymodule_export]
    use super::config::Config;
    #[pymodule_export]
    use super::console::Console;
    #[pymodule_export]
    use super::console::Found;
    #[pymodule_export]
    use super::console::Match;
    #[pymodule_export]
    use super::console::linux_failures;
    #[pymodule_export]
    use super::exit::Exit;
    #[pymodule_export]
    use super::exit::ProcessExit;
    #[pymodule_export]
    use super::input::Input;
    #[pymodule_export]
    use super::json::loads;
    #[pymodule_export]
    use super::listener::Listener;
    #[pymodule_export]
    use super::machine::Machine;
    #[pymodule_export]
    use super::pending::Pending;
    #[pymodule_export]
    use super::picture::Picture;
    #[pymodule_export]
    use super::picture::ScreenText;
    #[pymodule_export]
    use super::pool::Pool;
    #[pymodule_export]
    use super::pool::Prepared;
    #[pymodule_export]
    use super::qtest::Qtest;
    #[pymodule_export]
    use super::screen::Screen;
    #[pymodule_export]
    use super::shell::Shell;
    #[pymodule_export]
    use super::shell::ShellOutput;
    #[pymodule_export]
    use super::template::Spawn;
    #[pymodule_export]
    use super::template::Template;
    #[pymodule_export]
    use super::template_cache::Making;
    #[pymodule_export]
    use super::template_cache::TemplateCache;
    #[pymodule_export]
    use super::terminal::Terminal;
    #[pymodule_export]
    use super::terminal::TerminalView;
    #[pymodule_export]
    use super::terminal::plain_text;
    #[pymodule_export]
    use super::work_folder::WorkFolder;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::gate::close_at_exit(module.py())
    }
}
