//! The user's templates: where they are, and what is said when one is not to be had.

use ratite::CacheError;
use ratite::SpawnError;
use ratite::Template;
use ratite::TemplateCache;
use ratite::TemplateError;
use ratite::qmp::nearest;

use crate::report::Failure;

/// The folder of all templates of this user.
pub(crate) fn cache() -> Result<TemplateCache, Failure> {
    TemplateCache::user().map_err(failure)
}

/// The template of this name.
pub(crate) async fn open(name: &str) -> Result<Template, Failure> {
    match cache()?.open(name).await {
        Ok(template) => Ok(template),
        Err(CacheError::Template(error)) => Err(not_spawned(name, SpawnError::Template(error))),
        Err(error) => Err(failure(error)),
    }
}

/// No machine came of the template of this name.
pub(crate) fn not_spawned(name: &str, error: SpawnError) -> Failure {
    match error {
        SpawnError::Launch(error) => Failure::Launch(error),
        error => {
            let hint = match &error {
                SpawnError::Template(error) => Some(about(name, error)),
                SpawnError::Restore { .. } => Some(anew(name)),
                _ => None,
            };
            Failure::NotSpawned { name: name.into(), error: Box::new(error), hint }
        }
    }
}

/// A template could not be made, or be removed.
pub(crate) fn failure(error: CacheError) -> Failure {
    let hint = match error {
        CacheError::Launch(error) => return Failure::Launch(error),
        CacheError::Name { .. } => {
            return Failure::Usage {
                problem: error.to_string(),
                hint: "a name is of letters, digits, `.`, `_` and `-`, such as `debian-12`".into(),
            };
        }
        CacheError::Taken { ref name } => Some(format!("`ratite template rm {name}` removes it")),
        CacheError::InUse { ref name } => Some(format!(
            "programs hold it while they make it, or run machines of it; `lsof {}` shows which",
            file_of(name)
        )),
        CacheError::NoFolder => Some("`RATITE_CACHE=/a/folder` says where templates are to be".into()),
        _ => None,
    };
    Failure::Template { error: Box::new(error), hint }
}

/// A template could not be removed.
pub(crate) fn not_removed(name: &str, error: CacheError) -> Failure {
    match error {
        CacheError::Template(error @ TemplateError::Missing { .. }) => {
            let hint = Some(who_is_there(name));
            Failure::Template { error: Box::new(error.into()), hint }
        }
        error => failure(error),
    }
}

/// What helps where a template is not as it was.
fn about(name: &str, error: &TemplateError) -> String {
    match error {
        TemplateError::Missing { .. } => who_is_there(name),
        _ => anew(name),
    }
}

fn anew(name: &str) -> String {
    format!("`ratite template rm {name}` removes it, and `ratite template create {name} …` makes it anew")
}

/// What somebody who uses a template has open.
fn file_of(name: &str) -> String {
    let folder = TemplateCache::user().map(|cache| cache.folder().join(name)).unwrap_or_default();
    folder.join("template.json").display().to_string()
}

/// What helps somebody who has named a template that is not there.
fn who_is_there(wanted: &str) -> String {
    let listed = TemplateCache::user().ok().and_then(|cache| cache.list().ok()).unwrap_or_default();
    let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    let all = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (nearest(wanted, names.iter().copied()), names.as_slice()) {
        (_, []) => "there are no templates; `ratite template create NAME` makes one".into(),
        (Some(near), [_]) => format!("there is `{near}`: is that the one?"),
        (Some(near), _) => format!("there are {all}: is `{near}` the one?"),
        (None, [only]) => format!("there is `{only}`"),
        (None, _) => format!("there are {all}"),
    }
}
