//! Reads `deny.toml`, the file of cargo-deny, as far as the checks here use it.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// What dependencies may bring.
#[derive(Debug, Deserialize)]
pub(super) struct Deny {
    licenses: Licenses,
    bans: Bans,
    #[serde(default)]
    advisories: Advisories,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    skip: Vec<Duplicate>,
}

#[derive(Debug, Default, Deserialize)]
struct Advisories {
    #[serde(default)]
    ignore: Vec<IgnoredAdvisory>,
}

/// A crate that may be built in more than one version.
#[derive(Debug, Deserialize)]
struct Duplicate {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct IgnoredAdvisory {
    id: String,
    reason: String,
}

impl Deny {
    /// Reads the file, and refuses an entry without a reason.
    pub(super) fn read(workspace: &crate::machine::Workspace) -> Result<Self> {
        let text = std::fs::read_to_string(workspace.root.join("deny.toml"))?;
        Self::parse(&text).context("deny.toml")
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let deny: Self = toml::from_str(text)?;
        for Duplicate { name, reason } in &deny.bans.skip {
            ensure!(!reason.is_empty(), "the duplicate {name} has no reason");
        }
        for IgnoredAdvisory { id, reason } in &deny.advisories.ignore {
            ensure!(id.starts_with("RUSTSEC-"), "{id} is not a RUSTSEC id");
            ensure!(
                !reason.is_empty(),
                "the ignored advisory {id} has no reason"
            );
        }
        Ok(deny)
    }

    /// SPDX identifiers of the licences that are allowed.
    pub(super) fn licences(&self) -> &[String] {
        &self.licenses.allow
    }

    /// Names of the crates that may be built in more than one version.
    pub(super) fn duplicates(&self) -> BTreeSet<String> {
        let skip = self.bans.skip.iter();
        skip.map(|duplicate| duplicate.name.clone()).collect()
    }

    /// Identifiers of accepted advisories, each with the reason.
    pub(super) fn ignored_advisories(&self) -> BTreeMap<String, String> {
        let ignore = self.advisories.ignore.iter();
        ignore
            .map(|advisory| (advisory.id.clone(), advisory.reason.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(skip: &str, ignore: &str) -> Result<Deny> {
        Deny::parse(&format!(
            "[licenses]\nallow = []\n[bans]\nskip = [{skip}]\n[advisories]\nignore = [{ignore}]"
        ))
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() -> Result<()> {
        let deny = parse(
            r#"{ crate = "a", reason = "b needs 1" }"#,
            r#"{ id = "RUSTSEC-2026-9001", reason = "not called" }"#,
        )?;
        assert_eq!(deny.duplicates().len(), 1);
        assert_eq!(deny.ignored_advisories().len(), 1);
        assert!(parse(r#"{ crate = "a", reason = "" }"#, "").is_err());
        assert!(parse(r#"{ crate = "a" }"#, "").is_err());
        assert!(parse("", r#"{ id = "RUSTSEC-2026-9001", reason = "" }"#).is_err());
        assert!(parse("", r#"{ id = "left-pad", reason = "not called" }"#).is_err());
        assert!(Deny::parse("[licenses]\nallow = []").is_err());
        Ok(())
    }
}
