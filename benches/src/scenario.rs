//! What a scenario is: its figures, what has to be reached, and who does the work.

use std::error::Error;
use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// What went wrong with a sample; the run goes on, and ends with a status other than 0.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// One kind of work, done by every contender that can.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// As given to `--only`.
    pub(crate) name: &'static str,
    /// What is done, in a line.
    pub(crate) title: &'static str,
    pub(crate) figures: &'static [Figure],
    pub(crate) contenders: &'static [Contender],
    /// Whether the samples in Python are asked for; they may say that they cannot.
    pub(crate) python: bool,
    /// So many rounds at most, where each takes long.
    pub(crate) rounds: Option<usize>,
}

/// Somebody who does a scenario's work.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Does the work once, in a process of its own, and measures it.
    pub(crate) sample: fn() -> Result<Sample, Failure>,
}

/// One of the numbers that a sample gives.
#[derive(Debug)]
pub(crate) struct Figure {
    /// Its name in the sample, ending in its unit.
    pub(crate) key: &'static str,
    /// What it is, with its unit.
    pub(crate) title: &'static str,
    pub(crate) better: Better,
    /// A floor that is known without being measured.
    pub(crate) known_floor: Option<f64>,
    /// Whether its values are looked at, and not their ratios.
    pub(crate) is_value: bool,
    pub(crate) required: &'static [Required],
}

/// In which direction a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Better {
    Less,
    More,
}

/// What a contender has to reach.
#[derive(Debug)]
pub(crate) struct Required {
    pub(crate) contender: &'static str,
    pub(crate) bound: Bound,
}

/// At most so much where less is better, at least so much where more is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    /// In relation to the floor, or to what else the others are compared with.
    Ratio(f64),
    /// In the figure's own unit.
    Value(f64),
}

/// What one sample gives: each figure by its key.
pub(crate) type Sample = Vec<(&'static str, f64)>;

/// Everybody who may take part, in the order of the columns. The others are compared with the first.
pub(crate) type Table = &'static [&'static str];

/// Who starts, drives and ends machines.
pub(crate) const CLIENTS: Table = &[
    "floor",
    "ratite-async",
    "ratite-async-mt",
    "ratite-blocking",
    "ratite-python",
    "qapi",
    "qmp",
    "python",
];

/// By which way a test comes to a guest that waits for commands.
pub(crate) const WAYS: Table = &["cold-boot", "loadvm", "stream", "mapped", "pool", "prepared"];

/// Every contender is in one of them alone.
pub(crate) const TABLES: [Table; 2] = [CLIENTS, WAYS];

impl Figure {
    /// A figure without a requirement.
    pub(crate) const fn new(key: &'static str, title: &'static str, better: Better) -> Self {
        Self { key, title, better, known_floor: None, is_value: false, required: &[] }
    }

    pub(crate) const fn required(mut self, required: &'static [Required]) -> Self {
        self.required = required;
        self
    }

    pub(crate) const fn value(mut self) -> Self {
        self.is_value = true;
        self
    }

    pub(crate) const fn known_floor(mut self, floor: f64) -> Self {
        self.known_floor = Some(floor);
        self
    }
}

impl Required {
    pub(crate) const fn ratio(contender: &'static str, ratio: f64) -> Self {
        Self { contender, bound: Bound::Ratio(ratio) }
    }

    pub(crate) const fn value(contender: &'static str, value: f64) -> Self {
        Self { contender, bound: Bound::Value(value) }
    }
}

impl Bound {
    /// Whether `value`, with `ratio` to the floor, is good enough.
    pub(crate) fn is_reached(self, better: Better, value: f64, ratio: Option<f64>) -> bool {
        let (found, bound) = match self {
            Self::Ratio(bound) => (ratio.unwrap_or(f64::NAN), bound),
            Self::Value(bound) => (value, bound),
        };
        match better {
            Better::Less => found <= bound,
            Better::More => found >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(bound) | Self::Value(bound) => write!(f, "{bound}"),
        }
    }
}
