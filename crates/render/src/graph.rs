//! The drawing of the dependency graph: columns are waves, what is left of an arrow comes first.
//!
//! A small layered layout (after Sugiyama): columns by wave, rows by the mean row of what a box is
//! connected to, a few times to and fro, keeping the order with the fewest crossings. All in whole
//! numbers, so that the same graph always gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::order::{self, Dependencies};

/// Sweeps over the columns, to and fro. More don't help graphs of this size.
const SWEEPS: usize = 8;
/// More apps than this are drawn as one box for each wave.
const APPS_MAX: usize = 12;

const ROW: i64 = 46;
const BOX_HEIGHT: i64 = 30;
const LETTER: i64 = 8;
const PADDING: i64 = 14;
const GAP: i64 = 76;
const MARGIN: i64 = 24;
const TOP: i64 = 64;

/// A box, or the place where a line passes a column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Named(String),
    /// A line from the first to the second name, in a column.
    Passing(String, String, usize),
}

/// A graph in columns.
struct Columns {
    columns: Vec<Vec<Cell>>,
    /// Connections between a column and the next one, by column.
    links: Vec<BTreeSet<(Cell, Cell)>>,
}

/// Draws a graph. `is_app` tells the user's own apps from components.
pub(crate) fn draw(
    graph: &Dependencies,
    waves: &BTreeMap<String, usize>,
    is_app: impl Fn(&str) -> bool,
) -> String {
    let (graph, waves, apps) = gathered(graph, waves, &is_app);
    let reduced = order::reduced(&graph, &waves);
    let mut columns = Columns::new(&reduced, &waves);
    columns.untangle();
    svg(&columns, &reduced, &apps)
}

/// The same graph, with many apps taken together.
fn gathered(
    graph: &Dependencies,
    waves: &BTreeMap<String, usize>,
    is_app: impl Fn(&str) -> bool,
) -> (Dependencies, BTreeMap<String, usize>, BTreeSet<String>) {
    let apps: BTreeSet<String> = graph.keys().filter(|name| is_app(name)).cloned().collect();
    if apps.len() <= APPS_MAX {
        return (graph.clone(), waves.clone(), apps);
    }
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for name in &apps {
        *sizes
            .entry(waves.get(name).copied().unwrap_or_default())
            .or_default() += 1;
    }
    let gathered: BTreeMap<usize, String> = sizes
        .into_iter()
        .map(|(wave, size)| (wave, format!("{size} apps, wave {wave}")))
        .collect();
    let name_of = |name: &String| -> String {
        let wave = waves.get(name).copied().unwrap_or_default();
        match gathered.get(&wave) {
            Some(box_name) if apps.contains(name) => box_name.clone(),
            _ => name.clone(),
        }
    };
    let mut small = Dependencies::new();
    let mut small_waves = BTreeMap::new();
    for (name, needs) in graph {
        let wave = waves.get(name).copied().unwrap_or_default();
        let name = name_of(name);
        small_waves.insert(name.clone(), wave);
        let below = small.entry(name).or_default();
        below.extend(needs.iter().map(name_of));
    }
    (small, small_waves, gathered.into_values().collect())
}

impl Columns {
    fn new(reduced: &Dependencies, waves: &BTreeMap<String, usize>) -> Self {
        let count = waves.values().max().map_or(0, |last| last + 1);
        let mut columns: Vec<Vec<Cell>> = vec![Vec::new(); count];
        let mut links = vec![BTreeSet::new(); count];
        for (name, wave) in waves {
            if let Some(column) = columns.get_mut(*wave) {
                column.push(Cell::Named(name.clone()));
            }
        }
        for (name, needs) in reduced {
            let to = waves.get(name).copied().unwrap_or_default();
            for need in needs {
                let from = waves.get(need).copied().unwrap_or_default();
                let mut at = Cell::Named(need.clone());
                for wave in from..to {
                    let next = if wave + 1 == to {
                        Cell::Named(name.clone())
                    } else {
                        let passing = Cell::Passing(need.clone(), name.clone(), wave + 1);
                        if let Some(column) = columns.get_mut(wave + 1) {
                            column.push(passing.clone());
                        }
                        passing
                    };
                    if let Some(links) = links.get_mut(wave) {
                        links.insert((at, next.clone()));
                    }
                    at = next;
                }
            }
        }
        Self { columns, links }
    }

    /// Orders the rows so that few lines cross.
    fn untangle(&mut self) {
        let mut best = (self.crossings(), self.columns.clone());
        for sweep in 0..SWEEPS {
            let count = self.columns.len();
            for step in 1..count {
                if sweep % 2 == 0 {
                    self.arrange(step, step - 1);
                } else {
                    self.arrange(count - 1 - step, count - step);
                }
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.columns.clone());
            }
        }
        self.columns = best.1;
    }

    /// Orders a column by the mean rows of its neighbours in another.
    fn arrange(&mut self, column: usize, by: usize) {
        /// Rows are compared in thousandths, since means are no whole numbers.
        const FINE: i64 = 1000;
        let rows = self.rows(by);
        let Some(links) = self.links.get(column.min(by)) else {
            return;
        };
        let mut sums: BTreeMap<&Cell, (i64, i64)> = BTreeMap::new();
        for (left, right) in links {
            let (own, other) = if column > by {
                (right, left)
            } else {
                (left, right)
            };
            if let Some(row) = rows.get(other) {
                let (sum, count) = sums.entry(own).or_default();
                *sum += row * FINE;
                *count += 1;
            }
        }
        let sums: BTreeMap<Cell, i64> = sums
            .into_iter()
            .map(|(spot, (sum, count))| (spot.clone(), sum / count.max(1)))
            .collect();
        if let Some(column) = self.columns.get_mut(column) {
            let own: BTreeMap<Cell, i64> = column
                .iter()
                .cloned()
                .zip((0..).map(|row| row * FINE))
                .collect();
            column.sort_by_key(|spot| {
                let row = sums.get(spot).or_else(|| own.get(spot)).copied();
                (row.unwrap_or_default(), spot.clone())
            });
        }
    }

    fn rows(&self, column: usize) -> BTreeMap<Cell, i64> {
        let spots = self.columns.get(column).into_iter().flatten().cloned();
        spots.zip(0..).collect()
    }

    fn crossings(&self) -> usize {
        let mut count = 0;
        for (i, links) in self.links.iter().enumerate() {
            let (left, right) = (self.rows(i), self.rows(i + 1));
            let ends: Vec<(i64, i64)> = links
                .iter()
                .filter_map(|(from, to)| Some((*left.get(from)?, *right.get(to)?)))
                .collect();
            for (n, a) in ends.iter().enumerate() {
                let later = ends.iter().skip(n + 1);
                count += later
                    .filter(|b| (a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1))
                    .count();
            }
        }
        count
    }
}

/// Where a spot is: its left and right end and its middle.
#[derive(Debug, Clone, Copy)]
struct At {
    left: i64,
    right: i64,
    middle: i64,
}

fn width(name: &str) -> i64 {
    i64::try_from(name.chars().count()).unwrap_or(i64::MAX / 2 / LETTER) * LETTER + 2 * PADDING
}

/// Where everything is.
#[derive(Debug)]
struct Laid {
    places: BTreeMap<Cell, At>,
    /// The middle of each column.
    heads: Vec<i64>,
    across: i64,
    down: i64,
}

fn lay(graph: &Columns) -> Laid {
    let tallest = graph.columns.iter().map(Vec::len).max().unwrap_or(0);
    let rows = i64::try_from(tallest).unwrap_or(0);
    let mut places: BTreeMap<Cell, At> = BTreeMap::new();
    let mut heads: Vec<i64> = Vec::new();
    let mut x = MARGIN;
    for column in &graph.columns {
        let widest = column.iter().map(|spot| match spot {
            Cell::Named(name) => width(name),
            Cell::Passing(..) => 0,
        });
        let wide = widest.max().unwrap_or(0);
        let own = i64::try_from(column.len()).unwrap_or(0);
        let first = TOP + (rows - own) * ROW / 2 + ROW / 2;
        for (spot, row) in column.iter().zip(0..) {
            let at = At {
                left: x,
                right: x + wide,
                middle: first + row * ROW,
            };
            places.insert(spot.clone(), at);
        }
        heads.push(x + wide / 2);
        x += wide + GAP;
    }
    Laid {
        places,
        heads,
        across: x - GAP + MARGIN,
        down: TOP + rows * ROW + MARGIN,
    }
}

fn svg(graph: &Columns, reduced: &Dependencies, apps: &BTreeSet<String>) -> String {
    let laid = lay(graph);
    let mut out = head(&laid, &described(reduced));
    for (wave, x) in laid.heads.iter().enumerate() {
        let _ = writeln!(
            out,
            "<text class=\"wave\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">wave {wave}</text>",
            TOP - 24
        );
    }
    for (name, needs) in reduced {
        for need in needs {
            out.push_str(&line(&laid.places, need, name));
        }
    }
    for (spot, at) in &laid.places {
        if let Cell::Named(name) = spot {
            let class = if apps.contains(name) {
                "app"
            } else {
                "component"
            };
            let _ = writeln!(
                out,
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{BOX_HEIGHT}\" rx=\"6\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                at.left,
                at.middle - BOX_HEIGHT / 2,
                at.right - at.left,
                (at.left + at.right) / 2,
                at.middle + 5,
                escape(name),
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// The beginning of the drawing, with what it shows in words.
fn head(laid: &Laid, described: &str) -> String {
    let (across, down) = (laid.across, laid.down);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {across} {down}\" width=\"{across}\" height=\"{down}\" role=\"img\" aria-labelledby=\"title desc\">\n\
         <!-- Rendered by `undercroft render`. Don't edit. -->\n\
         <title id=\"title\">What comes before what</title>\n\
         <desc id=\"desc\">{}</desc>\n\
         <style>\n\
         text {{ font: 14px ui-sans-serif, system-ui, sans-serif; fill: #1b2733; }}\n\
         .wave {{ font-size: 12px; fill: #5b6b7a; }}\n\
         .line {{ fill: none; stroke: #7d93a8; stroke-width: 1.5; }}\n\
         .component {{ fill: #e8f1fb; stroke: #3b6ea5; }}\n\
         .app {{ fill: #edf7e9; stroke: #4d8a3d; }}\n\
         </style>\n\
         <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M0 0L8 4L0 8z\" fill=\"#7d93a8\"/></marker></defs>\n\
         <rect width=\"{across}\" height=\"{down}\" fill=\"#ffffff\"/>\n",
        escape(described),
    )
}

/// One line from a box to another, through the columns between them.
fn line(places: &BTreeMap<Cell, At>, from: &str, to: &str) -> String {
    let named = |name: &str| places.get(&Cell::Named(name.to_owned())).copied();
    let (Some(start), Some(end)) = (named(from), named(to)) else {
        return String::new();
    };
    let mut path = format!("M{} {}", start.right, start.middle);
    let mut at = (start.right, start.middle);
    let mut curve = |x: i64, y: i64| {
        let half = (at.0 + x) / 2;
        let _ = write!(path, "C{half} {} {half} {y} {x} {y}", at.1);
        at = (x, y);
    };
    let passing = |column| Cell::Passing(from.to_owned(), to.to_owned(), column);
    for (_, between) in places.range(passing(0)..=passing(usize::MAX)) {
        curve(between.left, between.middle);
        curve(between.right, between.middle);
    }
    curve(end.left, end.middle);
    format!("<path class=\"line\" marker-end=\"url(#head)\" d=\"{path}\"/>\n")
}

/// The graph as text, for those who can't see the drawing.
fn described(reduced: &Dependencies) -> String {
    let mut out = Vec::new();
    for (name, needs) in reduced {
        if !needs.is_empty() {
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            out.push(format!("{name} waits for {}.", needs.join(", ")));
        }
    }
    out.join(" ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
