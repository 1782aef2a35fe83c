//! One file for one operation or a few that belong together. A new file is declared and its table listed here.

mod outputs;
mod pairs;
mod rdd;
mod state;
mod stateless;

use crate::suite::Row;

/// Every row there is.
pub fn all() -> Vec<&'static Row> {
    [stateless::ROWS, pairs::ROWS, state::ROWS, outputs::ROWS, rdd::ROWS].into_iter().flatten().collect()
}
