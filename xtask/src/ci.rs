//! `cargo xtask ci`: everything that is checked besides the tests. Every check is made, whatever the
//! others say, and a summary comes last.

#[cfg(feature = "ci")]
mod contract;
#[cfg(feature = "ci")]
mod dependencies;

use crate::machine::{self, Workspace};
use anyhow::Result;
#[cfg(feature = "ci")]
use {
    anyhow::{Context, ensure},
    std::time::Instant,
};

/// Runs this program again, with the parsers that the checks need. All features of the workspace are
/// named, not one of this package: so what the tests compiled serves here too.
#[cfg(not(feature = "ci"))]
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let again = [
        "run",
        "--locked",
        "--all-features",
        "--bin",
        "xtask",
        "--",
        "ci",
    ];
    machine::run(&mut workspace.cargo(again))
}

#[cfg(feature = "ci")]
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut summary = Summary::default();
    summary.check("format", || {
        machine::run(&mut workspace.cargo(["fmt", "--all", "--check"]))
    });
    summary.check("contract", || contract::check(workspace));
    #[cfg(feature = "bindings")]
    summary.check("bindings", || crate::bindings::check(workspace));
    summary.check("dependencies", || dependencies::check(workspace));
    summary.check("small without wasm", || {
        dependencies::check_small(workspace)
    });
    summary.check("lints, all features", || {
        clippy(
            workspace,
            &["--workspace", "--all-targets", "--all-features"],
        )
    });
    for package in ["persist-host", "persist-guest", "xtask"] {
        let bare = ["-p", package, "--no-default-features"];
        summary.check(&format!("lints, {package} bare"), || {
            clippy(workspace, &bare)
        });
        for feature in features(workspace, package)? {
            summary.check(&format!("lints, {package} {feature}"), || {
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
    summary.finish()
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

/// What was checked, whether it holds, and the seconds it took.
#[cfg(feature = "ci")]
#[derive(Default)]
struct Summary(Vec<(String, bool, f64)>);

#[cfg(feature = "ci")]
impl Summary {
    fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = check();
        if let Err(error) = &outcome {
            eprintln!("{error:#}");
        }
        self.0.push((
            name.to_owned(),
            outcome.is_ok(),
            start.elapsed().as_secs_f64(),
        ));
    }

    fn finish(&self) -> Result<()> {
        println!();
        for (name, holds, seconds) in &self.0 {
            println!(
                "{:<28}{:<8}{seconds:>6.1} s",
                name,
                if *holds { "ok" } else { "FAILED" }
            );
        }
        let failed = self.0.iter().filter(|(_, holds, _)| !holds).count();
        ensure!(failed == 0, "{failed} of {} checks failed", self.0.len());
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
        assert_eq!(
            summary.0.iter().map(|check| check.1).collect::<Vec<_>>(),
            [false, true]
        );
        assert!(summary.finish().is_err());
    }
}
