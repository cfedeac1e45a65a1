//! Runs a mix of launches, commands, floods, kills and faults on many machines at once, and counts what is lost or left.
//!
//! `soak [--seconds N] [--machines N] [--seed N]`. Prints what it did, and exits with 1 unless nothing was lost and nothing
//! is left.

mod acts;
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use ratite_tests::orphans::Allowed;
use ratite_tests::orphans::Footprint;
use ratite_tests::scenario::Stage;
use tokio::task::JoinSet;

use crate::acts::Dice;
use crate::tally::Tally;

struct Plan {
    time: Duration,
    machines: u64,
    seed: u64,
}

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(fault) => return finish(&fault, ExitCode::from(2)),
    };
    let stage = Arc::new(Stage::empty());
    // The runtime's own descriptors, and what the first machine makes for the whole program, are no leak.
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(&format!("no runtime: {error}"), ExitCode::FAILURE),
    };
    let tally = Arc::new(Tally::default());
    runtime.block_on(acts::quiet(&stage, &tally));
    let footprint = Footprint::take().folder(stage.base()).allowing(Allowed::default());
    let start = Instant::now();

    runtime.block_on(play(&plan, &stage, &tally));

    let took = start.elapsed();
    let left = settled(&footprint);
    let clean = tally.is_clean() && left.is_empty();
    let text = format!(
        "{}\nleft behind: {}",
        tally.report(took, plan.machines),
        if left.is_empty() { "nothing" } else { &left }
    );
    finish(&text, if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plays one act after the other on each machine, until the time is over.
async fn play(plan: &Plan, stage: &Arc<Stage>, tally: &Arc<Tally>) {
    let end = Instant::now() + plan.time;
    let mut players = JoinSet::new();
    for player in 0..plan.machines {
        let (stage, tally) = (stage.clone(), tally.clone());
        let mut dice = Dice::new(plan.seed.wrapping_add(player));
        players.spawn(async move {
            while Instant::now() < end {
                acts::any(&stage, &tally, &mut dice).await;
            }
        });
    }
    for outcome in players.join_all_or_faults().await {
        tally.lost(&format!("a player ended early: {outcome}"));
    }
}

/// A set of tasks, and how those ended that did not end well.
trait JoinAll {
    async fn join_all_or_faults(self) -> Vec<String>;
}

impl JoinAll for JoinSet<()> {
    async fn join_all_or_faults(mut self) -> Vec<String> {
        let mut faults = Vec::new();
        while let Some(outcome) = self.join_next().await {
            faults.extend(outcome.err().map(|error| error.to_string()));
        }
        faults
    }
}

/// What is left once everything had five seconds to go; empty if nothing is.
fn settled(footprint: &Footprint) -> String {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = footprint.left();
        if left.is_empty() {
            return String::new();
        }
        if Instant::now() > deadline {
            return left.to_string();
        }
        std::thread::yield_now();
    }
}

fn plan(mut words: impl Iterator<Item = String>) -> Result<Plan, String> {
    let mut plan = Plan { time: Duration::from_secs(60), machines: 32, seed: 1 };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
        let number: u64 = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
        match word.as_str() {
            "--seconds" => plan.time = Duration::from_secs(number),
            "--machines" => plan.machines = number,
            "--seed" => plan.seed = number,
            _ => return Err(format!("there is no option `{word}`")),
        }
    }
    Ok(plan)
}

#[expect(clippy::print_stdout, reason = "this program's output is its purpose")]
fn finish(text: &str, code: ExitCode) -> ExitCode {
    println!("{text}");
    code
}
