//! Starts the built binary, and looks at what becomes of it.

use std::fs;
use std::io::PipeReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ratite_tests::orphans;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::process::Pid;
use rustix::process::Signal;

/// A test that needs more has found a hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How long what the program has started may outlive it. The promise is a second; the rest is for a busy system.
const AFTERLIFE: Duration = Duration::from_secs(5);

/// A running `ratite`.
pub(crate) struct Ratite {
    child: Child,
    stdout: Option<ChildStdout>,
    seen: Vec<u8>,
    stderr: Arc<Mutex<Vec<u8>>>,
    listener: JoinHandle<()>,
}

/// What became of it.
pub(crate) struct Outcome {
    /// The exit code, as a shell has it.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs `ratite` with these arguments to its end.
pub(crate) fn ratite(arguments: &[impl AsRef<str>]) -> Outcome {
    Ratite::start(arguments).finish()
}

/// The same with `input` on its stdin.
pub(crate) fn ratite_fed(input: &str, arguments: &[impl AsRef<str>]) -> Outcome {
    Ratite::start_fed(input, arguments).finish()
}

/// `ratite run OPTIONS -- COMMAND` to its end.
pub(crate) fn run(options: &[&str], command: &[String]) -> Outcome {
    start_run(options, command).finish()
}

/// `ratite run` with one argument too many: `ratite` itself can just be started, and QEMU, with ratite's own arguments
/// before the user's, cannot.
pub(crate) fn too_long() -> Outcome {
    let script = r#"ulimit -s 512; exec "$@""#;
    let starter = ["env", "-i", "sh", "-c", script, "sh"];
    let longest = (100_000..128 << 10).rev().step_by(100);
    let mut tried = longest.map(|length| {
        let arguments = [vec!["run".to_owned(), "--".to_owned()], fake(&[])].concat();
        let append = ["-append".to_owned(), "x".repeat(length)];
        Ratite::start_by(&starter, &[arguments, append.to_vec()].concat()).finish()
    });
    tried.find(|outcome| !outcome.stderr.starts_with("sh: ")).unwrap()
}

/// What becomes a `ratite` that permissions bind, also where the superuser runs the tests.
pub(crate) fn bound_by_permissions() -> &'static [&'static str] {
    match rustix::process::geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-dac_override,-dac_read_search"],
        false => &["env"],
    }
}

/// `ratite run OPTIONS -- COMMAND`.
pub(crate) fn start_run(options: &[&str], command: &[String]) -> Ratite {
    let options = options.iter().map(|&option| option.to_owned());
    let words = ["run".to_owned()].into_iter().chain(options).chain(["--".to_owned()]);
    Ratite::start(&words.chain(command.iter().cloned()).collect::<Vec<_>>())
}

impl Ratite {
    /// Starts it with these arguments.
    pub(crate) fn start(arguments: &[impl AsRef<str>]) -> Self {
        // Whoever runs the tests may ignore signals, and that is inherited.
        Self::start_by(&["env", "--default-signal=HUP,INT,TERM"], arguments)
    }

    /// Starts it with `input`, which is not much, and then the end on its stdin.
    pub(crate) fn start_fed(input: &str, arguments: &[impl AsRef<str>]) -> Self {
        let (stdin, mut feed) = std::io::pipe().unwrap();
        feed.write_all(input.as_bytes()).unwrap();
        Self::start_from(stdin, arguments)
    }

    /// Starts it with the other end of a pipe as its stdin.
    pub(crate) fn start_from(stdin: PipeReader, arguments: &[impl AsRef<str>]) -> Self {
        let starter = ["env", "--default-signal=HUP,INT,TERM"];
        Self::watch(Self::command(&starter, arguments).stdin(stdin).stdout(Stdio::piped()))
    }

    /// Starts it by a program that becomes it.
    pub(crate) fn start_by(starter: &[&str], arguments: &[impl AsRef<str>]) -> Self {
        Self::watch(Self::command(starter, arguments).stdout(Stdio::piped()))
    }

    /// Starts it with its stdout in a file.
    pub(crate) fn start_into(file: fs::File, arguments: &[impl AsRef<str>]) -> Self {
        Self::watch(Self::command(&["env"], arguments).stdout(file))
    }

    fn watch(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take();
        let mut talk = child.stderr.take().unwrap();
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let heard = stderr.clone();
        let listener = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = talk.read(&mut piece) {
                heard.lock().unwrap().extend(&piece[..count]);
            }
        });
        Self { child, stdout, seen: Vec::new(), stderr, listener }
    }

    fn command(starter: &[&str], arguments: &[impl AsRef<str>]) -> Command {
        let mut command = Command::new(starter[0]);
        command.args(&starter[1..]).arg(env!("CARGO_BIN_EXE_ratite"));
        command.args(arguments.iter().map(AsRef::as_ref));
        command.env_remove("RATITE_LOG").env_remove("RATITE_KEEP");
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Reads stdout until `text` has appeared on it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let stdout = self.stdout.as_mut().unwrap();
        while !contains(&self.seen, text) {
            let mut piece = [0; 4096];
            let count = stdout.read(&mut piece).unwrap();
            let seen = String::from_utf8_lossy(&self.seen);
            assert!(count > 0, "stdout ended without `{text}`: {seen}");
            self.seen.extend(&piece[..count]);
        }
    }

    /// Waits until `text` has appeared on stderr.
    #[track_caller]
    pub(crate) fn wait_for_talk(&self, text: &str) {
        let heard = wait_for_fact(|| contains(&self.stderr.lock().unwrap(), text).then_some(()));
        assert!(heard.is_some(), "no `{text}` on stderr");
    }

    /// Stops reading for good.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// The QEMU that it runs.
    #[track_caller]
    pub(crate) fn qemu(&self) -> u32 {
        let started =
            wait_for_fact(|| orphans::processes_with_mark(&self.mark()).first().map(|qemu| qemu.pid));
        started.expect("a QEMU is started")
    }

    /// What its processes have in their environment.
    fn mark(&self) -> String {
        format!("{}-", self.pid())
    }

    /// Reads all that it still writes, waits until it has ended, and proves that nothing is left.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Outcome {
        let pid = self.pid();
        let watchdog = thread::spawn(move || {
            let hangs = !orphans::wait_until_gone(pid, LIMIT);
            if hangs {
                send(pid, Signal::KILL);
            }
            hangs
        });
        if let Some(stdout) = &mut self.stdout {
            self.seen.extend(read_all(stdout));
        }
        self.listener.join().unwrap();
        let stderr = String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned();
        let hangs = watchdog.join().unwrap();
        let status = self.child.wait().unwrap();
        assert!(!hangs, "still there after {LIMIT:?}: {stderr}");
        assert_nothing_left(pid);
        let stdout = self.seen;
        // A program that a signal has ended has no code; 0 is one that nobody expects then.
        let code = status.code().unwrap_or_default();
        Outcome { code, stdout, stderr }
    }
}

impl Outcome {
    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) {
        assert_eq!(self.code, code, "stderr: {}\nstdout: {}", self.stderr, self.stdout());
    }

    /// Checks that each of `words` is in what it wrote to stderr.
    #[track_caller]
    pub(crate) fn assert_says(&self, words: &[&str]) {
        for word in words {
            assert!(self.stderr.contains(word), "no `{word}` in: {}", self.stderr);
        }
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Checks that the program with this pid has left no process, no guard and no folder.
#[track_caller]
pub(crate) fn assert_nothing_left(pid: u32) {
    let left = || -> Vec<String> {
        let marked = orphans::processes_with_mark(&format!("{pid}-"));
        let processes = marked.iter().map(ToString::to_string).chain(guards(pid));
        processes.chain(folders(pid)).collect()
    };
    let nothing = wait_for_fact(|| left().is_empty().then_some(()));
    assert!(nothing.is_some(), "left after {AFTERLIFE:?}: {:?}", left());
}

fn guards(pid: u32) -> Vec<String> {
    let start = format!("ratite-guard\0{pid}-");
    let command_lines = entries("/proc").filter_map(|process| fs::read(process.join("cmdline")).ok());
    let command_lines = command_lines.map(|words| String::from_utf8_lossy(&words).into_owned());
    command_lines.filter(|words| words.contains(&start)).collect()
}

fn folders(pid: u32) -> Vec<String> {
    let start = format!("/var/tmp/qemu-machine-{pid}-");
    let folders = entries("/var/tmp").map(|folder| folder.display().to_string());
    folders.filter(|folder| folder.starts_with(&start)).collect()
}

fn entries(folder: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Looks again and again, since nothing tells when a process or a folder comes or goes.
pub(crate) fn wait_for_fact<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + AFTERLIFE;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > deadline {
            return found;
        }
        let pause = Timespec::try_from(Duration::from_millis(10)).ok();
        let _interrupted_or_not = poll(&mut [], pause.as_ref());
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    // It may have ended by itself meanwhile.
    let _gone = rustix::process::kill_process(pid, signal);
}

fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The command line of a fake QEMU that misbehaves as `words` say.
pub(crate) fn fake(words: &[&str]) -> Vec<String> {
    let program = fake_qemu().to_str().unwrap().to_owned();
    let words = words.iter().flat_map(|&word| ["-fake".to_owned(), word.to_owned()]);
    [program].into_iter().chain(words).collect()
}

/// Where the fake QEMU is: beside the program under test, where `cargo test --workspace` puts it. Built if it is not.
pub(crate) fn fake_qemu() -> &'static Path {
    static FAKE: OnceLock<PathBuf> = OnceLock::new();
    FAKE.get_or_init(|| {
        let fake = Path::new(env!("CARGO_BIN_EXE_ratite")).with_file_name("fake-qemu");
        if !fake.exists() {
            build_fake_qemu(&fake);
        }
        fake
    })
}

fn build_fake_qemu(fake: &Path) {
    let profile_folder = fake.parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "ratite-tests", "--bin", "fake-qemu", "--target-dir"]);
    cargo.arg(profile_folder.parent().unwrap());
    if profile_folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "could not build fake-qemu");
}

/// The command line of a real QEMU that boots this sector.
pub(crate) fn real(boot_sector: &Path) -> Vec<String> {
    let drive = format!("file={},format=raw,if=floppy,readonly=on", boot_sector.display());
    let words = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-m", "4", "-drive", &drive];
    words.map(str::to_owned).to_vec()
}

/// Writes a boot sector that prints `text` on the first serial port, and then does what `end` is in machine code.
pub(crate) fn boot_sector(path: &Path, text: &str, end: &[u8]) {
    #[rustfmt::skip]
    let print = [
        0x31, 0xc0,             // xor ax, ax
        0x8e, 0xd8,             // mov ds, ax
        0xbe, 0x80, 0x7c,       // mov si, 0x7c80
        0xba, 0xf8, 0x03,       // mov dx, 0x3f8
        0xac,                   // next: lodsb
        0x84, 0xc0,             // test al, al
        0x74, 0x03,             // jz end
        0xee,                   // out dx, al
        0xeb, 0xf8,             // jmp next
    ];
    let mut sector = [print.as_slice(), end, &HANG].concat();
    sector.resize(0x80, 0);
    sector.extend(text.as_bytes());
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    fs::write(path, sector).unwrap();
}

/// `mov dx, 0x604; mov ax, 0x2000; out dx, ax`: ACPI's power-off, as SeaBIOS sets it up.
pub(crate) const POWER_OFF: [u8; 7] = [0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef];

/// `mov al, 1; out 0xf4, al`: with the device `isa-debug-exit,iobase=0xf4`, QEMU exits with status 3.
pub(crate) const DEBUG_EXIT: [u8; 4] = [0xb0, 0x01, 0xe6, 0xf4];

/// `hang: hlt; jmp hang`.
pub(crate) const HANG: [u8; 3] = [0xf4, 0xeb, 0xfd];
