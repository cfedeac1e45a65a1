//! The yardstick: the same work done by ratite, by others, and by the system calls alone, and how they compare.
//!
//! `yardstick run` starts each sample as a process of its own (`yardstick sample SCENARIO CONTENDER`), so that its CPU
//! time, its memory and its threads are that contender's alone.

mod contenders;
mod floor;
mod guest;
mod hot_paths;
mod machine;
mod measure;
mod other_end;
mod page;
mod picture;
mod record;
mod results;
mod run;
mod scenario;
mod scenarios;
mod subprocess;
mod sweep;
mod table;

use std::process::ExitCode;

use crate::run::Run;
use crate::scenario::Failure;

const USAGE: &str =
    "usage: yardstick run [--rounds N] [--only SCENARIO,…] [--contenders NAME,…] [--quick] [--json FILE]
       yardstick sample SCENARIO CONTENDER
       yardstick page RESULTS FOLDER
       yardstick hot-paths [--write]
       yardstick list";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["run", options @ ..] => run(options),
        ["sample", scenario, contender] => sample(scenario, contender),
        ["page", results, folder] => page(results, folder),
        ["hot-paths"] => hot_paths::count_all(false),
        ["hot-paths", "--write"] => hot_paths::count_all(true),
        ["work", path, count] => hot_paths::work(path, count),
        ["list"] => {
            scenarios::all().for_each(|scenario| println!("{}", scenario.name));
            Ok(())
        }
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("yardstick: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what the options say, prints the table, and fails if anything broke or was left behind.
fn run(mut options: &[&str]) -> Result<(), Failure> {
    let mut run = Run { rounds: 5, only: Vec::new(), contenders: Vec::new(), is_quick: false };
    let mut json = None;
    let words = |value: &str| value.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    while let [option, rest @ ..] = options {
        options = match (*option, rest) {
            ("--quick", rest) => {
                run.is_quick = true;
                rest
            }
            (option, [value, rest @ ..]) => {
                match option {
                    "--rounds" => run.rounds = value.parse()?,
                    "--only" => run.only = words(value),
                    "--contenders" => run.contenders = words(value),
                    "--json" => json = Some(*value),
                    _ => return Err(USAGE.into()),
                }
                rest
            }
            _ => return Err(USAGE.into()),
        };
    }
    let results = run.run()?;
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_string_pretty(&results)? + "\n")?;
    }
    print!("{}", table::table(&results));
    match results.faults.len() {
        0 => Ok(()),
        count => Err(format!("{count} samples broke or left something behind").into()),
    }
}

/// Writes the page and its picture from the results of a run.
fn page(results: &str, folder: &str) -> Result<(), Failure> {
    let results = serde_json::from_str(&std::fs::read_to_string(results)?)?;
    let folder = std::path::Path::new(folder);
    std::fs::write(folder.join("benchmarks.md"), page::page(&results))?;
    std::fs::write(folder.join("benchmarks.svg"), picture::picture(&results))?;
    Ok(())
}

/// Does a scenario's work once, and prints its figures as one JSON object.
fn sample(scenario: &str, contender: &str) -> Result<(), Failure> {
    let scenario = scenarios::named(scenario).ok_or_else(|| format!("no scenario `{scenario}`"))?;
    let found = scenario.contenders.iter().find(|it| it.name == contender);
    let contender = found.ok_or_else(|| format!("`{contender}` takes no part in `{}`", scenario.name))?;
    let sample = (contender.sample)()?;
    let object: serde_json::Map<_, _> =
        sample.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    println!("{}", serde_json::Value::Object(object));
    Ok(())
}
