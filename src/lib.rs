//! millpond
mod batch;
mod config;
mod dstream;
mod error;
mod exec;
mod format;
mod id;
mod rdd;
mod receive_log;
mod record;
mod source;
mod state;
mod store;
mod time;
pub use dstream::*;
pub use error::{Error, ErrorKind, Result};
pub use rdd::{Emitter, Rdd, Record};
pub use record::{Data, Key, Text};
pub use rkyv;
pub use source::*;
pub use time::{Clock, ManualClock};
/// t
pub mod testkit {
    pub use crate::store::FaultPlan;
}
