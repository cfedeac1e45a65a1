//! `ratite qom watch`: a property's value, whenever it has changed.

use std::future::pending;
use std::time::Duration;

use ratite::qmp::Client;
use ratite::qmp::within;
use serde_json::Value;
use serde_json::json;

use crate::args::QomWatch;
use crate::commands::qom::connect;
use crate::commands::qom::failure;
use crate::commands::qom::place::Property;
use crate::commands::qom::place::find_property;
use crate::commands::qom::read;
use crate::commands::qom::value;
use crate::output;
use crate::report::Failure;

/// How long QEMU may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Tells a property's value and its changes, until it is what is waited for.
pub(super) async fn watch(watch: QomWatch) -> Result<(), Failure> {
    let limit = watch.timeout.unwrap_or(Duration::MAX);
    match within(limit, "value", follow(&watch)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::TimedOut {
            what: format!("`{}` did not become `{}`", watch.place, watch.until.unwrap_or_default()),
            limit,
            source: None,
            exit: None,
            console: None,
        }),
    }
}

async fn follow(watch: &QomWatch) -> Result<(), Failure> {
    let client = connect(&watch.target, ANSWER).await?;
    let (path, property) = find_property(&client, &watch.place, watch.property.as_deref()).await?;
    let first = value_of(&client, &path, &property).await?;
    let wanted = wanted(watch, &path, &property, &first)?;
    let mut last = None;
    let mut value = first;
    loop {
        if last.as_ref() != Some(&value) {
            tell(&value, watch.form.json)?;
        }
        if wanted.as_ref() == Some(&value) {
            return Ok(());
        }
        last = Some(value);
        // QEMU tells of no change by itself.
        let _interval = within(watch.interval, "", pending::<()>()).await;
        value = value_of(&client, &path, &property).await?;
    }
}

async fn value_of(client: &Client, path: &str, property: &Property) -> Result<Value, Failure> {
    let name = &property.name;
    read(client, path, name).await.map_err(failure(format!("read `{path}.{name}`")))
}

/// What is waited for, as a value of the property's type.
fn wanted(watch: &QomWatch, path: &str, property: &Property, now: &Value) -> Result<Option<Value>, Failure> {
    let Some(text) = &watch.until else { return Ok(None) };
    let Property { name, kind, .. } = property;
    let wanted = value::parse(text, kind, Some(now)).map_err(|takes| Failure::Usage {
        problem: format!("`{path}.{name}`, of type {kind}, can never be `{text}`"),
        hint: format!("it is {takes}"),
    })?;
    Ok(Some(wanted))
}

fn tell(value: &Value, as_json: bool) -> Result<(), Failure> {
    match as_json {
        true => output::json(&json!({ "value": value })),
        false => output::text(&(value::shown(value) + "\n")),
    }
    .map_err(Failure::output)
}
