//! The scenarios. A new one is a file here, its `mod` line, and its line in [`all`].

mod console;
mod events;
mod flood;
mod hung;
mod in_flight;
mod launches;
mod many;
mod replies;
mod round_trip;
mod spawns;
mod templates;

use crate::scenario::Scenario;

/// Every scenario, in the order of the table.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        launches::SCENARIOS,
        round_trip::SCENARIOS,
        replies::SCENARIOS,
        in_flight::SCENARIOS,
        events::SCENARIOS,
        flood::SCENARIOS,
        console::SCENARIOS,
        many::SCENARIOS,
        hung::SCENARIOS,
        templates::SCENARIOS,
        spawns::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// The scenario called `name`.
pub(crate) fn named(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}
