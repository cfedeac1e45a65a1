//! The yardstick: the same work done by ratite, by others, and by the system calls alone, and how they compare.
//!
//! `yardstick run` starts each sample as a process of its own (`yardstick sample SCENARIO CONTENDER`), so that its CPU
//! time, its memory and its threads are that contender's alone.

mod contenders;
mod floor;
mod measure;
mod other_end;
mod scenario;
mod scenarios;

use std::process::ExitCode;

use crate::scenario::Failure;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["sample", scenario, contender] => sample(scenario, contender),
        _ => Err("usage: yardstick sample SCENARIO CONTENDER".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("yardstick: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Does a scenario's work once, and prints its figures as one JSON object.
fn sample(scenario: &str, contender: &str) -> Result<(), Failure> {
    let scenario = scenarios::named(scenario).ok_or_else(|| format!("no scenario `{scenario}`"))?;
    let found = scenario.contenders.iter().find(|it| it.name == contender);
    let contender = found.ok_or_else(|| format!("`{contender}` takes no part in `{}`", scenario.name))?;
    let sample = (contender.sample)()?;
    let object: serde_json::Map<_, _> = sample.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    println!("{}", serde_json::Value::Object(object));
    Ok(())
}
