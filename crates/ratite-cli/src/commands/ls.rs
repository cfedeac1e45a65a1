//! `ratite ls`: a line for each machine that can be reached by name.

use std::io;
use std::io::Write;

use ratite::reach;
use ratite::reach::Facts;

use crate::args::Ls;
use crate::output::Paint;
use crate::report;
use crate::report::Failure;
use crate::table;
use crate::target::failure;

/// What stands above the columns.
const HEAD: [&str; 6] = ["NAME", "PID", "QEMU", "UPTIME", "STATE", "CONSOLE"];

/// Lists the machines of this user.
pub(crate) async fn ls(ls: &Ls) -> Result<(), Failure> {
    let before = reach::names().map_err(failure)?;
    let machines = reach::list().await.map_err(failure)?;
    let silent = silent(&before, &machines, &reach::names().map_err(failure)?);
    for name in &silent {
        report::remark(&format!(
            "`{name}` is there and does not answer: its program is stopped, or very busy"
        ));
    }
    if machines.is_empty() && silent.is_empty() {
        report::remark("no machine is reachable; `ratite run --name NAME` starts one that is");
    }
    if machines.is_empty() {
        return Ok(());
    }
    let text = match ls.json {
        true => machines.iter().map(|facts| json(facts) + "\n").collect(),
        false => table(&machines, table::width(), Paint::of(&io::stdout())),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// Those that were there all the while and have told nothing.
fn silent(before: &[String], told: &[Facts], after: &[String]) -> Vec<String> {
    let is_silent = |name: &&String| after.contains(name) && told.iter().all(|facts| facts.name != **name);
    before.iter().filter(is_silent).cloned().collect()
}

fn json(facts: &Facts) -> String {
    serde_json::to_string(facts).expect("strings and numbers serialise")
}

fn table(machines: &[Facts], width: usize, paint: Paint) -> String {
    let rows: Vec<[String; 6]> = machines.iter().map(row).collect();
    table::table(&HEAD, &rows, width, paint)
}

fn row(facts: &Facts) -> [String; 6] {
    let last_line = facts.consoles.first().map(|console| console.last_line.trim_end().to_owned());
    [
        facts.name.clone(),
        facts.pid.to_string(),
        facts.version.clone().unwrap_or_else(|| "-".into()),
        table::time(facts.uptime()),
        facts.state.clone(),
        last_line.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_cut_to_the_terminal() {
        let facts: Facts = serde_json::from_value(serde_json::json!({
            "name": "web", "pid": 7, "owner": 6, "binary": "q", "version": "7.2.0", "state": "running",
            "uptime_ms": 61_000, "work_folder": "/w", "log_file": "/l", "command_line": "q", "qmp": "/q",
            "consoles": [{"name": "serial0", "bytes": 9, "last_line": "login: "}],
        }))
        .unwrap();

        let whole = table(std::slice::from_ref(&facts), usize::MAX, Paint::NONE);
        let cut = table(&[facts], 10, Paint::NONE);

        assert_eq!(
            whole,
            "NAME  PID  QEMU   UPTIME  STATE    CONSOLE\nweb   7    7.2.0  1m01s   running  login:\n"
        );
        assert_eq!(cut, "NAME  PID \nweb   7   \n");
    }
}
