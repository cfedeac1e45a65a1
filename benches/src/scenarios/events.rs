//! Events taken in as fast as they come: by one listener, by sixteen that take them all, by nobody.

use std::path::Path;
use std::thread;

use futures::StreamExt;
use qmp::ConnectOptions;
use ratite_qmp::Client;
use ratite_qmp::EventFilter;
use ratite_qmp::Listener;
use ratite_qmp::Options;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::contenders;
use crate::contenders::LIMIT;
use crate::contenders::qapi::QueryStatus;
use crate::contenders::qapi::StartFlood;
use crate::floor::qmp::RawSession;
use crate::measure::Clock;
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
        name: "events_one",
        title: "events taken in, one listener",
        figures: &[
            Figure::new("per_s", "events/s", Better::More).required(&[
                Required::ratio("ratite-async", 0.2),
                Required::ratio("ratite-async-mt", 0.2),
                Required::ratio("ratite-blocking", 0.2),
            ]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(0) },
            Contender { name: "ratite-async", sample: || ratite(1, contenders::current_thread()?) },
            Contender { name: "ratite-async-mt", sample: || ratite(1, contenders::multi_thread()?) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(1) },
            Contender { name: "qapi", sample: || qapi(true) },
            Contender { name: "qmp", sample: || qmp(1) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "events_sixteen",
        title: "events taken in, 16 listeners",
        figures: &[
            Figure::new("per_s", "events/s", Better::More).required(&[
                Required::ratio("ratite-async", 0.1),
                Required::ratio("ratite-async-mt", 0.1),
                Required::ratio("ratite-blocking", 0.1),
            ]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(0) },
            Contender { name: "ratite-async", sample: || ratite(16, contenders::current_thread()?) },
            Contender { name: "ratite-async-mt", sample: || ratite(16, contenders::multi_thread()?) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(16) },
            // `qapi` has one stream of events and no listeners.
            Contender { name: "qmp", sample: || qmp(16) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "events_nobody",
        title: "events taken in, nobody listens",
        figures: &[
            Figure::new("per_s", "events/s", Better::More).required(&[
                Required::ratio("ratite-async", 0.3),
                Required::ratio("ratite-async-mt", 0.3),
                Required::ratio("ratite-blocking", 0.3),
            ]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(1) },
            Contender { name: "ratite-async", sample: || ratite(0, contenders::current_thread()?) },
            Contender { name: "ratite-async-mt", sample: || ratite(0, contenders::multi_thread()?) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(0) },
            Contender { name: "qapi", sample: || qapi(false) },
            Contender { name: "qmp", sample: || qmp(0) },
        ],
        python: true,
        rounds: None,
    },
];

const CPU: Figure = Figure::new("cpu_us", "CPU µs an event", Better::Less);

/// How many events a flood has, and how many a listener holds, so that none is lost.
const FLOOD: usize = 100_000;

fn peer() -> Result<std::process::Command, Failure> {
    other_end::peer(&format!("events={FLOOD}"))
}

/// Counts line ends in a big buffer; `more` replies come behind the events.
fn floor(more: usize) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(peer()?)?;
    let mut session = RawSession::begin(socket, "")?;
    let (mut taken, clock) = (0, Clock::start());
    while clock.goes_on() {
        session.write(br#"{"execute":"start-flood","id":1}"#)?;
        for _ in 0..more {
            session.write(br#"{"execute":"query-status","id":1}"#)?;
        }
        session.read_lines(1 + FLOOD + more)?;
        taken += FLOOD;
    }
    Ok(clock.rate(taken))
}

/// Lets `listeners` take every flood in, each in a task of its own.
fn ratite(listeners: usize, runtime: Runtime) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(peer()?)?;
    let work = async move {
        let client = Client::over(ratite_qmp::Socket::unshared(socket)?, Options::default()).await?;
        let mut queues = Vec::new();
        for _ in 0..listeners {
            let (listener, subscription) = Listener::with_capacity(EventFilter::any(), FLOOD);
            client.subscribe(subscription);
            queues.push(listener);
        }
        let (mut taken, clock) = (0, Clock::start());
        while clock.goes_on() {
            client.execute("start-flood", ()).await?;
            if queues.is_empty() {
                client.execute("query-status", ()).await?;
            }
            let mut tasks: JoinSet<_> = queues.drain(..).map(take_flood).collect();
            while let Some(listener) = tasks.join_next().await {
                queues.push(listener??);
            }
            taken += FLOOD;
        }
        Ok(clock.rate(taken))
    };
    runtime.block_on(runtime.spawn(work))?
}

async fn take_flood(listener: Listener) -> Result<Listener, Failure> {
    for _ in 0..FLOOD {
        listener.next(LIMIT).await?;
    }
    check(listener.is_empty() && listener.dropped() == 0)?;
    Ok(listener)
}

fn check(is_right: bool) -> Result<(), Failure> {
    if is_right { Ok(()) } else { Err("not as many events came as were sent".into()) }
}

/// Lets `listeners` take every flood in, each on a thread of its own.
fn ratite_blocking(listeners: usize) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(peer()?)?;
    let client = ratite::blocking::Client::over_unshared(socket, Options::default())?;
    let mut queues = Vec::new();
    for _ in 0..listeners {
        let (listener, subscription) = ratite::blocking::Listener::with_capacity(EventFilter::any(), FLOOD)?;
        client.subscribe(subscription);
        queues.push(listener);
    }
    let (mut taken, clock) = (0, Clock::start());
    while clock.goes_on() {
        client.execute("start-flood", ())?;
        match queues.as_slice() {
            [] => drop(client.execute("query-status", ())?),
            [one] => take_flood_blocking(one)?,
            many => thread::scope(|scope| {
                let threads: Vec<_> = many.iter().map(|it| scope.spawn(|| take_flood_blocking(it))).collect();
                let join =
                    |thread: thread::ScopedJoinHandle<'_, _>| thread.join().map_err(|_| "it panicked")?;
                threads.into_iter().try_for_each(join)
            })?,
        }
        taken += FLOOD;
    }
    Ok(clock.rate(taken))
}

fn take_flood_blocking(listener: &ratite::blocking::Listener) -> Result<(), Failure> {
    for _ in 0..FLOOD {
        listener.next(LIMIT)?;
    }
    check(listener.is_empty() && listener.dropped() == 0)
}

/// Its events are one stream, which somebody has to read so that replies come.
fn qapi(listens: bool) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(peer()?)?;
    contenders::current_thread()?.block_on(async {
        let (service, mut events) = contenders::qapi::begin(socket).await?.into_parts();
        let (mut taken, clock) = (0, Clock::start());
        if listens {
            while clock.goes_on() {
                let take = async {
                    for _ in 0..FLOOD {
                        events.next().await.ok_or("the stream has ended")??;
                    }
                    Ok::<_, Failure>(())
                };
                let (reply, taking) = futures::join!(service.execute(StartFlood {}), take);
                reply?;
                taking?;
                taken += FLOOD;
            }
        } else {
            let _reading = events.spawn_tokio();
            while clock.goes_on() {
                service.execute(StartFlood {}).await?;
                service.execute(QueryStatus {}).await?;
                taken += FLOOD;
            }
        }
        Ok(clock.rate(taken))
    })
}

fn qmp(listeners: usize) -> Result<Sample, Failure> {
    let (_end, path) = OtherEnd::listening(peer()?)?;
    contenders::current_thread()?.block_on(qmp_at(&path, listeners))
}

async fn qmp_at(path: &Path, listeners: usize) -> Result<Sample, Failure> {
    let options = ConnectOptions { event_buffer: FLOOD, ..ConnectOptions::default() };
    let client = contenders::qmp::begin(path, options).await?;
    let mut streams: Vec<_> = (0..listeners).map(|_| client.events()).collect();
    let (mut taken, clock) = (0, Clock::start());
    while clock.goes_on() {
        let _: serde_json::Value = client.execute("start-flood", None::<()>).await?;
        if streams.is_empty() {
            let _: serde_json::Value = client.execute("query-status", None::<()>).await?;
        }
        let mut tasks = JoinSet::new();
        for mut stream in streams.drain(..) {
            tasks.spawn(async move {
                for _ in 0..FLOOD {
                    stream.recv().await?;
                }
                Ok::<_, Failure>(stream)
            });
        }
        while let Some(stream) = tasks.join_next().await {
            streams.push(stream??);
        }
        taken += FLOOD;
    }
    Ok(clock.rate(taken))
}
