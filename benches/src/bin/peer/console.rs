//! What the peer says on its console: lines as a guest prints them while it boots, and a prompt at the very end.

use std::ffi::c_int;
use std::fmt::Write;

use crate::system;

const LINES: &[&str] = &[
    "Linux version 6.1.0-18-amd64 (gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #1 SMP PREEMPT_DYNAMIC",
    "BIOS-e820: [mem 0x0000000000100000-0x000000001ffdcfff] usable",
    "pci 0000:00:1f.2: reg 0x20: [io  0xc040-0xc05f]",
    "ACPI: Added _OSI(Processor Aggregator Device)",
    "clocksource: tsc: mask: 0xffffffffffffffff max_cycles: 0x2b3e459bf4c, max_idle_ns: 440795289890 ns",
    "virtio_net virtio0 enp0s2: renamed from eth0",
    "random: crng init done",
    "EXT4-fs (vda1): mounted filesystem with ordered data mode. Quota mode: none.",
    "systemd[1]: Started systemd-udevd.service - Rule-based Manager for Device Events and Files.",
    "audit: type=1400 audit(1700000000.123:4): apparmor=\"STATUS\" operation=\"profile_load\" profile=\"unconfined\"",
    "Freeing unused kernel image (initmem) memory: 2796K",
    "login[312]: pam_unix(login:session): session opened for user root(uid=0) by LOGIN(uid=0)",
];

/// The last bytes of all.
const PROMPT: &[u8] = b"\r\nDebian GNU/Linux 12 guest ttyS0\r\n\r\nguest login: ";

/// How much is written at once.
const BLOCK: usize = 64 << 10;

/// Writes `size` bytes.
pub(crate) fn fill(console: c_int, size: usize) {
    let block = lines();
    let mut left = size.saturating_sub(PROMPT.len());
    while left > 0 {
        let now = left.min(block.len());
        if !system::write_all(console, &block[..now]) {
            return;
        }
        left -= now;
    }
    // Whoever has hung up has told so before.
    let _told = system::write_all(console, &PROMPT[PROMPT.len().saturating_sub(size)..]);
}

fn lines() -> Vec<u8> {
    let mut text = String::with_capacity(BLOCK + 200);
    for (number, line) in LINES.iter().cycle().enumerate() {
        if text.len() >= BLOCK {
            break;
        }
        // What is not regular in the times of a boot.
        let micros = number.wrapping_mul(7_368_787) % 1_000_000;
        // A string takes all.
        let _taken = write!(text, "[{:5}.{micros:06}] {line}\r\n", number / 64);
    }
    text.into_bytes()
}
