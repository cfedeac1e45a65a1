//! The same without `async`: each type here is a thin twin of the one with the same name, and waits on the caller's
//! thread.
//!
//! ```no_run
//! use ratite::{MachineConfig, blocking};
//! use std::time::Duration;
//!
//! let machine = blocking::Machine::launch(&MachineConfig::new("qemu-system-x86_64"))?;
//! println!("{}", machine.cmd("query-status", ())?);
//! machine.shutdown(Duration::from_secs(5))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The work is done by ratite's background threads, so consoles are read and children reaped while the caller
//! computes. All types are `Send` and `Sync`.
//!
//! # Panics
//!
//! Every method here that waits panics when it is called from within an async runtime, where it would block the
//! executor; the message names the async method to use. On a thread that the runtime has set aside for blocking
//! (`spawn_blocking`) it works. It also panics in a process that was forked off the one that
//! launched: the background threads are not there.

mod accelerator;
mod agent;
mod console;
mod devices;
mod input;
mod listener;
mod machine;
mod qmp;
mod qtest;
pub mod reach;
mod screen;
mod shell;
mod template;
mod terminal_view;
mod wait;

pub use accelerator::Accelerators;
pub use agent::Agent;
pub use agent::GuestFile;
pub use console::Console;
pub use input::Input;
pub use listener::Listener;
pub use machine::Machine;
pub use qmp::Client;
pub use qmp::Server;
pub use qtest::Qtest;
pub use screen::Screen;
pub use shell::Shell;
pub use template::Pool;
pub use template::Template;
pub use template::TemplateCache;
pub use terminal_view::TerminalView;
