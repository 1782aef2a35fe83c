//! One file for one operation or a few that belong together. A new file is declared and its table listed here.

mod event_time;
mod event_windows;
mod fallible;
mod joins;
mod kept;
mod outputs;
mod pairs;
mod rdd;
mod rdd_actions;
mod rdd_draws;
mod rdd_order;
mod rdd_pairs;
mod rdd_saves;
mod rdd_sets;
mod shared;
mod sinks;
mod state;
mod stateless;
mod streams;
mod timers;
mod windows;

use crate::suite::Row;

/// Every row there is.
pub fn all() -> Vec<&'static Row> {
    let tables = [
        stateless::ROWS,
        streams::ROWS,
        pairs::ROWS,
        joins::ROWS,
        fallible::ROWS,
        kept::ROWS,
        state::ROWS,
        outputs::ROWS,
        rdd::ROWS,
        rdd_order::ROWS,
        rdd_sets::ROWS,
        rdd_draws::ROWS,
        rdd_pairs::ROWS,
        rdd_actions::ROWS,
        rdd_saves::ROWS,
        shared::ROWS,
        sinks::ROWS,
        timers::ROWS,
        windows::ROWS,
        event_time::ROWS,
        event_windows::ROWS,
    ];
    tables.into_iter().flatten().collect()
}
