//! Estimates the cost of a component before anything is compiled.
//!
//! `cost` counts definitions and the storage of instances, `code` measures functions, and `types`
//! limits how deeply types are nested.

mod code;
mod cost;
mod refused;
mod types;

pub(super) use code::{CodeLimits, measure};
pub(super) use cost::precheck;
