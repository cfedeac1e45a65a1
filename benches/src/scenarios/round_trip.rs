//! One command after the other: how long each takes, and what it costs.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use qmp::ConnectOptions;
use ratite_qmp::Client;
use ratite_qmp::Options;
use tokio::runtime::Runtime;

use crate::contenders;
use crate::contenders::qapi::QueryStatus;
use crate::floor::qmp::RawSession;
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
        name: "round_trip_two_cores",
        title: "a round trip, client and peer on a core each",
        figures: PEER_FIGURES,
        contenders: &[
            Contender { name: "floor", sample: || floor(&Setting::TwoCores) },
            Contender { name: "ratite-async", sample: || ratite_async(&Setting::TwoCores) },
            Contender { name: "ratite-async-mt", sample: || ratite_async_mt(&Setting::TwoCores) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(&Setting::TwoCores) },
            Contender { name: "qapi", sample: || qapi(&Setting::TwoCores) },
            Contender { name: "qmp", sample: || qmp(&Setting::TwoCores) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "round_trip_one_core",
        title: "a round trip, client and peer on one core",
        figures: PEER_FIGURES,
        contenders: &[
            Contender { name: "floor", sample: || floor(&Setting::OneCore) },
            Contender { name: "ratite-async", sample: || ratite_async(&Setting::OneCore) },
            Contender { name: "ratite-async-mt", sample: || ratite_async_mt(&Setting::OneCore) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(&Setting::OneCore) },
            Contender { name: "qapi", sample: || qapi(&Setting::OneCore) },
            Contender { name: "qmp", sample: || qmp(&Setting::OneCore) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "round_trip_real",
        title: "a round trip, real QEMU",
        figures: &[
            Figure::new("wall_us", "µs, median", Better::Less).required(&[
                Required::ratio("ratite-async", 1.05),
                Required::ratio("ratite-async-mt", 1.05),
                Required::ratio("ratite-blocking", 1.05),
            ]),
            Figure::new("p99_us", "µs, 99th percentile", Better::Less),
            Figure::new("cpu_us", "CPU µs a command", Better::Less),
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(&Setting::Real) },
            Contender { name: "ratite-async", sample: || ratite_async(&Setting::Real) },
            Contender { name: "ratite-async-mt", sample: || ratite_async_mt(&Setting::Real) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(&Setting::Real) },
            Contender { name: "qapi", sample: || qapi(&Setting::Real) },
            Contender { name: "qmp", sample: || qmp(&Setting::Real) },
        ],
        python: true,
        rounds: None,
    },
];

const PEER_FIGURES: &[Figure] = &[
    Figure::new("wall_us", "µs, median", Better::Less).required(&[
        Required::ratio("ratite-async", 1.25),
        Required::ratio("ratite-async-mt", 1.25),
        Required::ratio("ratite-blocking", 1.1),
    ]),
    Figure::new("p99_us", "µs, 99th percentile", Better::Less).required(&[
        Required::ratio("ratite-async", 1.25),
        Required::ratio("ratite-async-mt", 1.25),
        Required::ratio("ratite-blocking", 1.1),
    ]),
    Figure::new("cpu_us", "CPU µs a command", Better::Less).required(&[
        Required::ratio("ratite-async", 2.0),
        Required::ratio("ratite-async-mt", 2.0),
        Required::ratio("ratite-blocking", 1.5),
    ]),
];

/// A command that both the peer and a real QEMU answer.
const COMMAND: &str = "query-status";

/// Who answers, and where.
enum Setting {
    TwoCores,
    OneCore,
    Real,
}

impl Setting {
    fn command(&self) -> Result<Command, Failure> {
        match self {
            Self::Real => Ok(other_end::real()),
            _ => other_end::peer(""),
        }
    }

    fn paired(&self) -> Result<(OtherEnd, UnixStream), Failure> {
        let (end, socket) = OtherEnd::paired(self.command()?)?;
        self.place(&end)?;
        Ok((end, socket))
    }

    fn listening(&self) -> Result<(OtherEnd, PathBuf), Failure> {
        let (end, path) = OtherEnd::listening(self.command()?)?;
        self.place(&end)?;
        Ok((end, path))
    }

    fn place(&self, end: &OtherEnd) -> Result<(), Failure> {
        match self {
            Self::OneCore => end.meet(),
            _ => Ok(()),
        }
    }
}

fn floor(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, socket) = setting.paired()?;
    let mut session = RawSession::begin(socket, "")?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        session.write(br#"{"execute":"query-status","id":1}"#)?;
        session.read_reply()?;
        laps.end(began);
    }
    Ok(laps.sample())
}

async fn ratite(socket: UnixStream) -> Result<Sample, Failure> {
    let socket = ratite_qmp::Socket::unshared(socket)?;
    let client = Client::over(socket, Options::default()).await?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        client.execute(COMMAND, ()).await?;
        laps.end(began);
    }
    Ok(laps.sample())
}

fn ratite_async(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, socket) = setting.paired()?;
    contenders::current_thread()?.block_on(ratite(socket))
}

fn ratite_async_mt(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, socket) = setting.paired()?;
    let runtime: Runtime = contenders::multi_thread()?;
    runtime.block_on(runtime.spawn(ratite(socket)))?
}

fn ratite_blocking(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, socket) = setting.paired()?;
    let client = ratite::blocking::Client::over_unshared(socket, Options::default())?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        client.execute(COMMAND, ())?;
        laps.end(began);
    }
    Ok(laps.sample())
}

fn qapi(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, socket) = setting.paired()?;
    contenders::current_thread()?.block_on(async {
        let (service, _reading) = contenders::qapi::begin(socket).await?.spawn_tokio();
        let mut laps = Laps::begin();
        while let Some(began) = laps.next() {
            service.execute(QueryStatus {}).await?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}

fn qmp(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, path) = setting.listening()?;
    contenders::current_thread()?.block_on(qmp_at(&path))
}

async fn qmp_at(path: &Path) -> Result<Sample, Failure> {
    let client = contenders::qmp::begin(path, ConnectOptions::default()).await?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        let _: serde_json::Value = client.execute(COMMAND, None::<()>).await?;
        laps.end(began);
    }
    Ok(laps.sample())
}
