//! What a run has found, as it is written to a file and read again for the page.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::machine::Machine;
use crate::scenario::Better;
use crate::scenario::Bound;
use crate::scenario::CLIENTS;
use crate::scenario::Scenario;
use crate::scenario::TABLES;
use crate::scenario::Table;
use crate::subprocess::Taken;

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    /// How long it took.
    pub(crate) seconds: u64,
    pub(crate) scenarios: Vec<ScenarioResults>,
    /// What went wrong: broken samples, processes that were left behind.
    pub(crate) faults: Vec<String>,
}

/// A scenario, with what is required, and all of its samples.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ScenarioResults {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) figures: Vec<FigureResults>,
    pub(crate) contenders: Vec<ContenderResults>,
}

/// A figure, and what is required of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FigureResults {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) better: Better,
    pub(crate) known_floor: Option<f64>,
    #[serde(default)]
    pub(crate) is_value: bool,
    pub(crate) required: Vec<RequiredResults>,
}

/// A requirement of one contender.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequiredResults {
    pub(crate) contender: String,
    pub(crate) bound: Bound,
}

/// The samples of one contender.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContenderResults {
    pub(crate) name: String,
    /// Why it takes no part.
    pub(crate) cannot: Option<String>,
    /// A sample a round, in their order; none for one that broke.
    pub(crate) samples: Vec<Option<BTreeMap<String, f64>>>,
}

/// How a contender does by one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Standing {
    /// The median.
    pub(crate) value: f64,
    /// The median of the rounds' ratios to the floor, or to what else the table compares with.
    pub(crate) ratio: Option<f64>,
    /// Whether what is required is reached; `None` if nothing is.
    pub(crate) is_reached: Option<bool>,
}

impl FigureResults {
    /// Whether its values are what is looked at, and not their ratios: that is what is required of it.
    pub(crate) fn shows_values(&self) -> bool {
        self.is_value || self.required.iter().any(|required| matches!(required.bound, Bound::Value(_)))
    }
}

impl Results {
    pub(crate) fn new(machine: Machine, rounds: usize) -> Self {
        Self { machine, rounds, seconds: 0, scenarios: Vec::new(), faults: Vec::new() }
    }
}

impl ScenarioResults {
    /// The table in which it has its lines.
    pub(crate) fn table(&self) -> Table {
        let has = |table: &Table| self.contenders.iter().any(|it| table.contains(&it.name.as_str()));
        TABLES.into_iter().find(has).unwrap_or(CLIENTS)
    }

    /// Whom the others are compared with.
    pub(crate) fn reference(&self) -> &'static str {
        self.table()[0]
    }

    pub(crate) fn contender(&self, name: &str) -> Option<&ContenderResults> {
        self.contenders.iter().find(|contender| contender.name == name)
    }

    /// How `contender` does by `figure`; `None` if it has no sample with it.
    pub(crate) fn standing(&self, figure: &FigureResults, contender: &ContenderResults) -> Option<Standing> {
        let value =
            median(contender.samples.iter().flatten().filter_map(|sample| sample.get(&figure.key).copied()))?;
        let ratio = self.ratio(figure, contender);
        let required = figure.required.iter().find(|required| required.contender == contender.name);
        let is_reached = required.map(|required| required.bound.is_reached(figure.better, value, ratio));
        Some(Standing { value, ratio, is_reached })
    }

    fn ratio(&self, figure: &FigureResults, contender: &ContenderResults) -> Option<f64> {
        let reference = self.contender(self.reference());
        let rounds = contender.samples.iter().enumerate().filter_map(|(round, sample)| {
            let value = sample.as_ref()?.get(&figure.key)?;
            let measured = || reference?.samples.get(round)?.as_ref()?.get(&figure.key).copied();
            // Where the floor needs nothing at all there is no ratio to it.
            Some(value / figure.known_floor.or_else(measured)?).filter(|ratio| ratio.is_finite())
        });
        median(rounds)
    }
}

impl ContenderResults {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), cannot: None, samples: Vec::new() }
    }

    /// Takes in what a sample gave: nothing for one that broke.
    pub(crate) fn add(&mut self, taken: Option<Taken>) {
        match taken {
            Some(Taken::Figures(figures)) => self.samples.push(Some(figures)),
            Some(Taken::Cannot(why)) => self.cannot = Some(why),
            None => self.samples.push(None),
        }
    }
}

impl From<&Scenario> for ScenarioResults {
    fn from(scenario: &Scenario) -> Self {
        let figures = scenario.figures.iter().map(|figure| FigureResults {
            key: figure.key.to_owned(),
            title: figure.title.to_owned(),
            better: figure.better,
            known_floor: figure.known_floor,
            is_value: figure.is_value,
            required: figure
                .required
                .iter()
                .map(|required| RequiredResults {
                    contender: required.contender.to_owned(),
                    bound: required.bound,
                })
                .collect(),
        });
        Self {
            name: scenario.name.to_owned(),
            title: scenario.title.to_owned(),
            figures: figures.collect(),
            contenders: Vec::new(),
        }
    }
}

/// The middle one, or what lies between the two in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}
