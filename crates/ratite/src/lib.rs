//! Runs QEMU machines for programs: starts one, speaks QMP with it, keeps its console flowing, ends it, and leaves
//! nothing behind.

#![forbid(unsafe_code)]

mod accelerator;
mod arguments;
pub mod blocking;
mod body;
mod channels;
mod check;
mod child;
mod command_line;
mod config;
mod console;
mod disks;
mod driver;
mod error;
mod estate;
mod exit;
mod fate;
mod font;
mod frame;
mod freeze;
mod glyphs;
mod group_table;
mod guard;
pub mod guest;
mod history;
mod inherit;
mod input;
mod key;
mod keys;
mod launch;
mod layout;
mod life;
mod machine;
mod manifest;
mod masking;
mod memory;
mod migration;
mod options;
mod overlay;
mod pattern;
mod picture;
mod probe;
mod process;
mod procfs;
mod program;
mod qtest;
pub mod reach;
mod reach_folder;
mod reach_server;
mod reach_words;
mod running;
mod runtime;
mod screen;
mod seal;
mod shell;
mod shutdown;
mod speed;
mod starter;
mod strays;
mod template;
mod terminal;
mod terminal_view;
mod text;
mod work_folder;
mod workdir;

pub use accelerator::AcceleratorError;
pub use accelerator::Accelerators;
pub use check::ConfigError;
pub use command_line::CommandLine;
pub use config::ConsoleConfig;
pub use config::ExtraMonitor;
pub use config::MachineConfig;
pub use config::Monitor;
pub use config::PassedFd;
pub use config::Timeouts;
pub use console::Console;
pub use console::ConsoleError;
pub use console::Found;
pub use disks::NotFreezable;
pub use error::LaunchError;
pub use error::LaunchErrorKind;
pub use error::MachineError;
pub use error::ShutdownError;
pub use error::ShutdownErrorKind;
pub use exit::Asked;
pub use exit::Exit;
pub use exit::ProcessExit;
pub use exit::Tail;
pub use font::Font;
pub use freeze::FreezeError;
pub use glyphs::Cell;
pub use glyphs::ScreenText;
pub use history::Match;
pub use input::Button;
pub use input::Input;
pub use input::InputError;
pub use keys::BadKeys;
pub use keys::Keys;
pub use layout::Layout;
pub use layout::UnknownLayout;
pub use layout::Untypable;
pub use machine::Machine;
pub use manifest::TemplateError;
pub use migration::MigrationError;
pub use pattern::BadPattern;
pub use pattern::Pattern;
pub use pattern::Patterns;
pub use pattern::Search;
pub use pattern::SearchError;
pub use picture::Difference;
pub use picture::Picture;
pub use picture::PictureError;
pub use picture::Region;
pub use picture::Tolerance;
pub use qtest::Irqs;
pub use qtest::Qtest;
pub use qtest::QtestError;
pub use ratite_qmp as qmp;
pub use runtime::background;
pub use runtime::block_on;
pub use screen::Screen;
pub use screen::ScreenError;
pub use shell::Login;
pub use shell::Shell;
pub use shell::ShellError;
pub use shell::ShellOutput;
pub use speed::Measurement;
pub use speed::Speed;
pub use speed::Verdict;
pub use template::CacheError;
pub use template::Making;
pub use template::Place;
pub use template::Pool;
pub use template::RamTransfer;
pub use template::Spawn;
pub use template::SpawnError;
pub use template::StoreError;
pub use template::Template;
pub use template::TemplateCache;
pub use template::TemplateEntry;
pub use terminal::Terminal;
pub use terminal_view::TerminalView;
pub use text::PlainText;
pub use text::plain_text;
pub use work_folder::WorkFolder;
pub use workdir::Log;

#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../../README.md")]
    struct Readme;

    #[doc = include_str!("../../../docs/guide/launching.md")]
    struct Launching;

    #[doc = include_str!("../../../docs/guide/commands.md")]
    struct Commands;

    #[doc = include_str!("../../../docs/guide/shell.md")]
    struct QmpFromAShell;

    #[doc = include_str!("../../../docs/guide/events.md")]
    struct Events;

    #[doc = include_str!("../../../docs/guide/consoles.md")]
    struct Consoles;

    #[doc = include_str!("../../../docs/guide/guest-shells.md")]
    struct Shells;

    #[doc = include_str!("../../../docs/guide/screens.md")]
    struct Screens;

    #[doc = include_str!("../../../docs/guide/agent.md")]
    struct Agent;

    #[doc = include_str!("../../../docs/guide/qom.md")]
    struct Qom;

    #[doc = include_str!("../../../docs/guide/reach.md")]
    struct Reach;

    #[doc = include_str!("../../../docs/guide/templates.md")]
    struct Templates;

    #[doc = include_str!("../../../docs/guide/ending.md")]
    struct Ending;

    #[doc = include_str!("../../../docs/guide/blocking.md")]
    struct Blocking;

    #[doc = include_str!("../../../docs/guide/qtest.md")]
    struct Qtest;

    #[doc = include_str!("../../../docs/guide/limits.md")]
    struct Limits;

    #[doc = include_str!("../../../docs/guide/errors.md")]
    struct Errors;

    #[doc = include_str!("../../../docs/guide/coming-from-qemu-machine.md")]
    struct ComingFromQemuMachine;
}
