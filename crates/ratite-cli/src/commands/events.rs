//! `ratite events`: a line for each event, until the machine is gone.

use std::time::Duration;

use ratite::qmp::Client;
use ratite::qmp::Disconnect;
use ratite::qmp::Event;
use ratite::qmp::EventFilter;
use ratite::qmp::ListenError;
use ratite::qmp::Listener;
use ratite::qmp::Options;

use crate::args::Events;
use crate::commands::dialogue;
use crate::commands::dialogue::Clock;
use crate::json;
use crate::language::Mistake;
use crate::output::Bytes;
use crate::report;
use crate::report::Failure;

/// Prints events.
pub(crate) async fn events(events: &Events) -> Result<(), Failure> {
    let clock = Clock::start(events.timeout.unwrap_or(Duration::MAX));
    let wanted = events.only.iter().map(EventFilter::named).reduce(EventFilter::or);
    let (listener, subscription) = Listener::new(wanted.unwrap_or_else(EventFilter::any));
    let options = Options::default().subscribe(subscription);
    let client = clock.wait("QMP session", dialogue::connect(&events.target, options)).await??;
    check(&client, &events.only).await?;
    let mut output = Bytes::to_stdout().map_err(Failure::System)?;
    let mut told = 0;
    let telling = tell(&listener, &mut output, events.count.map(u64::from), &mut told);
    let ended = clock.wait("event", telling).await;
    let ended = ended.map_err(|_over| missing(events, told))??;
    match ended {
        Told::Enough => output.finish().await.map_err(Failure::output),
        Told::Unwritable => Err(Failure::output(output.failure().await)),
        Told::Gone(why) => {
            output.finish().await.map_err(Failure::output)?;
            gone(why, events.count.is_some())
        }
    }
}

/// Refuses names that this QEMU does not have.
async fn check(client: &Client, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let Some(schema) = dialogue::schema(client).await? else { return Ok(()) };
    match names.iter().find(|name| schema.event(name).is_none()) {
        None => Ok(()),
        Some(name) => {
            let mistake = Mistake::new(format!("this QEMU has no event `{name}`"));
            Err(dialogue::usage(mistake.among(name, schema.events())))
        }
    }
}

/// Why there are no more events to tell.
enum Told {
    Enough,
    Unwritable,
    Gone(Disconnect),
}

/// What is missing when the time is over, after so many events.
fn missing(events: &Events, told: u64) -> Failure {
    let what = match events.count.map(u64::from) {
        Some(1) => "no event came".to_owned(),
        Some(count) => format!("{told} of {count} events came"),
        None => "the machine did not end".to_owned(),
    };
    let limit = events.timeout.unwrap_or(Duration::MAX);
    Failure::TimedOut { what, limit, source: None, exit: None, console: None }
}

/// Tells events up to `count` of them, and counts in `told`.
async fn tell(
    listener: &Listener,
    output: &mut Bytes,
    count: Option<u64>,
    told: &mut u64,
) -> Result<Told, Failure> {
    while count.is_none_or(|count| *told < count) {
        let next = tokio::select! {
            biased;
            () = output.closed() => return Ok(Told::Unwritable),
            next = listener.next(Duration::MAX) => next,
        };
        match next {
            Ok(event) => {
                let Some(room) = output.room().await else { return Ok(Told::Unwritable) };
                room.send(line(&event));
                *told += 1;
            }
            Err(ListenError::Disconnected(why)) => return Ok(Told::Gone(why)),
            // Without a limit it can only lag beside that.
            Err(lagged) => report::remark(&lagged.to_string()),
        }
    }
    Ok(Told::Enough)
}

fn line(event: &Event) -> Vec<u8> {
    let mut line = json::one_line(event.text()).into_bytes();
    line.push(b'\n');
    line
}

fn gone(why: Disconnect, is_too_early: bool) -> Result<(), Failure> {
    match why {
        Disconnect::ByPeer if !is_too_early => {
            report::remark("the machine is gone");
            Ok(())
        }
        why => Err(dialogue::gone("wait for more events", why)),
    }
}
