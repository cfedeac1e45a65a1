//! A million events, and gibibytes of console: that nobody reads, that no disk holds, that a reader is too slow for.

use ratite::Console;
use ratite::ConsoleConfig;
use ratite::ConsoleError;
use ratite::qmp::EventFilter;
use ratite::qmp::Listener;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use serde_json::json;
use tokio::sync::mpsc;

const GIBIBYTE: u64 = 1 << 30;

/// How much memory this process has in use, in KiB (proc_pid_status(5)).
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let used = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    used.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_million_events_arrive_in_order_with_commands_in_between() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let client = machine.client().unwrap();
        let (flood, subscription) = Listener::with_capacity(EventFilter::named("FLOOD"), 20_000);
        client.subscribe(subscription);
        let before = memory();

        for round in 0..100 {
            let burst = json!({ "name": "FLOOD", "count": 10_000, "data": { "round": round } });
            let (sent, status) =
                tokio::join!(machine.cmd("fake-events", burst), machine.cmd("query-status", ()));
            assert!(sent.is_ok() && status.is_ok(), "{sent:?} {status:?}");
            for expected in 0..10_000 {
                let event = flood.next(PATIENCE).await.unwrap();
                let data = format!(r#"{{"round": {round}, "seq": {expected}}}"#);
                assert_eq!(event.data_text(), Some(data.as_str()));
            }
        }

        assert_eq!((flood.dropped(), flood.len()), (0, 0));
        // The machine's own listener has kept the last 16384, and counted the rest.
        assert_eq!(machine.dropped_events(), 1_000_000 - 16_384);
        assert!(memory() < before + 64 * 1024, "{} KiB more", memory() - before);
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
    });
}

#[test]
fn a_gibibyte_of_console_that_nobody_reads_stops_nobody() {
    play(async |stage| {
        let config = stage.fake(&[]).console(ConsoleConfig::serial());
        let machine = config.launch().await.unwrap();
        let before = memory();

        for _ in 0..64 {
            machine.cmd("fake-console", json!({ "bytes": 16 << 20 })).await.unwrap();
        }
        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        let console = machine.console().unwrap();
        assert_eq!(console.bytes_seen(), GIBIBYTE);
        assert_eq!(console.tail(usize::MAX).bytes.len(), 1 << 20);
        assert!(memory() < before + 64 * 1024, "{} KiB more", memory() - before);
    });
}

#[test]
fn a_gibibyte_of_console_on_a_full_disk_is_told_once_and_stops_nobody() {
    play(async |stage| {
        let console = ConsoleConfig::serial().log("/dev/full");
        let machine = stage.fake(&["console-banner=hello"]).console(console).launch().await.unwrap();
        let console = machine.console().unwrap();
        console.expect("hello", PATIENCE).await.unwrap();
        let (told, before) = (console.log_fault(), memory());
        assert!(told.as_deref().is_some_and(|fault| fault.contains("No space left")), "{told:?}");

        for _ in 0..64 {
            let flood = machine.cmd("fake-console", json!({ "bytes": 16 << 20 }));
            let (written, status) = tokio::join!(flood, machine.cmd("query-status", ()));
            assert!(written.is_ok() && status.is_ok(), "{written:?} {status:?}");
        }

        assert_eq!(console.log_fault(), told);
        assert!(memory() < before + 64 * 1024, "{} KiB more", memory() - before);
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());
        assert_eq!(console.bytes_seen(), 5 + GIBIBYTE);
    });
}

/// What a reader has had of a console, and what it was told that it has missed.
#[derive(Debug, Default)]
struct Reader {
    read: u64,
    dropped: u64,
}

impl Reader {
    /// Reads once, 4 KiB at most, and checks that they are the next ones of the fake's filler; false at the end.
    async fn read(&mut self, console: &Console, filler: &[u8]) -> bool {
        match console.read_at_most(4096, PATIENCE).await {
            Ok(bytes) => {
                let at = usize::try_from((self.read + self.dropped) % FILLER).expect("it is small");
                assert!(filler[at..].starts_with(&bytes), "not what was written at {self:?}");
                self.read += bytes.len() as u64;
                !bytes.is_empty()
            }
            Err(ConsoleError::Lagged { dropped }) => {
                self.dropped += dropped;
                true
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// After how many bytes the filler begins anew: 26 lines of 63 letters.
const FILLER: u64 = 26 * 64;

#[test]
fn of_a_gibibyte_that_comes_too_fast_each_byte_is_read_or_counted() {
    play(async |stage| {
        let config = stage.fake(&["console-flood=1073741824"]).console(ConsoleConfig::serial());
        let machine = config.launch().await.unwrap();
        let console = machine.console().unwrap().clone();
        let lines: String = (b'a'..=b'z').map(|l| char::from(l).to_string().repeat(63) + "\n").collect();
        let filler = lines.repeat(4).into_bytes();
        let before = memory();
        // The reader has its next turn only when the last one was fetched.
        let (turn, mut turns) = mpsc::channel(1);
        let reading = tokio::spawn(async move {
            let mut reader = Reader::default();
            while let Some(()) = turns.recv().await {
                reader.read(&console, &filler).await;
            }
            while reader.read(&console, &filler).await {}
            reader
        });

        while machine.console().unwrap().bytes_seen() < GIBIBYTE {
            machine.cmd("query-status", ()).await.unwrap();
            turn.send(()).await.unwrap();
        }
        assert!(memory() < before + 64 * 1024, "{} KiB more", memory() - before);
        drop(turn);
        assert!(machine.shutdown(PATIENCE).await.unwrap().success());

        let reader = reading.await.unwrap();
        assert_eq!(reader.read + reader.dropped, GIBIBYTE, "{reader:?}");
        // The history alone holds a MiB: there was more than that to read, and much more to miss.
        assert!(reader.read > 1 << 20 && reader.dropped > GIBIBYTE / 2, "{reader:?}");
    });
}
