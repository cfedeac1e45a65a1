//! Twenty tests on a booted Linux guest, each with a machine of its own, as a user would write them: the guest is booted by
//! whoever is first, in whichever process and run, and restored for all others. The guide shows how.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::time::Duration;

use ratite::Spawn;
use ratite::blocking::Machine;
use ratite::blocking::Shell;
use ratite::blocking::TemplateCache;
use ratite_tests::linux_guest;
use ratite_tests::orphans::is_alive;
use ratite_tests::scenario::entries;

/// Against hangs only.
const LIMIT: Duration = Duration::from_secs(100);

/// Runs a command in a fresh guest; what it prints is to be this. Nothing is left of the guest then.
#[track_caller]
fn check(command: &str, expected: &str) {
    let base = tempfile::tempdir().unwrap();
    let cache = ratite::TemplateCache::at(concat!(env!("CARGO_TARGET_TMPDIR"), "/templates"));
    let config = linux_guest::machine(&[]).machine_type("q35").args(["-m", "256"]);
    let at_prompt =
        |machine: &Machine| machine.console().unwrap().expect(linux_guest::PROMPT, LIMIT).map(drop);
    let template = TemplateCache::of(cache).unwrap().cached("twenty", &config, at_prompt).unwrap();
    let machine = template.spawn_with(&Spawn::new().base_folder(base.path())).unwrap();
    let mut shell = Shell::attach(&machine.console().unwrap(), LIMIT).unwrap();

    let output = shell.run(command, LIMIT).unwrap();

    assert_eq!(output.output.trim(), expected);
    let exit = machine.kill().unwrap();
    assert!(!is_alive(exit.pid) && entries(base.path()).is_empty());
}

macro_rules! checks {
    ($($name:ident: $command:literal => $expected:literal,)*) => {
        $(#[test]
        fn $name() {
            check($command, $expected);
        })*
    };
}

checks! {
    it_is_linux: "uname -s" => "Linux",
    the_host_has_its_name: "hostname" => "guest",
    we_are_root: "id -u" => "0",
    a_folder_is_made: "mkdir /tmp/a && ls /tmp" => "a",
    nobody_elses_folder_is_there: "ls /tmp" => "",
    a_file_is_written_and_read: "echo text >/tmp/file && cat /tmp/file" => "text",
    a_file_is_removed: "touch /tmp/x && rm /tmp/x && ls /tmp" => "",
    a_link_leads_to_its_target: "echo t >/tmp/t && ln -s t /tmp/l && cat /tmp/l" => "t",
    a_pipe_carries_lines: "printf 'b\\na\\n' | sort | head -n 1" => "a",
    a_failing_command_is_seen: "false || echo failed" => "failed",
    a_process_is_signalled: "sh -c 'kill -KILL $$' >/dev/null 2>&1 || echo $?" => "137",
    a_process_in_the_background_ends: "(echo done >/tmp/out) & wait && cat /tmp/out" => "done",
    memory_is_what_was_asked_for: "awk '/MemTotal/ { print ($2 > 200000 && $2 < 262144) }' /proc/meminfo" => "1",
    there_is_one_processor: "grep -c ^processor /proc/cpuinfo" => "1",
    proc_is_mounted: "mount | grep -c '^proc on /proc'" => "1",
    a_file_system_is_mounted: "mkdir /tmp/m && mount -t tmpfs none /tmp/m && touch /tmp/m/x && ls /tmp/m" => "x",
    a_user_has_an_id: "awk -F: '$1 == \"guest\" { print $3 }' /etc/passwd" => "1000",
    a_checksum_is_computed: "printf abc | md5sum | cut -c 1-8" => "90015098",
    an_archive_is_unpacked: "cd /tmp && echo in >f && tar -cf a.tar f && rm f && tar -xf a.tar && cat f" => "in",
    the_kernel_logs_what_is_told_to_it: "echo '<7>told to it' >/dev/kmsg; dmesg | grep -c 'told to it'" => "1",
}
