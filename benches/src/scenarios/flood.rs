//! A command while events come without an end; and what an event that nobody has read yet takes of the memory.

use std::collections::VecDeque;

use futures::StreamExt;
use qmp::ConnectOptions;
use ratite_qmp::Client;
use ratite_qmp::EventFilter;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use tokio::runtime::Runtime;

use crate::contenders;
use crate::contenders::qapi::QueryStatus;
use crate::contenders::qapi::StartFlood;
use crate::floor::qmp::RawSession;
use crate::measure;
use crate::measure::Laps;
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
        name: "flood_latency",
        title: "a command during a flood of events",
        figures: &[
            Figure::new("p99_us", "µs, 99th percentile", Better::Less).required(&[
                Required::ratio("ratite-async", 3.0),
                Required::ratio("ratite-async-mt", 3.0),
                Required::ratio("ratite-blocking", 3.0),
            ]),
            Figure::new("wall_us", "µs, median", Better::Less),
        ],
        contenders: &[
            Contender { name: "floor", sample: flood_floor },
            Contender { name: "ratite-async", sample: || flood_ratite(contenders::current_thread()?) },
            Contender { name: "ratite-async-mt", sample: || flood_ratite(contenders::multi_thread()?) },
            Contender { name: "ratite-blocking", sample: flood_ratite_blocking },
            Contender { name: "qapi", sample: flood_qapi },
            Contender { name: "qmp", sample: flood_qmp },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "held_event",
        title: "memory for an unread event of 145 bytes",
        figures: &[Figure::new("bytes", "bytes", Better::Less)
            .known_floor(145.0)
            .required(&[Required::ratio("ratite-async", 1.4)])],
        contenders: &[
            Contender { name: "ratite-async", sample: held_ratite },
            Contender { name: "qapi", sample: held_qapi },
            Contender { name: "qmp", sample: held_qmp },
        ],
        python: true,
        rounds: None,
    },
];

const COMMAND: &str = "query-status";

/// How many events are held.
const HELD: usize = 100_000;

fn endless() -> Result<std::process::Command, Failure> {
    other_end::peer("events=forever")
}

/// Looks at the third byte of each line: `{"r…` is a reply, `{"t…` an event.
fn flood_floor() -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(endless()?)?;
    let mut session = RawSession::begin(socket, "")?;
    session.write(br#"{"execute":"start-flood","id":1}"#)?;
    let mut laps = Laps::begin();
    // The reply to the start is the first that is found, and no lap.
    let (mut began, mut column, mut is_first) = (None, 0, true);
    loop {
        let mut replied = false;
        let mut rest = session.read()?;
        while !rest.is_empty() {
            replied |= column <= 2 && rest.get(2 - column) == Some(&b'r');
            match find(b'\n', rest) {
                Some(end) => (column, rest) = (0, &rest[end + 1..]),
                None => (column, rest) = (column + rest.len(), &[]),
            }
        }
        if !replied {
            continue;
        }
        if let Some(began) = began {
            laps.end(began);
        }
        if !is_first && began.is_none() {
            return Err("a reply came that was not asked for".into());
        }
        is_first = false;
        began = laps.next();
        if began.is_none() {
            return Ok(laps.sample());
        }
        session.write(br#"{"execute":"query-status","id":1}"#)?;
    }
}

fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    // SAFETY: the bytes are readable, and as many as it says.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), byte.into(), bytes.len()) };
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}

fn flood_ratite(runtime: Runtime) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(endless()?)?;
    let work = async move {
        let client = Client::over(ratite_qmp::Socket::unshared(socket)?, Options::default()).await?;
        client.execute("start-flood", ()).await?;
        let mut laps = Laps::begin();
        while let Some(began) = laps.next() {
            client.execute(COMMAND, ()).await?;
            laps.end(began);
        }
        Ok(laps.sample())
    };
    runtime.block_on(runtime.spawn(work))?
}

fn flood_ratite_blocking() -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(endless()?)?;
    let client = ratite::blocking::Client::over_unshared(socket, Options::default())?;
    client.execute("start-flood", ())?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        client.execute(COMMAND, ())?;
        laps.end(began);
    }
    Ok(laps.sample())
}

fn flood_qapi() -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(endless()?)?;
    contenders::current_thread()?.block_on(async {
        let (service, _reading) = contenders::qapi::begin(socket).await?.spawn_tokio();
        service.execute(StartFlood {}).await?;
        let mut laps = Laps::begin();
        while let Some(began) = laps.next() {
            service.execute(QueryStatus {}).await?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}

fn flood_qmp() -> Result<Sample, Failure> {
    let (_end, path) = OtherEnd::listening(endless()?)?;
    contenders::current_thread()?.block_on(async {
        let client = contenders::qmp::begin(&path, ConnectOptions::default()).await?;
        let _: serde_json::Value = client.execute("start-flood", None::<()>).await?;
        let mut laps = Laps::begin();
        while let Some(began) = laps.next() {
            let _: serde_json::Value = client.execute(COMMAND, None::<()>).await?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}

fn flood_of_held() -> Result<std::process::Command, Failure> {
    other_end::peer(&format!("events={HELD}"))
}

/// What there is now beyond `before`, for each of the events that are held.
fn each(before: f64) -> Result<Sample, Failure> {
    Ok(vec![("bytes", (measure::own_memory()? - before) / HELD as f64)])
}

fn held_ratite() -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(flood_of_held()?)?;
    contenders::current_thread()?.block_on(async {
        let before = measure::own_memory()?;
        let client = Client::over(ratite_qmp::Socket::unshared(socket)?, Options::default()).await?;
        let (listener, subscription) = Listener::with_capacity(EventFilter::any(), HELD);
        client.subscribe(subscription);
        client.execute("start-flood", ()).await?;
        // Its reply comes behind the events.
        client.execute(COMMAND, ()).await?;
        if listener.len() != HELD {
            return Err(format!("{} events are held", listener.len()).into());
        }
        each(before)
    })
}

/// Whoever reads its stream has to hold what is for others, and does so here in a queue.
fn held_qapi() -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(flood_of_held()?)?;
    contenders::current_thread()?.block_on(async {
        let before = measure::own_memory()?;
        let (service, mut events) = contenders::qapi::begin(socket).await?.into_parts();
        let hold = async {
            let mut held = VecDeque::new();
            while held.len() < HELD {
                held.push_back(events.next().await.ok_or("the stream has ended")??);
            }
            Ok::<_, Failure>(held)
        };
        let (reply, held) = futures::join!(service.execute(StartFlood {}), hold);
        reply?;
        let _held = held?;
        each(before)
    })
}

fn held_qmp() -> Result<Sample, Failure> {
    let (_end, path) = OtherEnd::listening(flood_of_held()?)?;
    contenders::current_thread()?.block_on(async {
        let before = measure::own_memory()?;
        let options = ConnectOptions { event_buffer: HELD, ..ConnectOptions::default() };
        let client = contenders::qmp::begin(&path, options).await?;
        let _listener = client.events();
        let _: serde_json::Value = client.execute("start-flood", None::<()>).await?;
        let _: serde_json::Value = client.execute(COMMAND, None::<()>).await?;
        each(before)
    })
}
