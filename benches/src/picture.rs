//! `docs/benchmarks.svg`: a bar for each contender in each scenario, as long as what it takes in relation to the floor.
//!
//! The scale is logarithmic. Where more is better the ratio is turned round, so that shorter is better everywhere. There is no
//! background, and the greys are in the middle between black and white: it is read on light pages and on dark ones.

use std::fmt::Write;

use crate::page::present;
use crate::results::FigureResults;
use crate::results::Results;
use crate::results::ScenarioResults;
use crate::scenario::Better;
use crate::scenario::Bound;
use crate::scenario::CLIENTS;
use crate::table::number;

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 14.0;
const GUTTER: f64 = 36.0;
const COLUMN: f64 = (WIDTH - 2.0 * MARGIN - GUTTER) / 2.0;
/// Where the bars end at most; behind them stands the number.
const BARS: f64 = COLUMN - 44.0;
const BAR: f64 = 10.0;
const TITLE: f64 = 19.0;
const GAP: f64 = 15.0;
const LEGEND: f64 = 58.0;

/// The contenders' colours: ratite's faces are of one kind, and every one has a middle lightness.
const COLOURS: [(&str, &str); 7] = [
    ("ratite-async", "#1a7fd4"),
    ("ratite-async-mt", "#4ba3ea"),
    ("ratite-blocking", "#12a594"),
    ("ratite-python", "#5ac8b8"),
    ("qapi", "#e5892b"),
    ("qmp", "#c4602d"),
    ("python", "#9b7fc2"),
];

/// Text and lines.
const GREY: &str = "#768390";

/// The bars of one scenario.
struct Group {
    title: String,
    /// What the floor takes, with its unit.
    floor: String,
    bars: Vec<Bar>,
}

struct Bar {
    colour: &'static str,
    /// How many times the floor.
    times: f64,
    required: Option<f64>,
}

/// A logarithmic scale, from `least` to `most` times the floor.
struct Scale {
    least: f64,
    most: f64,
}

impl Scale {
    fn of(groups: &[Group]) -> Self {
        let times = || groups.iter().flat_map(|group| &group.bars).map(|bar| bar.times);
        let least = times().fold(0.9, f64::min);
        let most = times().fold(10.0, f64::max);
        Self { least, most }
    }

    /// What is marked on it.
    fn powers(&self) -> impl Iterator<Item = f64> {
        [1.0, 10.0, 100.0, 1000.0, 10_000.0].into_iter().filter(|power| *power <= self.most)
    }

    fn x(&self, times: f64) -> f64 {
        (times / self.least).ln() / (self.most / self.least).ln() * BARS
    }
}

impl Group {
    /// By the scenario's first figure; `None` if nobody has a ratio.
    fn of(scenario: &ScenarioResults) -> Option<Self> {
        let figure = scenario.figures.first().filter(|figure| !figure.shows_values())?;
        let bars: Vec<Bar> =
            COLOURS.iter().filter_map(|(name, colour)| Bar::of(scenario, figure, name, colour)).collect();
        let floor = scenario.contender("floor").and_then(|floor| scenario.standing(figure, floor));
        let floor = floor.map(|standing| standing.value).or(figure.known_floor)?;
        let floor = format!("floor: {} {}", number(floor), figure.title);
        (!bars.is_empty()).then(|| Self { title: shortened(&scenario.title), floor, bars })
    }

    fn height(&self) -> f64 {
        TITLE + BAR * self.bars.len() as f64 + GAP
    }
}

impl Bar {
    fn of(
        scenario: &ScenarioResults,
        figure: &FigureResults,
        name: &str,
        colour: &'static str,
    ) -> Option<Self> {
        let turned = |ratio: f64| if figure.better == Better::Less { ratio } else { 1.0 / ratio };
        let standing = scenario.standing(figure, scenario.contender(name)?)?;
        let ratio = standing.ratio?;
        let times = turned(ratio);
        let required = figure.required.iter().find(|required| required.contender == name);
        let required = required.map(|required| match required.bound {
            Bound::Ratio(bound) => turned(bound),
            Bound::Value(bound) => turned(ratio * bound / standing.value),
        });
        Some(Self { colour, times, required }).filter(|bar| bar.times.is_finite() && bar.times > 0.0)
    }
}

/// The picture, as an SVG file.
pub(crate) fn picture(results: &Results) -> String {
    let groups: Vec<Group> = results.scenarios.iter().filter_map(Group::of).collect();
    let scale = Scale::of(&groups);
    let all: f64 = groups.iter().map(Group::height).sum();
    let mut columns: [Vec<&Group>; 2] = [Vec::new(), Vec::new()];
    let mut above = 0.0;
    for group in &groups {
        columns[usize::from(above + group.height() / 2.0 > all / 2.0)].push(group);
        above += group.height();
    }
    let tallest = columns
        .iter()
        .map(|column| column.iter().map(|group| group.height()).sum::<f64>())
        .fold(0.0, f64::max);
    let height = LEGEND + tallest + 16.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\">\n\
         <title>How many times what the floor takes: shorter is better, and the scale is logarithmic</title>\n"
    );
    legend(results, &mut svg);
    for (place, column) in columns.iter().enumerate() {
        let left = MARGIN + place as f64 * (COLUMN + GUTTER);
        draw_column(column, left, &scale, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(results: &Results, svg: &mut String) {
    let heading = "Times what the floor takes · shorter is better · logarithmic";
    text(svg, (MARGIN, 20.0), "13.5\" font-weight=\"600", heading);
    let mut x = MARGIN;
    let present = present(results, CLIENTS);
    for (name, colour) in COLOURS.iter().filter(|(name, _)| present.contains(name)) {
        rectangle(svg, (x, 32.0), (10.0, 10.0), colour);
        text(svg, (x + 15.0, 41.0), "12", name);
        x += 15.0 + 6.5 * name.len() as f64 + 18.0;
    }
    tick(svg, x + 2.0, 31.0, 12.0);
    text(svg, (x + 10.0, 41.0), "12", "required");
}

fn draw_column(groups: &[&Group], left: f64, scale: &Scale, svg: &mut String) {
    let mut y = LEGEND;
    for group in groups {
        draw_grid(left, (y + TITLE - 3.0, y + group.height() - GAP + 2.0), scale, svg);
        draw_group(group, left, y, scale, svg);
        y += group.height();
    }
    for power in scale.powers() {
        let label = if power == 1.0 { "floor".to_owned() } else { format!("{power}×") };
        let x = left + scale.x(power);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"{GREY}\" text-anchor=\"middle\">{label}</text>",
            y + 6.0
        );
    }
}

fn draw_grid(left: f64, (top, bottom): (f64, f64), scale: &Scale, svg: &mut String) {
    for power in scale.powers() {
        let x = left + scale.x(power);
        let strength = if power == 1.0 { "0.9" } else { "0.25" };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{GREY}\" stroke-opacity=\"{strength}\"/>"
        );
    }
}

fn draw_group(group: &Group, left: f64, top: f64, scale: &Scale, svg: &mut String) {
    text(svg, (left, top + 12.0), "11.5\" font-weight=\"600", &group.title);
    let right = left + COLUMN;
    let _ = writeln!(
        svg,
        "<text x=\"{right:.1}\" y=\"{:.1}\" font-size=\"10\" fill=\"{GREY}\" text-anchor=\"end\">{}</text>",
        top + 12.0,
        escaped(&group.floor)
    );
    let floor = scale.x(1.0);
    for (place, bar) in group.bars.iter().enumerate() {
        let y = top + TITLE + BAR * place as f64;
        let end = scale.x(bar.times);
        let (from, to) = (floor.min(end), floor.max(end).max(floor + 1.5));
        rectangle(svg, (left + from, y), (to - from, BAR - 2.0), bar.colour);
        if let Some(required) = bar.required {
            tick(svg, left + scale.x(required), y - 1.0, BAR);
        }
        let behind = bar.required.map_or(to, |required| to.max(scale.x(required)));
        text(svg, (left + behind + 4.0, y + BAR - 2.6), "9", &format!("{}×", number(bar.times)));
    }
}

fn rectangle(svg: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1\" fill=\"{colour}\"/>"
    );
}

/// What is required, as a line across a bar.
fn tick(svg: &mut String, x: f64, y: f64, height: f64) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#d63864\" stroke-width=\"2\"/>",
        y + height
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), size: &str, content: &str) {
    let content = escaped(content);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{GREY}\">{content}</text>"
    );
}

/// A title that leaves room for the floor's value beside it.
fn shortened(title: &str) -> String {
    match title.char_indices().nth(LONGEST_TITLE) {
        Some((end, _)) => format!("{}…", title[..end].trim_end_matches([' ', ','])),
        None => title.to_owned(),
    }
}

const LONGEST_TITLE: usize = 50;

fn escaped(content: &str) -> String {
    content.replace('&', "&amp;").replace('<', "&lt;")
}
