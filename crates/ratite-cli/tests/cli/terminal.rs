//! A real terminal for tests: a pty of the kernel's with a program in it, read by a terminal emulator.
//!
//! The program is a child of a shell that leads the terminal's session and outlives it, as a user's shell does. So what
//! the program has made of the terminal is still there to be looked at: a session leader's end resets it.
//!
//! ```text
//! test ─► setsid ─► sh, the session's leader ─► the program, with the terminal as stdin, stdout and stderr
//! ```

use std::fs::File;
use std::fs::OpenOptions;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::InputModes;
use rustix::termios::LocalModes;
use rustix::termios::OutputModes;
use rustix::termios::Winsize;

use crate::harness::LIMIT;
use crate::harness::assert_nothing_left;
use crate::harness::send;
use crate::harness::wait_for_fact;

/// What ctrl-C is on the wire.
pub(crate) const CTRL_C: &[u8] = b"\x03";

/// A terminal of 80 columns and 24 rows with a program in it. Dropped, it ends the program.
pub(crate) struct Terminal {
    master: File,
    leader: Child,
    shown: Arc<Shown>,
    reader: Option<JoinHandle<()>>,
    pid: u32,
    over: bool,
}

/// What became of the program, and what it has left of the terminal.
pub(crate) struct Ended {
    /// The exit code, as a shell has it: 128 + n after signal n.
    pub(crate) code: i32,
    /// All that the terminal has shown, what was scrolled away too, without escape sequences.
    pub(crate) screen: String,
    /// How the terminal was left.
    pub(crate) settings: Settings,
}

/// How a terminal treats what is typed and written; equal if it treats them in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    input: InputModes,
    output: OutputModes,
    local: LocalModes,
}

impl Settings {
    /// Whether every key goes to the program at once and as it is, and nothing is echoed.
    pub(crate) fn is_raw(&self) -> bool {
        !self.local.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

impl Terminal {
    /// Runs `ratite` with these arguments in a terminal.
    pub(crate) fn ratite(arguments: &[impl AsRef<str>]) -> Self {
        Self::ratite_with(&[], arguments)
    }

    /// The same with more in its environment.
    pub(crate) fn ratite_with(environment: &[(&str, &str)], arguments: &[impl AsRef<str>]) -> Self {
        let arguments = arguments.iter().map(AsRef::as_ref);
        let words: Vec<&str> = [env!("CARGO_BIN_EXE_ratite")].into_iter().chain(arguments).collect();
        Self::start(environment, &words)
    }

    /// Runs any program in a terminal, such as an interactive `bash`.
    pub(crate) fn start(environment: &[(&str, &str)], words: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let size = Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();

        let leader = lead(slave, environment, words);
        let master = File::from(master);
        let shown = Arc::new(Shown::new());
        let reader = Some(shown.clone().read(master.try_clone().unwrap()));
        let mut terminal = Self { master, leader, shown, reader, pid: 0, over: false };
        terminal.pid = terminal.wait_for_mark("pid").try_into().unwrap();
        terminal
    }

    /// The program's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Types these bytes.
    pub(crate) fn type_bytes(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }

    /// Types this text, and Enter behind it.
    pub(crate) fn type_line(&self, text: &str) {
        self.type_bytes(format!("{text}\r").as_bytes());
    }

    /// Waits until the terminal shows `text`, or has shown it on a line that was scrolled away.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        // Behind a line's text are blanks, of which a prompt may have written one.
        let shows = |picture: &mut Picture| {
            picture.text().contains(text) || picture.lines(str::to_owned).contains(text)
        };
        let seen = self.shown.wait(|picture| shows(picture).then_some(()));
        assert!(seen.is_some(), "no `{text}` on the terminal: {}", self.screen());
    }

    /// Waits until `bytes` have been written to the terminal; what it makes of them does not matter.
    #[track_caller]
    pub(crate) fn wait_for_raw(&self, bytes: &[u8]) {
        let seen = self.shown.wait(|picture| position(&picture.raw, bytes).map(drop));
        let raw = String::from_utf8_lossy(&self.raw()).into_owned();
        assert!(seen.is_some(), "no {:?} was written: {raw:?}", String::from_utf8_lossy(bytes));
    }

    /// Waits until `bytes` have been written behind the first `start`; the place behind them.
    #[track_caller]
    pub(crate) fn wait_for_raw_after(&self, start: usize, bytes: &[u8]) -> usize {
        let place = |picture: &mut Picture| position(picture.raw.get(start..)?, bytes);
        let Some(place) = self.shown.wait(place) else {
            let raw = self.raw();
            let rest = String::from_utf8_lossy(raw.get(start..).unwrap_or_default()).into_owned();
            panic!("no {:?} was written: {rest:?}", String::from_utf8_lossy(bytes));
        };
        start + place + bytes.len()
    }

    /// All that it shows and has shown, without escape sequences; a line that was wrapped is one.
    pub(crate) fn screen(&self) -> String {
        self.shown.picture().text()
    }

    /// The rows that it shows now.
    pub(crate) fn rows(&self) -> Vec<String> {
        let picture = self.shown.picture();
        let rows = picture.emulator.screen().visible_lines();
        rows.map(|row| row.text().trim_end().to_owned()).collect()
    }

    /// All bytes that were written to it.
    pub(crate) fn raw(&self) -> Vec<u8> {
        self.shown.picture().raw.clone()
    }

    /// Changes its size, of which the program is told by SIGWINCH.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        self.shown.picture().emulator.resize(columns.into(), rows.into());
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    /// How it treats what is typed now.
    pub(crate) fn settings(&self) -> Settings {
        // On Linux the master's settings are the terminal's.
        let now = rustix::termios::tcgetattr(&self.master).unwrap();
        Settings { input: now.input_modes, output: now.output_modes, local: now.local_modes }
    }

    /// Waits until the program has made it raw.
    #[track_caller]
    pub(crate) fn wait_until_raw(&self) {
        let raw = wait_for_fact(|| self.settings().is_raw().then_some(()));
        assert!(raw.is_some(), "the terminal is not raw: {:?}", self.settings());
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Waits until the program has ended, and proves that nothing of it is left.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Ended {
        let code = self.wait_for_mark("end");
        self.over = true;
        assert_nothing_left(self.pid);
        Ended { code, screen: self.screen(), settings: self.settings() }
    }

    /// Waits for what the leader says in between, takes it out, and returns the number in it.
    #[track_caller]
    fn wait_for_mark(&self, name: &str) -> i32 {
        let start = format!("\x1b]9;{name} ");
        let number = self.shown.wait(|picture| picture.take(start.as_bytes()));
        number.unwrap_or_else(|| panic!("no {name} within {LIMIT:?}: {}", self.screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if !self.over && self.pid != 0 {
            send(self.pid, Signal::KILL);
        }
        // It has ended only if somebody else has ended it.
        let _ended = self.leader.kill();
        let _reaped = self.leader.wait();
        let reader = self.reader.take();
        // What still has the terminal open would keep it reading; the test has failed then already.
        if !thread::panicking() {
            reader.into_iter().for_each(|reader| reader.join().unwrap());
        }
    }
}

/// Starts the shell that leads the session, and in it the program.
fn lead(slave: File, environment: &[(&str, &str)], words: &[&str]) -> Child {
    let slave = OwnedFd::from(slave);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "sh", "-c", LEADER, "sh"]).args(words);
    for variable in ["RATITE_LOG", "RATITE_KEEP", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command.env("TERM", "xterm-256color").envs(environment.iter().copied());
    command.stdin(Stdio::from(slave.try_clone().unwrap())).stdout(Stdio::from(slave.try_clone().unwrap()));
    command.stderr(Stdio::from(slave)).spawn().unwrap()
}

/// What the leader does: it survives a Ctrl-C that is meant for the program, says the program's pid and its end in
/// sequences that no terminal shows, and stays until it is killed.
const LEADER: &str = r#"
trap : INT QUIT
sh -c 'printf "\033]9;pid %d\007" $$; exec env --default-signal "$@"' sh "$@"
printf '\033]9;end %d\007' $?
exec sleep infinity
"#;

/// What a terminal shows, and who waits for it.
struct Shown {
    picture: Mutex<Picture>,
    changed: Condvar,
}

struct Picture {
    emulator: avt::Terminal,
    raw: Vec<u8>,
    /// How many bytes of `raw` the emulator has not been given: the start of a character.
    unfed: usize,
}

impl Shown {
    fn new() -> Self {
        let emulator = avt::Terminal::with_scrollback(80, 24, None).unwrap();
        let picture = Mutex::new(Picture { emulator, raw: Vec::new(), unfed: 0 });
        Self { picture, changed: Condvar::new() }
    }

    fn picture(&self) -> MutexGuard<'_, Picture> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until nobody has the terminal open any more.
    fn read(self: Arc<Self>, mut master: File) -> JoinHandle<()> {
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut piece) {
                self.picture().feed(&piece[..count]);
                self.changed.notify_all();
            }
        })
    }

    /// Looks at the picture whenever it has changed, until `look` finds something or the limit is over.
    fn wait<T>(&self, mut look: impl FnMut(&mut Picture) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + LIMIT;
        let mut picture = self.picture();
        loop {
            let found = look(&mut picture);
            let left = deadline.saturating_duration_since(Instant::now());
            if found.is_some() || left.is_zero() {
                return found;
            }
            let waited = self.changed.wait_timeout(picture, left);
            picture = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Picture {
    fn feed(&mut self, piece: &[u8]) {
        let from = self.raw.len() - self.unfed;
        self.raw.extend(piece);
        let new = &self.raw[from..];
        self.unfed = match str::from_utf8(new) {
            Err(error) if error.error_len().is_none() => new.len() - error.valid_up_to(),
            _ => 0,
        };
        let text = String::from_utf8_lossy(&new[..new.len() - self.unfed]).into_owned();
        self.emulator.feed(text);
    }

    /// All lines without the blanks at their ends, those that were wrapped in one piece.
    fn text(&self) -> String {
        self.lines(|line| line.trim_end().to_owned()).trim_end().to_owned()
    }

    fn lines(&self, shape: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        for line in self.emulator.screen().all_lines() {
            match line.is_wrapped() {
                true => text += &line.text(),
                false => text = text + &shape(&line.text()) + "\n",
            }
        }
        text
    }

    /// Takes `START NUMBER BEL` out of the bytes.
    fn take(&mut self, start: &[u8]) -> Option<i32> {
        let from = position(&self.raw, start)?;
        let number = from + start.len();
        let end = number + position(&self.raw[number..], b"\x07")?;
        let value = str::from_utf8(&self.raw[number..end]).ok()?.parse().ok()?;
        self.raw.drain(from..=end);
        Some(value)
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[test]
fn a_terminal_shows_types_and_tells_how_it_was_left() {
    let terminal =
        Terminal::start(&[], &["sh", "-c", "printf 'name? '; read -r name; echo \"<$name>\"; exit 3"]);
    let before = terminal.settings();
    terminal.wait_for("name? ");
    terminal.type_line("Käthe");

    let ended = terminal.finish();

    assert_eq!((ended.code, ended.screen.as_str()), (3, "name? Käthe\n<Käthe>"));
    assert!(ended.settings == before && !before.is_raw());
}

#[test]
fn ratite_finds_itself_in_a_terminal() {
    let terminal = Terminal::ratite(&["--version"]);
    terminal.wait_for("ratite 0.");
    assert!(terminal.rows()[0].starts_with("ratite "));

    assert_eq!(terminal.finish().code, 0);
}

#[test]
fn a_terminal_that_is_left_raw_is_seen_to_be() {
    let terminal =
        Terminal::start(&[], &["sh", "-c", "stty raw -echo; stty size; read -r _; stty size; kill -9 $$"]);
    terminal.wait_for_raw(b"24 80\n");
    terminal.wait_until_raw();
    terminal.resize(40, 10);
    terminal.type_bytes(b"\n");
    terminal.wait_for_raw(b"10 40\n");

    let ended = terminal.finish();

    assert_eq!(ended.code, 137);
    assert!(ended.settings.is_raw());
}

#[test]
fn ctrl_c_and_signals_reach_the_program_alone() {
    let interrupted = Terminal::start(&[], &["sh", "-c", "echo up; exec sleep 1000"]);
    interrupted.wait_for("up");
    interrupted.type_bytes(CTRL_C);
    let terminated = Terminal::start(&[], &["sh", "-c", "echo up; exec sleep 1000"]);
    terminated.wait_for("up");
    assert_ne!(terminated.pid(), interrupted.pid());
    terminated.signal(Signal::TERM);

    assert_eq!(interrupted.finish().code, 130);
    assert_eq!(terminated.finish().code, 143);
}
