//! Report of what a target tried, and what it found.

use std::fmt;

/// Report of what a target tried, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of tries by kind: the rows of docs/src/reliability.md.
    pub tried: Vec<(String, u64)>,
    /// Violations, each with the smallest history that shows it, and how to replay it.
    pub violations: Vec<String>,
}

impl Report {
    /// Counts `count` more of `kind`.
    pub fn tried(&mut self, kind: &str, count: u64) {
        match self.tried.iter_mut().find(|(known, _)| known == kind) {
            Some((_, tried)) => *tried += count,
            None => self.tried.push((kind.to_owned(), count)),
        }
    }

    /// Everything together.
    pub fn total(&self) -> u64 {
        self.tried.iter().map(|(_, count)| count).sum()
    }

    /// Adds what another part of the same target found.
    pub fn add(&mut self, other: Self) {
        for (kind, count) in other.tried {
            self.tried(&kind, count);
        }
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.tried {
            writeln!(f, "{count:>10}  {kind}")?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        Ok(())
    }
}
