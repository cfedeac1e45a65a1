//! How many instructions the hot paths take, counted by callgrind: figures that do not depend on what else runs.
//!
//! `hot_paths.txt` has what they took when that was last written, so that a change of them is seen in its review. Each path is run
//! twice, the second time three times as often; the difference leaves out what happens only once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use ratite::Console;
use ratite::ConsoleConfig;
use ratite_qmp::Client;
use ratite_qmp::Decoder;
use ratite_qmp::EventFilter;
use ratite_qmp::Limits;
use ratite_qmp::Listener;
use ratite_qmp::Message;
use ratite_qmp::Options;
use ratite_qmp::Socket;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;

use crate::contenders::LIMIT;
use crate::contenders::current_thread;
use crate::scenario::Failure;

/// A path: what it is called, how often it is run, and the work.
struct HotPath {
    name: &'static str,
    count: usize,
    work: fn(usize) -> Result<(), Failure>,
}

const HOT_PATHS: [HotPath; 6] = [
    HotPath { name: "decode an event", count: 1000, work: decode },
    HotPath { name: "a command and its reply", count: 500, work: |count| commands(count, false) },
    HotPath {
        name: "a command with arguments and its reply",
        count: 500,
        work: |count| commands(count, true),
    },
    HotPath { name: "an event to one listener", count: 1000, work: |count| deliver(count, 1) },
    HotPath { name: "an event to 16 listeners", count: 400, work: |count| deliver(count, 16) },
    HotPath { name: "drain a console block of 64 KiB", count: 50, work: drain },
];

/// More than this share of change is told as one: threads and hash seeds make some of their own.
const NOISE: f64 = 0.02;

const EVENT: &[u8] = b"{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 123456}, \
    \"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 12345678, \"qom-path\": \"/machine/rtc\"}}\r\n";

const GREETING: &[u8] =
    b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 0, \"major\": 9}, \"package\": \"\"}, \
    \"capabilities\": []}}\r\n";

/// Runs the path called `name` so often: what is counted.
pub(crate) fn work(name: &str, count: &str) -> Result<(), Failure> {
    let path = HOT_PATHS.iter().find(|path| path.name == name).ok_or("there is no such path")?;
    (path.work)(count.parse()?)
}

/// Counts them all and prints them beside what is written down; `write` writes them down.
pub(crate) fn count_all(write: bool) -> Result<(), Failure> {
    let known = read_baseline();
    let mut written = String::new();
    println!("instructions, by callgrind");
    for path in &HOT_PATHS {
        let (few, many) = (instructions(path.name, path.count)?, instructions(path.name, 3 * path.count)?);
        let each = many.saturating_sub(few) / (2 * path.count as u64);
        writeln!(written, "{each:>10}  {}", path.name)?;
        println!("{each:>10}  {:40} {}", path.name, change(each, known.get(path.name).copied()));
    }
    if write {
        fs::write(baseline(), written)?;
    }
    Ok(())
}

fn change(each: u64, known: Option<u64>) -> String {
    let Some(known) = known else { return "not written down yet".to_owned() };
    let share = each as f64 / known as f64 - 1.0;
    if share.abs() < NOISE { "as before".to_owned() } else { format!("{:+.1} % of {known}", share * 100.0) }
}

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hot_paths.txt")
}

fn read_baseline() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(baseline()).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let (number, name) = line.trim_start().split_once("  ")?;
        Some((name.to_owned(), number.parse().ok()?))
    });
    lines.collect()
}

fn instructions(name: &str, count: usize) -> Result<u64, Failure> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    let output = command.args(["work", name, &count.to_string()]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind says: {told}").into())
}

fn decode(count: usize) -> Result<(), Failure> {
    let mut decoder = Decoder::new(Limits::default());
    for _ in 0..count {
        decoder.feed(EVENT);
        let text = decoder.next()?.ok_or("the event is not whole")?;
        let Message::Event(_) = Message::parse(text)? else { return Err("it is no event".into()) };
    }
    Ok(())
}

/// A peer that answers each command with an empty object.
async fn answer(mut peer: DuplexStream) -> Result<(), Failure> {
    peer.write_all(GREETING).await?;
    let mut decoder = Decoder::new(Limits::default());
    loop {
        let count = peer.read(decoder.space()).await?;
        if count == 0 {
            return Ok(());
        }
        decoder.filled(count);
        while let Some(command) = decoder.next()? {
            let (_, id) = command.rsplit_once("\"id\":").ok_or("a command has no id")?;
            let id: String = id.trim_start().chars().take_while(char::is_ascii_digit).collect();
            peer.write_all(format!("{{\"return\": {{}}, \"id\": {id}}}\r\n").as_bytes()).await?;
        }
    }
}

fn commands(count: usize, with_arguments: bool) -> Result<(), Failure> {
    current_thread()?.block_on(async {
        let (ours, theirs) = Socket::pair();
        tokio::spawn(answer(theirs));
        let client = Client::over(ours, Options::default()).await?;
        let arguments =
            BTreeMap::from([("driver", "virtio-net-pci"), ("netdev", "net0"), ("mac", "52:54:00:12:34:56")]);
        for _ in 0..count {
            if with_arguments {
                client.execute("device_add", &arguments).await?;
            } else {
                client.execute("query-status", ()).await?;
            }
        }
        Ok(())
    })
}

fn deliver(count: usize, listeners: usize) -> Result<(), Failure> {
    current_thread()?.block_on(async {
        let (ours, mut theirs) = Socket::pair();
        let mut options = Options::default().without_handshake();
        let mut queues = Vec::new();
        for _ in 0..listeners {
            let (listener, subscription) = Listener::with_capacity(EventFilter::any(), count);
            options = options.subscribe(subscription);
            queues.push(listener);
        }
        let _client = Client::over(ours, options).await?;
        let flood = EVENT.repeat(100);
        for _ in 0..count / 100 {
            theirs.write_all(&flood).await?;
            for listener in &queues {
                for _ in 0..100 {
                    listener.next(LIMIT).await?;
                }
            }
        }
        Ok(())
    })
}

fn drain(count: usize) -> Result<(), Failure> {
    let (ours, mut theirs) = UnixStream::pair()?;
    let console = Console::over(ours, &ConsoleConfig::serial(), LIMIT)?;
    let block =
        b"[    1.234567] a line as a guest prints them while it boots, 80 bytes with its end\r\n".repeat(781);
    current_thread()?.block_on(async {
        for _ in 0..count {
            theirs.write_all(&block)?;
            let mut left = block.len();
            while left > 0 {
                left =
                    left.checked_sub(console.read(LIMIT).await?.len()).ok_or("more came than was written")?;
            }
        }
        Ok(())
    })
}
