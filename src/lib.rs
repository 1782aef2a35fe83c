//! millpond
mod config;
mod error;
mod exec;
mod format;
mod id;
mod rdd;
mod record;
mod state;
mod store;
mod time;
pub use error::{Error, ErrorKind, Result};
pub use rdd::{Emitter, Rdd, Record};
pub use record::{Data, Key, Text};
pub use rkyv;
pub use time::{Clock, ManualClock};
/// t
pub mod testkit {
    pub use crate::store::FaultPlan;
}
