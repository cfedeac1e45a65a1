//! `ratite qom`: the objects that a QEMU is made of, and their properties.

mod place;
mod show;
mod value;
mod watch;

use std::time::Duration;

use ratite::qmp::Client;
use ratite::qmp::ExecuteError;
use ratite::qmp::Options;
use serde_json::Value;
use serde_json::json;

use crate::args::Qom;
use crate::args::QomVerb;
use crate::commands::qom::place::find_property;
use crate::commands::unless_signalled;
use crate::report::Failure;
use crate::signals::Signals;
use crate::target::Target;

/// Does what is asked of the object model.
pub(crate) async fn qom(qom: Qom, signals: &mut Signals) -> Result<(), Failure> {
    unless_signalled(signals, async {
        match qom.verb {
            QomVerb::Get { machine, place, property, form } => {
                let client = connect(&machine.target, machine.timeout).await?;
                show::get(&client, &place, property.as_deref(), form).await
            }
            QomVerb::Set { machine, words } => {
                let client = connect(&machine.target, machine.timeout).await?;
                set(&client, &words).await
            }
            QomVerb::List { machine, path, form } => {
                let client = connect(&machine.target, machine.timeout).await?;
                show::list(&client, &path, form).await
            }
            QomVerb::Tree { machine, path, depth, values, form } => {
                let client = connect(&machine.target, machine.timeout).await?;
                show::tree(&client, &path, depth, values, form).await
            }
            QomVerb::Watch(watch) => watch::watch(watch).await,
        }
    })
    .await
}

async fn connect(target: &Target, timeout: Duration) -> Result<Client, Failure> {
    target.qmp(Options::default().connect_limit(timeout).command_limit(timeout)).await
}

/// Sets a property, to a value of its own type.
async fn set(client: &Client, words: &[String]) -> Result<(), Failure> {
    let (place, property, text) = match words {
        [place, property, text] => (place, Some(property.as_str()), text),
        [place, text] => (place, None, text),
        _ => unreachable!("clap takes two or three"),
    };
    let (path, property) = find_property(client, place, property).await?;
    let name = &property.name;
    // What cannot be read can be written all the same.
    let now = read(client, &path, name).await.ok();
    let value = value::parse(text, &property.kind, now.as_ref()).map_err(|takes| Failure::Usage {
        problem: format!(
            "`{text}` is no value for `{path}.{name}`, which is {}",
            described(&property.kind, now.as_ref())
        ),
        hint: format!("it takes {takes}"),
    })?;
    let arguments = json!({ "path": path, "property": name, "value": value });
    let doing =
        format!("set `{path}.{name}`, which is {}, to `{text}`", described(&property.kind, now.as_ref()));
    client.execute("qom-set", arguments).await.map(drop).map_err(failure(doing))
}

/// "of type bool, now `true`".
fn described(kind: &str, now: Option<&Value>) -> String {
    match now {
        Some(now) => format!("of type {kind}, now `{}`", value::shown(now)),
        None => format!("of type {kind}"),
    }
}

/// A property's value.
async fn read(client: &Client, path: &str, property: &str) -> Result<Value, ExecuteError> {
    client.execute("qom-get", json!({ "path": path, "property": property })).await
}

fn failure(doing: impl Into<String>) -> impl FnOnce(ExecuteError) -> Failure {
    let doing = doing.into();
    move |error| Failure::Conversation { doing, source: Box::new(error), exit: None }
}
