//! Plots of what was measured, as SVG.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::error::Error;
use std::path::PathBuf;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Axes<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The size of one chart.
const WIDTH: u32 = 520;
const HEIGHT: u32 = 340;

/// One for each system, the baseline first, dark enough for white paper and told apart by everybody.
const COLOURS: [RGBColor; 4] =
    [RGBColor(120, 120, 120), RGBColor(0, 90, 180), RGBColor(200, 80, 0), RGBColor(0, 130, 90)];

/// Where a benchmark is to draw what it measured.
#[derive(clap::Args)]
pub struct PlotOptions {
    /// Draw this run's figures into a file (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// The points of one system.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

pub struct Chart {
    title: String,
    x: String,
    y: String,
    pub lines: Vec<Line>,
    has_log_x: bool,
    /// What is beside each other on the horizontal axis: the points then are numbered by it, and drawn as bars.
    groups: Vec<String>,
}

impl Chart {
    pub fn new(title: &str, x: &str, y: &str) -> Self {
        let [title, x, y] = [title, x, y].map(str::to_owned);
        Chart { title, x, y, lines: Vec::new(), has_log_x: false, groups: Vec::new() }
    }

    pub fn with_log_x(mut self) -> Self {
        self.has_log_x = true;
        self
    }

    /// A chart of bars: for each group, the values of the systems.
    pub fn of_bars(title: &str, y: &str, systems: &[&str], groups: Vec<(String, Vec<f64>)>) -> Self {
        let mut chart = Chart::new(title, "", y);
        for (system, name) in systems.iter().enumerate() {
            let values = groups.iter().enumerate().map(|(group, (_, values))| (group as f64, values[system]));
            chart.lines.push(Line { name: (*name).to_owned(), points: values.collect() });
        }
        chart.groups = groups.into_iter().map(|(name, _)| name).collect();
        chart
    }

    /// Grey is the baseline's.
    fn colours(&self) -> impl Iterator<Item = &'static RGBColor> + use<> {
        COLOURS.iter().cycle().skip(usize::from(self.lines.len() == 1))
    }

    fn x_of(&self, x: f64) -> f64 {
        if self.has_log_x { x.log10() } else { x }
    }

    fn draw(&self, area: &Area<'_>) -> Outcome<()> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let y_max = points().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max);
        // Bars leave room for the names of the systems.
        let y_max = y_max * if self.groups.is_empty() { 1.15 } else { 1.4 };
        let xs = points().map(|point| self.x_of(point.0));
        let (x_min, x_max) = xs.fold((f64::MAX, f64::MIN), |(min, max), x| (min.min(x), max.max(x)));
        let groups = self.groups.len() as f64;
        let (xs, ys) = match groups {
            0.0 => (x_min..x_max.max(x_min + 1e-9), 0.0..y_max),
            _ => (0.0..groups, -0.1 * y_max..y_max),
        };
        let mut axes = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(38)
            .y_label_area_size(56)
            .build_cartesian_2d(xs, ys)?;
        let x_text = |x: &f64| short(if self.has_log_x { 10_f64.powf(*x) } else { *x });
        let y_text = |y: &f64| if *y < 0.0 { String::new() } else { short(*y) };
        let mut mesh = axes.configure_mesh();
        mesh.x_desc(&self.x).y_desc(&self.y).x_label_formatter(&x_text).y_label_formatter(&y_text);
        mesh.light_line_style(TRANSPARENT).x_labels(if self.groups.is_empty() { 6 } else { 0 });
        mesh.draw()?;
        if self.groups.is_empty() {
            self.draw_lines(&mut axes)?
        } else {
            self.draw_bars(&mut axes, y_max)?
        }
        let mut labels = axes.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
        Ok(())
    }

    fn draw_lines(&self, axes: &mut Axes<'_, '_>) -> Outcome<()> {
        for (line, colour) in self.lines.iter().zip(self.colours()) {
            let points: Vec<_> = line.points.iter().map(|(x, y)| (self.x_of(*x), *y)).collect();
            axes.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
                .label(&line.name)
                .legend(|(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
            if points.len() < 20 {
                axes.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
            }
        }
        Ok(())
    }

    fn draw_bars(&self, axes: &mut Axes<'_, '_>, y_max: f64) -> Outcome<()> {
        let width = 0.8 / self.lines.len() as f64;
        let text = ("sans-serif", 12).into_font().into_text_style(axes.plotting_area());
        let text = text.pos(Pos::new(HPos::Center, VPos::Bottom));
        for (index, (line, colour)) in self.lines.iter().zip(self.colours()).enumerate() {
            let start = |group: f64| group + 0.1 + width * index as f64;
            let bars = line.points.iter().map(|(group, value)| {
                let corners = [(start(*group), 0.0), (start(*group) + width * 0.95, *value)];
                Rectangle::new(corners, colour.filled())
            });
            axes.draw_series(bars)?
                .label(&line.name)
                .legend(|(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
            let values = line.points.iter();
            axes.draw_series(values.map(|(group, value)| {
                Text::new(short(*value), (start(*group) + width / 2.0, value + 0.01 * y_max), text.clone())
            }))?;
        }
        let names = self.groups.iter().enumerate();
        axes.draw_series(names.map(|(group, name)| {
            Text::new(name.clone(), (group as f64 + 0.5, -0.08 * y_max), text.clone())
        }))?;
        Ok(())
    }
}

/// A number in few digits.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 999.5e3 => (value / 1e6, "M"),
        size if size >= 9_999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    match value.abs() {
        size if size >= 99.95 || value.fract() == 0.0 => format!("{value:.0}{unit}"),
        size if size >= 9.995 => format!("{value:.1}{unit}"),
        _ => format!("{value:.2}{unit}"),
    }
}

impl PlotOptions {
    /// Draws charts, two beside each other, when that was asked for.
    pub fn draw(&self, charts: &[Chart]) -> Outcome<()> {
        let Some(file) = &self.plot else { return Ok(()) };
        let charts: Vec<_> =
            charts.iter().filter(|chart| chart.lines.iter().any(|line| !line.points.is_empty())).collect();
        if charts.is_empty() {
            return Err("there is nothing to draw".into());
        }
        let columns = charts.len().min(2);
        let rows = charts.len().div_ceil(columns);
        let root = SVGBackend::new(file, (WIDTH * columns as u32, HEIGHT * rows as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        for (chart, area) in charts.iter().zip(root.split_evenly((rows, columns))) {
            chart.draw(&area)?;
        }
        root.present()?;
        println!("\ndrawn: {}", file.display());
        Ok(())
    }
}
