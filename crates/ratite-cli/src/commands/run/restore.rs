//! `--from`: what is asked for around a machine of a template.

use std::path::Path;

use ratite::ExtraMonitor;
use ratite::Spawn;
use ratite::Template;
use serde_json::json;

use crate::args::Run;
use crate::commands::run::configure::timeouts;
use crate::report::Failure;

/// Refuses what would make it another machine.
pub(super) fn check(run: &Run) -> Result<(), Failure> {
    match run.settled() {
        None => Ok(()),
        Some(option) => Err(Failure::Usage {
            problem: format!(
                "with `--from` there cannot be {option}: the machine is what it was when it was frozen"
            ),
            hint: "`ratite template create` makes a template of another machine".into(),
        }),
    }
}

/// What the machine has for itself; `log` is where its console is recorded.
pub(super) fn spawn(
    run: &Run,
    name: &str,
    template: &Template,
    log: Option<&Path>,
) -> Result<Spawn, Failure> {
    let mut spawn = Spawn::new().timeouts(timeouts(run));
    match (template.consoles().next(), run.needs_console(), log) {
        (None, Some(option), _) => {
            return Err(Failure::Usage {
                problem: format!("the template `{name}` has no console to read"),
                hint: format!("it was made with `--console none`; `{option}` needs one"),
            });
        }
        (Some(console), _, Some(log)) => spawn = spawn.console_log(console, log),
        _ => {}
    }
    for path in &run.around.qmp {
        spawn = spawn.extra_monitor(ExtraMonitor::Qmp(path.clone()));
    }
    if let Some(folder) = &run.around.log_folder {
        spawn = spawn.log_folder(folder);
    }
    if let Some(name) = &run.around.name {
        spawn = spawn.name(name).reachable();
    }
    if let Some(folder) = &run.base_folder {
        spawn = spawn.base_folder(folder);
    }
    if run.ending.screenshot_on_exit.is_some() {
        // What `-no-shutdown` does at the start.
        spawn = spawn.command("set-action", json!({ "shutdown": "pause" }));
    }
    Ok(spawn)
}
