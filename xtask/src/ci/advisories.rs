//! Compares `Cargo.lock` with the RustSec advisory database.
//!
//! Continuous integration reaches package registries only, so the database is not fetched: its path
//! comes from the environment. Without it the check reports that nothing was compared.
//!
//! Yanked versions are not in the database, so they are not reported.

use super::deny::Deny;
use super::dependencies::CRATES_IO;
use crate::machine::Workspace;
use anyhow::{Context, Result, bail, ensure};
use semver::{Version, VersionReq};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use toml::{Table, Value};

/// Names the directory of a clone of the advisory database.
const VARIABLE: &str = "PERSIST_ADVISORY_DB";

/// Versions of packages from crates.io, by name.
type Packages = BTreeMap<String, Vec<Version>>;

/// Advisories that are accepted, each with the reason.
type Ignored = BTreeMap<String, String>;

/// Compares the lock file with the database. Returns why nothing was compared, if nothing was.
pub(crate) fn check(workspace: &Workspace) -> Result<Option<String>> {
    let Some(database) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(Some(format!(
            "set {VARIABLE} to a clone of the RustSec advisory database"
        )));
    };
    let ignored = Deny::read(workspace)?.ignored_advisories();
    let lockfile = workspace.root.join("Cargo.lock");
    let lines = compare(Path::new(&database), &lockfile, &ignored)?;
    println!("{}", lines.join("\n"));
    Ok(None)
}

/// Compares a lock file with a database: one line per ignored advisory, then a summary.
///
/// Fails on every advisory that applies and is not ignored, informational ones (unmaintained,
/// unsound, notice) included, and on ignored ids that apply to nothing. A withdrawn advisory never
/// applies.
fn compare(database: &Path, lockfile: &Path, ignored: &Ignored) -> Result<Vec<String>> {
    let place = || format!("{VARIABLE}={}", database.display());
    let advisories = read_database(database).with_context(place)?;
    let packages = read_lockfile(lockfile).context("Cargo.lock")?;
    let mut lines = Vec::new();
    let mut faults = Vec::new();
    let mut used = BTreeSet::new();
    for advisory in &advisories {
        for version in packages.get(&advisory.package).into_iter().flatten() {
            if !advisory.applies_to(version) {
                continue;
            }
            let found = advisory.describe(version);
            match ignored.get(&advisory.id) {
                Some(reason) => lines.push(format!("ignored: {found} ({reason})")),
                None => faults.push(found),
            }
            used.insert(&advisory.id);
        }
    }
    let unused = ignored.keys().filter(|id| !used.contains(id));
    faults.extend(
        unused.map(|id| {
            format!("deny.toml: {id} applies to nothing in Cargo.lock; remove the entry")
        }),
    );
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    lines.push(format!(
        "{} packages compared with {} advisories; yanked versions were not looked for",
        packages.values().map(Vec::len).sum::<usize>(),
        advisories.len()
    ));
    Ok(lines)
}

/// An advisory, as far as it decides which versions it applies to.
#[derive(Debug)]
struct Advisory {
    id: String,
    package: String,
    title: String,
    /// `unmaintained`, `unsound` or `notice`; none for a vulnerability.
    informational: Option<String>,
    withdrawn: bool,
    patched: Vec<VersionReq>,
    unaffected: Vec<VersionReq>,
}

impl Advisory {
    /// Reads the TOML at the beginning of a Markdown file, and the title after it.
    fn parse(text: &str) -> Result<Self> {
        let (front, rest) = text
            .strip_prefix("```toml")
            .and_then(|text| text.split_once("\n```"))
            .context("it does not begin with a block of TOML")?;
        let table: Table = front.parse()?;
        let advisory = table.get("advisory").context("no table `advisory`")?;
        let text = |key: &str| {
            let value = advisory.get(key)?.as_str()?;
            Some(value.to_owned())
        };
        let versions = table.get("versions").context("no table `versions`")?;
        let requirements = |key: &str| match versions.get(key) {
            None => Ok(Vec::new()),
            Some(list) => {
                let list = list
                    .as_array()
                    .with_context(|| format!("`{key}` is not a list"))?;
                let parse = |value: &Value| {
                    let text = value
                        .as_str()
                        .with_context(|| format!("`{key}` is not text"))?;
                    VersionReq::parse(text).with_context(|| format!("{text:?} in `{key}`"))
                };
                list.iter().map(parse).collect()
            }
        };
        let title = rest.lines().find_map(|line| line.strip_prefix("# "));
        Ok(Self {
            id: text("id").context("no `id`")?,
            package: text("package").context("no `package`")?,
            title: title.unwrap_or("without a title").to_owned(),
            informational: text("informational"),
            withdrawn: advisory.get("withdrawn").is_some(),
            patched: requirements("patched")?,
            unaffected: requirements("unaffected")?,
        })
    }

    /// Returns whether a version is affected. A pre-release that no requirement names counts as
    /// affected: that reports too much rather than too little.
    fn applies_to(&self, version: &Version) -> bool {
        let mut safe = self.patched.iter().chain(&self.unaffected);
        !self.withdrawn && !safe.any(|requirement| requirement.matches(version))
    }

    fn describe(&self, version: &Version) -> String {
        let kind = self.informational.as_deref().unwrap_or("vulnerability");
        let patched: Vec<_> = self.patched.iter().map(ToString::to_string).collect();
        let patched = match &patched[..] {
            [] => "no patched version".to_owned(),
            patched => format!("patched in {}", patched.join(" or ")),
        };
        format!(
            "{} {version}: {} ({kind}): {}; {patched}",
            self.package, self.id, self.title
        )
    }
}

/// Reads `crates/<package>/RUSTSEC-*.md`. A file that cannot be read is an error, not an absence.
fn read_database(database: &Path) -> Result<Vec<Advisory>> {
    let mut advisories = Vec::new();
    let crates = database.join("crates");
    let packages = fs::read_dir(&crates).with_context(|| {
        format!(
            "cannot list {}; is it the root of a clone?",
            crates.display()
        )
    })?;
    for package in packages {
        let package = package?;
        if is_hidden(&package) || !package.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(package.path())? {
            let file = file?;
            if is_hidden(&file) {
                continue;
            }
            let path = file.path();
            let advisory = read_advisory(&path).with_context(|| path.display().to_string())?;
            ensure!(
                package.file_name() == *advisory.package,
                "{} is about {}",
                path.display(),
                advisory.package
            );
            advisories.push(advisory);
        }
    }
    ensure!(
        !advisories.is_empty(),
        "{} has no advisory",
        crates.display()
    );
    advisories.sort_by(|one, two| one.id.cmp(&two.id));
    Ok(advisories)
}

fn read_advisory(path: &Path) -> Result<Advisory> {
    if path.extension().is_none_or(|extension| extension != "md") {
        bail!("not an advisory");
    }
    // A clone on Windows may have other line endings.
    let text = fs::read_to_string(path)?.replace("\r\n", "\n");
    Advisory::parse(&text)
}

fn is_hidden(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with('.')
}

/// Reads the packages of a lock file that come from crates.io, the only registry that the database
/// is about.
fn read_lockfile(path: &Path) -> Result<Packages> {
    let lock: Table = fs::read_to_string(path)?.parse()?;
    let list = lock.get("package").and_then(Value::as_array);
    let mut packages = Packages::new();
    for package in list.context("no packages")? {
        let text = |key: &str| package.get(key).and_then(Value::as_str);
        if text("source") != Some(CRATES_IO) {
            continue;
        }
        let name = text("name").context("a package without a name")?;
        let version = text("version").context("a package without a version")?;
        packages
            .entry(name.to_owned())
            .or_default()
            .push(version.parse()?);
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Invented packages, and advisories about them.
    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures/advisories")
            .join(name)
    }

    fn check(ignored: &[&str]) -> Result<Vec<String>> {
        let ignored = ignored
            .iter()
            .map(|id| ((*id).to_owned(), "why".to_owned()));
        compare(
            &fixture("database"),
            &fixture("Cargo.lock"),
            &ignored.collect(),
        )
    }

    const VULNERABLE: &str = "RUSTSEC-2026-9001";
    const UNMAINTAINED: &str = "RUSTSEC-2026-9004";
    const UNSOUND: &str = "RUSTSEC-2026-9005";

    #[test]
    fn advisories_that_apply_fail_the_check() {
        let error = check(&[]).expect_err("three apply").to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        for (id, kind) in [
            (VULNERABLE, "(vulnerability)"),
            (UNMAINTAINED, "(unmaintained)"),
            (UNSOUND, "(unsound)"),
        ] {
            let line = lines.iter().find(|line| line.contains(id));
            let line = line.unwrap_or_else(|| panic!("{id} is missing: {error}"));
            assert!(line.contains(kind), "{line}");
        }
    }

    #[test]
    fn patched_unaffected_and_withdrawn_advisories_do_not_apply() {
        let error = check(&[]).expect_err("others apply").to_string();
        for id in [
            "RUSTSEC-2026-9002",
            "RUSTSEC-2026-9003",
            "RUSTSEC-2026-9006",
        ] {
            assert!(!error.contains(id), "{error}");
        }
    }

    #[test]
    fn ignored_advisories_are_named_with_their_reason() -> Result<()> {
        let lines = check(&[VULNERABLE, UNMAINTAINED, UNSOUND])?;
        assert_eq!(lines.len(), 4, "{lines:?}");
        let mut ignored = lines.iter().filter(|line| line.starts_with("ignored"));
        assert!(ignored.all(|line| line.ends_with("(why)")), "{lines:?}");
        Ok(())
    }

    #[test]
    fn an_ignored_advisory_that_applies_to_nothing_is_refused() {
        let all = [VULNERABLE, UNMAINTAINED, UNSOUND, "RUSTSEC-2026-9002"];
        let error = check(&all).expect_err("one is unused").to_string();
        assert!(error.contains("9002 applies to nothing"), "{error}");
    }

    #[test]
    fn a_directory_without_advisories_is_refused() {
        for wrong in [fixture(""), fixture("nowhere"), fixture("database/crates")] {
            let found = compare(&wrong, &fixture("Cargo.lock"), &Ignored::new());
            let error = format!("{:#}", found.expect_err("it is no database"));
            assert!(error.contains(VARIABLE), "{error}");
        }
    }

    #[test]
    fn an_advisory_that_cannot_be_read_fails_the_check() {
        let found = compare(&fixture("broken"), &fixture("Cargo.lock"), &Ignored::new());
        let error = format!("{:#}", found.expect_err("it cannot be read"));
        assert!(error.contains("RUSTSEC-2026-9007.md"), "{error}");
    }

    #[test]
    fn a_prerelease_is_affected_unless_a_requirement_names_it() -> Result<()> {
        let text = "```toml\n[advisory]\nid = \"R\"\npackage = \"p\"\n[versions]\n\
                    patched = [\">= 2.0.0-rc.2\"]\n```\n";
        let advisory = Advisory::parse(text)?;
        for (version, affected) in [
            ("1.9.0", true),
            ("2.0.0-rc.1", true),
            ("2.0.0-rc.2", false),
            ("2.0.0", false),
            ("3.0.0-rc.1", true),
        ] {
            assert_eq!(
                advisory.applies_to(&version.parse()?),
                affected,
                "{version}"
            );
        }
        Ok(())
    }
}
