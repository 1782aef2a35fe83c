//! Curves that should stay straight: what a record costs as the work grows in one direction.
//!
//! ```text
//! cargo bench --bench scaling -- [--curve keys] [--runs 1] [--quick] [--plot FILE]
//! ```
//!
//! | curve | what grows | what is measured |
//! | --- | --- | --- |
//! | `threads` | compute threads, 1 and 2 | counting 100,000 keys, batches of 500,000 records; counting the words of 50,000 lines a batch |
//! | `keys` | keys in state, 100,000 to 30,000,000 | 10,000 changes a batch anywhere in them, beside a hash map by hand that does the same |
//! | `interval` | the time between batches, 1 ms to 10 s, at 200,000 records in a second | counting 10,000 keys |
//! | `window` | batches in a window, 10 to 1,000 | sums of 1,000 keys, taking away what leaves the window |
//! | `window-merged` | the same | the same, merged from partial aggregates |
//! | `operators` | `map`s in a chain, 1 to 200 | a record and operator |
//! | `states` | operators with state on one stream, 1 to 200 | a record and operator, counting 10,000 keys |
//! | `retained` | checkpoints that are kept, 2 to 100, of 100,000 keys, one after each batch | 1,000 changes a batch; a restart |
//!
//! Each point is a process of its own with a fresh store below `target`. The job is durable, with a checkpoint every 10
//! batches unless said; its clock is turned by hand, so that batches come one after the other. `of_first` is the cost in CPU
//! time against that of the curve's first point.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "../support/comparison.rs"]
mod comparison;
mod curves;
#[path = "../support/numbers.rs"]
mod numbers;
#[path = "../support/plot.rs"]
mod plot;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/pseudo_text.rs"]
mod pseudo_text;

use std::path::Path;

use clap::Parser;

use comparison::{Child, Comparison, Figures, Outcome, RunOptions};
use curves::{CURVES, Curve};
use plot::{Chart, Line, PlotOptions};

#[derive(Parser)]
struct Arguments {
    /// Which curves (default: all)
    #[arg(long)]
    curve: Vec<String>,
    /// Which points of them (default: all)
    #[arg(long)]
    at: Vec<u64>,
    #[command(flatten)]
    plot: PlotOptions,
    #[command(flatten)]
    run: RunOptions,
}

/// What a point came to, column by column.
type Row = (u64, Vec<Option<f64>>);

/// Measures the points of a curve with one system.
fn measure(curve: &Curve, system: &str, points: &[u64], run: &RunOptions) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for at in points {
        let comparison = Comparison { bench: "scaling", systems: &[system], columns: curve.columns };
        let spawn = |system: &str, dir: &Path| -> Outcome<Figures> {
            let told = format!("{} {at}", curve.name);
            let mut figures = Child::spawn(system, &dir.join("store"), &told)?.figures()?;
            figures.insert("curve".into(), curve.name.into());
            figures.insert("at".into(), (*at).into());
            Ok(figures)
        };
        let runs = comparison.measure(run, spawn)?;
        rows.extend(comparison.medians(&runs).into_iter().map(|medians| (*at, medians)));
    }
    Ok(rows)
}

/// What the points of a curve cost against its first.
fn of_first(rows: &[Row]) -> Vec<(u64, Option<f64>)> {
    let first = rows.first().and_then(|(_, medians)| medians[0]);
    rows.iter().map(|(at, medians)| (*at, medians[0].zip(first).map(|(cost, first)| cost / first))).collect()
}

fn print_table(curve: &Curve, system: &str, rows: &[Row]) {
    print!("\n{:>16}", format!("{} {}", curve.name, system.replace("millpond", "")));
    curve.columns.iter().for_each(|column| print!(" {column:>18}"));
    println!(" {:>10}", "of_first");
    for ((at, medians), (_, ratio)) in rows.iter().zip(of_first(rows)) {
        print!("{at:>16}");
        for value in medians {
            print!(" {:>18}", value.map_or("-".to_owned(), |value| format!("{value:.2}")));
        }
        println!(" {:>10}", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
    }
}

fn main() -> Outcome<()> {
    let mut arguments = Arguments::parse();
    arguments.run.runs.get_or_insert(1);
    let run = &arguments.run;
    if let Some((system, store)) = run.child() {
        let (name, at) = run.told()?.split_once(' ').ok_or("a curve and a point of it")?;
        return curves::run(name, at.parse()?, system, store, run.size(None, false, true));
    }
    let mut charts = Vec::new();
    let is_asked =
        |curve: &&Curve| arguments.curve.is_empty() || arguments.curve.iter().any(|name| name == curve.name);
    for curve in CURVES.iter().filter(is_asked) {
        let points = run.size(None, curve.points, curve.quick);
        let is_asked = |at: &u64| arguments.at.is_empty() || arguments.at.contains(at);
        let points: Vec<u64> = points.iter().copied().filter(is_asked).collect();
        let mut chart = Chart::new(curve.name, curve.what, "CPU time per record, 1 = first point");
        for system in curve.systems {
            let rows = measure(curve, system, &points, run)?;
            print_table(curve, system, &rows);
            let points = of_first(&rows).into_iter();
            let points = points
                .filter_map(|(at, ratio)| Some((at as f64, ratio.filter(|ratio| ratio.is_finite())?)))
                .collect();
            chart.lines.push(Line { name: (*system).to_owned(), points });
        }
        charts.push(chart.with_log_x());
    }
    arguments.plot.draw(&charts)
}
