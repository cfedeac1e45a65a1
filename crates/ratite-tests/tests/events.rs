//! Events of a running machine: waited for, passed over, flooding, and after the end.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite::Machine;
use ratite::MachineError;
use ratite::qmp::EventFilter;
use ratite::qmp::ListenError;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::assert_says;
use ratite_tests::scenario::play;
use serde_json::json;

async fn send_events(machine: &Machine, name: &str, count: u64) {
    machine.cmd("fake-events", json!({ "name": name, "count": count })).await.expect("the fake sends events");
}

fn named(name: &str) -> EventFilter {
    EventFilter::named(name)
}

async fn next_name(machine: &Machine) -> String {
    machine.next_event(AT_ONCE).await.expect("an event is there").name().to_owned()
}

#[test]
fn an_event_that_came_before_the_wait_is_found_by_it() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        machine.cmd("stop", ()).await.unwrap();

        let event = machine.event_wait(named("STOP"), Duration::ZERO).await.unwrap();

        assert_eq!(event.name(), "STOP");
        assert!(machine.take_events().is_empty());
    });
}

#[test]
fn a_wait_takes_the_first_that_fits_and_leaves_the_rest_in_order() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        for name in ["A", "B", "C", "A", "D"] {
            send_events(&machine, name, 1).await;
        }

        let found = machine.events_wait(&[named("D"), named("C")], AT_ONCE).await.unwrap();

        assert_eq!(found.name(), "C");
        assert_eq!(next_name(&machine).await, "A");
        assert_eq!(machine.event_wait(named("A"), AT_ONCE).await.unwrap().name(), "A");
        let rest: Vec<_> = machine.take_events().iter().map(|event| event.name().to_owned()).collect();
        assert_eq!(rest, ["B", "D"]);
    });
}

#[test]
fn a_wait_asks_for_a_part_of_what_an_event_says() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        for device in ["disk0", "disk1"] {
            let arguments = json!({ "name": "GONE", "data": { "device": device, "list": [1, 2] } });
            machine.cmd("fake-events", arguments).await.unwrap();
        }

        let filter = named("GONE").data(json!({ "device": "disk1", "list": [1, 2] }));
        let event = machine.event_wait(filter, AT_ONCE).await.unwrap();

        assert_eq!(event.data()["device"], "disk1");
        assert_eq!(machine.take_events().len(), 1);
    });
}

#[test]
fn an_event_that_does_not_come_ends_the_wait_at_its_limit() {
    play(async |stage| {
        let machine = stage.fake(&["event-flood=0"]).launch().await.unwrap();
        let limit = Duration::from_millis(300);

        let start = Instant::now();
        let error = machine.event_wait(named("NEVER"), limit).await.unwrap_err();

        // A flood of others does not lengthen it.
        assert!(start.elapsed() >= limit && start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        assert!(matches!(error, MachineError::Event(ListenError::TimedOut { .. })), "{error:?}");
        assert_says(&error, &["no event `NEVER` within 300ms"]);
    });
}

#[test]
fn a_wait_for_no_event_at_all_ends_too() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        send_events(&machine, "A", 1).await;

        let none = machine.events_wait(&[], Duration::from_millis(50)).await;
        let poll = machine.event_wait(named("B"), Duration::ZERO).await;

        assert!(none.is_err() && poll.is_err());
        assert_eq!(next_name(&machine).await, "A");
        assert!(machine.next_event(Duration::ZERO).await.is_err());
    });
}

#[test]
fn commands_are_answered_in_the_middle_of_a_flood() {
    play(async |stage| {
        let machine = stage.fake(&["event-flood=0"]).launch().await.unwrap();

        for number in 0..50 {
            let answer = machine.cmd("fake-echo", json!({ "number": number })).await.unwrap();
            assert_eq!(answer, json!({ "number": number }));
        }
    });
}

#[test]
fn of_a_flood_that_nobody_reads_the_newest_stay_and_the_rest_is_counted() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        send_events(&machine, "FLOOD", 100_000).await;

        let lagged = machine.next_event(AT_ONCE).await.unwrap_err();
        let MachineError::Event(ListenError::Lagged { dropped }) = lagged else {
            panic!("{lagged:?}");
        };
        let kept = machine.take_events();
        assert_eq!(dropped + kept.len() as u64, 100_000);
        assert_eq!(kept.first().unwrap().data()["seq"], dropped);
        assert_eq!(kept.last().unwrap().data()["seq"], 99_999);
    });
}

#[test]
fn of_a_flood_that_is_read_nothing_is_lost() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();

        for batch in 0..20 {
            let data = json!({ "count": 5000, "name": "FLOOD", "data": { "batch": batch } });
            let sending = machine.cmd("fake-events", data);
            let reading = async {
                for seq in 0..5000 {
                    let data = machine.next_event(PATIENCE).await.unwrap().data();
                    assert_eq!(data, json!({ "batch": batch, "seq": seq }));
                }
            };
            tokio::join!(sending, reading).0.unwrap();
        }
    });
}

#[test]
fn each_listener_gets_every_event_that_it_asked_for() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let all = machine.listen(EventFilter::any()).unwrap();
        let some = machine.listen(named("B")).unwrap();
        let dropped = machine.listen(EventFilter::any()).unwrap();
        send_events(&machine, "A", 2).await;
        drop(dropped);
        send_events(&machine, "B", 3).await;

        let names = |events: Vec<ratite::qmp::Event>| {
            events.iter().map(|event| event.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(all.take_all()), ["A", "A", "B", "B", "B"]);
        assert_eq!(names(some.take_all()), ["B", "B", "B"]);
        assert_eq!(names(machine.take_events()), ["A", "A", "B", "B", "B"]);
    });
}

#[test]
fn a_cancelled_wait_loses_no_event() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let events = json!({ "count": 200, "name": "E", "delay-us": 50 });
        let sending = machine.cmd("fake-events", events);
        let hurrying = async {
            let mut next = 0;
            while next < 200 {
                let limit = Duration::from_micros(30);
                if let Ok(event) = tokio::time::timeout(limit, machine.next_event(PATIENCE)).await {
                    assert_eq!(event.unwrap().data()["seq"], next);
                    next += 1;
                }
            }
        };

        let (sent, ()) = tokio::join!(sending, hurrying);

        sent.unwrap();
    });
}

#[test]
fn qemus_death_wakes_who_waits_after_what_it_had_said() {
    play(async |stage| {
        let machine = Arc::new(stage.fake(&["stderr=ouch"]).launch().await.unwrap());
        let waiter = machine.clone();
        let waiting = tokio::spawn(async move { waiter.event_wait(named("NEVER"), Duration::MAX).await });
        send_events(&machine, "LAST", 3).await;

        let start = Instant::now();
        machine.cmd("fake-exit", json!({ "status": 5 })).await.unwrap_err();
        let woken = waiting.await.unwrap().unwrap_err();
        let later = machine.event_wait(named("NEVER"), Duration::MAX).await.unwrap_err();

        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        for error in [woken, later] {
            assert_says(&error, &["QEMU exited with status 5 while an event was waited for"]);
        }
        for _ in 0..3 {
            assert_eq!(next_name(&machine).await, "LAST");
        }
        assert!(matches!(machine.next_event(Duration::MAX).await, Err(MachineError::Exited { .. })));
    });
}

#[test]
fn the_last_events_are_there_after_the_shutdown() {
    play(async |stage| {
        let machine = stage.fake(&[]).launch().await.unwrap();
        let listener = machine.listen(named("SHUTDOWN")).unwrap();
        send_events(&machine, "A", 1).await;

        machine.shutdown(PATIENCE).await.unwrap();

        assert_eq!(next_name(&machine).await, "A");
        let shutdown = machine.event_wait(named("SHUTDOWN"), Duration::ZERO).await.unwrap();
        assert_eq!(shutdown.data()["reason"], "host-qmp-quit");
        assert_eq!(listener.next(AT_ONCE).await.unwrap().name(), "SHUTDOWN");
        assert!(matches!(listener.next(Duration::MAX).await, Err(ListenError::Disconnected(_))));
    });
}

#[test]
fn a_relaunched_machine_has_no_events_of_the_run_before() {
    play(async |stage| {
        let config = stage.fake(&[]);
        let first = config.launch().await.unwrap();
        send_events(&first, "OLD", 5).await;
        first.shutdown(PATIENCE).await.unwrap();

        let second = config.launch().await.unwrap();

        assert!(second.take_events().is_empty());
    });
}

#[test]
fn a_flood_does_not_hold_up_the_end() {
    play(async |stage| {
        let machine = stage.fake(&["event-flood=0"]).launch().await.unwrap();

        let exit = machine.shutdown(PATIENCE).await.unwrap();

        assert!(exit.success());
        assert_eq!(exit.shutdown_reason.as_deref(), Some("host-qmp-quit"));
    });
}
