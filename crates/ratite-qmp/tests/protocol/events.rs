//! Listeners: who gets which event, in what order, and what ends a wait.

use std::time::Duration;

use ratite_qmp::Disconnect;
use ratite_qmp::Event;
use ratite_qmp::EventFilter;
use ratite_qmp::ListenError;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;

use crate::peer::PATIENCE;
use crate::peer::Peer;
use crate::peer::poll_once;
use crate::peer::session;
use crate::peer::soon;
use crate::peer::start;

/// The event that `peer` sends as `text`, as a listener gets it.
async fn delivered(peer: &mut Peer, listener: &Listener, text: &str) -> Event {
    peer.say(text).await;
    listener.next(PATIENCE).await.expect(text)
}

#[tokio::test(start_paused = true)]
async fn a_listener_armed_before_a_command_sees_what_the_command_causes() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::named("RESUME"));

    let cont = start(&client, "cont");
    let command = peer.command().await;
    peer.say(r#"{"event":"RESUME"}"#).await;
    peer.answer(&command, json!({})).await;
    soon(cont).await.unwrap().unwrap();

    assert_eq!(listener.try_next().unwrap().unwrap().name(), "RESUME");
}

#[tokio::test(start_paused = true)]
async fn each_listener_gets_what_its_filter_takes_in_order() {
    let (client, mut peer) = session(Options::default()).await;
    let all = client.listen(EventFilter::any());
    let some = client.listen(EventFilter::named("A").or(EventFilter::named("C")));
    let one = client.listen(EventFilter::named("B").data(json!({"device": "d1"})));
    let none = client.listen(EventFilter::none());

    for text in [
        r#"{"event":"A"}"#,
        r#"{"event":"B","data":{"device":"d0"}}"#,
        r#"{"event":"C"}"#,
        r#"{"event":"B","data":{"len":5,"device":"d1"}}"#,
        r#"{"event":"A","data":{}}"#,
        r#"{"event":"END"}"#,
    ] {
        peer.say(text).await;
    }
    let end = all.next_matching(&EventFilter::named("END"), PATIENCE).await;

    let names = |listener: &Listener| -> String { listener.take_all().iter().map(Event::name).collect() };
    assert!(end.is_ok());
    assert_eq!(names(&all), "ABCBA");
    assert_eq!(names(&some), "ACA");
    assert_eq!(one.take_all()[0].data()["len"], 5);
    assert!(none.is_empty());
}

#[tokio::test(start_paused = true)]
async fn listeners_end_with_the_reason_after_what_was_delivered() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());

    peer.say(r#"{"event":"A"}"#).await;
    peer.say(r#"{"event":"B"}"#).await;
    peer.hang_up();
    soon(client.closed()).await;

    assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "A");
    assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "B");
    for _ in 0..2 {
        assert!(matches!(listener.next(PATIENCE).await, Err(ListenError::Disconnected(Disconnect::ByPeer))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_woken_by_the_end() {
    let (client, peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());
    let wanted = EventFilter::named("NEVER");
    let start = Instant::now();

    let (next, matching, ()) =
        tokio::join!(listener.next(PATIENCE), listener.next_matching(&wanted, PATIENCE), async {
            peer.hang_up();
        });

    assert!(matches!(next, Err(ListenError::Disconnected(_))));
    assert!(matches!(matching, Err(ListenError::Disconnected(_))));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_listener_made_after_the_end_has_ended_too() {
    let (client, peer) = session(Options::default()).await;
    peer.hang_up();
    soon(client.closed()).await;

    let listener = client.listen(EventFilter::any());

    assert!(matches!(listener.try_next(), Err(ListenError::Disconnected(Disconnect::ByPeer))));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_goes_unused_ends_its_listener() {
    let (listener, subscription) = Listener::new(EventFilter::any());

    drop(subscription);

    let outcome = listener.next(PATIENCE).await;
    assert!(matches!(outcome, Err(ListenError::Disconnected(_))), "it waited: {outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_an_event_ends_at_its_limit_and_says_what_it_wanted() {
    let (client, _peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::named("RESUME"));
    let start = Instant::now();

    let outcome = listener.next(Duration::from_secs(2)).await;

    assert_eq!(outcome.unwrap_err().to_string(), "no event `RESUME` within 2s");
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_zero_limit_takes_what_is_there() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());
    let nothing = listener.next(Duration::ZERO).await;

    peer.say(r#"{"event":"A"}"#).await;
    peer.hears_nothing().await;

    assert!(matches!(nothing, Err(ListenError::TimedOut { .. })));
    assert_eq!(listener.next(Duration::ZERO).await.unwrap().name(), "A");
}

#[tokio::test(start_paused = true)]
async fn the_longest_limit_does_not_overflow() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());

    let (event, ()) = tokio::join!(listener.next(Duration::MAX), peer.say(r#"{"event":"A"}"#));

    assert_eq!(event.unwrap().name(), "A");
}

#[tokio::test(start_paused = true)]
async fn a_wait_cancelled_at_any_point_loses_no_event() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());
    let any = EventFilter::any();

    for turns in 0..6 {
        let name = turns.to_string();
        {
            let mut next = Box::pin(listener.next(PATIENCE));
            let mut matching = Box::pin(listener.next_matching(&any, PATIENCE));
            for _ in 0..turns {
                assert!(poll_once(next.as_mut()).await.is_pending());
                assert!(poll_once(matching.as_mut()).await.is_pending());
                tokio::task::yield_now().await;
            }
            // The event arrives and wakes both, and neither is polled again.
            peer.say(&json!({"event": name}).to_string()).await;
            peer.hears_nothing().await;
        }

        assert_eq!(listener.len(), 1, "after {turns} turns");
        assert_eq!(listener.next(PATIENCE).await.unwrap().name(), name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_one_cancels_passes_the_event_to_another() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());
    let mut cancelled = Box::pin(listener.next(PATIENCE));
    let mut other = Box::pin(listener.next(PATIENCE));
    assert!(poll_once(cancelled.as_mut()).await.is_pending());
    assert!(poll_once(other.as_mut()).await.is_pending());

    peer.say(r#"{"event":"A"}"#).await;
    peer.hears_nothing().await;
    drop(cancelled);

    assert_eq!(soon(other).await.unwrap().name(), "A");
}

#[tokio::test(start_paused = true)]
async fn waits_on_one_listener_share_its_events() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = std::sync::Arc::new(client.listen(EventFilter::any()));

    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move { listener.next(PATIENCE).await.unwrap().name().to_owned() })
        })
        .collect();
    for n in 0..10 {
        peer.say(&json!({"event": n.to_string()}).to_string()).await;
    }

    let mut names = Vec::new();
    for task in tasks {
        names.push(soon(task).await.unwrap());
    }
    names.sort();
    assert_eq!(names.concat(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn waits_for_different_events_on_one_listener_each_get_theirs() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());
    let (a, b) = (EventFilter::named("A"), EventFilter::named("B"));

    let (for_b, for_a, ()) =
        tokio::join!(listener.next_matching(&b, PATIENCE), listener.next_matching(&a, PATIENCE), async {
            for text in [r#"{"event":"A"}"#, r#"{"event":"OTHER"}"#, r#"{"event":"B"}"#] {
                peer.say(text).await;
                peer.hears_nothing().await;
            }
        });

    assert_eq!((for_a.unwrap().name(), for_b.unwrap().name()), ("A", "B"));
    assert_eq!(listener.take_all()[0].name(), "OTHER");
}

#[tokio::test(start_paused = true)]
async fn unknown_events_and_odd_names_are_delivered() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());

    for (name, expected) in [
        (r#""NEVER_HEARD_OF""#, "NEVER_HEARD_OF"),
        (r#""""#, ""),
        (r#""\u0053TOP""#, "STOP"),
        (r#""a\u0000b\n""#, "a\0b\n"),
        (r#""é☃""#, "é☃"),
        ("5", "5"),
        ("null", "null"),
        (r#"["STOP"]"#, r#"["STOP"]"#),
        (r#""\ud800""#, r#""\ud800""#),
    ] {
        let event = delivered(&mut peer, &listener, &format!(r#"{{"event":{name}}}"#)).await;

        assert_eq!(event.name(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_with_an_event_is_an_event_whatever_else_it_has() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());

    for further in [
        r#""id":1"#,
        r#""return":{}"#,
        r#""error":{"class":"C","desc":"d"}"#,
        r#""QMP":{"version":{},"capabilities":[]}"#,
        r#""QMP":5"#,
    ] {
        let text = format!(r#"{{{further},"event":"A"}}"#);

        assert_eq!(delivered(&mut peer, &listener, &text).await.text(), text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_is_read_whatever_it_is() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());

    for (timestamp, expected) in [
        (r#"{"seconds":-1,"microseconds":-1}"#, Some((-1, -1))),
        (r#"{"seconds":1700000000,"microseconds":999999,"x":0}"#, Some((1_700_000_000, 999_999))),
        (r#"{"seconds":9223372036854775807,"microseconds":0}"#, Some((i64::MAX, 0))),
        (r#"{"seconds":9223372036854775808,"microseconds":0}"#, None),
        (r#"{"seconds":1.5,"microseconds":0}"#, None),
        (r#"{"seconds":1}"#, None),
        ("null", None),
        (r#""now""#, None),
    ] {
        let event =
            delivered(&mut peer, &listener, &format!(r#"{{"event":"A","timestamp":{timestamp}}}"#)).await;

        let read = event.timestamp().map(|time| (time.seconds, time.microseconds));
        assert_eq!(read, expected, "{timestamp}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_data_of_an_event_may_be_anything_or_missing() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::any());

    let none = delivered(&mut peer, &listener, r#"{"event":"A"}"#).await;
    let list = delivered(&mut peer, &listener, r#"{"event":"A","data":[18446744073709551615]}"#).await;
    let null = delivered(&mut peer, &listener, r#"{"event":"A","data":null}"#).await;

    assert_eq!((none.data_text(), none.data()), (None, Value::Null));
    assert!(none.data_as::<Value>().is_err());
    assert_eq!(list.data_as::<Vec<u64>>().unwrap(), [u64::MAX]);
    assert!(list.data_as::<u64>().is_err());
    assert_eq!((null.data_text(), null.data()), (Some("null"), Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_filter_finds_an_event_whose_other_members_hold_a_lone_surrogate() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::named("A").data(json!({"device": "d0"})));

    peer.say(r#"{"event":"A","data":{"device":"d0","path":"\ud800"}}"#).await;

    let outcome = listener.next(Duration::from_secs(1)).await;
    assert!(outcome.is_ok(), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_filter_finds_an_event_that_is_nested_as_deep_as_qemu_allows() {
    let (client, mut peer) = session(Options::default()).await;
    let listener = client.listen(EventFilter::named("A").data(json!({"device": "d0"})));
    let deep = format!("{}{}", "[".repeat(1022), "]".repeat(1022));

    peer.say(&format!(r#"{{"event":"A","data":{{"device":"d0","deep":{deep}}}}}"#)).await;

    assert_eq!(listener.next(PATIENCE).await.unwrap().name(), "A");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_listener_stops_nobody_else() {
    let (client, mut peer) = session(Options::default()).await;
    let (dropped, kept) = (client.listen(EventFilter::any()), client.listen(EventFilter::any()));
    peer.say(r#"{"event":"A"}"#).await;
    peer.hears_nothing().await;

    drop(dropped);
    peer.say(r#"{"event":"B"}"#).await;
    peer.hears_nothing().await;

    assert_eq!(kept.len(), 2);
}
