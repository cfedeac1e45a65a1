//! `ratite template`: machines that are booted once, frozen, and restored. `create` and `spawn` are runs.

use std::io;
use std::io::Write;
use std::time::SystemTime;

use ratite::TemplateEntry;
use serde_json::json;

use crate::args::Template;
use crate::args::TemplateVerb;
use crate::commands::run;
use crate::commands::unless_signalled;
use crate::output::Paint;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;
use crate::table;
use crate::templates;

/// Does what is asked of the templates.
pub(crate) async fn template(words: Template, signals: &mut Signals) -> Result<(), Failure> {
    match words.verb {
        TemplateVerb::Create(create) => run::run((*create).into(), signals).await,
        TemplateVerb::Spawn(spawn) => run::run((*spawn).into(), signals).await,
        TemplateVerb::Ls { json } => ls(json),
        TemplateVerb::Rm { templates } => unless_signalled(signals, rm(&templates)).await,
    }
}

/// What stands above the columns.
const HEAD: [&str; 6] = ["NAME", "MADE", "USED", "SIZE", "QEMU", "STATE"];

fn ls(as_json: bool) -> Result<(), Failure> {
    let listed = templates::cache()?.list().map_err(templates::failure)?;
    if listed.is_empty() {
        report::remark("there are no templates; `ratite template create NAME` makes one");
        return Ok(());
    }
    let text = match as_json {
        true => listed.iter().map(|entry| json(entry) + "\n").collect(),
        false => {
            let now = SystemTime::now();
            let rows: Vec<_> = listed.iter().map(|entry| row(entry, now)).collect();
            table::table(&HEAD, &rows, table::width(), Paint::of(&io::stdout()))
        }
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::output)
}

fn json(entry: &TemplateEntry) -> String {
    let known = |time: &SystemTime| seconds(*time).filter(|seconds| *seconds > 0);
    let fields = json!({
        "name": entry.name,
        "path": entry.path.to_string_lossy(),
        "made": known(&entry.made),
        "used": known(&entry.used),
        "size": entry.size,
        "qemu": Some(&entry.qemu_version).filter(|version| !version.is_empty()),
        "damage": entry.damage,
    });
    fields.to_string()
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn row(entry: &TemplateEntry, now: SystemTime) -> [String; 6] {
    let ago = |time: SystemTime| match seconds(time) {
        None | Some(0) => "-".to_owned(),
        Some(_) => table::time(now.duration_since(time).unwrap_or_default()) + " ago",
    };
    // Behind the number is who built it.
    let version = entry.qemu_version.split(' ').next().filter(|version| !version.is_empty());
    [
        entry.name.clone(),
        ago(entry.made),
        ago(entry.used),
        table::size(entry.size),
        version.unwrap_or("-").to_owned(),
        entry.damage.clone().unwrap_or_else(|| "ok".into()),
    ]
}

/// Removes what can be removed of them; the first that cannot is the failure.
async fn rm(names: &[String]) -> Result<(), Failure> {
    let cache = templates::cache()?;
    let mut outcome = Ok(());
    for name in names {
        let removed = cache.remove(name).await.map_err(|error| templates::not_removed(name, error));
        match (&outcome, removed) {
            (_, Ok(())) => {}
            (Ok(()), failed) => outcome = failed,
            (Err(_), Err(also)) => report::remark(&also.in_a_line()),
        }
    }
    outcome
}
