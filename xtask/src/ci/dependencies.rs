//! Checks the packages of others: their licences, their sources, and duplicates.

use super::deny::Deny;
use crate::machine::{self, Workspace};
use anyhow::{Context, Result, bail, ensure};
use spdx::{Expression, Licensee, ParseMode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Duplicates are counted for one platform, so that the answer is the same on every machine.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
/// Limits on the crates that `persist-host` is, itself included: without features, for programs
/// that want no wasmtime, and with its default features, for plugin hosts.
const MOST_CRATES_BARE: usize = 60;
const MOST_CRATES_DEFAULT: usize = 210;

/// Licences and sources of every package of the lock file, on any platform; duplicates on one.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let deny = Deny::read(workspace)?;
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
    faults.extend(licence_faults(&licences, deny.licences())?);
    let tree = tree(
        workspace,
        &["--workspace", "--all-features", "--edges", "all"],
    )?;
    faults.extend(duplicate_faults(&tree, &deny.duplicates()));
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    println!(
        "{} packages: licences, sources and duplicates are as allowed",
        packages.len()
    );
    Ok(())
}

/// Fails if the lock file of a workspace beside this one is behind a dependency of ours: its build
/// fails only when it is next made, which may be long after.
pub(crate) fn check_other_lock_files(workspace: &Workspace) -> Result<()> {
    let manifest = std::fs::read_to_string(workspace.root.join("Cargo.toml"))?;
    let manifest: toml::Table = manifest.parse()?;
    let excluded = manifest["workspace"].get("exclude");
    let excluded = excluded.and_then(|folders| folders.as_array());
    for folder in excluded.context("Cargo.toml excludes no workspace")? {
        let folder = workspace
            .root
            .join(folder.as_str().context("not a folder")?);
        // A member of another one has no lock file.
        if folder.join("Cargo.lock").exists() {
            let mut update = workspace.cargo(["update", "--workspace", "--locked", "--quiet"]);
            machine::run(update.current_dir(folder))?;
        }
    }
    Ok(())
}

/// Counts the crates that `persist-host` brings to a program that adds it.
pub(crate) fn check_counts(workspace: &Workspace) -> Result<()> {
    let bare = host_tree(workspace, &["--no-default-features"])?;
    let wasm: Vec<_> = bare
        .keys()
        .filter(|name| name.starts_with("wasm"))
        .cloned()
        .collect();
    ensure!(
        wasm.is_empty(),
        "persist-host without features brings {}",
        wasm.join(", ")
    );
    let default = host_tree(workspace, &[])?;
    for (crates, limit, selection) in [
        (bare, MOST_CRATES_BARE, "without features"),
        (default, MOST_CRATES_DEFAULT, "with its default features"),
    ] {
        let count: usize = crates.values().map(BTreeSet::len).sum();
        ensure!(
            count < limit,
            "persist-host {selection} is {count} crates; {limit} is too many"
        );
        println!("persist-host {selection} is {count} crates");
    }
    Ok(())
}

/// Checks that the dependencies of `persist-guest` support its own, older Rust version. Clippy's
/// `incompatible_msrv` checks the crate's code.
pub(crate) fn check_guest_rust_version(workspace: &Workspace) -> Result<()> {
    let metadata = workspace.metadata(&["--locked", "--all-features"])?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let rust_version = |name: &str, version: Option<&str>| {
        let package = packages.iter().find(|package| {
            package["name"] == name && version.is_none_or(|version| package["version"] == version)
        })?;
        let text = package["rust_version"].as_str()?;
        let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
        Some((parts.next()??, parts.next()??))
    };
    let own = rust_version("persist-guest", None).context("persist-guest has no rust-version")?;
    let guest = ["-p", "persist-guest", "--all-features", "--edges", "no-dev"];
    let mut cargo = workspace.cargo(["tree", "--locked", "--prefix", "none", "--format", "{p}"]);
    cargo.args(["--target", "all"]).args(guest);
    let crates = parse_tree(&machine::output(&mut cargo)?)?;
    let newer = crates.iter().flat_map(|(name, versions)| {
        let newer = versions
            .iter()
            .filter(|version| rust_version(name, Some(version)).is_some_and(|needed| needed > own));
        newer.map(move |version| format!("{name} {version}"))
    });
    let newer: Vec<_> = newer.collect();
    ensure!(
        newer.is_empty(),
        "persist-guest supports Rust {}.{}, and these need a newer one: {}",
        own.0,
        own.1,
        newer.join(", ")
    );
    println!(
        "persist-guest and its {} crates build with Rust {}.{}",
        crates.len(),
        own.0,
        own.1
    );
    Ok(())
}

/// Every crate that `persist-host` is built with.
fn host_tree(workspace: &Workspace, features: &[&str]) -> Result<Tree> {
    let host = ["-p", "persist-host", "--edges", "no-dev"];
    tree(workspace, &[&host, features].concat())
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
        Licensee::parse(licence).with_context(|| format!("deny.toml: {licence} is no licence"))
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
            faults.push(format!("deny.toml: no package needs the licence {licence}"));
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
            "{name} is there as {}; deny.toml does not say why",
            versions.join(" and ")
        )
    });
    let gone = allowed.iter().filter(|name| !double.contains_key(name));
    let gone = gone.map(|name| format!("deny.toml: {name} is there once; remove the entry"));
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
}
