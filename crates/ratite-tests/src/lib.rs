//! What the tests that start processes share: a fake QEMU (the binary `fake-qemu`), a Linux guest, a scripted QMP peer,
//! and the proof that nothing is left behind.

pub mod fuzzing;
pub mod linux_guest;
pub mod orphans;
pub mod polling;
pub mod scenario;
pub mod scripted_qmp;
pub mod shell_on_pty;
pub mod waits;
