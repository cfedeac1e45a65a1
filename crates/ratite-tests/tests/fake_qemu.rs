//! Proves that the fake QEMU does what its tables say, since every other test relies on it.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use ratite_tests::orphans::children_of;
use ratite_tests::orphans::is_alive;
use ratite_tests::orphans::wait_until_gone;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::net::SendAncillaryBuffer;
use rustix::net::SendAncillaryMessage;
use rustix::net::SendFlags;
use rustix::net::sendmsg;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;

const FAKE_QEMU: &str = env!("CARGO_BIN_EXE_fake-qemu");

const PATIENCE: Duration = Duration::from_secs(10);

/// A running fake whose monitor and console have connected to us.
struct Fake {
    child: Child,
    monitor: BufReader<UnixStream>,
    console: BufReader<UnixStream>,
    folder: TempDir,
}

impl Fake {
    fn start(words: &[&str]) -> Self {
        Self::start_with(words, &[])
    }

    fn start_with(words: &[&str], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name| commas_doubled(&folder.path().join(name));
        let option = |name| format!("socket,id={name},path={}", path(name));
        let [monitor, console] = ["mon", "console"].map(option);
        let listen = |name| UnixListener::bind(folder.path().join(name)).expect("a listener");
        let listeners = ["mon", "console"].map(listen);
        let mut command = Command::new(FAKE_QEMU);
        command.args(["-S", "-chardev", &monitor, "-mon", "chardev=mon,mode=control"]);
        command.args(["-chardev", &console, "-serial", "chardev:console"]);
        command.args(words.iter().flat_map(|word| ["-fake", word]));
        command.args(more);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().expect("the fake starts");
        let [monitor, console] = listeners.map(|listener| accept(&listener));
        Self { child, monitor, console, folder }
    }

    fn ready(words: &[&str]) -> Self {
        let mut fake = Self::start(words);
        assert!(fake.line().starts_with(r#"{"QMP""#));
        fake.accepts("qmp_capabilities", json!({}));
        fake
    }

    fn send(&self, text: &str) {
        let mut monitor = self.monitor.get_ref();
        monitor.write_all(text.as_bytes()).expect("the monitor takes it");
    }

    fn line(&mut self) -> String {
        line_of(&mut self.monitor)
    }

    fn message(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }

    fn command(&mut self, name: &str, arguments: impl Into<Value>) -> Value {
        self.send(&json!({ "execute": name, "arguments": arguments.into() }).to_string());
        self.message()
    }

    /// Reads a line that must be `expected`.
    #[track_caller]
    fn says(&mut self, expected: &str) {
        assert_eq!(self.line(), format!("{expected}\r\n"));
    }

    /// Reads an event that must be `name`, and returns its data.
    #[track_caller]
    fn event(&mut self, name: &str) -> Value {
        let message = self.message();
        assert_eq!(message["event"], name, "{message}");
        message["data"].clone()
    }

    /// Sends a command that is answered at once with nothing.
    #[track_caller]
    fn accepts(&mut self, name: &str, arguments: Value) {
        assert_eq!(self.command(name, arguments), json!({ "return": {} }));
    }

    /// Reads the answer of a command that returns nothing.
    #[track_caller]
    fn accepted(&mut self) {
        assert_eq!(self.message(), json!({ "return": {} }));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the fake lives");
    }

    /// Waits for the end, and returns the status and what was said on stderr.
    fn end(&mut self) -> (ExitStatus, String) {
        let ended = wait_until_gone(self.child.id(), PATIENCE);
        assert!(ended, "the fake does not end");
        let status = self.child.wait().expect("a status");
        let mut said = Vec::new();
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_end(&mut said).expect("stderr can be read");
        }
        (status, String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // It may have ended by itself; in both cases it is reaped here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn commas_doubled(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

fn accept(listener: &UnixListener) -> BufReader<UnixStream> {
    let timeout = Timespec::try_from(PATIENCE).expect("10 s fit");
    let ready = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout)).expect("poll");
    assert_eq!(ready, 1, "the fake does not connect");
    let (stream, _) = listener.accept().expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    BufReader::new(stream)
}

fn line_of(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line within 10 s");
    line
}

/// Runs a fake without any socket to its end.
fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut command = Command::new(FAKE_QEMU);
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status, text(output.stdout), text(output.stderr))
}

#[test]
fn it_can_fail_before_its_monitor_is_open() {
    let (status, _, stderr) = run(&["-fake", "exit-before-monitor=3", "-fake", "stderr=first this"]);
    let (killed, _, _) = run(&["-fake", "signal-before-monitor=11"]);

    assert_eq!(status.code(), Some(3));
    assert!(stderr.ends_with("first this\nfake-qemu: -machine bogus: unsupported machine type\n"));
    assert_eq!(killed.signal(), Some(11));
}

#[test]
fn quit_tells_of_the_shutdown_before_it_answers() {
    let mut fake = Fake::ready(&["quit-status=5"]);

    fake.send(r#"{"execute":"quit"}"#);

    let data = fake.event("SHUTDOWN");
    assert_eq!(data, json!({ "guest": false, "reason": "host-qmp-quit" }));
    fake.accepted();
    assert_eq!(fake.line(), "");
    assert_eq!(fake.end().0.code(), Some(5));
}

#[test]
fn stop_and_cont_tell_of_themselves_once() {
    let mut fake = Fake::ready(&[]);

    // It was started with -S.
    fake.accepts("stop", json!({}));
    assert_eq!(fake.command("cont", json!({}))["event"], "RESUME");
    fake.accepted();
    let status = fake.command("query-status", json!({}));
    assert_eq!(status["return"], json!({ "running": true, "status": "running" }));
}

#[test]
fn a_slow_command_is_overtaken() {
    let mut fake = Fake::ready(&[]);

    fake.send(r#"{"execute":"fake-never"}{"execute":"fake-sleep","arguments":{"ms":20},"id":1}"#);
    fake.send(r#"{"execute":"fake-echo","arguments":{"a":[1e400]},"id":2}"#);

    fake.says(r#"{"return": {"a":[1e400]}, "id": 2}"#);
    assert_eq!(fake.message(), json!({ "return": {}, "id": 1 }));
}

#[test]
fn events_are_numbered_and_come_before_the_answer() {
    let mut fake = Fake::ready(&["event-flood=2"]);

    assert_eq!(fake.event("FAKE_FLOOD"), json!({ "seq": 0 }));
    assert_eq!(fake.event("FAKE_FLOOD"), json!({ "seq": 1 }));
    fake.send(r#"{"execute":"fake-events","arguments":{"count":1000,"name":"X","data":{"a":1}},"id":9}"#);
    for seq in 0..1000 {
        assert_eq!(fake.event("X"), json!({ "a": 1, "seq": seq }));
    }
    assert_eq!(fake.message(), json!({ "return": {}, "id": 9 }));
}

#[test]
fn messages_can_be_long_deep_pretty_or_raw() {
    let mut fake = Fake::ready(&[]);

    let big = fake.command("fake-big", json!({ "bytes": 1_000_000 }));
    assert_eq!(big["return"].as_str().map(str::len), Some(1_000_000));
    fake.send(r#"{"execute":"fake-deep","arguments":{"depth":2000}}"#);
    let (open, close) = ("[".repeat(2000), "]".repeat(2000));
    fake.says(&format!("{{\"return\": {open}{close}}}"));
    fake.send(r#"{"execute":"fake-raw","arguments":{"text":"hello\n"}}"#);
    assert_eq!(fake.line(), "hello\n");
    fake.send(r#"{"execute":"fake-raw","arguments":{"bytes":[104,105,10]}}"#);
    assert_eq!(fake.line(), "hi\n");
    fake.send(r#"{"execute":"fake-newline","arguments":{"style":"lf"}}"#);
    assert_eq!(fake.line(), "{\"return\": {}}\n");
    fake.send(r#"{"execute":"fake-pretty","arguments":{"on":true},"id":1}"#);
    let lines: Vec<_> = (0..5).map(|_| fake.line()).collect();
    assert_eq!(lines.concat(), "{\n    \"return\": {\n    },\n    \"id\": 1\n}\n");
}

#[test]
fn a_descriptor_sent_along_is_kept_until_closefd() {
    let mut fake = Fake::ready(&[]);
    let path = fake.folder.path().join("sent");
    let file = fs::File::create(&path).unwrap();
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));

    let text = br#"{"execute":"getfd","arguments":{"fdname":"x"}}"#;
    let text = [IoSlice::new(text)];
    sendmsg(fake.monitor.get_ref(), &text, &mut control, SendFlags::NOSIGNAL).unwrap();

    fake.accepted();
    assert!(is_open(&mut fake, &path));
    fake.accepts("closefd", json!({ "fdname": "x" }));
    assert!(!is_open(&mut fake, &path));
}

fn is_open(fake: &mut Fake, path: &Path) -> bool {
    let open = fake.command("fake-fds", json!({}))["return"].take();
    let mut targets = open.as_object().expect("an object").values();
    targets.any(|target| *target == path.display().to_string())
}

#[test]
fn an_inherited_descriptor_is_used_and_closed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    // The standard library hands over no descriptor but the standard ones; a shell moves it to 7.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec 7<&0 0</dev/null; exec "$@""#, "sh", FAKE_QEMU]);
    command.args(["-chardev", "socket,id=mon,fd=7", "-add-fd", "fd=7,set=1"]);
    command.args(["-mon", "chardev=mon,mode=control"]);
    let mut child = command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    drop(command);

    let mut monitor = BufReader::new(&ours);
    line_of(&mut monitor);
    let commands = br#"{"execute":"qmp_capabilities"}{"execute":"fake-fds"}"#;
    (&ours).write_all(commands).unwrap();
    line_of(&mut monitor);
    let open: Value = serde_json::from_str(&line_of(&mut monitor)).unwrap();
    (&ours).write_all(br#"{"execute":"fake-close-monitor"}"#).unwrap();

    let mut sockets = open["return"].as_object().unwrap().iter().filter(is_socket);
    assert_eq!(sockets.next().map(|(number, _)| number.as_str()), Some("7"));
    assert!(sockets.next().is_none());
    assert_eq!(line_of(&mut monitor), "", "the end of the connection");
    assert!(is_alive(child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn is_socket((_, target): &(&String, &Value)) -> bool {
    target.to_string().starts_with("\"socket:")
}

#[test]
fn a_second_monitor_listens_at_a_path_with_a_comma() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a,b");
    let path_option = commas_doubled(&path);
    let option = format!("socket,id=extra,path={path_option},server=on,wait=off");
    let mon = "chardev=extra,mode=control,pretty=on";
    let mut fake = Fake::start_with(&[], &["-chardev", &option, "-mon", mon]);
    fake.line();

    for _ in 0..2 {
        let mut extra = BufReader::new(UnixStream::connect(&path).unwrap());
        assert_eq!(line_of(&mut extra), "{\r\n");
        assert_eq!(line_of(&mut extra), "    \"QMP\": {\r\n");
    }
}

#[test]
fn it_ends_on_sigterm_unless_told_not_to() {
    let mut polite = Fake::ready(&[]);
    let mut stubborn = Fake::ready(&["ignore-sigterm"]);

    polite.signal(Signal::TERM);
    stubborn.signal(Signal::TERM);

    let data = polite.event("SHUTDOWN");
    assert_eq!(data, json!({ "guest": false, "reason": "host-signal" }));
    let (status, stderr) = polite.end();
    assert_eq!(status.code(), Some(0));
    let reason = "fake-qemu: terminating on signal 15 from pid ";
    assert!(stderr.contains(reason), "{stderr}");
    stubborn.accepts("query-name", json!({}));
}

#[test]
fn it_dies_hangs_or_is_silent_on_demand() {
    let mut dying = Fake::ready(&["abort-on=stop", "never-answer=query-name"]);
    let mut leaving = Fake::ready(&["exit-on=stop"]);
    let mut ignoring = Fake::ready(&["ignore-quit"]);

    dying.send(r#"{"execute":"query-name"}{"execute":"stop"}"#);
    leaving.send(r#"{"execute":"stop"}"#);
    ignoring.send(r#"{"execute":"quit"}{"execute":"query-name","id":1}"#);

    assert_eq!(dying.line(), "");
    assert_eq!(dying.end().0.signal(), Some(6));
    assert_eq!(leaving.end().0.code(), Some(1));
    ignoring.line();
    ignoring.line();
    assert_eq!(ignoring.message()["id"], 1);
}

#[test]
fn the_greeting_and_the_negotiation_fail_on_demand() {
    let mut half = Fake::start(&["half-greeting"]);
    let mut garbage = Fake::start(&["garbage-greeting"]);
    let mut closed = Fake::start(&["close-before-greeting"]);
    let mut refusing = Fake::start(&["nego-error", "no-oob"]);
    let mut early = Fake::start(&["nego-event", "greeting-delay=1"]);
    let mut gone = Fake::start(&["exit-after-greeting=7"]);
    let mut gone_later = Fake::start(&["exit-after-handshake=8"]);

    let mut start = [0; 10];
    half.monitor.read_exact(&mut start).unwrap();
    assert_eq!(start, *br#"{"QMP": {""#);
    assert!(!garbage.line().starts_with('{'));
    assert_eq!(closed.line(), "");
    assert!(is_alive(closed.child.id()));
    assert!(refusing.line().ends_with("\"capabilities\": []}}\r\n"));
    assert!(refusing.command("qmp_capabilities", json!({}))["error"].is_object());
    early.line();
    early.send(r#"{"execute":"qmp_capabilities"}"#);
    assert_eq!(early.event("FAKE_EARLY"), json!({ "seq": 0 }));
    assert_eq!(early.event("FAKE_EARLY"), json!({ "seq": 1 }));
    early.accepted();
    assert!(gone.line().starts_with(r#"{"QMP""#));
    assert_eq!(gone.end().0.code(), Some(7));
    gone_later.line();
    gone_later.accepts("qmp_capabilities", json!({}));
    assert_eq!(gone_later.end().0.code(), Some(8));
}

#[test]
fn a_console_that_nobody_reads_keeps_it_from_ending() {
    let mut fake = Fake::ready(&["quit-console=4000000"]);

    fake.command("quit", json!({}));
    fake.message();
    let ended_unread = wait_until_gone(fake.child.id(), Duration::from_millis(200));
    let mut written = Vec::new();
    fake.console.read_to_end(&mut written).unwrap();

    assert!(!ended_unread);
    assert_eq!(written.len(), 4_000_000);
    assert_eq!(fake.end().0.code(), Some(0));
}

#[test]
fn it_leaves_children_behind_on_demand() {
    let mut fake = Fake::ready(&["spawn-child", "spawn-child-new-group"]);
    let answer = fake.command("fake-children", json!({}));
    let children: Vec<u32> = serde_json::from_value(answer["return"].clone()).unwrap();
    let of_fake = children_of(fake.child.id());

    fake.send(r#"{"execute":"fake-exit","arguments":{"status":4}}"#);
    let (status, _) = fake.end();

    let survivors: Vec<_> = children.iter().copied().filter(|&child| is_alive(child)).collect();
    for child in &children {
        let pid = Pid::from_raw(i32::try_from(*child).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        assert!(wait_until_gone(*child, PATIENCE));
    }
    assert_eq!(of_fake.iter().map(|child| child.pid).collect::<Vec<_>>(), children);
    assert_eq!(status.code(), Some(4));
    assert_eq!(survivors, children);
}

#[test]
fn the_guest_can_shut_down() {
    let mut fake = Fake::ready(&["obey-powerdown"]);

    fake.send(r#"{"execute":"system_powerdown"}"#);
    fake.event("POWERDOWN");
    fake.accepted();
    assert_eq!(fake.event("SHUTDOWN")["guest"], true);
    assert_eq!(fake.end().0.code(), Some(0));
}

#[test]
fn it_ends_by_itself_after_its_lifetime() {
    let mut fake = Fake::start(&["lifetime=0", "silent"]);

    assert_eq!(fake.end().0.code(), Some(99));
}

#[test]
fn the_pid_is_in_the_file_as_soon_as_there_is_a_greeting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");

    let mut fake = Fake::start(&[&format!("write-file={}", path.display())]);

    fake.line();
    assert_eq!(fs::read_to_string(path).unwrap(), fake.child.id().to_string());
}

#[test]
fn the_version_is_printed() {
    let (status, stdout, _) = run(&["-version"]);

    assert!(status.success());
    assert_eq!(stdout, "QEMU emulator version 9.9.9 (fake)\n");
}

#[test]
fn the_console_talks_and_listens() {
    let mut fake = Fake::ready(&["console-banner=Welcome\n", "console-echo"]);

    assert_eq!(line_of(&mut fake.console), "Welcome\n");
    fake.console.get_ref().write_all(b"root\r\n").unwrap();
    assert_eq!(line_of(&mut fake.console), "you said: root\n");
    let typed = fake.command("fake-console-read", json!({}));
    assert_eq!(typed, json!({ "return": "root\r\n" }));
    fake.command("fake-console", json!({ "text": "> ", "bytes": 130 }));
    assert_eq!(line_of(&mut fake.console), format!("> {}\n", "a".repeat(63)));
    assert_eq!(line_of(&mut fake.console), format!("{}\n", "b".repeat(63)));
}
