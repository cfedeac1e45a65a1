//! Where in the object model something is: which part of what was written is the object, and which the property.
//!
//! Names of both may hold dots (`pci.0`, `sse4.1`), so QEMU is asked. What is not there is told with what may have been
//! meant.

use ratite::qmp::Client;
use ratite::qmp::CommandError;
use ratite::qmp::ExecuteError;
use ratite::qmp::nearest;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;

use crate::commands::qom::failure;
use crate::report::Failure;

/// A property, as QEMU lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Property {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
}

impl Property {
    pub(super) fn is_child(&self) -> bool {
        self.kind.starts_with("child<")
    }

    pub(super) fn is_link(&self) -> bool {
        self.kind.starts_with("link<")
    }
}

/// An object and what it has, or one of its properties.
#[derive(Debug)]
pub(super) enum Place {
    Object { path: String, properties: Vec<Property> },
    Property { path: String, property: Property },
}

/// What is at PATH, at PATH.PROPERTY, or at PATH and PROPERTY.
pub(super) async fn find(client: &Client, place: &str, property: Option<&str>) -> Result<Place, Failure> {
    let whole = list(client, place).await?;
    if let Some(name) = property {
        let properties = match whole {
            Ok(properties) => properties,
            Err(refusal) => return Err(no_object(client, place, refusal).await),
        };
        return pick(place, name, properties);
    }
    let refusal = match whole {
        Ok(properties) => return Ok(Place::Object { path: place.to_owned(), properties }),
        Err(refusal) => refusal,
    };
    let mut nearest_object = None;
    for (dot, _) in place.rmatch_indices('.') {
        let (path, name) = (&place[..dot], &place[dot + 1..]);
        // A dot that ends a folder's name is part of it.
        if path.is_empty() || name.is_empty() || name.contains('/') {
            continue;
        }
        if let Ok(properties) = list(client, path).await? {
            if properties.iter().any(|property| property.name == name) {
                return pick(path, name, properties);
            }
            nearest_object.get_or_insert((path, name, properties));
        }
    }
    match nearest_object {
        Some((path, name, properties)) => pick(path, name, properties),
        None => Err(no_object(client, place, refusal).await),
    }
}

/// The same for what has to be a property.
pub(super) async fn find_property(
    client: &Client,
    place: &str,
    property: Option<&str>,
) -> Result<(String, Property), Failure> {
    match find(client, place, property).await? {
        Place::Property { path, property } => Ok((path, property)),
        Place::Object { path, properties } => Err(Failure::Usage {
            problem: format!("`{path}` is an object: which of its properties is meant?"),
            hint: format!("`ratite qom list` of `{path}` lists its {} properties", properties.len()),
        }),
    }
}

/// What an object has; QEMU's words if there is none.
pub(super) async fn list(
    client: &Client,
    path: &str,
) -> Result<Result<Vec<Property>, CommandError>, Failure> {
    match client.execute_as("qom-list", json!({ "path": path })).await {
        Ok(properties) => Ok(Ok(properties)),
        Err(ExecuteError::Refused { source, .. }) => Ok(Err(source)),
        Err(error) => Err(failure(format!("list `{path}`"))(error)),
    }
}

/// What an object has that is known to be there.
pub(super) async fn properties(client: &Client, path: &str) -> Result<Vec<Property>, Failure> {
    match list(client, path).await? {
        Ok(properties) => Ok(properties),
        Err(refusal) => Err(no_object(client, path, refusal).await),
    }
}

fn pick(path: &str, name: &str, properties: Vec<Property>) -> Result<Place, Failure> {
    if let Some(property) = properties.iter().find(|property| property.name == name) {
        return Ok(Place::Property { path: path.to_owned(), property: property.clone() });
    }
    let names = properties.iter().map(|property| property.name.as_str());
    Err(Failure::NotThere {
        problem: format!("`{path}` has no property `{name}`"),
        source: None,
        hint: match nearest(name, names) {
            Some(nearest) => meant(nearest),
            None => format!("`ratite qom list` of `{path}` lists its {} properties", properties.len()),
        },
    })
}

/// Why there is no object at `path`, and which there are that may have been meant.
async fn no_object(client: &Client, path: &str, refusal: CommandError) -> Failure {
    let hint = match nearest_object(client, path).await {
        Some((_, Some(nearest))) => meant(&nearest),
        Some((parent, None)) => format!("`ratite qom list` of `{parent}` lists what is there"),
        None => "`ratite qom tree` lists all objects".into(),
    };
    let problem = format!("no object is at `{path}`");
    Failure::NotThere { problem, source: Some(refusal), hint }
}

/// The last object on the way to `path` that is there, and what of it may have been meant.
async fn nearest_object(client: &Client, path: &str) -> Option<(String, Option<String>)> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    for there in (0..parts.len()).rev() {
        let parent = format!("/{}", parts[..there].join("/"));
        let Ok(Ok(properties)) = list(client, &parent).await else { continue };
        if properties.iter().any(|property| property.name == parts[there..].join("/")) {
            return Some((parent.clone(), Some(format!("{parent}.{}", parts[there]))));
        }
        let children = properties.iter().filter(|property| property.is_child());
        let wrong = parts[there];
        // What stands behind a dot may have been meant as a property.
        let wrong = wrong.split_once('.').map_or(wrong, |(object, _)| object);
        let near = nearest(wrong, children.map(|child| child.name.as_str()));
        let near = near.map(|name| format!("{}/{name}", parent.trim_end_matches('/')));
        return Some((parent, near));
    }
    None
}

fn meant(name: &str) -> String {
    format!("did you mean `{name}`?")
}
