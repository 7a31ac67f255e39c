//! The history of a name: which versions stay, pins, and automatic pruning after saves.

mod auto_prune;
mod prune;

pub(crate) use auto_prune::commit_and_prune;
#[cfg(feature = "guest")]
pub(crate) use prune::Removable;
pub(crate) use prune::{Age, AgeLimits};
