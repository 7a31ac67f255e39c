//! Looking after a store: checks, garbage collection and usage.

mod check;
mod gc;
mod repair;
mod usage;

pub use check::{CheckSummary, Finding, FindingKind, ReadData, Severity};
pub use gc::GcOptions;
pub use repair::SavedAs;
pub use usage::Usage;
