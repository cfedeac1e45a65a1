//! A reply of 200 KB, `query-qmp-schema`: as its text, as a value, and as types.

use std::os::unix::net::UnixStream;

use qmp::ConnectOptions;
use ratite_qmp::Client;
use ratite_qmp::Options;
use serde::Deserialize;
use serde_json::Value;

use crate::contenders;
use crate::contenders::qapi::QuerySchema;
use crate::floor::qmp::RawSession;
use crate::measure::Laps;
use crate::other_end;
use crate::other_end::OtherEnd;
use crate::record;
use crate::scenario::Better;
use crate::scenario::Contender;
use crate::scenario::Failure;
use crate::scenario::Figure;
use crate::scenario::Required;
use crate::scenario::Sample;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "reply_text",
        title: "a reply of 200 KB as its JSON text",
        figures: &[
            Figure::new("wall_us", "µs, median", Better::Less)
                .required(&[Required::ratio("ratite-async", 6.0), Required::ratio("ratite-blocking", 6.0)]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: floor },
            Contender { name: "ratite-async", sample: || ratite_async(Kind::Text) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(Kind::Text) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "reply_value",
        title: "a reply of 200 KB as a JSON value",
        figures: &[
            Figure::new("wall_us", "µs, median", Better::Less)
                .required(&[Required::ratio("ratite-async", 70.0), Required::ratio("ratite-blocking", 70.0)]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: floor },
            Contender { name: "ratite-async", sample: || ratite_async(Kind::Value) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(Kind::Value) },
            Contender { name: "qapi", sample: || qapi(Kind::Value) },
            Contender { name: "qmp", sample: || qmp(Kind::Value) },
        ],
        python: true,
        rounds: None,
    },
    Scenario {
        name: "reply_typed",
        title: "a reply of 200 KB as the program's own types",
        figures: &[
            Figure::new("wall_us", "µs, median", Better::Less)
                .required(&[Required::ratio("ratite-async", 30.0), Required::ratio("ratite-blocking", 30.0)]),
            CPU,
        ],
        contenders: &[
            Contender { name: "floor", sample: floor },
            Contender { name: "ratite-async", sample: || ratite_async(Kind::Typed) },
            Contender { name: "ratite-blocking", sample: || ratite_blocking(Kind::Typed) },
            Contender { name: "qapi", sample: || qapi(Kind::Typed) },
            Contender { name: "qmp", sample: || qmp(Kind::Typed) },
        ],
        python: false,
        rounds: None,
    },
];

const CPU: Figure = Figure::new("cpu_us", "CPU µs a reply", Better::Less);

const COMMAND: &str = "query-qmp-schema";

/// More than this many entities are in every schema.
const MANY: usize = 100;

/// As what the reply is taken.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Value,
    Typed,
}

/// All that an entity of the schema says.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(dead_code, reason = "to be read is the work")]
struct Entity {
    name: String,
    meta_type: String,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    variants: Vec<Variant>,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    features: Vec<String>,
    tag: Option<String>,
    json_type: Option<String>,
    element_type: Option<String>,
    arg_type: Option<String>,
    ret_type: Option<String>,
    #[serde(default)]
    allow_oob: bool,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "to be read is the work")]
struct Member {
    /// The members of an alternate have none.
    name: Option<String>,
    /// The members of an enumeration have none.
    r#type: Option<String>,
    default: Option<Value>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "to be read is the work")]
struct Variant {
    case: String,
    r#type: String,
}

fn peer() -> Result<std::process::Command, Failure> {
    other_end::peer(&format!("reply={}", record::reply_file()?.display()))
}

fn floor() -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(peer()?)?;
    let mut session = RawSession::begin(socket, "")?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        session.write(br#"{"execute":"query-qmp-schema","id":1}"#)?;
        session.read_reply()?;
        laps.end(began);
    }
    Ok(laps.sample())
}

fn check(is_whole: bool) -> Result<(), Failure> {
    if is_whole { Ok(()) } else { Err("the reply is not whole".into()) }
}

fn ratite_async(kind: Kind) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(peer()?)?;
    contenders::current_thread()?.block_on(async {
        let client = Client::over(ratite_qmp::Socket::unshared(socket)?, Options::default()).await?;
        let mut laps = Laps::begin();
        while let Some(began) = laps.next() {
            check(match kind {
                Kind::Text => client.execute_text(COMMAND, ()).await?.len() > 1000 * MANY,
                Kind::Value => {
                    client.execute(COMMAND, ()).await?.as_array().is_some_and(|it| it.len() > MANY)
                }
                Kind::Typed => client.execute_as::<Vec<Entity>>(COMMAND, ()).await?.len() > MANY,
            })?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}

fn ratite_blocking(kind: Kind) -> Result<Sample, Failure> {
    let (_end, socket) = OtherEnd::paired(peer()?)?;
    let client = ratite::blocking::Client::over_unshared(socket, Options::default())?;
    let mut laps = Laps::begin();
    while let Some(began) = laps.next() {
        check(match kind {
            Kind::Text => client.execute_text(COMMAND, ())?.len() > 1000 * MANY,
            Kind::Value => client.execute(COMMAND, ())?.as_array().is_some_and(|it| it.len() > MANY),
            Kind::Typed => client.execute_as::<Vec<Entity>>(COMMAND, ())?.len() > MANY,
        })?;
        laps.end(began);
    }
    Ok(laps.sample())
}

/// It has no way to the text; its types are those that come with it.
fn qapi(kind: Kind) -> Result<Sample, Failure> {
    let (_end, socket): (_, UnixStream) = OtherEnd::paired(peer()?)?;
    contenders::current_thread()?.block_on(async {
        let (service, _reading) = contenders::qapi::begin(socket).await?.spawn_tokio();
        let mut laps = Laps::begin();
        while let Some(began) = laps.next() {
            check(match kind {
                Kind::Typed => service.execute(qapi::qmp::query_qmp_schema {}).await?.len() > MANY,
                _ => service.execute(QuerySchema {}).await?.as_array().is_some_and(|it| it.len() > MANY),
            })?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}

/// It makes a value of everything; a text would be one that it writes itself.
fn qmp(kind: Kind) -> Result<Sample, Failure> {
    let (_end, path) = OtherEnd::listening(peer()?)?;
    contenders::current_thread()?.block_on(async {
        let client = contenders::qmp::begin(&path, ConnectOptions::default()).await?;
        let mut laps = Laps::begin();
        while let Some(began) = laps.next() {
            check(match kind {
                Kind::Typed => client.execute::<(), Vec<Entity>>(COMMAND, None).await?.len() > MANY,
                _ => client.execute::<(), Vec<Value>>(COMMAND, None).await?.len() > MANY,
            })?;
            laps.end(began);
        }
        Ok(laps.sample())
    })
}
