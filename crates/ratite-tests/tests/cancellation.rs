//! Whoever waits for a reply or an event may go away at any moment: the next one gets its own reply, and every event.
//!
//! Each wait is dropped at every point at which it can stand still, and then at many moments in between.

use std::io::PipeReader;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use ratite::ConsoleConfig;
use ratite::Machine;
use ratite::blocking;
use ratite::qmp::Client;
use ratite::qmp::Command;
use ratite::qmp::Direction;
use ratite::qmp::Event;
use ratite::qmp::EventFilter;
use ratite::qmp::Listener;
use ratite::qmp::Reply;
use ratite::qmp::Transcript;
use ratite_tests::polling::Departure;
use ratite_tests::polling::Dice;
use ratite_tests::polling::after_steps;
use ratite_tests::polling::after_turns;
use ratite_tests::polling::at_every_point;
use ratite_tests::scenario::AT_ONCE;
use ratite_tests::scenario::PATIENCE;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::play;
use ratite_tests::scenario::play_blocking;
use ratite_tests::scenario::send_signal;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::process::Signal;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;

/// How many moments of each wait are tried, beside its points.
const MOMENTS: u64 = 300;

async fn launch(stage: &Stage) -> Machine {
    stage.fake(&[]).launch().await.expect("it launches")
}

fn client(machine: &Machine) -> &Client {
    machine.client().expect("it has a monitor")
}

/// The next commands, in band and out of band, get their own replies.
async fn check_usable(machine: &Machine, number: u64) {
    let sent = json!({ "number": number });
    assert_eq!(machine.cmd("fake-echo", &sent).await.expect("it is answered"), sent);
    let reply = machine.qmp(echo(&sent).oob()).await.expect("it is answered");
    assert_eq!(returned(&reply), sent);
}

fn echo(arguments: &Value) -> Command {
    Command::new("fake-echo").arguments(arguments).expect("JSON holds it")
}

fn returned(reply: &Reply) -> Value {
    parsed(reply.return_text().expect("it is no refusal"))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("a reply is JSON")
}

/// Sends one command of each kind, whose callers go away; whether all came to their ends before, with their own replies.
async fn each_command(machine: &Machine, number: u64, departure: Departure) -> bool {
    let sent = json!({ "lost": number });
    let value = departure.from(client(machine).execute("fake-echo", &sent)).await;
    let text = departure.from(client(machine).execute_text("fake-echo", &sent)).await;
    let reply = departure.from(client(machine).send(echo(&sent).oob())).await;
    let cmd = departure.from(machine.cmd("fake-echo", &sent)).await;
    let all = [
        value.map(|reply| reply.expect("it is answered")),
        text.map(|text| parsed(&text.expect("it is answered"))),
        reply.map(|reply| returned(&reply.expect("it is answered"))),
        cmd.map(|reply| reply.expect("it is answered")),
    ];
    assert!(all.iter().flatten().all(|value| *value == sent), "{all:?} instead of {sent}");
    all.iter().all(Option::is_some)
}

#[test]
fn a_command_dropped_at_any_point_leaves_the_next_one_its_own_reply() {
    play(async |stage| {
        let machine = &launch(stage).await;

        let steps = at_every_point(async |steps| {
            let answered = each_command(machine, steps as u64, Departure::AfterSteps(steps)).await;
            check_usable(machine, steps as u64).await;
            answered
        })
        .await;

        assert!(steps >= 1, "there was something to drop");
    });
}

#[test]
fn a_command_dropped_at_any_moment_leaves_the_next_one_its_own_reply() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let mut dice = Dice::new(1);
        let mut answered = 0;

        for moment in 0..MOMENTS {
            let all = each_command(machine, moment, Departure::AfterTurns(dice.below(400))).await;
            answered += u64::from(all);
            check_usable(machine, moment).await;
        }

        assert!(answered < MOMENTS, "nothing was ever dropped");
    });
}

#[test]
fn dropped_commands_that_are_never_answered_take_no_place() {
    play(async |stage| {
        let machine = launch(stage).await;

        // Far more than the eight that may be in flight.
        for round in 0..100 {
            let never = machine.cmd("fake-never", json!({ "round": round }));
            assert!(after_turns(round, never).await.is_none());
            let never = Command::new("fake-never").oob();
            assert!(after_turns(round, machine.qmp(never)).await.is_none());
        }

        check_usable(&machine, 0).await;
    });
}

/// A machine, and what rings when the first byte of a large command to it has gone.
async fn launch_watched(stage: &Stage) -> (Machine, Arc<Notify>) {
    let begun = Arc::new(Notify::new());
    let bell = begun.clone();
    let transcript = Transcript::new(move |entry| {
        if entry.direction == Direction::Sent && entry.text.len() >= LARGE {
            bell.notify_one();
        }
    });
    let config = stage.fake(&[]).transcript(transcript);
    (config.launch().await.expect("it launches"), begun)
}

/// More than goes into a socket whose other end is not read.
const LARGE: usize = 2 << 20;

#[test]
fn a_command_dropped_half_written_is_written_to_its_end() {
    play(async |stage| {
        let (machine, begun) = launch_watched(stage).await;
        let large = json!({ "x": "x".repeat(LARGE) });
        for round in 0..2 {
            send_signal(machine.pid(), Signal::STOP);

            // The second one waits behind the first, and is not begun.
            let both = async { tokio::join!(machine.cmd("fake-echo", &large), machine.cmd("stop", ())) };
            tokio::select! {
                answers = both => panic!("a stopped QEMU answers nothing: {answers:?}"),
                () = begun.notified() => {}
            }

            send_signal(machine.pid(), Signal::CONT);
            check_usable(&machine, round).await;
        }
        let status = machine.cmd("query-status", ()).await.unwrap();
        assert_eq!(status["status"], "running", "what was not begun is never sent");
    });
}

/// A descriptor on its way to QEMU, and the end by which one sees when nobody has it any more.
fn traced_descriptor() -> (Command, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let command = Command::new("getfd").arguments(json!({ "fdname": "traced" })).expect("JSON holds it");
    (command.fd(writer), reader)
}

/// QEMU closes what it was given, if it was, and nobody else has it.
async fn check_nobody_has(machine: &Machine, mut reader: PipeReader) {
    let close = Command::new("closefd").arguments(json!({ "fdname": "traced" })).expect("JSON holds it");
    machine.qmp(close).await.expect("it is answered");
    let mut ready = [PollFd::new(&reader, PollFlags::IN)];
    let patience = Timespec::try_from(AT_ONCE).expect("a few seconds");
    let ended = poll(&mut ready, Some(&patience)).expect("a pipe can be watched");
    assert_eq!(ended, 1, "somebody still has the descriptor {:?}", reader.as_fd());
    assert_eq!(reader.read(&mut [0]).expect("a pipe can be read"), 0);
}

#[test]
fn a_command_dropped_with_its_descriptor_leaves_the_descriptor_nowhere() {
    play(async |stage| {
        let machine = &launch(stage).await;
        let mut dice = Dice::new(2);

        let steps = at_every_point(async |steps| {
            let (command, reader) = traced_descriptor();
            let answered = after_steps(steps, machine.qmp(command)).await;
            check_nobody_has(machine, reader).await;
            answered.is_some_and(|reply| reply.expect("it is answered").error().is_none())
        })
        .await;
        for moment in 0..MOMENTS {
            let (command, reader) = traced_descriptor();
            drop(after_turns(dice.below(400), machine.qmp(command)).await);
            check_nobody_has(machine, reader).await;
            check_usable(machine, moment).await;
        }

        assert!(steps >= 1, "there was something to drop");
    });
}

#[test]
fn a_descriptor_for_a_qemu_that_does_not_read_goes_with_its_command() {
    play(async |stage| {
        let (machine, begun) = launch_watched(stage).await;
        send_signal(machine.pid(), Signal::STOP);
        let large = machine.cmd("fake-echo", json!({ "x": "x".repeat(LARGE) }));
        let (command, mut reader) = traced_descriptor();

        // The second one waits behind the first, and is not begun.
        let both = async { tokio::join!(large, machine.qmp(command)) };
        tokio::select! {
            answers = both => panic!("a stopped QEMU answers nothing: {answers:?}"),
            () = begun.notified() => {}
        }

        let gone = tokio::task::spawn_blocking(move || reader.read(&mut [0]).expect("a pipe can be read"));
        assert_eq!(tokio::time::timeout(AT_ONCE, gone).await.expect("it is closed").unwrap(), 0);
        send_signal(machine.pid(), Signal::CONT);
        check_usable(&machine, 0).await;
    });
}

/// Has the machine send `count` numbered events of the name.
async fn send_events(machine: &Machine, name: &str, count: usize) {
    machine.cmd("fake-events", json!({ "name": name, "count": count, "delay-us": 20 })).await.expect("sent");
}

fn number(event: &Event) -> usize {
    event.data()["seq"].as_u64().and_then(|number| number.try_into().ok()).expect("events are numbered")
}

fn numbers(events: impl IntoIterator<Item = Event>) -> Vec<usize> {
    events.into_iter().map(|event| number(&event)).collect()
}

/// Takes events by `wait`, over and over, until there have been so many; the numbers of all of them.
async fn collect(count: usize, mut wait: impl AsyncFnMut() -> Option<Event>) -> Vec<usize> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(wait().await.map(|event| number(&event)));
    }
    seen
}

#[test]
fn dropped_waits_lose_no_event_and_change_no_order() {
    play(async |stage| {
        let machine = launch(stage).await;
        let listener = machine.listen(EventFilter::named("E")).unwrap();
        let (mut step, mut dice) = (0, Dice::new(3));
        let stepping = collect(500, async || {
            step += 1;
            after_steps(step % 6, listener.next(PATIENCE)).await.map(Result::unwrap)
        });
        let all: Vec<_> = (0..500).collect();

        let (stepped, ()) = tokio::join!(stepping, send_events(&machine, "E", 500));
        let turning = collect(500, async || {
            after_turns(dice.below(100), listener.next(PATIENCE)).await.map(Result::unwrap)
        });
        let (turned, ()) = tokio::join!(turning, send_events(&machine, "E", 500));

        assert_eq!(stepped, all);
        assert_eq!(turned, all);
        let twice: Vec<_> = (0..500).chain(0..500).collect();
        assert_eq!(numbers(machine.take_events()), twice);
    });
}

#[test]
fn dropped_waits_leave_what_they_pass_over_to_others() {
    play(async |stage| {
        let machine = launch(stage).await;
        let listener = machine.listen(EventFilter::any()).unwrap();
        let (wanted, mut step) = (EventFilter::named("WANTED"), 0);
        let collecting = collect(300, async || {
            step += 1;
            drop(after_steps(step % 5, listener.ready(&wanted, PATIENCE)).await);
            after_steps(step % 6, listener.next_matching(&wanted, PATIENCE)).await.map(Result::unwrap)
        });

        let other = send_events(&machine, "OTHER", 300);
        let (seen, (), ()) = tokio::join!(collecting, other, send_events(&machine, "WANTED", 300));

        let all: Vec<_> = (0..300).collect();
        assert_eq!(seen, all);
        let rest = listener.take_all();
        assert!(rest.iter().all(|event| event.name() == "OTHER"), "{rest:?}");
        assert_eq!(numbers(rest), all);
    });
}

#[test]
fn a_wait_dropped_when_it_was_woken_leaves_the_event_to_another() {
    play(async |stage| {
        let machine = launch(stage).await;
        let listener: &Listener = &machine.listen(EventFilter::named("E")).unwrap();
        for round in 0..50 {
            // Both wait; the first is woken and goes without looking.
            let waits =
                async { tokio::join!(after_steps(2, listener.next(PATIENCE)), listener.next(AT_ONCE)) };

            let ((gone, heard), ()) = tokio::join!(waits, send_events(&machine, "E", 1));

            assert!(gone.is_none() && heard.is_ok(), "round {round}: {gone:?} {heard:?}");
        }
    });
}

#[test]
fn without_async_a_wait_cut_off_by_its_limit_costs_the_next_one_nothing() {
    play_blocking(|stage| {
        let config = stage.fake(&[]).console(ConsoleConfig::serial());
        let machine = blocking::Machine::launch(&config).unwrap();
        let console = machine.console().unwrap();
        let (mut events, mut bytes, mut dice) = (Vec::new(), Vec::new(), Dice::new(8));

        for round in 0..200 {
            let limit = Duration::from_micros(dice.below(3000));
            let sent = json!({ "round": round });
            drop(machine.qmp(echo(&sent).limit(limit)));
            assert_eq!(machine.cmd("fake-echo", &sent).unwrap(), sent);

            let command = Command::new("fake-events").arguments(json!({ "name": format!("E{round}") }));
            drop(machine.qmp(command.unwrap().limit(PATIENCE)));
            let command = Command::new("fake-console").arguments(json!({ "text": "0123456789" }));
            drop(machine.qmp(command.unwrap().limit(PATIENCE)));
            drop(machine.event_wait(EventFilter::named("NEVER"), limit));
            events.extend(machine.next_event(limit));
            drop(console.expect("never", limit));
            bytes.extend(console.read_at_most(7, limit).unwrap_or_default());
        }
        machine.shutdown(PATIENCE).unwrap();
        events.extend(machine.take_events());
        bytes.extend(console.take().unwrap());

        let names: Vec<_> = events.iter().map(Event::name).filter(|name| name.starts_with('E')).collect();
        assert_eq!(names, (0..200).map(|round| format!("E{round}")).collect::<Vec<_>>());
        assert_eq!(String::from_utf8(bytes).unwrap(), "0123456789".repeat(200));
    });
}
