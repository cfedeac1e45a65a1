//! 32 commands under way at once, again and again.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use qmp::ConnectOptions;
use ratite_qmp::Client;
use ratite_qmp::Options;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::contenders;
use crate::contenders::qapi::QueryStatus;
use crate::contenders::qapi::Service;
use crate::floor::qmp::RawSession;
use crate::floor::qmp::count_lines;
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
        name: "in_flight",
        title: "32 commands in flight",
        figures: &[
            Figure::new("per_s", "commands/s", Better::More)
                .required(&[Required::ratio("ratite-async", 0.6), Required::ratio("ratite-async-mt", 0.6)]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(&Setting::Peer) },
            Contender {
                name: "ratite-async",
                sample: || ratite(&Setting::Peer, contenders::current_thread()?),
            },
            Contender {
                name: "ratite-async-mt",
                sample: || ratite(&Setting::Peer, contenders::multi_thread()?),
            },
            Contender { name: "qapi", sample: || qapi(&Setting::PeerWithOob) },
            Contender { name: "qmp", sample: || qmp(&Setting::Peer) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "in_flight_real",
        title: "32 commands in flight, real QEMU",
        figures: &[
            Figure::new("per_s", "commands/s", Better::More)
                .required(&[Required::ratio("ratite-async", 0.95), Required::ratio("ratite-async-mt", 0.95)]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: || floor(&Setting::Real) },
            Contender {
                name: "ratite-async",
                sample: || ratite(&Setting::Real, contenders::current_thread()?),
            },
            Contender {
                name: "ratite-async-mt",
                sample: || ratite(&Setting::Real, contenders::multi_thread()?),
            },
            Contender { name: "qapi", sample: || qapi(&Setting::Real) },
            Contender { name: "qmp", sample: || qmp(&Setting::Real) },
        ],
        python: true,
        rounds: None,
    },
];

const CPU: Figure = Figure::new("cpu_us", "CPU µs a command", Better::Less);

const COMMAND: &str = "query-status";

const AT_ONCE: usize = 32;

/// Who answers.
enum Setting {
    Peer,
    /// One that offers `oob`, without which `qapi` gives its commands no ids, and waits for each reply.
    PeerWithOob,
    Real,
}

impl Setting {
    fn command(&self) -> Result<std::process::Command, Failure> {
        match self {
            Self::Peer => other_end::peer(""),
            Self::PeerWithOob => other_end::peer("oob"),
            Self::Real => Ok(other_end::real()),
        }
    }
}

/// Writes as many commands at once as replies were read at once.
fn floor(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(setting.command()?)?;
    let oob = if matches!(setting, Setting::Real) { r#""oob""# } else { "" };
    let mut session = RawSession::begin(socket, oob)?;
    let command = br#"{"execute":"query-status","id":1}"#;
    let commands = command.repeat(AT_ONCE);
    session.write(&commands)?;
    let (mut done, clock) = (0, Clock::start());
    while clock.goes_on() {
        let replied = count_lines(session.read()?);
        done += replied;
        session.write(&commands[..replied * command.len()])?;
    }
    Ok(clock.rate(done))
}

/// Does `work` in as many tasks as commands are to be under way, each for as long as a sample takes.
async fn in_tasks<F>(work: impl Fn(Clock) -> F) -> Result<Sample, Failure>
where
    F: Future<Output = Result<usize, Failure>> + Send + 'static,
{
    let clock = Clock::start();
    let mut tasks: JoinSet<_> = (0..AT_ONCE).map(|_| work(clock)).collect();
    let mut done = 0;
    while let Some(count) = tasks.join_next().await {
        done += count??;
    }
    Ok(clock.rate(done))
}

fn ratite(setting: &Setting, runtime: Runtime) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(setting.command()?)?;
    runtime.block_on(async {
        let client = Client::over(ratite_qmp::Socket::unshared(socket)?, Options::default()).await?;
        in_tasks(|clock| {
            let client = client.clone();
            async move {
                let mut done = 0;
                while clock.goes_on() {
                    client.execute(COMMAND, ()).await?;
                    done += 1;
                }
                Ok(done)
            }
        })
        .await
    })
}

fn qapi(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(setting.command()?)?;
    contenders::current_thread()?.block_on(async {
        let (service, _reading) = contenders::qapi::begin(socket).await?.spawn_tokio();
        let service: Arc<Service> = Arc::new(service);
        in_tasks(|clock| {
            let service = Arc::clone(&service);
            async move {
                let mut done = 0;
                while clock.goes_on() {
                    service.execute(QueryStatus {}).await?;
                    done += 1;
                }
                Ok(done)
            }
        })
        .await
    })
}

fn qmp(setting: &Setting) -> Result<Sample, Failure> {
    let (_end, path) = OtherEnd::listening(setting.command()?)?;
    contenders::current_thread()?.block_on(qmp_at(&path, matches!(setting, Setting::Real)))
}

async fn qmp_at(path: &Path, oob: bool) -> Result<Sample, Failure> {
    let mut options = ConnectOptions::default();
    options.enable_capabilities.extend(oob.then(|| "oob".to_owned()));
    let client = contenders::qmp::begin(path, options).await?;
    in_tasks(|clock| {
        let client = client.clone();
        async move {
            let mut done = 0;
            while clock.goes_on() {
                let _: serde_json::Value = client.execute(COMMAND, None::<()>).await?;
                done += 1;
            }
            Ok(done)
        }
    })
    .await
}
