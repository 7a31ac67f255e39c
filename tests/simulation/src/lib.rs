//! Simulates many agents on many hosts that share one bucket.
//!
//! The simulation has a queue of events and a clock of its own, so that a million agents take
//! minutes and the same seed gives the same result. What hosts do comes from the library: the
//! requests of each step of a turn are recorded from a real store before ([`Steps::record`]),
//! retries wait for what [`Retry::wait`](persist_host::storage::Retry::wait) returns, and leases
//! keep to [`lease_timing`](persist_host::snapshot::lease_timing). The bucket is a model
//! ([`Bucket`]).
//!
//! `docs/src/scale.md` has the assumptions and the results. [`run_turns`] runs the same turns
//! on a real store, to compare the number of requests.

mod bucket;
mod calls;
mod fleet;
mod report;
mod steps;
mod turns;

pub use bucket::{Bucket, Limits, Outage, Provider};
pub use calls::{Call, Kind, Logged};
pub use fleet::{Plan, simulate};
pub use report::{Report, Waits};
pub use steps::{Request, Step, Steps};
pub use turns::{Host, measure_take_over, name_of, run_turns};
