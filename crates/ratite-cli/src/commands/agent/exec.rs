//! `ratite agent exec`: a program in the guest, as if it ran here.

use std::io;
use std::io::Write;
use std::time::Duration;

use ratite::qmp::GuestExit;
use ratite::qmp::GuestOutput;
use ratite::qmp::GuestProgram;
use serde_json::json;

use crate::args::AgentExec;
use crate::commands::agent::connect;
use crate::commands::agent::failure;
use crate::commands::unless_signalled;
use crate::input::Stdin;
use crate::output;
use crate::output::Bytes;
use crate::report;
use crate::report::Failure;
use crate::signals::Signals;

/// Runs the program, passes on what it wrote, and ends as it did.
pub(super) async fn exec(exec: AgentExec, signals: &mut Signals) -> Result<(), Failure> {
    let mut begun = false;
    let outcome = unless_signalled(signals, run(exec, &mut begun)).await;
    if begun && matches!(outcome, Err(Failure::Signal { .. })) {
        report::remark("the program runs on in the guest: an agent cannot end it");
    }
    outcome
}

async fn run(exec: AgentExec, begun: &mut bool) -> Result<(), Failure> {
    let mut words = exec.program.iter();
    let path = words.next().cloned().unwrap_or_default();
    let mut program = GuestProgram::new(&path).args(words);
    for (name, value) in &exec.env {
        program = program.env(name, value);
    }
    if exec.stdin {
        program = program.input(all_of_stdin().await?);
    }
    let agent = connect(&exec.channel.target, exec.channel.timeout).await?;
    *begun = true;
    let ended = agent.exec(&program, exec.limit.unwrap_or(Duration::MAX)).await;
    *begun = false;
    let output = ended.map_err(failure(format!("run `{path}` in the guest")))?;
    match exec.form.json {
        true => output::json(&told(&output)).map_err(Failure::output)?,
        false => pass_on(&output).await?,
    }
    check_complete(&output)?;
    match output.exit {
        GuestExit::Code(0) => Ok(()),
        exit if exec.status => Err(Failure::Guests { code: shells(exit) }),
        exit => Err(Failure::Program { path, exit }),
    }
}

async fn all_of_stdin() -> Result<Vec<u8>, Failure> {
    let mut stdin = Stdin::read().map_err(Failure::System)?;
    let mut all = Vec::new();
    while let Some(piece) = stdin.next().await.map_err(Failure::Input)? {
        all.extend(piece);
    }
    Ok(all)
}

async fn pass_on(output: &GuestOutput) -> Result<(), Failure> {
    if !output.stdout.is_empty() {
        let stdout = Bytes::to_stdout().map_err(Failure::System)?;
        if let Some(room) = stdout.room().await {
            room.send(output.stdout.clone());
        }
        stdout.finish().await.map_err(Failure::output)?;
    }
    // What was to be talk in the guest is talk here; nobody may hear it.
    let _unheard = io::stderr().lock().write_all(&output.stderr);
    Ok(())
}

fn told(output: &GuestOutput) -> serde_json::Value {
    let (code, signal) = match output.exit {
        GuestExit::Code(code) => (Some(code), None),
        GuestExit::Signal(signal) => (None, Some(signal)),
    };
    json!({
        "code": code,
        "signal": signal,
        "stdout": String::from_utf8_lossy(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
        "stdout_truncated": output.stdout_truncated,
        "stderr_truncated": output.stderr_truncated,
    })
}

fn check_complete(output: &GuestOutput) -> Result<(), Failure> {
    let lost = match (output.stdout_truncated, output.stderr_truncated) {
        (false, false) => return Ok(()),
        (true, false) => "stdout",
        (false, true) => "stderr",
        (true, true) => "stdout and stderr",
    };
    Err(Failure::Conversation {
        doing: format!("pass on all of the program's {lost}"),
        source: "an agent keeps no more than the first 16 MiB of each".into(),
        exit: None,
    })
}

/// The exit code by which a shell would tell it.
fn shells(exit: GuestExit) -> u8 {
    match exit {
        GuestExit::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        GuestExit::Signal(signal) => u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_told_as_a_shell_does() {
        let exits =
            [GuestExit::Code(3), GuestExit::Code(-1), GuestExit::Signal(9), GuestExit::Signal(3_221_225_477)];

        assert_eq!(exits.map(shells), [3, 255, 137, 255]);
    }
}
