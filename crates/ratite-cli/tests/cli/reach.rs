//! `run --name`, and what other processes do with it: `ls`, `log`, `stop`, `wait`; by name, and by the address of a QEMU
//! that ratite has not started.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use ratite::guest;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::Outcome;
use crate::harness::Ratite;
use crate::harness::fake;
use crate::harness::real;
use crate::harness::send;
use crate::harness::wait_for_fact;

/// A runtime folder and a cache of its own, and what is started there.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn starter(&self) -> [String; 4] {
        let runtime = format!("XDG_RUNTIME_DIR={}", self.folder.path().display());
        let cache = format!("RATITE_CACHE={}", self.folder.path().display());
        ["env".into(), "--default-signal=HUP,INT,TERM".into(), runtime, cache]
    }

    /// Starts `ratite` here.
    pub(crate) fn start(&self, arguments: &[&str]) -> Ratite {
        let starter = self.starter();
        Ratite::start_by(&starter.each_ref().map(String::as_str), arguments)
    }

    /// Runs `ratite` here to its end.
    pub(crate) fn ratite(&self, arguments: &[&str]) -> Outcome {
        self.start(arguments).finish()
    }

    /// `ratite run --name NAME`, once its console says `text`.
    pub(crate) fn run(&self, name: &str, command: &[String], text: &str) -> Ratite {
        let command = command.iter().map(String::as_str);
        let words: Vec<&str> = ["run", "--name", name, "--"].into_iter().chain(command).collect();
        let mut machine = self.start(&words);
        machine.wait_for(text);
        machine
    }

    /// The same with ratite's own guest, at its prompt.
    pub(crate) fn run_guest(&self, name: &str) -> Ratite {
        self.run(name, &self.guest(), guest::PROMPT)
    }

    /// The command line of a QEMU with ratite's own guest.
    pub(crate) fn guest(&self) -> Vec<String> {
        let disk = self.folder.path().join("disk");
        fs::write(&disk, guest::BOOT_SECTOR).unwrap();
        real(&disk)
    }
}

/// What docs/guide/reach.md promises of `ls --json`.
const FIELDS: [&str; 13] = [
    "agent",
    "binary",
    "command_line",
    "consoles",
    "log_file",
    "name",
    "owner",
    "pid",
    "qmp",
    "state",
    "uptime_ms",
    "version",
    "work_folder",
];

#[test]
fn a_named_machine_is_listed_and_stopped_by_another_process() {
    let place = Place::new();
    let none = place.ratite(&["ls"]);
    let machine = place.run_guest("web");
    let other = place.run("other", &fake(&["console-banner=\u{1b}[1mboot\u{1b}[0m: done\r\n"]), "done");

    let listed = place.ratite(&["ls"]);
    let json = place.ratite(&["ls", "--json"]);
    let stopped = place.ratite(&["stop", "web"]);

    none.assert_code(0);
    assert_eq!((none.stdout().as_str(), none.stderr.contains("no machine is reachable")), ("", true));
    listed.assert_code(0);
    let lines: Vec<String> = listed.stdout().lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("NAME   PID") && lines[0].ends_with("CONSOLE"), "{lines:?}");
    assert!(lines[1].starts_with("other  ") && lines[1].ends_with("running  boot: done"), "{lines:?}");
    assert!(lines[2].starts_with("web    ") && lines[2].ends_with("running  >"), "{lines:?}");
    let facts: serde_json::Value = serde_json::from_str(json.stdout().lines().nth(1).unwrap()).unwrap();
    assert_eq!((&facts["name"], &facts["owner"]), (&"web".into(), &machine.pid().into()));
    let mut fields: Vec<_> = facts.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, FIELDS);
    stopped.assert_code(0);
    assert_eq!((stopped.stdout().as_str(), stopped.stderr.as_str()), ("", ""));
    // Its own terminal has nothing to complain about.
    let ended = machine.finish();
    ended.assert_code(0);
    assert_eq!(ended.stderr, "");
    place.ratite(&["stop", "other"]).assert_code(0);
    other.finish().assert_code(0);
    assert_eq!(fs::read_dir(place.path().join("ratite")).unwrap().count(), 0);
}

#[test]
fn a_machine_that_is_killed_by_another_process_says_so() {
    let place = Place::new();
    let machine = place.run_guest("web");

    place.ratite(&["stop", "web", "--kill"]).assert_code(0);

    let ended = machine.finish();
    ended.assert_code(1);
    ended.assert_says(&["error: QEMU was killed by signal 9 (SIGKILL)"]);
}

#[test]
fn a_machine_that_does_not_quit_in_its_grace_is_killed_and_that_is_told() {
    let place = Place::new();
    let machine = place.run("web", &fake(&["console-banner=up", "ignore-quit", "ignore-sigterm"]), "up");

    let stopped = place.ratite(&["stop", "web", "--grace", "200ms"]);

    stopped.assert_code(1);
    assert_eq!(stopped.stderr, "error: the machine did not end within 200ms and was killed\n");
    machine.finish().assert_code(1);
}

#[test]
fn whoever_waits_is_told_how_it_ended() {
    let place = Place::new();
    let well = place.run_guest("well");
    let badly = place.run("badly", &fake(&["console-banner=up", "quit-status=3"]), "up");
    let waiting = [place.start(&["wait", "well"]), place.start(&["wait", "well", "--timeout", "1m"])];
    let for_the_other = place.start(&["wait", "badly"]);

    let early = place.ratite(&["wait", "well", "--timeout", "50ms"]);
    // Each has connected: what is asked later is answered later.
    assert!(wait_for_fact(|| (connections(place.path()) >= 3).then_some(())).is_some());
    place.ratite(&["stop", "well"]).assert_code(0);
    let stopped = place.ratite(&["stop", "badly"]);

    early.assert_code(4);
    assert_eq!(early.stderr, "error: the machine `well` did not end within 50ms\n");
    for waiting in waiting {
        let told = waiting.finish();
        told.assert_code(0);
        assert_eq!(told.stdout(), "QEMU exited with status 0 (host-qmp-quit)\n");
    }
    let told = for_the_other.finish();
    told.assert_code(1);
    assert!(told.stdout().starts_with("QEMU exited with status 3"), "{}", told.stdout());
    told.assert_says(&["error: the machine did not end well: QEMU exited with status 3"]);
    stopped.assert_code(1);
    stopped.assert_says(&["error: QEMU exited with status 3 instead of ending cleanly"]);
    well.finish().assert_code(0);
    badly.finish();
}

/// How many are connected to control sockets below `folder`, as the kernel lists them.
fn connections(folder: &Path) -> usize {
    const CONNECTED: &str = " 03 ";
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let folder = folder.display().to_string();
    let is_one =
        |line: &&str| line.contains(CONNECTED) && line.contains(&folder) && line.ends_with("/control");
    sockets.lines().filter(is_one).count()
}

#[test]
fn the_log_is_shown_and_followed_to_the_end() {
    let place = Place::new();
    let machine = place.run_guest("web");

    let shown = place.ratite(&["log", "web"]);
    let mut followed = place.start(&["log", "web", "--follow", "--console", "console"]);
    followed.wait_for(guest::PROMPT);
    let typed = place.start_with_stdin("echo more\r", &["console", "web"]);
    followed.wait_for("more\r\nmore\r\n");
    place.ratite(&["stop", "web"]).assert_code(0);

    shown.assert_code(0);
    assert_eq!(shown.stdout(), format!("{}\r\n{}", guest::READY, guest::PROMPT));
    typed.assert_code(0);
    let followed = followed.finish();
    followed.assert_code(0);
    let machine = machine.finish();
    // To the last byte what the machine's own terminal has.
    assert_eq!(followed.stdout(), machine.stdout());
}

impl Place {
    /// Runs `ratite` with this on its stdin.
    pub(crate) fn start_with_stdin(&self, text: &str, arguments: &[&str]) -> Outcome {
        let file = self.folder.path().join("stdin");
        fs::write(&file, text).unwrap();
        let script = format!("exec \"$@\" < {}", file.display());
        let starter = self.starter();
        let starter = starter.each_ref().map(String::as_str);
        Ratite::start_by(&[&starter[..], &["sh", "-c", &script, "sh"]].concat(), arguments).finish()
    }
}

#[test]
fn a_machine_that_is_not_there_is_told_with_those_that_are() {
    let place = Place::new();
    let nobody = place.ratite(&["stop", "web"]);
    let machine = place.run("database", &fake(&["console-banner=up"]), "up");

    let near = place.ratite(&["console", "databse"]);
    let far = place.ratite(&["wait", "web"]);
    let console = place.ratite(&["log", "database", "--console", "serial7"]);
    let taken = place.ratite(&[&["run", "--name", "database", "--"], &fake(&[]).each_str()[..]].concat());
    let odd = place.ratite(&[&["run", "--name", "a b", "--"], &fake(&[]).each_str()[..]].concat());

    for (outcome, hint) in [
        (nobody, "hint: no machine is reachable now; `ratite run --name NAME` starts one that is\n"),
        (near, "hint: there is `database`: is that the one?\n"),
        (far, "hint: there is `database`; an address holds a `/` or a `:`\n"),
    ] {
        outcome.assert_code(1);
        outcome.assert_says(&["error: no machine is named `", hint]);
    }
    console.assert_code(1);
    console.assert_says(&[
        "the machine `database` refused: the machine has no console `serial7`, but `console`",
    ]);
    taken.assert_code(3);
    taken.assert_says(&[
        &format!("the name `database` is taken by a machine of process {}", machine.pid()),
        "hint: `ratite ls` shows that machine, and `ratite stop database` ends it",
    ]);
    odd.assert_code(3);
    odd.assert_says(&["cannot be reachable by its name: it holds something other than ASCII letters"]);
    place.ratite(&["stop", "database"]).assert_code(0);
    machine.finish().assert_code(0);
}

trait EachStr {
    fn each_str(&self) -> Vec<&str>;
}

impl EachStr for Vec<String> {
    fn each_str(&self) -> Vec<&str> {
        self.iter().map(String::as_str).collect()
    }
}

/// A QEMU that nobody of ratite's has started. Dropped, it is gone.
pub(crate) struct Stranger(Child);

impl Stranger {
    /// One with sockets `qmp` and `serial` in `place`, and ratite's guest in it.
    pub(crate) fn start(place: &Place) -> Self {
        let words = place.guest();
        let socket = |name: &str| format!("unix:{},server=on,wait=off", place.path().join(name).display());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["-display", "none", "-qmp", &socket("qmp")]);
        command.args(["-serial", &socket("serial")]).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let there = wait_for_fact(|| place.path().join("serial").exists().then_some(()));
        assert!(there.is_some(), "QEMU makes its sockets");
        Self(child)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_qemu_that_ratite_has_not_started_is_waited_for_and_stopped_by_its_address() {
    let place = Place::new();
    let mut stranger = Stranger::start(&place);
    let qmp = place.path().join("qmp").display().to_string();

    // QEMU serves one on this socket, and the others one behind the other.
    let early = place.ratite(&["wait", &qmp, "--timeout", "300ms"]);
    let killed = place.ratite(&["stop", &qmp, "--kill"]);
    let log = place.ratite(&["log", &qmp]);
    let stopped = place.ratite(&["stop", &qmp]);

    early.assert_code(4);
    killed.assert_code(2);
    killed.assert_says(&["cannot be killed by its address", "its pid is not known"]);
    log.assert_code(2);
    log.assert_says(&["nobody records the console of the QEMU at"]);
    stopped.assert_code(0);
    assert!(wait_for_fact(|| stranger.has_ended().then_some(())).is_some());
    let gone = place.ratite(&["wait", &qmp]);
    gone.assert_code(1);
    gone.assert_says(&["could not connect to unix:"]);
}

#[test]
fn the_end_of_a_stranger_is_told_with_its_reason() {
    let place = Place::new();
    let stranger = Stranger::start(&place);
    let address = |name: &str| place.path().join(name).display().to_string();
    let waiting = place.start(&["wait", &address("qmp")]);
    let connected = || (in_use(&address("qmp")) >= 1).then_some(());
    assert!(wait_for_fact(connected).is_some());

    let console = place.start_with_stdin("off\r", &["console", &address("serial")]);

    console.assert_code(0);
    let told = waiting.finish();
    told.assert_code(0);
    assert_eq!(told.stdout(), "QEMU ended (guest-shutdown)\n");
    drop(stranger);
}

/// How many are connected to the socket at this path.
fn in_use(path: &str) -> usize {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().filter(|line| line.contains(" 03 ") && line.ends_with(path)).count()
}

#[test]
fn a_machine_whose_program_is_stopped_is_told_of() {
    let place = Place::new();
    let machine = place.run_guest("web");
    send(machine.pid(), Signal::STOP);

    let listed = place.ratite(&["ls"]);
    send(machine.pid(), Signal::CONT);

    listed.assert_code(0);
    listed.assert_says(&["`web` is there and does not answer"]);
    assert!(listed.stdout.is_empty());
    place.ratite(&["stop", "web"]).assert_code(0);
    machine.finish().assert_code(0);
}
