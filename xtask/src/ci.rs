//! `cargo xtask ci`: everything that is checked besides the tests. Every check is made, also after
//! one has failed, and a summary with the errors comes last.

#[cfg(feature = "ci")]
mod advisories;
#[cfg(feature = "ci")]
mod contract;
#[cfg(feature = "ci")]
mod deny;
#[cfg(feature = "ci")]
mod dependencies;
#[cfg(feature = "ci")]
mod deployment;
#[cfg(feature = "ci")]
mod imports;
#[cfg(feature = "ci")]
mod packages;
#[cfg(feature = "ci")]
mod pages;
#[cfg(feature = "ci")]
mod sources;
#[cfg(feature = "ci")]
mod spelling;
#[cfg(feature = "ci")]
mod style;

use crate::machine::{self, Workspace};
use anyhow::Result;
#[cfg(feature = "ci")]
use {
    anyhow::{Context, ensure},
    std::panic::resume_unwind,
    std::thread,
    std::time::Instant,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only the checks whose names contain one of these words
    only: Vec<String>,
}

/// Runs this program again, with the parsers that the checks need. All features of the workspace
/// are named, not one of this package: so what the tests compiled serves here too.
#[cfg(not(feature = "ci"))]
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let again = [
        "run",
        "--locked",
        "--all-features",
        "--bin",
        "xtask",
        "--",
        "ci",
    ];
    machine::run(workspace.cargo(again).args(&options.only))
}

#[cfg(feature = "ci")]
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    // The compiler of the first keeps one core busy much of the time.
    let (compiled, others) = thread::scope(|scope| {
        let others = scope.spawn(|| check_packages_and_files(workspace, options));
        let compiled = check_compiled(workspace, options);
        (
            compiled,
            others.join().unwrap_or_else(|panic| resume_unwind(panic)),
        )
    });
    let mut summary = others;
    summary.rows.extend(compiled?.rows);
    summary.finish()
}

/// Checks what is compiled by this workspace's cargo.
#[cfg(feature = "ci")]
fn check_compiled(workspace: &Workspace, options: &Options) -> Result<Summary> {
    let mut summary = Summary::new(options);
    summary.check("lints, all features", || {
        clippy(
            workspace,
            &["--workspace", "--all-targets", "--all-features"],
        )
    });
    for package in ["persist-host", "persist-cli", "persist-guest", "xtask"] {
        let mut bare = vec!["-p", package, "--no-default-features"];
        if package == "persist-cli" {
            // Spares compiling its dependencies for each feature, as xtask/lints explains.
            bare.extend(["-p", "shared-features"]);
        }
        summary.check(&format!("lints, {package} bare"), || {
            clippy(workspace, &bare)
        });
        for feature in features(workspace, package)? {
            summary.check(&format!("lints, {package} {feature}"), || {
                let feature = format!("{package}/{feature}");
                let only = [&bare[..], &["--features", &feature]].concat();
                clippy(workspace, &only)
            });
        }
    }
    summary.check("docs", || {
        let mut doc = workspace.cargo(["doc", "--locked", "--workspace"]);
        doc.args(["--no-deps", "--all-features"])
            .env("RUSTDOCFLAGS", "-D warnings");
        machine::run(&mut doc)
    });
    summary.check("package, crates", || packages::check_crates(workspace));
    Ok(summary)
}

/// Checks what is read, and the packages of other languages.
#[cfg(feature = "ci")]
fn check_packages_and_files(workspace: &Workspace, options: &Options) -> Summary {
    let mut summary = Summary::new(options);
    summary.check("format", || {
        machine::run(&mut workspace.cargo(["fmt", "--all", "--check"]))
    });
    summary.check("style", || style::check(workspace));
    summary.check("imports", || imports::check(workspace));
    summary.check("spelling", || spelling::check(workspace));
    summary.check("packages in use", || sources::check_packages(workspace));
    summary.check("variables", || sources::check_variables(workspace));
    summary.check("pages", || pages::check(workspace));
    summary.check("book", || pages::check_book(workspace));
    summary.check("deployment", || deployment::check(workspace));
    summary.check("contract", || contract::check(workspace));
    #[cfg(feature = "bindings")]
    summary.check("bindings", || crate::bindings::check(workspace));
    summary.check("dependencies", || dependencies::check(workspace));
    summary.check("other lock files", || {
        dependencies::check_other_lock_files(workspace)
    });
    summary.check_if_possible("advisories", || advisories::check(workspace));
    summary.check("Rust of agents", || {
        dependencies::check_guest_rust_version(workspace)
    });
    summary.check("crate counts", || dependencies::check_counts(workspace));
    summary.check("package, metadata", || packages::check_metadata(workspace));
    summary.check("package, npm", || packages::check_npm(workspace));
    summary.check("package, Python", || packages::check_python(workspace));
    summary.check("package, Go", || packages::check_go(workspace));
    summary.check("package, C", || packages::check_c(workspace));
    summary
}

#[cfg(feature = "ci")]
fn clippy(workspace: &Workspace, selection: &[&str]) -> Result<()> {
    let mut clippy = workspace.cargo(["clippy", "--locked"]);
    machine::run(clippy.args(selection).args(["--", "-D", "warnings"]))
}

/// The features of a crate, but for `default`, which is the sum of others.
#[cfg(feature = "ci")]
fn features(workspace: &Workspace, package: &str) -> Result<Vec<String>> {
    let metadata = workspace.metadata(&["--no-deps"])?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let found = packages.iter().find(|found| found["name"] == package);
    let found = found.with_context(|| format!("no package {package}"))?;
    let features = found["features"].as_object().context("no features")?;
    let named = features.keys().filter(|feature| *feature != "default");
    Ok(named.cloned().collect())
}

/// The outcomes of all checks.
#[cfg(feature = "ci")]
#[derive(Default)]
struct Summary {
    /// Words of which a check's name must contain one; none selects every check.
    only: Vec<String>,
    rows: Vec<Row>,
}

/// The outcome of one check.
#[cfg(feature = "ci")]
struct Row {
    name: String,
    outcome: Outcome,
    seconds: f64,
}

#[cfg(feature = "ci")]
#[derive(Debug, PartialEq)]
enum Outcome {
    Ok,
    /// Holds the error, for the reader of the summary.
    Failed(String),
    /// Something that the check needs is not there; the text says what to do.
    NotChecked(String),
}

#[cfg(feature = "ci")]
impl Summary {
    fn new(options: &Options) -> Self {
        Self {
            only: options.only.clone(),
            rows: Vec::new(),
        }
    }

    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        self.check_if_possible(name, || check().map(|()| None));
    }

    /// Runs a check that may return why it checked nothing.
    fn check_if_possible(&mut self, name: &str, check: impl FnOnce() -> Result<Option<String>>) {
        let is_selected = self.only.iter().any(|word| name.contains(word));
        if !self.only.is_empty() && !is_selected {
            return;
        }
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = match check() {
            Ok(None) => Outcome::Ok,
            Ok(Some(why)) => Outcome::NotChecked(why),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                Outcome::Failed(format!("{error:#}"))
            }
        };
        self.rows.push(Row {
            name: name.to_owned(),
            outcome,
            seconds: start.elapsed().as_secs_f64(),
        });
    }

    fn finish(&self) -> Result<()> {
        println!();
        for Row {
            name,
            outcome,
            seconds,
        } in &self.rows
        {
            match outcome {
                Outcome::Ok => println!("{name:<30}{:<8}{seconds:>6.1} s", "ok"),
                Outcome::Failed(_) => println!("{name:<30}{:<8}{seconds:>6.1} s", "FAILED"),
                Outcome::NotChecked(why) => println!("{name}: not checked: {why}"),
            }
        }
        let mut failed = 0;
        for Row { name, outcome, .. } in &self.rows {
            if let Outcome::Failed(error) = outcome {
                failed += 1;
                println!("\n{name}: {error}");
            }
        }
        ensure!(failed == 0, "{failed} of {} checks failed", self.rows.len());
        Ok(())
    }
}

#[cfg(all(test, feature = "ci"))]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_fails_stops_no_other_and_fails_the_whole() {
        let mut summary = Summary::default();
        summary.check("first", || anyhow::bail!("no"));
        summary.check("second", || Ok(()));
        let outcomes: Vec<_> = summary.rows.iter().map(|row| &row.outcome).collect();
        assert_eq!(outcomes, [&Outcome::Failed("no".into()), &Outcome::Ok]);
        assert!(summary.finish().is_err());
    }

    #[test]
    fn only_the_checks_that_are_named_are_run() {
        let mut summary = Summary {
            only: vec!["lint".into()],
            rows: Vec::new(),
        };
        summary.check("lints, bare", || Ok(()));
        summary.check("docs", || anyhow::bail!("not selected"));
        assert_eq!(summary.rows.len(), 1);
        assert!(summary.finish().is_ok());
    }

    #[test]
    fn a_check_that_was_not_possible_is_reported_and_fails_nothing() {
        let mut summary = Summary::default();
        summary.check_if_possible("first", || Ok(Some("set it".into())));
        assert_eq!(
            summary.rows[0].outcome,
            Outcome::NotChecked("set it".into())
        );
        assert!(summary.finish().is_ok());
    }
}
