//! What a terminal gets on top: colour, and a bar while something takes long.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use millpond::inspect::Progress;

/// How often what is shown is brought up to date.
const TICK: Duration = Duration::from_millis(100);

/// Words of a page that are coloured, where they stand alone.
const COLOURED: [(&str, AnsiColor); 4] = [
    ("sound", AnsiColor::Green),
    ("damaged", AnsiColor::Red),
    ("damage", AnsiColor::Red),
    ("note", AnsiColor::Yellow),
];

/// Writes to standard output, with colour on a terminal that is not told otherwise (`NO_COLOR`).
pub(crate) fn write(bytes: &[u8], is_page: bool) -> io::Result<()> {
    let out = io::stdout();
    if !is_page || AutoStream::choice(&out) == anstream::ColorChoice::Never {
        let mut out = out.lock();
        return out.write_all(bytes).and_then(|()| out.flush());
    }
    let page = coloured(&String::from_utf8_lossy(bytes));
    let mut out = AutoStream::auto(out.lock());
    out.write_all(page.as_bytes()).and_then(|()| out.flush())
}

/// The same page with the health of things in colour and the names of facts in bold.
fn coloured(page: &str) -> String {
    let mut all = String::with_capacity(page.len() * 2);
    for line in page.split_inclusive('\n') {
        let cells: Vec<String> = line.split('|').map(coloured_cell).collect();
        all.push_str(&cells.join("|"));
    }
    all
}

/// A cell of a table or a line of facts, whose last column is its value.
fn coloured_cell(cell: &str) -> String {
    let value_at = cell.trim_end().rfind("  ").map_or(0, |at| at + 2);
    let (before, value) = cell.split_at(value_at);
    let word = value.trim().split(':').next().unwrap_or_default();
    let found = COLOURED.into_iter().find(|(name, _)| *name == word);
    let Some((word, colour)) = found else { return cell.to_owned() };
    let style = Style::new().fg_color(Some(colour.into())).bold();
    format!("{before}{}", value.replacen(word, &format!("{style}{word}{style:#}"), 1))
}

/// A bar on standard error, if that is a terminal.
pub(crate) struct Bar(Mutex<ProgressBar>);

impl Bar {
    pub(crate) fn new() -> Self {
        Bar(Mutex::new(ProgressBar::hidden()))
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, ProgressBar> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes it away.
    pub(crate) fn clear(&self) {
        self.shown().finish_and_clear();
    }
}

impl Progress for Bar {
    fn begin(&self, what: &str, total_bytes: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let mut shown = self.shown();
        shown.finish_and_clear();
        let template = match total_bytes {
            0 => "{spinner} {msg} {elapsed}",
            _ => "{spinner} {msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {eta} left",
        };
        let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        *shown = bar;
    }

    fn advance(&self, bytes: u64) {
        self.shown().inc(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_of_health_is_coloured() {
        let page = " health  sound\n health  damaged: state/1.segment\n| 1 | sound  |\n| damage | a |\n a  sound one\n";
        let shown = coloured(page);
        let plain = anstream::adapter::strip_str(&shown).to_string();
        assert_eq!(plain, page);
        assert_eq!(shown.matches("\u{1b}[32m").count(), 2, "{shown:?}");
        assert_eq!(shown.matches("\u{1b}[31m").count(), 2, "{shown:?}");
    }
}
