//! `ratite cmd`: one command, and its value on stdout.

use std::io;
use std::io::IsTerminal;
use std::io::Write;
use std::time::Duration;

use ratite::qmp::Options;
use serde_json::Value;

use crate::args::Cmd;
use crate::commands::dialogue;
use crate::commands::dialogue::Clock;
use crate::json;
use crate::language::Reader;
use crate::language::Word;
use crate::report::Failure;

/// Executes the command.
pub(crate) async fn cmd(cmd: &Cmd) -> Result<(), Failure> {
    let clock = Clock::start(cmd.timeout);
    let options = Options::default().connect_limit(Duration::MAX).command_limit(Duration::MAX);
    let client = clock.wait("QMP session", dialogue::connect(&cmd.target, options)).await??;
    let schema = clock.wait("reply to `query-qmp-schema`", dialogue::schema(&client)).await??;
    let reader = Reader { schema: schema.as_ref(), is_strict: !cmd.no_check };
    let arguments: Vec<Word> = cmd.arguments.iter().map(|argument| Word::of_argument(argument)).collect();
    let request = reader.request(&Word::of_argument(&cmd.command), &arguments).map_err(dialogue::usage)?;
    let name = &request.name;
    let executed = client.execute_text(name, &request.arguments);
    let value = clock.wait(format!("reply to `{name}`"), executed).await?.map_err(dialogue::failure)?;
    let mut stdout = io::stdout().lock();
    let shown = shown(&value, cmd.raw, cmd.pretty || stdout.is_terminal());
    writeln!(stdout, "{shown}").and_then(|()| stdout.flush()).map_err(Failure::output)
}

fn shown(value: &str, raw: bool, pretty: bool) -> String {
    match (raw, serde_json::from_str(value)) {
        // HMP ends its lines as terminals once wanted it.
        (true, Ok(Value::String(text))) => text.replace("\r\n", "\n").trim_end_matches('\n').to_owned(),
        _ if pretty => json::pretty(value),
        _ => json::one_line(value),
    }
}
