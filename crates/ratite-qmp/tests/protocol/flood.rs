//! More than anybody reads.

use std::task::Poll;
use std::time::Duration;

use ratite_qmp::Event;
use ratite_qmp::EventFilter;
use ratite_qmp::ListenError;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::in_band;
use crate::peer::poll_once;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

/// `count` numbered events, as one text.
fn numbered(numbers: std::ops::Range<u64>) -> String {
    let event = |n| {
        format!(
            "{{\"timestamp\": {{\"seconds\": 1, \"microseconds\": 2}}, \"event\": \"N\", \"data\": {{\"n\": {n}}}}}\r\n"
        )
    };
    numbers.map(event).collect()
}

fn number(event: &Event) -> u64 {
    event.data()["n"].as_u64().unwrap()
}

/// Sends 200 000 events and answers a command after each thousand.
async fn flood(peer: &mut Peer) {
    for thousand in 0..200 {
        peer.send(numbered(thousand * 1000..(thousand + 1) * 1000).as_bytes()).await;
        let command = peer.command().await;
        peer.answer(&command, json!(thousand)).await;
    }
}

#[tokio::test]
async fn a_flood_with_commands_in_between_loses_nothing_and_counts_what_does_not_fit() {
    let (client, mut peer) = session(in_band()).await;
    let (large, subscription) = Listener::with_capacity(EventFilter::any(), 200_000);
    client.subscribe(subscription);
    let (small, subscription) = Listener::with_capacity(EventFilter::any(), 100);
    client.subscribe(subscription);

    let flood = tokio::spawn(async move { flood(&mut peer).await });
    for thousand in 0..200 {
        assert_eq!(client.execute("x", ()).await.unwrap(), thousand);
    }
    soon(flood).await.unwrap();

    assert!(large.take_all().iter().map(number).eq(0..200_000));
    assert_eq!((large.dropped(), small.dropped()), (0, 199_900));
    assert!(matches!(small.try_next(), Err(ListenError::Lagged { dropped: 199_900 })));
    assert!(small.take_all().iter().map(number).eq(199_900..200_000));
}

#[tokio::test(start_paused = true)]
async fn a_listener_dropped_within_a_flood_stops_nobody() {
    let (client, mut peer) = session(in_band()).await;
    let dropped = client.listen(EventFilter::any());
    let kept = client.listen(EventFilter::any());

    let flood = tokio::spawn(async move {
        peer.send(numbered(0..10_000).as_bytes()).await;
        peer
    });
    assert!(dropped.next(PATIENCE).await.is_ok());
    drop(dropped);
    let _peer = soon(flood).await.unwrap();

    for n in 0..10_000 {
        assert_eq!(number(&kept.next(PATIENCE).await.unwrap()), n);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_that_come_and_go_within_a_flood_miss_nothing_while_they_are_there() {
    let (client, mut peer) = session(in_band()).await;

    let flood = tokio::spawn(async move {
        for thousand in 0..20 {
            peer.send(numbered(thousand * 1000..(thousand + 1) * 1000).as_bytes()).await;
        }
        peer
    });
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let (listener, subscription) = Listener::with_capacity(EventFilter::any(), 20_000);
                client.subscribe(subscription);
                let Ok(first) = listener.next(Duration::from_millis(200)).await else {
                    return;
                };
                for n in (number(&first) + 1..20_000).take(500) {
                    assert_eq!(number(&listener.next(PATIENCE).await.unwrap()), n);
                }
            })
        })
        .collect();

    for reader in readers {
        soon(reader).await.unwrap();
    }
    soon(flood).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_too_slow_is_told_each_time_how_much_it_missed() {
    let (client, mut peer) = session(in_band()).await;
    let (listener, subscription) = Listener::with_capacity(EventFilter::any(), 10);
    client.subscribe(subscription);

    for (burst, missed) in [(0..15, 5), (15..40, 20)] {
        peer.send(numbered(burst.clone()).as_bytes()).await;
        peer.hears_nothing().await;

        assert!(matches!(
            listener.next(PATIENCE).await,
            Err(ListenError::Lagged { dropped }) if dropped == missed
        ));
        for n in burst.end - 5..burst.end {
            let next = number(&listener.next(PATIENCE).await.unwrap());
            assert_eq!(next, n - 5);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_smallest_queue_holds_the_newest_event() {
    let (client, mut peer) = session(in_band()).await;
    let (listener, subscription) = Listener::with_capacity(EventFilter::any(), 0);
    client.subscribe(subscription);

    peer.send(numbered(0..3).as_bytes()).await;
    peer.hears_nothing().await;

    assert_eq!(listener.dropped(), 2);
    assert!(listener.take_all().iter().map(number).eq(2..3));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lagged_when_the_connection_ended_is_told_all_in_order() {
    let (client, mut peer) = session(in_band()).await;
    let (listener, subscription) = Listener::with_capacity(EventFilter::any(), 1);
    client.subscribe(subscription);

    peer.send(numbered(0..3).as_bytes()).await;
    peer.hang_up();
    soon(client.closed()).await;

    assert!(matches!(listener.try_next(), Err(ListenError::Lagged { dropped: 2 })));
    assert_eq!(number(&listener.try_next().unwrap().unwrap()), 2);
    assert!(matches!(listener.try_next(), Err(ListenError::Disconnected(_))));
}

#[tokio::test(start_paused = true)]
async fn a_wait_among_dropped_events_says_that_some_were_dropped() {
    let (client, mut peer) = session(in_band()).await;
    let (listener, subscription) = Listener::with_capacity(EventFilter::any(), 10);
    client.subscribe(subscription);
    let wanted = EventFilter::named("N").data(json!({"n": 0}));

    peer.send(numbered(0..11).as_bytes()).await;
    peer.hears_nothing().await;
    let outcome = listener.next_matching(&wanted, Duration::from_secs(1)).await;

    assert!(matches!(outcome, Err(ListenError::TimedOut { dropped: 1, .. })));
}

#[tokio::test]
async fn commands_are_answered_within_an_endless_flood() {
    let (client, peer) = session(Options::default()).await;
    let (mut reading, mut writing) = tokio::io::split(peer.into_stream());
    let flood = tokio::spawn(async move {
        let events = numbered(0..1000);
        let mut answered = 0;
        let mut bytes = [0; 4096];
        loop {
            let sent = writing.write_all(events.as_bytes()).await;
            if sent.is_err() {
                return answered;
            }
            // One read holds one command: each is asked for after the reply to the one before.
            let read = std::pin::pin!(reading.read(&mut bytes));
            if let Poll::Ready(Ok(1..)) = poll_once(read).await {
                answered += 1;
                let reply = format!("{{\"return\":{{}},\"id\":{answered}}}");
                let _ended = writing.write_all(reply.as_bytes()).await;
            }
        }
    });

    for _ in 0..50 {
        soon(start(&client, "x")).await.unwrap().unwrap();
    }
    drop(client);

    assert_eq!(soon(flood).await.unwrap(), 50);
}

#[tokio::test]
async fn replies_that_nobody_waits_for_do_not_delay_the_one_somebody_waits_for() {
    let (client, mut peer) = session(in_band()).await;
    let asked = start(&client, "x");
    let command = peer.command().await;

    let strays: String =
        (1_000_000..1_100_000).map(|id| format!("{{\"return\":{{}},\"id\":{id}}}")).collect();
    peer.send(strays.as_bytes()).await;
    peer.answer(&command, json!("mine")).await;

    assert_eq!(soon(asked).await.unwrap().unwrap(), "mine");
}
