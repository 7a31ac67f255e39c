//! Leases: one host at a time works on an agent, or on a session of it.
//!
//! A lease is a row of numbered objects, each made by one exclusive create. The newest object says
//! who holds the lease, and for how long. Acquiring, renewing, releasing and breaking a lease each
//! create the next object, so that one of two hosts that try it at once wins.
//!
//! Leases save work, and safety does not rest on them: no clock decides what is committed. A
//! change under a lease is made on the version that its holder saw (`fence.rs`).
//! `docs/src/many-machines.md` has the reasons.

mod acquire;
mod fence;
mod objects;
mod options;

pub use objects::LeaseInfo;
pub use options::LeaseOptions;
