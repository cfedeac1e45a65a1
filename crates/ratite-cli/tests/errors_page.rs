//! Makes `docs/guide/errors.md` from real runs of `ratite run`, and fails if the page says something else.
//!
//! `RATITE_BLESS=1 cargo test -p ratite-cli --test errors_page` writes the page anew. What depends on the run is replaced:
//! paths by `…`. QEMU's own words depend on its version; they are compared only with the version that the page names.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

#[path = "cli/harness.rs"]
#[expect(dead_code, reason = "the tests beside it use the rest")]
mod harness;
#[path = "errors_page/page.rs"]
mod page;

use std::env;
use std::fs;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::DEBUG_EXIT;
use crate::harness::HANG;
use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::boot_sector;
use crate::harness::bound_by_permissions;
use crate::harness::fake;
use crate::harness::real;
use crate::harness::send;
use crate::harness::too_long;
use crate::page::Page;
use crate::page::words;

/// `mov dx, 0x505; mov al, 1; out dx, al`: the device `pvpanic` hears that the guest has panicked.
const PANIC: [u8; 6] = [0xba, 0x05, 0x05, 0xb0, 0x01, 0xee];

const QEMU: &str = "qemu-system-x86_64";

#[test]
fn the_page_says_what_the_program_says() {
    let mut page = Page::begin();
    programs_that_cannot_be_started(&mut page);
    programs_that_lack_something(&mut page);
    wrappers_that_fail(&mut page);
    words_that_are_refused(&mut page);
    files_that_are_not_there(&mut page);
    folders_that_cannot_be_used(&mut page);
    monitors_that_are_not_to_be_had(&mut page);
    qemus_that_refuse_their_command_line(&mut page);
    qemus_that_do_not_get_ready(&mut page);
    consoles_that_fail(&mut page);
    ends_that_are_not_well(&mut page);
    machines_that_others_run(&mut page);
    templates_that_cannot_be_used(&mut page);
    computers_that_lack_something(&mut page);
    page::settle(page);
}

fn programs_that_cannot_be_started(page: &mut Page) {
    let missing = "/opt/qemu-9/bin/qemu-system-aarch64";
    page.run("The program is not there", &[], &words(&[missing]));
    page.run("The program is not in PATH", &[], &words(&["qemu-system-vax"]));

    let path = page.file("qemu", "#!/bin/sh\n", 0o644);
    page.run("The program is not executable", &[], &[path]);

    let folder = page.path("build");
    fs::create_dir(&folder).unwrap();
    page.run("The program is a folder", &[], &[folder]);

    let path = page.file("qemu.img", "QFI", 0o755);
    page.run("The program is of a format that the system cannot run", &[], &[path]);

    let path = page.file("qemu.sh", "#!/opt/bin/sh\n", 0o755);
    page.run("The program's interpreter is missing", &[], &[path]);
}

fn programs_that_lack_something(page: &mut Page) {
    let path = page.path("qemu-system-x86_64");
    lose_a_library(Path::new(&path));
    page.run("The program misses a library", &[], &[path]);

    let few = "ulimit -n 5; ";
    let script = format!("{few}exec \"$@\"");
    page.run_by("Too few descriptors to begin", &["sh", "-c", &script, "sh"], few, &[], &fake(&[]));

    let ends = fake(&["guest-shutdown-after=100"]);
    let command = page.shown(&[words(&["run", "--"]), ends].concat());
    let shown = format!("ulimit -n …; {command}");
    page.add("Too few descriptors to start the program", &shown, &too_few_descriptors());

    let command = page.shown(&[words(&["run", "--"]), fake(&[])].concat());
    let shown = format!("ulimit -s 512; {command} -append \"$(cat parameters)\"");
    page.add("The arguments are too long", &shown, &too_long());
}

/// What is said at the limit that lets everything be prepared, and nothing be started. How many descriptors that takes
/// depends on what the tests were started with.
fn too_few_descriptors() -> Outcome {
    let mut tried = (16..64).map(|limit| {
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let arguments = [words(&["run", "--"]), fake(&["guest-shutdown-after=100"])].concat();
        let mut outcome = Ratite::start_by(&["sh", "-c", &script, "sh"], &arguments).finish();
        outcome.stderr = outcome.stderr.replace(&format!("have {limit} open"), "have … open");
        outcome
    });
    tried.find(|outcome| outcome.stderr.contains("could not start the binary")).unwrap()
}

/// Copies QEMU, as one that was built for another version of a library that every QEMU uses.
fn lose_a_library(copy: &Path) {
    let path = env::var_os("PATH").unwrap();
    let qemu = env::split_paths(&path).map(|folder| folder.join(QEMU)).find(|qemu| qemu.exists()).unwrap();
    let mut program = fs::read(qemu).unwrap();
    let name = b"libglib-2.0.so.0\0";
    let at = program.windows(name.len()).position(|bytes| bytes == name).unwrap();
    program[at..at + name.len()].copy_from_slice(b"libglib-9.0.so.0\0");
    fs::write(copy, program).unwrap();
    fs::set_permissions(copy, Permissions::from_mode(0o755)).unwrap();
}

fn wrappers_that_fail(page: &mut Page) {
    page.run("The wrapper is not there", &["--wrapper", "firejail --quiet"], &fake(&[]));
    let missing = words(&["/opt/qemu-9/bin/qemu-system-aarch64"]);
    let options = ["--wrapper", "nice -n 5"];
    page.run_by("The wrapper does not find the program", &["env", "LC_ALL=C"], "", &options, &missing);
    page.run("The wrapper's quotes are not closed", &["--wrapper", "sh -c 'exec"], &fake(&[]));
}

fn folders_that_cannot_be_used(page: &mut Page) {
    page.run("The base folder is not there", &["--base-folder", "/nowhere"], &fake(&[]));
    let file = page.file("notes", "", 0o644);
    page.run("The log folder is a file", &["--log-folder", &file, "--name", "guest"], &fake(&[]));
    let options = ["--log-folder", "logs", "--name", "guests/one"];
    page.run("The name cannot name a file", &options, &fake(&[]));

    let folder = page.path("theirs");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).unwrap();
    let starter = bound_by_permissions();
    let (base, log) = (["--base-folder", &folder], ["--log-folder", &folder, "--name", "guest"]);
    page.run_by("The base folder may not be written to", starter, "", &base, &fake(&[]));
    page.run_by("The log folder may not be written to", starter, "", &log, &fake(&[]));

    let folder = page.path("full");
    fs::create_dir(&folder).unwrap();
    let (base, log) = (["--base-folder", &folder], ["--log-folder", &folder, "--name", "guest"]);
    for (heading, options) in
        [("The base folder's disk is full", &base[..]), ("The log folder's disk is full", &log[..])]
    {
        let mount = format!("mount -t tmpfs -o nr_inodes=1 full {folder} && exec \"$@\"");
        let starter = ["unshare", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
        let can_mount = Command::new(starter[0]).args(&starter[1..]).arg("true").status();
        match can_mount.is_ok_and(|status| status.success()) {
            true => page.run_by(heading, &starter, "", options, &fake(&[])),
            false => page.keep(heading),
        }
    }
}

fn monitors_that_are_not_to_be_had(page: &mut Page) {
    let long = format!("/srv/machines/{}/qmp.sock", ["of-the-team-with-a-long-name"; 4].join("/"));
    page.run("The monitor's path is too long", &["--qmp", &long], &fake(&[]));
    page.run("The monitor's folder is not there", &["--qmp", "/nowhere/qmp.sock"], &fake(&[]));
    let file = page.file("qmp.txt", "", 0o644);
    page.run("A file is in the monitor's place", &["--qmp", &file], &fake(&[]));

    let socket = page.path("qmp.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    page.run("Somebody else has the monitor's socket", &["--qmp", &socket], &fake(&[]));
    drop(listener);
    let ends = fake(&["guest-shutdown-after=100"]);
    page.run("A socket that nobody listens on is replaced", &["--qmp", &socket], &ends);
}

fn words_that_are_refused(page: &mut Page) {
    page.run("The program is the empty word", &[], &words(&[""]));
    page.run("QEMU is told to go into the background", &[], &words(&[QEMU, "-daemonize"]));
    let serial = words(&[QEMU, "-serial", "file:out"]);
    page.run("The console is wanted, but has another place", &["--expect", "login:"], &serial);
    let nothing = ["--console", "none", "--expect", "login:"];
    page.run("The console is wanted, and there is to be none", &nothing, &words(&[QEMU]));
    page.run("A duration without its unit", &["--timeout", "30"], &words(&[QEMU]));
}

fn files_that_are_not_there(page: &mut Page) {
    page.run("The kernel of --kernel is not there", &["--kernel", "bzImage"], &words(&[QEMU]));
    let file = "/nonexistent/last.png";
    page.run("The screenshot's folder is not there", &["--screenshot-on-exit", file], &words(&[QEMU]));
}

fn qemus_that_refuse_their_command_line(page: &mut Page) {
    let mut refused = |heading: &str, arguments: &[&str]| {
        page.run(heading, &[], &words(&[&[QEMU], arguments].concat()));
    };
    refused("QEMU does not know an option", &["-nosuchoption"]);
    refused("QEMU misses what an option takes", &["-m"]);
    refused("QEMU does not know the machine type", &["-machine", "pc-q35-99.0"]);
    refused("QEMU does not know the accelerator", &["-accel", "warp"]);
    refused("QEMU does not know the device", &["-device", "teapot"]);
    refused("QEMU does not know the CPU", &["-accel", "tcg", "-cpu", "z80"]);
    refused("The kernel is not there", &["-accel", "tcg", "-kernel", "bzImage"]);
    refused("The disk is not there", &["-drive", "file=disk.img,format=raw"]);
    refused("A character device has the name of one of ratite's", &["-chardev", "null,id=mon"]);
    refused("QEMU prints something and is done", &["-accel", "help"]);
    refused(
        "A secret is on the command line: it is not shown",
        &["-object", "secret,id=key,data=hunter2", "-nosuchoption"],
    );
}

fn qemus_that_do_not_get_ready(page: &mut Page) {
    page.run("QEMU crashes before its monitor is ready", &[], &fake(&["signal-before-monitor=11"]));
    page.run_and("QEMU is killed before its monitor speaks", &[], &fake(&["silent"]), |ratite| {
        send(ratite.qemu(), Signal::KILL);
    });
    page.run(
        "QEMU ends while its monitor is negotiated",
        &[],
        &fake(&["stderr=no more memory", "exit-after-greeting=1"]),
    );
    page.run_and("QEMU is killed while its monitor is negotiated", &[], &fake(&["nego-silent"]), |ratite| {
        send(ratite.qemu(), Signal::KILL);
    });
    page.run("QEMU's monitor refuses the negotiation", &[], &fake(&["nego-error"]));
    page.run("QEMU's monitor does not speak QMP", &[], &fake(&["garbage-greeting"]));
    page.run("QEMU's monitor closes, and QEMU lives on", &[], &fake(&["close-before-greeting"]));
    page.run(
        "QEMU's monitor is silent",
        &["--timeout", "500ms"],
        &fake(&["silent", "stderr=waiting for a debugger"]),
    );
    page.run_and("Ctrl-C while QEMU is started", &[], &fake(&["silent"]), |ratite| {
        let _is_started = ratite.qemu();
        ratite.signal(Signal::INT);
    });
}

fn consoles_that_fail(page: &mut Page) {
    let log = ["--log", "/nowhere/console.log"];
    page.run("The console's log file cannot be made", &log, &fake(&[]));
    let log = ["--log", "/dev/full", "--expect", "login:"];
    page.run("The console's log file cannot be written", &log, &fake(&["console-banner=login:"]));

    let boots = fake(&["console-banner=booting\r\n"]);
    page.run("What is expected does not appear in time", &["--expect", "login:", "--timeout", "1s"], &boots);
    let ends = fake(&["console-banner=Kernel panic\r\n", "guest-shutdown-after=300"]);
    page.run("The machine ends before what is expected appears", &["--expect", "login:"], &ends);
    let panics = fake(&["console-banner=boot\r\nKernel panic - not syncing: no init\r\n"]);
    page.run("What means a failure appears", &["--expect", "login:", "--fail-on-linux"], &panics);
    page.run("The machine does not end in time", &["--timeout", "1s"], &boots);

    let options = ["--expect", "login:"].map(str::to_owned);
    let command = fake(&["console-banner=login:"]);
    let arguments = [&words(&["run"]), &options[..], &words(&["--"]), &command].concat();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let outcome = Ratite::start_into(full, &arguments).finish();
    page.add("stdout is full", &format!("{} > /dev/full", page.shown(&arguments)), &outcome);
}

fn ends_that_are_not_well(page: &mut Page) {
    let up = ["console-banner=up\r\n", "stderr=the last words"];
    page.run_and("QEMU is killed while it runs", &[], &fake(&up), |ratite| {
        ratite.wait_for("up");
        send(ratite.qemu(), Signal::KILL);
    });

    let disk = page.path("disk.img");
    boot_sector(Path::new(&disk), "test 1 failed\r\n", &DEBUG_EXIT);
    let device = words(&["-device", "isa-debug-exit,iobase=0xf4"]);
    let command = [real(Path::new(&disk)), device].concat();
    page.run("The guest makes QEMU exit with a status", &[], &command);

    let disk = page.path("panic.img");
    boot_sector(Path::new(&disk), "Kernel panic\r\n", &PANIC);
    let command = [real(Path::new(&disk)), words(&["-device", "pvpanic"])].concat();
    page.run("The guest panics", &[], &command);

    let stays = words(&["-device", "pvpanic", "-action", "panic=pause"]);
    page.run("The guest panics, and is kept as it is", &[], &[real(Path::new(&disk)), stays].concat());

    let disk = page.path("idle.img");
    boot_sector(Path::new(&disk), "up\r\n", &HANG);
    page.run_and("Ctrl-C while the machine runs", &[], &real(Path::new(&disk)), |ratite| {
        ratite.wait_for("up");
        ratite.signal(Signal::INT);
    });

    let stubborn = fake(&["console-banner=up\r\n", "ignore-quit"]);
    page.run_and("SIGTERM to a machine that does not obey", &["--grace", "300ms"], &stubborn, |ratite| {
        ratite.wait_for("up");
        ratite.signal(Signal::TERM);
    });
    let options = ["--expect", "up", "--grace", "300ms"];
    page.run("What is expected appears, and the machine does not obey then", &options, &stubborn);
}

fn machines_that_others_run(page: &mut Page) {
    let folder = page.path("run");
    fs::create_dir(&folder).unwrap();
    let environment = format!("XDG_RUNTIME_DIR={folder}");
    let starter = ["env", "--default-signal=HUP,INT,TERM", environment.as_str()];
    page.ratite("No machine has the name", &starter, &["stop", "web"]);

    let disk = page.path("served.img");
    boot_sector(Path::new(&disk), "up\r\n", &HANG);
    let socket = page.path("served.sock");
    let run = [words(&["run", "--name", "web", "--qmp", &socket, "--"]), real(Path::new(&disk))].concat();
    let mut machine = Ratite::start_by(&starter, &run);
    machine.wait_for("up");
    page.ratite("No machine has the name, but one has a name like it", &starter, &["console", "wbe"]);
    let again = [&["run", "--name", "web", "--", QEMU], &["-nodefaults"][..]].concat();
    page.ratite("A machine has the name already", &starter, &again);
    page.ratite("QEMU does not know a command", &starter, &["cmd", "web", "query-statu"]);
    page.ratite("QEMU does not take an argument", &starter, &["cmd", "web", "stop", "now=true"]);
    page.ratite("The machine has no screen", &starter, &["screenshot", "web", "web.png"]);
    page.ratite("There is no such key", &starter, &["keys", "web", "ctrl-alt-entf"]);
    page.ratite("There is no such object", &starter, &["qom", "get", "web", "/machine/nothing"]);
    page.ratite(
        "The machine does not end in time, but runs on",
        &starter,
        &["wait", "web", "--timeout", "300ms"],
    );
    machine.signal(Signal::INT);
    machine.finish().assert_code(130);

    page.ratite("Nobody listens at the address", &starter, &["cmd", &socket, "query-status"]);
    page.ratite("An address that is none", &starter, &["cmd", "localhost:qmp", "query-status"]);
}

fn templates_that_cannot_be_used(page: &mut Page) {
    let folder = page.path("cache");
    let environment = format!("RATITE_CACHE={folder}");
    let starter = ["env", "--default-signal=HUP,INT,TERM", environment.as_str()];
    page.ratite("There are no templates", &starter, &["run", "--from", "shell"]);

    let disk = page.path("shell.img");
    boot_sector(Path::new(&disk), "$ ", &HANG);
    let command = real(Path::new(&disk));
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let create = [&["template", "create", "shell", "--quiet", "--until", "$ ", "--"], &command[..]].concat();
    Ratite::start_by(&starter, &create).finish().assert_code(0);
    page.ratite("There is a template of this name", &starter, &create);
    page.ratite("The name cannot name a template", &starter, &["template", "rm", "my shell"]);
    page.ratite("No template has the name, but one has a name like it", &starter, &["run", "--from", "shel"]);
    let changed = ["run", "--from", "shell", "--memory", "1G"];
    page.ratite("The machine of a template is to be another one", &starter, &changed);

    // With memory of its own it has no file whose name another run would not have.
    let memory = ["-object", "memory-backend-ram,id=ram,size=4M", "-machine", "memory-backend=ram"];
    let device = [
        "-object",
        "memory-backend-ram,id=shared,size=1M,share=on",
        "-device",
        "ivshmem-plain,memdev=shared,master=off",
    ];
    let create = ["template", "create", "peer", "--quiet", "--until", "$ ", "--"];
    let blocked = [&create[..], &command, &memory, &device].concat();
    page.ratite("The machine has a device that cannot be frozen", &starter, &blocked);

    let mut machine = Ratite::start_by(&starter, &["template", "spawn", "shell", "--json"]);
    machine.wait_for("launched");
    page.ratite("The template is in use", &starter, &["template", "rm", "shell"]);
    machine.signal(Signal::INT);
    machine.finish().assert_code(130);

    let state = format!("{folder}/templates/shell/state");
    fs::write(&state, "").unwrap();
    let outcome = Ratite::start_by(&starter, &["run", "--from", "shell"]).finish();
    let without_size = outcome.stderr.split_inclusive(' ').collect::<Vec<_>>();
    let size = without_size.iter().position(|word| *word == "had ").unwrap();
    let stderr = [&without_size[..=size], &["… "], &without_size[size + 2..]].concat().concat();
    page.add("The template is truncated", "ratite run --from shell", &Outcome { stderr, ..outcome });
    fs::remove_file(&state).unwrap();
    page.ratite("A file of the template is gone", &starter, &["template", "spawn", "shell"]);

    let qemu = page.file("qemu-7", "#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n", 0o755);
    let create = [&["template", "create", "old", "--quiet", "--now", "--", &qemu], &command[1..]].concat();
    Ratite::start_by(&starter, &create).finish().assert_code(0);
    page.file("qemu-7", "#!/bin/sh\nexec qemu-8 \"$@\"\n", 0o755);
    page.ratite("The template is of another QEMU", &starter, &["run", "--from", "old"]);
}

fn computers_that_lack_something(page: &mut Page) {
    let folder = page.path("empty");
    fs::create_dir(&folder).unwrap();
    let path = format!("PATH={folder}");
    page.ratite("No QEMU is installed", &["env", &path], &["doctor"]);
}
