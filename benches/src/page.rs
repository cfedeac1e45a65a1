//! `docs/benchmarks.md`: the table as measured, the machine, how to repeat it.

use crate::results::ContenderResults;
use crate::results::FigureResults;
use crate::results::Results;
use crate::results::ScenarioResults;
use crate::results::Standing;
use crate::scenario::CLIENTS;
use crate::scenario::Table;
use crate::scenario::WAYS;
use crate::table::number;
use crate::table::required;

/// The page. The picture is to lie beside it.
pub(crate) fn page(results: &Results) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# Benchmarks\n\n\
         The same work done by the *floor*, which is the system calls alone that it takes, by ratite and by others. Written by\n\
         `make bench DOCS=1`; what each scenario does, line by line, is in `benches/src/scenarios`.\n\n\
         ![How many times what the floor takes, for each scenario and contender](benchmarks.svg)\n\n\
         - Measured on {}, on {} ({} cores), Linux {}, {}, {}.\n\
         - {} rounds in {} s. The contenders take turns within a round, and each sample is a process of its own.\n\
         - The floor's column has the median of its samples. The others' have the median of the rounds' ratios to the floor, and\n  \
           ✓ or ✗ where one is required; where a value is required and no ratio (memory, threads, a grace), they have that.\n  \
           \"—\" is for what a contender cannot do, or was not asked.\n\
         - `floor` is written with raw system calls; `python` is QEMU's own `qemu.machine` and `qemu.qmp`; `qapi` and `qmp` are Rust\n  \
           crates. `ratite-async` is the async face on a runtime of one thread, `ratite-async-mt` on one of several, `ratite-blocking`\n  \
           the blocking face, `ratite-python` the Python face.\n\
         - The *peer* is a program that answers as QEMU does, at once, so that the client is what is measured. Client and peer keep to\n  \
           a core each, unless the scenario says otherwise: left to the scheduler they meet on one in some samples and not in others.\n\n",
        machine.date,
        machine.processor,
        machine.cores,
        machine.kernel,
        machine.qemu,
        machine.rust,
        results.rounds,
        results.seconds
    );
    text.push_str(&lines(results, CLIENTS));
    if !present(results, WAYS).is_empty() {
        text.push_str(ABOUT_WAYS);
        text.push_str(&lines(results, WAYS));
    }
    text.push_str(&what_is_not_there(results));
    text.push_str(&how_to_repeat());
    text
}

const ABOUT_WAYS: &str = "\n## Templates\n\n\
     A test that needs a guest at its prompt, and by which way it comes to one. The guest is a Linux with a shell of busybox, under\n\
     emulation (TCG), on a `q35`; it answers when what `echo $((6*7))` prints has come on its console.\n\
     When its shell asks for the cursor's place it is told, as by a terminal: otherwise busybox waits 20 ms for that behind each line.\n\n\
     - `cold-boot` boots it; `loadvm` is QEMU's own `savevm`, restored by `-loadvm` from a qcow2 disk; `stream` a template whose RAM\n  \
       cannot be mapped and is read from a migration stream; `mapped` a template as it is meant to be; `pool` the same, from a pool\n  \
       that is full when a machine is asked for; `prepared` from such a pool whose machines have each run `echo ready` in their shell\n  \
       ahead, and then stood still. ratite drives all of them.\n\
     - Every time counts from asking for the machine. The medians of at most two rounds; a sample restores five times, and boots\n  \
       once. 32 at once are measured in one round alone: the boots take a minute.\n\
     - Memory is what Linux calls PSS, of all QEMUs, once all guests have answered: what several share is counted once.\n\n";

fn lines(results: &Results, table: Table) -> String {
    let present = present(results, table);
    let names: Vec<String> = present.iter().map(|name| format!("`{name}`")).collect();
    let mut text = format!("| scenario | figure | {} | required |\n", names.join(" | "));
    text.push_str(&format!("|---|---|{}---|\n", "--:|".repeat(present.len())));
    for scenario in results.scenarios.iter().filter(|scenario| scenario.table() == table) {
        for (place, figure) in scenario.figures.iter().enumerate() {
            let title = if place == 0 { scenario.title.as_str() } else { "" };
            let cells: Vec<String> = present.iter().map(|name| cell(scenario, figure, name)).collect();
            let line = format!(
                "| {title} | {} | {} | {} |\n",
                figure.title,
                cells.join(" | "),
                required(scenario, figure)
            );
            text.push_str(&line);
        }
    }
    text
}

/// Everybody of the table with a sample, in its order.
pub(crate) fn present(results: &Results, table: Table) -> Vec<&'static str> {
    let has_sample =
        |contender: &ContenderResults, name: &str| contender.name == name && !contender.samples.is_empty();
    let is_present = |name: &&&str| {
        let contenders = || results.scenarios.iter().flat_map(|scenario| &scenario.contenders);
        contenders().any(|contender| has_sample(contender, name))
    };
    table.iter().filter(is_present).copied().collect()
}

fn cell(scenario: &ScenarioResults, figure: &FigureResults, name: &str) -> String {
    let known = || figure.known_floor.filter(|_| name == scenario.reference()).map(number);
    let contender = scenario.contender(name);
    let standing = contender.and_then(|contender| scenario.standing(figure, contender));
    match standing {
        Some(Standing { ratio: Some(ratio), is_reached, .. })
            if name != scenario.reference() && !figure.shows_values() =>
        {
            marked(ratio, is_reached)
        }
        Some(Standing { value, is_reached, .. }) => marked(value, is_reached),
        None => known().unwrap_or_else(|| "—".to_owned()),
    }
}

fn marked(value: f64, is_reached: Option<bool>) -> String {
    match is_reached {
        Some(true) => format!("{} ✓", number(value)),
        Some(false) => format!("**{}** ✗", number(value)),
        None => number(value),
    }
}

fn what_is_not_there(results: &Results) -> String {
    let mut lines: Vec<String> = Vec::new();
    for scenario in &results.scenarios {
        for contender in &scenario.contenders {
            if let Some(why) = &contender.cannot {
                lines.push(format!("- {}: `{}` cannot: {why}.\n", scenario.title, contender.name));
            }
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\n## What somebody cannot do\n\n{}", lines.concat())
}

fn how_to_repeat() -> String {
    "\n## To repeat it\n\n\
     ```sh\n\
     make bench                        # everything, in less than fifteen minutes on two cores; prints the table\n\
     make bench ONLY=events ROUNDS=9   # scenarios by the beginnings of their names, more rounds\n\
     make bench DOCS=1                 # writes this page and its picture as well\n\
     ```\n\n\
     `target/bench/results.json` has every sample. Whatever else runs on the machine is measured too: a single process that computes\n\
     on one of two cores makes every figure worse, the floor's most. Ratios stand it better than times, and medians of more rounds\n\
     better than of few. No figure makes a run fail; a sample that counts wrong, ends badly or leaves a process behind does.\n"
        .to_owned()
}
