//! What the tests that start processes share: a fake QEMU (the binary `fake-qemu`), a Linux guest, a real guest agent, a
//! scripted QMP peer, and the proof that nothing is left behind.

pub mod fuzzing;
pub mod guest_agent;
pub mod linux_guest;
pub mod orphans;
pub mod polling;
pub mod scenario;
pub mod screen_guest;
pub mod scripted_qmp;
pub mod shell_on_pty;
pub mod templates;
pub mod waits;
