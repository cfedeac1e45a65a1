//! The table of a run, for a terminal.

use std::fmt::Write;

use crate::results::FigureResults;
use crate::results::Results;
use crate::results::ScenarioResults;
use crate::results::Standing;
use crate::scenario::Better;
use crate::scenario::Bound;

/// The table: for each scenario a line a figure, with the first contender's value and the others' ratios to it, or
/// their values where these are what is required.
pub(crate) fn table(results: &Results) -> String {
    let mut text = String::new();
    for scenario in &results.scenarios {
        scenario_lines(scenario, &mut text);
    }
    let standings =
        || results.scenarios.iter().flat_map(all_standings).filter_map(|standing| standing.is_reached);
    let (reached, all) = (standings().filter(|reached| *reached).count(), standings().count());
    line(&mut text, &format!("{reached} of {all} requirements reached, {} s", results.seconds));
    for fault in &results.faults {
        line(&mut text, &format!("fault: {fault}"));
    }
    text
}

fn all_standings(scenario: &ScenarioResults) -> impl Iterator<Item = Standing> {
    scenario.figures.iter().flat_map(move |figure| {
        scenario.contenders.iter().filter_map(move |contender| scenario.standing(figure, contender))
    })
}

fn scenario_lines(scenario: &ScenarioResults, text: &mut String) {
    line(text, &format!("{} · {}", scenario.name, scenario.title));
    let present: Vec<_> = scenario.table().iter().filter_map(|name| scenario.contender(name)).collect();
    let mut head = format!("  {:24}", "");
    for contender in &present {
        head.push_str(&format!("{:>17}", contender.name));
    }
    line(text, &head);
    for figure in &scenario.figures {
        let mut cells = format!("  {:24}", figure.title);
        for contender in &present {
            let standing = scenario.standing(figure, contender);
            let cell = match standing {
                Some(standing) => cell(scenario, figure, &contender.name, standing),
                None if contender.cannot.is_some() => "cannot".to_owned(),
                None => "-".to_owned(),
            };
            // Signs are one column wide, whatever their bytes are.
            let _ = write!(cells, "{}{cell}", " ".repeat(17_usize.saturating_sub(cell.chars().count())));
        }
        line(text, &format!("{cells}   {}", required(scenario, figure)));
    }
    for contender in &present {
        if let Some(why) = &contender.cannot {
            line(text, &format!("  {} cannot: {why}", contender.name));
        }
    }
    text.push('\n');
}

fn cell(scenario: &ScenarioResults, figure: &FigureResults, contender: &str, standing: Standing) -> String {
    let mark = match standing.is_reached {
        Some(true) => " ✓",
        Some(false) => " ✗",
        None => "",
    };
    match standing.ratio {
        Some(ratio) if contender != scenario.reference() && !figure.shows_values() => {
            format!("{}{mark}", number(ratio))
        }
        _ => format!("{}{mark}", number(standing.value)),
    }
}

/// What is required of a figure, in words.
pub(crate) fn required(scenario: &ScenarioResults, figure: &FigureResults) -> String {
    let sign = match figure.better {
        Better::Less => '≤',
        Better::More => '≥',
    };
    let mut bounds: Vec<(String, Vec<&str>)> = Vec::new();
    for required in &figure.required {
        let bound = match required.bound {
            Bound::Ratio(ratio) if figure.shows_values() => {
                format!("{sign} {ratio} × {}", scenario.reference())
            }
            bound => format!("{sign} {bound}"),
        };
        match bounds.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, contenders)) => contenders.push(&required.contender),
            None => bounds.push((bound, vec![&required.contender])),
        }
    }
    // What is required of everybody alike needs no names.
    if let [(bound, _)] = bounds.as_slice() {
        return bound.clone();
    }
    let words: Vec<_> = bounds.iter().map(|(bound, who)| format!("{} {bound}", who.join(", "))).collect();
    words.join("; ")
}

/// Three digits that mean something.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.1} million", value / 1e6),
        size if size >= 1e3 => thousands(value),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size >= 0.01 => format!("{value:.3}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.4}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let split = digits.len() - 3;
    format!("{},{}", &digits[..split], &digits[split..])
}

fn line(text: &mut String, content: &str) {
    text.push_str(content.trim_end());
    text.push('\n');
}
