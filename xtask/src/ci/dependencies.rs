//! Checks the packages of others: their licences, their sources, and duplicates.

use crate::machine::{self, Workspace};
use anyhow::{Context, Result, bail, ensure};
use spdx::{Expression, Licensee, ParseMode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Duplicates are counted for one platform, so that the answer is the same on every machine.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// The local library is for programs that want no wasmtime; below this it stays quick to build.
const SMALL: usize = 60;

/// `xtask/deps.toml`: what is allowed.
struct Rules {
    licences: Vec<String>,
    /// Crates that are there in more than one version.
    duplicates: BTreeSet<String>,
}

/// Licences and sources of every package of the lock file, on any platform; duplicates on one.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let text = std::fs::read_to_string(workspace.root.join("xtask/deps.toml"))?;
    let rules = Rules::parse(&text).context("xtask/deps.toml")?;
    let metadata = workspace.metadata(&["--locked", "--all-features"])?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let mut faults = Vec::new();
    let mut licences = Vec::new();
    for package in packages {
        let text = |key: &str| package[key].as_str();
        let name = text("name").context("a package without a name")?;
        let manifest = text("manifest_path").context("a package without a manifest")?;
        if !is_allowed_source(text("source"), Path::new(manifest), &workspace.root) {
            faults.push(format!(
                "{name} comes from neither crates.io nor this workspace"
            ));
        }
        licences.push((name, text("license").unwrap_or_default()));
    }
    faults.extend(licence_faults(&licences, &rules.licences)?);
    let tree = tree(
        workspace,
        &["--workspace", "--all-features", "--edges", "all"],
    )?;
    faults.extend(duplicate_faults(&tree, &rules.duplicates));
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!(
        "{} packages: licences, sources and duplicates are as allowed",
        packages.len()
    );
    Ok(())
}

/// Without its features the host crate brings no wasmtime, and few crates.
pub(crate) fn check_small(workspace: &Workspace) -> Result<()> {
    let host = [
        "-p",
        "persist-host",
        "--no-default-features",
        "--edges",
        "no-dev",
    ];
    let crates = tree(workspace, &host)?;
    let wasm: Vec<_> = crates
        .keys()
        .filter(|name| name.starts_with("wasm"))
        .cloned()
        .collect();
    ensure!(
        wasm.is_empty(),
        "the local library brings {}",
        wasm.join(", ")
    );
    let count: usize = crates.values().map(BTreeSet::len).sum();
    ensure!(
        count < SMALL,
        "the local library is {count} crates; {SMALL} is too many"
    );
    println!("the local library is {count} crates, without wasmtime");
    Ok(())
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let file: toml::Table = text.parse()?;
        let licences = file.get("licences").and_then(|value| value.as_array());
        let licences = licences
            .context("no list `licences`")?
            .iter()
            .map(|licence| {
                Ok(licence
                    .as_str()
                    .context("a licence is not text")?
                    .to_owned())
            });
        let duplicates = file.get("duplicates").and_then(|value| value.as_table());
        let duplicates = duplicates.context("no table `duplicates`")?;
        for (name, reason) in duplicates {
            let reason = reason.as_str().unwrap_or_default();
            ensure!(!reason.is_empty(), "the duplicate {name} has no reason");
        }
        Ok(Self {
            licences: licences.collect::<Result<_>>()?,
            duplicates: duplicates.keys().cloned().collect(),
        })
    }
}

fn is_allowed_source(source: Option<&str>, manifest: &Path, root: &Path) -> bool {
    match source {
        Some(source) => source == CRATES_IO,
        // A path dependency, which may lead out of the workspace.
        None => manifest.starts_with(root),
    }
}

/// Packages whose licence is not allowed, and allowed licences that no package needs.
fn licence_faults(packages: &[(&str, &str)], allowed: &[String]) -> Result<Vec<String>> {
    let parsed = allowed.iter().map(|licence| {
        Licensee::parse(licence).with_context(|| format!("deps.toml: {licence} is no licence"))
    });
    let allowed_licences = parsed.collect::<Result<Vec<_>>>()?;
    let mut faults = Vec::new();
    let mut expressions = Vec::new();
    for (name, licence) in packages {
        // Older packages write `MIT/Apache-2.0`.
        let expression = Expression::parse_mode(licence, ParseMode::LAX);
        match expression {
            Ok(expression) if is_allowed(&expression, allowed_licences.iter()) => {
                expressions.push(expression);
            }
            Ok(_) => faults.push(format!("{name}: its licence {licence} is not allowed")),
            Err(_) => faults.push(format!("{name}: {licence:?} is no SPDX licence expression")),
        }
    }
    for (index, licence) in allowed.iter().enumerate() {
        let others = || {
            allowed_licences
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != index)
        };
        let idle = expressions
            .iter()
            .all(|e| is_allowed(e, others().map(|(_, other)| other)));
        if idle {
            faults.push(format!("deps.toml: no package needs the licence {licence}"));
        }
    }
    Ok(faults)
}

fn is_allowed<'a>(
    expression: &Expression,
    allowed: impl Iterator<Item = &'a Licensee> + Clone,
) -> bool {
    expression.evaluate(|requirement| {
        allowed
            .clone()
            .any(|licence| licence.satisfies(requirement))
    })
}

/// Every crate that is built, with its versions.
type Tree = BTreeMap<String, BTreeSet<String>>;

fn tree(workspace: &Workspace, selection: &[&str]) -> Result<Tree> {
    let mut cargo = workspace.cargo(["tree", "--locked", "--prefix", "none", "--format", "{p}"]);
    cargo.args(["--target", PLATFORM]).args(selection);
    parse_tree(&machine::output(&mut cargo)?)
}

/// Reads lines like `serde v1.0.0 (proc-macro) (*)`; with edges of features there are others.
fn parse_tree(text: &str) -> Result<Tree> {
    let mut tree = Tree::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some(version) = version.strip_prefix('v') {
            tree.entry(name.to_owned())
                .or_default()
                .insert(version.to_owned());
        }
    }
    if tree.is_empty() {
        bail!("cargo tree printed nothing that can be read");
    }
    Ok(tree)
}

/// Duplicates that are not allowed, and allowed ones that are gone.
fn duplicate_faults(tree: &Tree, allowed: &BTreeSet<String>) -> Vec<String> {
    let double = tree.iter().filter(|(_, versions)| versions.len() > 1);
    let double: BTreeMap<_, _> = double.collect();
    let new = double.iter().filter(|(name, _)| !allowed.contains(**name));
    let new = new.map(|(name, versions)| {
        let versions: Vec<_> = versions.iter().map(String::as_str).collect();
        format!(
            "{name} is there as {}; deps.toml does not say why",
            versions.join(" and ")
        )
    });
    let gone = allowed.iter().filter(|name| !double.contains_key(name));
    let gone = gone.map(|name| format!("deps.toml: {name} is there once; remove the entry"));
    new.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(licence: &str, allowed: &[&str]) -> Result<Vec<String>> {
        let allowed: Vec<_> = allowed.iter().map(|&licence| licence.to_owned()).collect();
        licence_faults(&[("package", licence)], &allowed)
    }

    #[test]
    fn one_allowed_licence_of_a_choice_is_enough_and_all_of_a_sum_are_needed() -> Result<()> {
        assert_eq!(faults("GPL-3.0-only OR MIT", &["MIT"])?, [""; 0]);
        assert_eq!(faults("GPL-3.0-only/MIT", &["MIT"])?, [""; 0]);
        assert_eq!(faults("MIT AND Zlib", &["MIT", "Zlib"])?, [""; 0]);
        assert_eq!(
            faults("(MIT OR Apache-2.0) AND GPL-3.0-only", &["MIT"])?.len(),
            2
        );
        Ok(())
    }

    #[test]
    fn an_exception_is_part_of_the_licence() -> Result<()> {
        let with = "Apache-2.0 WITH LLVM-exception";
        assert_eq!(faults(with, &[with])?, [""; 0]);
        assert!(!faults(with, &["Apache-2.0"])?.is_empty());
        Ok(())
    }

    #[test]
    fn a_package_without_a_licence_or_with_an_invented_one_is_refused() -> Result<()> {
        for licence in ["", "see LICENSE", "MIT OR Nonsense-1.0"] {
            assert!(!faults(licence, &["MIT"])?.is_empty(), "{licence}");
        }
        Ok(())
    }

    #[test]
    fn a_licence_that_nothing_needs_any_more_is_found() -> Result<()> {
        assert_eq!(faults("MIT OR Zlib", &["MIT", "Zlib"])?.len(), 2);
        assert_eq!(faults("MIT", &["MIT", "Zlib"])?.len(), 1);
        Ok(())
    }

    #[test]
    fn only_crates_io_and_this_workspace_are_sources() {
        let root = Path::new("/w");
        assert!(is_allowed_source(
            Some(CRATES_IO),
            Path::new("/cache/a/Cargo.toml"),
            root
        ));
        assert!(is_allowed_source(
            None,
            Path::new("/w/host/Cargo.toml"),
            root
        ));
        assert!(!is_allowed_source(
            None,
            Path::new("/elsewhere/Cargo.toml"),
            root
        ));
        let git = "git+https://example.org/a#0123";
        assert!(!is_allowed_source(
            Some(git),
            Path::new("/cache/a/Cargo.toml"),
            root
        ));
        assert!(!is_allowed_source(
            Some(&format!("{CRATES_IO}-2")),
            Path::new("/c"),
            root
        ));
    }

    #[test]
    fn a_duplicate_needs_an_entry_and_an_entry_needs_a_duplicate() -> Result<()> {
        let text =
            "a v1.0.0\na v2.0.0 (*)\nb v1.0.0 (proc-macro)\nb feature \"default\"\n\nb v1.0.0";
        let tree = parse_tree(text)?;
        assert_eq!(duplicate_faults(&tree, &BTreeSet::new()).len(), 1);
        assert_eq!(
            duplicate_faults(&tree, &BTreeSet::from(["a".into()])),
            [""; 0]
        );
        let stale = BTreeSet::from(["a".into(), "b".into()]);
        assert_eq!(duplicate_faults(&tree, &stale).len(), 1);
        Ok(())
    }

    #[test]
    fn a_duplicate_without_a_reason_is_refused() {
        assert!(Rules::parse("licences = []\n[duplicates]\na = \"b wants the old one\"").is_ok());
        assert!(Rules::parse("licences = []\n[duplicates]\na = \"\"").is_err());
        assert!(Rules::parse("licences = []").is_err());
    }
}
