//! A run: every scenario by every contender, several rounds, each sample a process of its own.
//!
//! The contenders take turns within a round, so that what disturbs the machine for a while disturbs all of them.

use std::path::PathBuf;
use std::time::Instant;

use crate::guest;
use crate::machine::Machine;
use crate::other_end;
use crate::record;
use crate::results::ContenderResults;
use crate::results::Results;
use crate::results::ScenarioResults;
use crate::scenario::Failure;
use crate::scenario::Scenario;
use crate::scenario::TABLES;
use crate::scenarios;
use crate::subprocess::Program;
use crate::subprocess::Taken;
use crate::sweep;

/// What a run is to do.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rounds: usize,
    /// The scenarios to run, by the beginnings of their names; all if there are none.
    pub(crate) only: Vec<String>,
    /// The contenders that take part beside those whom they are compared with; all if there are none.
    pub(crate) contenders: Vec<String>,
    /// Short samples, to see that everything works.
    pub(crate) is_quick: bool,
}

/// The contenders in Python.
const PYTHON: [&str; 2] = ["ratite-python", "python"];

/// Who takes part in a scenario, and how.
type Order = Vec<(&'static str, Program)>;

/// A scenario of this run.
struct Turn {
    order: Order,
    rounds: usize,
}

impl Run {
    /// Runs everything and returns what came of it; what went wrong stands in it.
    pub(crate) fn run(&self) -> Result<Results, Failure> {
        sweep::adopt_orphans()?;
        // Templates are made once a run, and go with it.
        let templates = guest::temporary_folder()?;
        let mut environment = vec![
            ("YARDSTICK_PEER", other_end::peer_program()?),
            ("YARDSTICK_REPLY", record::record()?),
            (guest::FOLDER, templates.path().to_owned()),
        ];
        if self.is_quick {
            environment.push(("YARDSTICK_QUICK", PathBuf::from("1")));
        }
        let mut results = Results::new(Machine::look(), self.rounds);
        let turns = self.turns(&mut results);
        if turns.is_empty() {
            return Err(format!("no scenario begins with {}", self.only.join(" or ")).into());
        }
        let start = Instant::now();
        for round in 0..self.rounds {
            let is_due = |(_, turn): &(usize, &Turn)| round < turn.rounds;
            for (place, turn) in turns.iter().enumerate().filter(is_due) {
                let scenario = &mut results.scenarios[place];
                eprintln!(
                    "{:4} s · round {} of {} · {}",
                    start.elapsed().as_secs(),
                    round + 1,
                    self.rounds,
                    scenario.name
                );
                take_turn(&turn.order, round, scenario, &mut results.faults, &environment);
            }
        }
        results.seconds = start.elapsed().as_secs();
        Ok(results)
    }

    fn turns(&self, results: &mut Results) -> Vec<Turn> {
        let is_wanted = |scenario: &&Scenario| {
            self.only.is_empty() || self.only.iter().any(|word| scenario.name.starts_with(word.as_str()))
        };
        let mut turns = Vec::new();
        for scenario in scenarios::all().filter(is_wanted) {
            let mut entry = ScenarioResults::from(scenario);
            let in_rust = scenario.contenders.iter().map(|contender| (contender.name, Program::Rust));
            let python = Program::python().filter(|_| scenario.python);
            let in_python = python.iter().flat_map(|python| PYTHON.map(|name| (name, python.clone())));
            let order: Order =
                in_rust.chain(in_python).filter(|(contender, _)| self.takes_part(contender)).collect();
            entry.contenders.extend(order.iter().map(|(contender, _)| ContenderResults::new(contender)));
            results.scenarios.push(entry);
            turns.push(Turn {
                order,
                rounds: scenario.rounds.map_or(self.rounds, |most| self.rounds.min(most)),
            });
        }
        turns
    }

    fn takes_part(&self, contender: &str) -> bool {
        TABLES.iter().any(|table| table[0] == contender)
            || self.contenders.is_empty()
            || self.contenders.iter().any(|word| word == contender)
    }
}

/// Takes a sample of everybody who can, each round beginning with another one.
fn take_turn(
    turn: &Order,
    round: usize,
    scenario: &mut ScenarioResults,
    faults: &mut Vec<String>,
    environment: &[(&'static str, PathBuf)],
) {
    for place in 0..turn.len() {
        let place = (place + round) % turn.len();
        let (contender, program) = &turn[place];
        if scenario.contenders[place].cannot.is_some() {
            continue;
        }
        let taken = program.take(&scenario.name, contender, environment);
        let what = format!("{} by {contender}, round {}", scenario.name, round + 1);
        let left = sweep::sweep();
        if !left.is_empty() {
            faults.push(format!("{what}: left behind and killed: {}", left.join(", ")));
        }
        let taken: Option<Taken> = taken.map_err(|failure| faults.push(format!("{what}: {failure}"))).ok();
        scenario.contenders[place].add(taken);
    }
}
