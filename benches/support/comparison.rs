//! Systems that do the same, run in turn, each run in a process of its own with a fresh directory.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::process::{Usage, usage_of_this_process};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a run found, by name.
pub type Figures = Map<String, Value>;

/// What every benchmark is told.
#[derive(clap::Args)]
pub struct RunOptions {
    /// Runs of each system (default 3; 1 when the benchmark is only tried)
    #[arg(long)]
    pub runs: Option<usize>,
    /// Small sizes and one run, to see that the benchmark works
    #[arg(long)]
    quick: bool,
    /// What cargo says when it really benchmarks
    #[arg(long, hide = true)]
    bench: bool,
    /// Run one system in this process
    #[arg(long, hide = true, requires = "store")]
    child: Option<String>,
    #[arg(long, hide = true)]
    store: Option<PathBuf>,
    /// What else the parent tells a child
    #[arg(long, hide = true)]
    told: Option<String>,
}

impl RunOptions {
    /// The one that was asked for, or the usual one, which is small when the benchmark is only tried.
    pub fn size<T>(&self, asked: Option<T>, usual: T, test: T) -> T {
        asked.unwrap_or(if self.bench && !self.quick { usual } else { test })
    }

    /// The system to run in this process and its directory, when this is a child.
    pub fn child(&self) -> Option<(&str, &Path)> {
        Some((self.child.as_deref()?, self.store.as_deref()?))
    }

    pub fn told(&self) -> Outcome<&str> {
        self.told.as_deref().ok_or_else(|| "the parent has not told".into())
    }
}

/// What is common to the lines of a benchmark.
pub struct Comparison<'a> {
    pub bench: &'a str,
    /// The baseline is the first one.
    pub systems: &'a [&'a str],
    /// What is printed in the table, of the figures of a run.
    pub columns: &'a [&'a str],
}

impl Comparison<'_> {
    /// Runs the systems in turn, as often as asked for, and prints a line of JSON for each run and a table of
    /// medians with the ratios to the baseline. Returns the runs of each system.
    pub fn run(
        &self,
        options: &RunOptions,
        measure: impl FnMut(&str, &Path) -> Outcome<Figures>,
    ) -> Outcome<Vec<Vec<Figures>>> {
        let runs = self.measure(options, measure)?;
        self.print_table(&self.medians(&runs));
        Ok(runs)
    }

    /// The same without the table.
    pub fn measure(
        &self,
        options: &RunOptions,
        mut measure: impl FnMut(&str, &Path) -> Outcome<Figures>,
    ) -> Outcome<Vec<Vec<Figures>>> {
        let mut runs: Vec<Vec<Figures>> = self.systems.iter().map(|_| Vec::new()).collect();
        for turn in 1..=options.size(options.runs, 3, 1).max(1) {
            for (system, runs) in self.systems.iter().zip(&mut runs) {
                let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
                let figures = measure(system, dir.path())?;
                let mut line = figures.clone();
                line.insert("bench".into(), self.bench.into());
                line.insert("system".into(), (*system).into());
                line.insert("run".into(), turn.into());
                println!("{}", Value::Object(line));
                runs.push(figures);
            }
        }
        Ok(runs)
    }

    /// The columns of the table for each system.
    pub fn medians(&self, runs: &[Vec<Figures>]) -> Vec<Vec<Option<f64>>> {
        runs.iter().map(|runs| self.columns.iter().map(|column| median_of(runs, column)).collect()).collect()
    }

    fn print_table(&self, medians: &[Vec<Option<f64>>]) {
        print!("\n{:<28}", "median of");
        self.columns.iter().for_each(|column| print!(" {column:>16}"));
        println!();
        let row = |name: &str, values: &[Option<f64>]| {
            print!("{name:<28}");
            values.iter().for_each(|value| match value {
                Some(value) => print!(" {value:>16.3}"),
                None => print!(" {:>16}", "-"),
            });
            println!();
        };
        for (system, values) in self.systems.iter().zip(medians) {
            row(system, values);
        }
        for (system, values) in self.systems.iter().zip(medians).skip(1) {
            let ratios: Vec<_> =
                values.iter().zip(&medians[0]).map(|(own, base)| Some((*own)? / (*base)?)).collect();
            row(&format!("{system}/{}", self.systems[0]), &ratios);
        }
    }
}

fn median_of(runs: &[Figures], column: &str) -> Option<f64> {
    median(runs.iter().filter_map(|figures| figures.get(column)?.as_f64()).collect())
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    quantile(&mut values, 0.5)
}

/// The smallest value that is not below this share of all.
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

/// A system that runs in a process of its own.
pub struct Child {
    process: std::process::Child,
    output: std::io::Lines<BufReader<std::process::ChildStdout>>,
    begun: Instant,
}

impl Child {
    /// Runs this program again with the arguments it was given, as `system`.
    pub fn spawn(system: &str, store: &Path, told: &str) -> Outcome<Self> {
        let begun = Instant::now();
        let mut process = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--child", system, "--told", told, "--store"])
            .arg(store)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("the child has no output")?;
        Ok(Child { process, output: BufReader::new(output).lines(), begun })
    }

    /// The next line that the child prints, and when it came, counted from before it was started.
    pub fn line(&mut self) -> Outcome<(String, Duration)> {
        match self.output.next().transpose()? {
            Some(line) => Ok((line, self.begun.elapsed())),
            None => Err(format!("the child has ended: {}", self.process.wait()?).into()),
        }
    }

    /// The figures that the child prints at its end.
    pub fn figures(mut self) -> Outcome<Figures> {
        let figures = serde_json::from_str(&self.line()?.0)?;
        let status = self.process.wait()?;
        if status.success() { Ok(figures) } else { Err(format!("the child failed: {status}").into()) }
    }
}

/// Measures one system in a child that needs nothing but its arguments.
pub fn measure_in_child(system: &str, dir: &Path) -> Outcome<Figures> {
    Child::spawn(system, &dir.join("store"), "")?.figures()
}

/// Adds what this process has used since `before` and prints the figures for the parent.
pub fn report(figures: Value, before: &Usage) -> Outcome<()> {
    report_until(figures, before, &usage_of_this_process()?)
}

/// The same up to a certain time.
pub fn report_until(figures: Value, before: &Usage, now: &Usage) -> Outcome<()> {
    let Value::Object(mut figures) = figures else { return Err("figures have names".into()) };
    figures.insert("cpu_seconds".into(), (now.cpu_seconds - before.cpu_seconds).into());
    figures.insert("peak_rss_mb".into(), (now.peak_rss_bytes as f64 / 1e6).into());
    figures.insert("written_mb".into(), ((now.written_bytes - before.written_bytes) as f64 / 1e6).into());
    println!("{}", Value::Object(figures));
    Ok(())
}
