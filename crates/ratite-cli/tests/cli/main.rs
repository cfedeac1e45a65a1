//! The `ratite` command as a shell sees it: what it writes, its exit codes, and what it leaves behind, which is nothing.
//!
//! Every [`harness::Ratite`] proves at its end that none of its processes and folders is left.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod accel;
mod agent;
mod agent_by_name;
mod cmd;
mod console;
mod demo;
mod doctor;
mod endings;
mod failures;
mod harness;
mod last_picture;
mod machine;
mod options;
mod paper;
mod patterns;
mod progress;
mod qemu;
mod qom;
mod reach;
mod records;
mod screen;
mod shell;
mod shell_terminal;
mod shortages;
mod stepping_in;
mod templates;
mod templates_refused;
mod terminal;
mod usage;
mod walk_through;
