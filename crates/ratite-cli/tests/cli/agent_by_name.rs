//! `ratite agent` with the agent in a guest of a machine that `ratite run --name … --agent` has started.

use std::fs;

use ratite_tests::guest_agent::START;
use ratite_tests::guest_agent::in_linux_guest;
use ratite_tests::linux_guest::PROMPT;
use ratite_tests::linux_guest::VIRTIO;
use ratite_tests::linux_guest::kernel_arguments;
use ratite_tests::linux_guest::linux_guest;

use crate::harness::Ratite;
use crate::harness::fake;
use crate::reach::Place;

/// A Linux guest by the name `web`, at its prompt, with an agent's channel.
fn linux(place: &Place) -> Ratite {
    let initrd = place.path().join("initrd");
    // What it configures is not used: the command line says the same.
    drop(in_linux_guest(&initrd));
    let kernel = linux_guest().kernel;
    let words = ["run", "--name", "web", "--agent", "--accel", "tcg", "--append", kernel_arguments()];
    let files =
        ["--append", VIRTIO, "--kernel", kernel.to_str().unwrap(), "--initrd", initrd.to_str().unwrap()];
    let mut machine = place.start(&[&words[..], &files].concat());
    machine.wait_for(PROMPT);
    machine
}

fn start_the_agent(place: &Place) {
    let typed = place.path().join("typed");
    fs::write(&typed, format!("{START}\n")).unwrap();
    let variable = format!("XDG_RUNTIME_DIR={}", place.path().display());
    let from_file = format!("exec \"$@\" < {}", typed.display());
    let starter = ["env", &variable, "sh", "-c", &from_file, "sh"];
    Ratite::start_by(&starter, &["console", "web"]).finish().assert_code(0);
}

#[test]
fn a_named_guest_runs_programs_keeps_files_and_goes_down() {
    let place = Place::new();
    let machine = linux(&place);
    let early = place.ratite(&["agent", "ping", "web", "--timeout", "300ms"]);
    early.assert_code(4);
    early.assert_says(&["no guest agent answered within 300ms: in the guest, qemu-guest-agent has to run"]);

    start_the_agent(&place);

    place.ratite(&["agent", "ping", "web", "--timeout", "1m"]).assert_code(0);
    let uname = place.ratite(&["agent", "exec", "web", "--", "uname", "-s"]);
    uname.assert_code(0);
    assert_eq!((uname.stdout().as_str(), uname.stderr.as_str()), ("Linux\n", ""));
    place.ratite(&["agent", "exec", "--status", "web", "--", "sh", "-c", "exit 42"]).assert_code(42);
    let slow =
        place.start(&["agent", "exec", "web", "--", "sh", "-c", "echo > /tmp/begun; sleep 2; echo slept"]);
    let cat = place.ratite(&["agent", "cat", "web", "/proc/cmdline"]);
    cat.assert_code(0);
    assert!(cat.stdout().contains(VIRTIO), "{}", cat.stdout());
    assert_eq!(slow.finish().stdout(), "slept\n");
    assert!(place.ratite(&["agent", "info", "web"]).stdout().starts_with("version   "));
    let missing = place.ratite(&["agent", "cat", "web", "/nowhere"]);
    missing.assert_code(1);
    missing.assert_says(&["error: could not open `/nowhere` in the guest\n", "No such file or directory"]);

    place.ratite(&["agent", "shutdown", "web"]).assert_code(0);

    machine.finish().assert_code(0);
    let gone = place.ratite(&["agent", "ping", "web"]);
    gone.assert_code(1);
    gone.assert_says(&["error: no machine is named `web`\n", "no machine is reachable now"]);
}

#[test]
fn a_machine_without_the_channel_says_how_it_gets_one() {
    let place = Place::new();
    let machine = place.run("web", &fake(&["console-banner=up"]), "up");

    let refused = place.ratite(&["agent", "ping", "web"]);

    refused.assert_code(1);
    refused.assert_says(&["it has no channel to a guest agent", "`ratite run --agent`"]);
    // Its monitor is no agent's channel.
    let shell = place.ratite(&["shell", "-N", "web"]);
    shell.assert_code(2);
    shell.assert_says(&["`-N` takes an address, not a name: `web`", "hint: `ratite agent`"]);
    place.ratite(&["stop", "web"]).assert_code(0);
    machine.finish().assert_code(0);
}

#[test]
fn an_agent_without_a_name_is_refused_since_nobody_could_reach_it() {
    let refused = crate::harness::ratite(&["run", "--agent", "--", "qemu-system-x86_64"]);

    refused.assert_code(2);
    refused.assert_says(&["--name <NAME>"]);
}
