//! Reading: which version is the newest, and the verified bytes of one version.

mod ahead;
mod find;
mod load;
mod object;
mod reader;

pub(crate) use ahead::{GROUPS, ReadAhead};
pub(crate) use find::{PrunedReadRetry, no_times, versions_in};
pub(crate) use object::Object;
#[cfg(feature = "guest")]
pub(crate) use object::stat_cost;
pub use reader::{Reader, VerifyReport};
