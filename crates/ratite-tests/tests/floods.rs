//! A million events, and a gibibyte of console that nobody reads.

use ratite::ConsoleConfig;
use ratite::qmp::EventFilter;
use ratite::qmp::Listener;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::play;
use serde_json::json;

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
        assert_eq!(console.bytes_seen(), 1 << 30);
        assert_eq!(console.tail(usize::MAX).bytes.len(), 1 << 20);
        assert!(memory() < before + 64 * 1024, "{} KiB more", memory() - before);
    });
}
