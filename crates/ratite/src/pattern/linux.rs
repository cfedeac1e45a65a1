//! What a Linux guest prints when it went wrong.

use crate::pattern::Pattern;

/// Each found in the kernel's sources, or in the programs that ask for a login. What a working system prints, too, such as
/// warnings, is not among them.
const FAILURES: &[&str] = &[
    "Kernel panic - not syncing",
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "general protection fault",
    "Unable to handle kernel ",
    "Internal error: ",
    "Kernel stack is corrupted",
    "watchdog: BUG: soft lockup",
    "watchdog: Watchdog detected hard LOCKUP",
    "rcu_sched detected stalls",
    "rcu_preempt detected stalls",
    "VFS: Unable to mount root fs",
    "No working init found",
    "Entering emergency mode",
    "You are in emergency mode",
    "Login incorrect",
];

impl Pattern {
    /// The texts of [`Pattern::linux_failures`].
    pub const LINUX_FAILURES: &[&str] = FAILURES;

    /// What a Linux guest prints when it went wrong, for [`crate::Patterns::failing_on`]: a panic, an oops, a bug or a lockup that the
    /// kernel tells of, no root file system, systemd's emergency mode, and a login that is refused.
    #[must_use]
    pub fn linux_failures() -> Vec<Self> {
        FAILURES.iter().map(Self::literal).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::pattern::Pattern;
    use crate::pattern::Patterns;

    #[track_caller]
    fn fails(line: &str) -> bool {
        let patterns = Patterns::any(Vec::<Pattern>::new()).failing_on(Pattern::linux_failures());
        patterns.search().unwrap().feed(line.as_bytes()).unwrap().is_some()
    }

    #[test]
    fn lines_of_kernels_that_went_wrong_are_known() {
        assert!(fails(
            "[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
        ));
        assert!(fails("[    2.0] BUG: kernel NULL pointer dereference, address: 0000000000000000"));
        assert!(fails("[    2.0] BUG: KASAN: slab-out-of-bounds in f+0x1/0x2"));
        assert!(fails("[    2.0] kernel BUG at mm/slub.c:4023!"));
        assert!(fails("[    2.0] Oops: 0002 [#1] SMP PTI"));
        assert!(fails("[   60.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"));
        assert!(fails("Login incorrect"));
    }

    #[test]
    fn lines_of_kernels_that_work_are_not() {
        assert!(!fails("[    0.0] Command line: console=ttyS0 panic=-1 oops=panic"));
        assert!(!fails("[    0.0] ACPI BIOS Error (bug): Could not resolve symbol"));
        assert!(!fails("[    0.1] NMI watchdog: Enabled. Permanently consumes one hw-PMU counter."));
        assert!(!fails("[    0.1] Spectre V2 : Mitigation: Retpolines"));
        assert!(!fails("guest login: "));
    }
}
