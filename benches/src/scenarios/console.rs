//! A guest that prints as fast as it is read: drained, kept in a log, and searched.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ratite::ConsoleConfig;
use ratite::MachineConfig;
use ratite::Pattern;
use ratite::Patterns;
use tokio::runtime::Runtime;

use crate::contenders;
use crate::contenders::LIMIT;
use crate::floor::console;
use crate::floor::qmp::RawSession;
use crate::measure;
use crate::other_end;
use crate::other_end::OtherEnd;
use crate::scenario::Better;
use crate::scenario::Contender;
use crate::scenario::Failure;
use crate::scenario::Figure;
use crate::scenario::Required;
use crate::scenario::Sample;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "console_drain",
        title: "a console read to its end, its last bytes kept for readers",
        figures: &[RATE.required(LIKE_THE_FLOOR), CPU, MEMORY.required(FLAT)],
        contenders: &[
            Contender { name: "floor", sample: || floor(Kept::Nothing) },
            Contender {
                name: "ratite-async",
                sample: || drained(contenders::current_thread()?, Kept::Nothing),
            },
            Contender { name: "ratite-blocking", sample: || drained_blocking(Kept::Nothing) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "console_log",
        title: "the same with every byte in a log on disk",
        figures: &[RATE.required(LIKE_THE_FLOOR), CPU, MEMORY.required(FLAT)],
        contenders: &[
            Contender { name: "floor", sample: || floor(Kept::Log) },
            Contender { name: "ratite-async", sample: || drained(contenders::current_thread()?, Kept::Log) },
            Contender { name: "ratite-blocking", sample: || drained_blocking(Kept::Log) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "console_stamps",
        title: "the same with the time before each line of the log, which the floor writes without",
        figures: &[RATE, CPU],
        contenders: &[
            Contender { name: "floor", sample: || floor(Kept::Log) },
            Contender {
                name: "ratite-async",
                sample: || drained(contenders::current_thread()?, Kept::Stamped),
            },
            Contender { name: "ratite-blocking", sample: || drained_blocking(Kept::Stamped) },
        ],
        python: false,
        rounds: None,
    },
    Scenario {
        name: "console_expect",
        title: "one of three patterns expected in a console that has it at its end",
        figures: &[
            RATE.required(&[
                Required::value("ratite-async", 200.0),
                Required::value("ratite-blocking", 200.0),
            ]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: expected_floor },
            Contender { name: "ratite-async", sample: || expected(contenders::current_thread()?) },
            Contender { name: "ratite-blocking", sample: expected_blocking },
        ],
        python: false,
        rounds: None,
    },
];

const RATE: Figure = Figure::new("mb_per_s", "MB/s", Better::More);

const CPU: Figure = Figure::new("cpu_us_per_mb", "µs of CPU a MB", Better::Less);

const MEMORY: Figure = Figure::new("memory_kib", "KiB more than before", Better::Less);

const LIKE_THE_FLOOR: &[Required] =
    &[Required::ratio("ratite-async", 0.7), Required::ratio("ratite-blocking", 0.7)];

/// The mebibyte that is kept, in blocks that may be half full, and what is on its way; however much comes.
const FLAT: &[Required] =
    &[Required::value("ratite-async", 4096.0), Required::value("ratite-blocking", 4096.0)];

/// What is kept of a console on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Log,
    Stamped,
}

impl Kept {
    /// The console that keeps so much, and its log.
    fn console(self) -> (ConsoleConfig, Option<LogFile>) {
        let (console, log) = (ConsoleConfig::serial(), LogFile::named());
        match self {
            Self::Nothing => (console, None),
            Self::Log => (console.log(&log.0), Some(log)),
            Self::Stamped => (console.log(&log.0).timestamps(), Some(log)),
        }
    }
}

/// A log on disk, removed on drop.
#[derive(Debug)]
struct LogFile(PathBuf);

impl LogFile {
    fn named() -> Self {
        Self(PathBuf::from(format!("/var/tmp/yardstick-{}.log", std::process::id())))
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        // It may not have been made yet.
        let _removed = std::fs::remove_file(&self.0);
    }
}

/// How many bytes the guest prints.
fn size() -> usize {
    if measure::is_quick() { 16 << 20 } else { 256 << 20 }
}

fn guest() -> String {
    format!("console={}", size())
}

/// The time, the CPU time and the memory from here on.
#[derive(Debug)]
struct Begin {
    memory: f64,
    cpu: Duration,
    start: Instant,
}

impl Begin {
    fn now() -> Result<Self, Failure> {
        Ok(Self { memory: measure::own_memory()?, cpu: measure::cpu_time(), start: Instant::now() })
    }

    fn sample(self) -> Result<Sample, Failure> {
        let (wall, cpu) = (self.start.elapsed(), measure::cpu_time() - self.cpu);
        let megabytes = size() as f64 / 1e6;
        let grown = (measure::own_memory()? - self.memory).max(0.0);
        let mut sample = vec![
            ("mb_per_s", megabytes / wall.as_secs_f64()),
            ("cpu_us_per_mb", measure::micros(cpu) / megabytes),
        ];
        // To nothing there is no ratio.
        if grown > 0.0 {
            sample.push(("memory_kib", grown / 1024.0));
        }
        Ok(sample)
    }
}

fn floor(kept: Kept) -> Result<Sample, Failure> {
    let log = LogFile::named();
    let file = if kept == Kept::Nothing { None } else { Some(File::create(&log.0)?) };
    let (_end, _session, console, begin) = started()?;
    console::read_all(&console, size(), |bytes| match &file {
        Some(file) => console::write_all(file, bytes),
        None => Ok(()),
    })?;
    begin.sample()
}

/// Looks for three texts in each piece, as if none could lie across two.
fn expected_floor() -> Result<Sample, Failure> {
    let (_end, _session, console, begin) = started()?;
    let mut found = false;
    console::read_all(&console, size(), |bytes| {
        found = TEXTS.iter().any(|text| console::contains(bytes, text));
        Ok(())
    })?;
    if found { begin.sample() } else { Err("the prompt did not come last".into()) }
}

/// A guest that has begun to print.
fn started() -> Result<(OtherEnd, RawSession, UnixStream, Begin), Failure> {
    let (end, socket, console) = OtherEnd::with_console(other_end::peer(&guest())?)?;
    let session = RawSession::begin(socket, "")?;
    let begin = Begin::now()?;
    session.write(br#"{"execute":"start-console"}"#)?;
    Ok((end, session, console, begin))
}

/// What is expected; the first comes, at the end.
const TEXTS: [&str; 3] = ["guest login: ", "Kernel panic - not syncing", "You are in emergency mode"];

fn patterns() -> Result<Patterns, Failure> {
    let [prompt, panic, emergency] = TEXTS;
    // One that is no mere text.
    let emergency = Pattern::regex(emergency.replace("emergency", "(emergency|rescue)"))?;
    Ok(Patterns::any([Pattern::literal(prompt), Pattern::literal(panic), emergency]))
}

fn config(console: ConsoleConfig) -> Result<MachineConfig, Failure> {
    Ok(MachineConfig::new(other_end::peer_program()?).env("PEER_PLAY", guest()).console(console))
}

fn drained(runtime: Runtime, kept: Kept) -> Result<Sample, Failure> {
    let (console, _log) = kept.console();
    let config = config(console)?;
    runtime.block_on(async {
        let place = other_end::Parted::begin()?;
        let machine = config.launch().await?;
        place.part_from(machine.pid())?;
        let console = machine.console().ok_or("there is a console")?;
        let begin = Begin::now()?;
        machine.cmd("start-console", ()).await?;
        // Answered when everything is printed, and some of it is on its way.
        machine.cmd("query-status", ()).await?;
        while console.bytes_seen() < size() as u64 {
            look_again_async().await;
        }
        let sample = begin.sample()?;
        machine.kill().await?;
        Ok(sample)
    })
}

#[expect(clippy::disallowed_methods, reason = "nothing tells how much has been drained")]
async fn look_again_async() {
    tokio::time::sleep(LOOK).await;
}

#[expect(clippy::disallowed_methods, reason = "nothing tells how much has been drained")]
fn look_again() {
    thread::sleep(LOOK);
}

fn drained_blocking(kept: Kept) -> Result<Sample, Failure> {
    let (console, _log) = kept.console();
    let place = other_end::Parted::begin()?;
    let machine = ratite::blocking::Machine::launch(&config(console)?)?;
    place.part_from(machine.pid())?;
    let console = machine.console().ok_or("there is a console")?;
    let begin = Begin::now()?;
    machine.cmd("start-console", ())?;
    machine.cmd("query-status", ())?;
    while console.bytes_seen() < size() as u64 {
        look_again();
    }
    let sample = begin.sample()?;
    machine.kill()?;
    Ok(sample)
}

/// How often it is looked how far a console has come.
const LOOK: Duration = Duration::from_micros(100);

fn expected(runtime: Runtime) -> Result<Sample, Failure> {
    let (config, patterns) = (config(ConsoleConfig::serial())?, patterns()?);
    runtime.block_on(async {
        let place = other_end::Parted::begin()?;
        let machine = config.launch().await?;
        place.part_from(machine.pid())?;
        let console = machine.console().ok_or("there is a console")?;
        let begin = Begin::now()?;
        let (started, found) =
            tokio::join!(machine.cmd("start-console", ()), console.expect(&patterns, LIMIT));
        started?;
        check(&found?)?;
        let sample = begin.sample()?;
        machine.kill().await?;
        Ok(sample)
    })
}

fn expected_blocking() -> Result<Sample, Failure> {
    let (config, patterns) = (config(ConsoleConfig::serial())?, patterns()?);
    let place = other_end::Parted::begin()?;
    let machine = ratite::blocking::Machine::launch(&config)?;
    place.part_from(machine.pid())?;
    let console = machine.console().ok_or("there is a console")?;
    let begin = Begin::now()?;
    machine.cmd("start-console", ())?;
    check(&console.expect(&patterns, LIMIT)?)?;
    let sample = begin.sample()?;
    machine.kill()?;
    Ok(sample)
}

/// Whether it is the prompt, at the end of all that was printed.
fn check(found: &ratite::Match) -> Result<(), Failure> {
    let end = found.dropped + (found.before.len() + found.matched.len()) as u64;
    if (found.index, end) == (0, size() as u64) {
        Ok(())
    } else {
        Err(format!("pattern {} was found at {end}", found.index).into())
    }
}
