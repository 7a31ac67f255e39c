//! The store's policy: shown and changed.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use persist_host::snapshot::{CurrentPolicy, Expect, Retention, Store};
use serde_json::{Value, json};

use super::printed;
use super::retention::KeepRules;
use crate::error::Usage;
use crate::print::Out;

/// Show or change the store's policy: grace period and retention rules
///
/// The policy applies to every host of the store and overrides the settings of a host. Hosts remove
/// versions that no rule keeps some time after a newer version is saved. Commands remove them only
/// in `persist prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist policy
  persist policy set --keep-last 50 --keep-daily 90
  persist policy set --keep-all
  persist policy set --grace 2h")]
pub(crate) struct Policy {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Change the given rules and keep the others
    ///
    /// Hosts apply the change within half the grace period. It is safe to change the policy while
    /// hosts run: until then, the longer of the two grace periods applies.
    Set(Set),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist policy set --keep-last 50 --keep-daily 90
  persist policy set --keep-all
  persist policy set --grace 2h")]
struct Set {
    /// Set the grace period: versions that were the newest within it are not pruned; at most 30d
    #[arg(long, value_name = "DURATION", value_parser = persist_host::units::parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    rules: KeepRules,
    /// Keep every version until an operator prunes
    #[arg(long, conflicts_with_all = ["keep_last", "keep_within", "keep_hourly", "keep_daily",
    "keep_weekly"])]
    keep_all: bool,
}

impl Policy {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        store.require().await?;
        match self.action {
            None => show("policy", &store.policy().await?, out),
            Some(Action::Set(set)) => set.run(store, out).await,
        }
    }
}

impl Set {
    async fn run(self, store: &Store, out: Out) -> Result<()> {
        let current = store.policy().await?;
        let mut policy = current.policy;
        policy.grace = self.grace.unwrap_or(policy.grace);
        if self.keep_all {
            policy.retention = None;
        } else if self.rules.given().is_some() {
            let mut rules = policy.retention.unwrap_or_else(Retention::nothing);
            self.rules.change(&mut rules);
            policy.retention = Some(rules);
        } else if self.grace.is_none() {
            let hint = "add --grace, --keep-all or another --keep option";
            return Err(Usage::new("no change was given").with_hint(hint).into());
        }
        let expect = current.version.map_or(Expect::Absent, Expect::Version);
        store.set_policy(&policy, expect).await?;
        show("policy-set", &store.policy().await?, out)?;
        warn_of_nothing(policy.retention.as_ref(), out);
        Ok(())
    }
}

/// A policy that keeps the newest version alone is rarely meant.
fn warn_of_nothing(retention: Option<&Retention>, out: Out) {
    if retention == Some(&Retention::nothing()) {
        out.note(format_args!(
            "warning: this policy keeps only the newest version once the grace period has passed"
        ));
    }
}

fn show(event: &str, current: &CurrentPolicy, out: Out) -> Result<()> {
    let mut value = value(current);
    value["event"] = event.into();
    let printing = match event {
        "policy" => out.result(&value, || table(current)),
        _ => out.print(&value, || table(current)),
    };
    printed(printing, "the policy is set")
}

/// A policy as JSON.
pub(super) fn value(current: &CurrentPolicy) -> Value {
    let policy = &current.policy;
    json!({
        "version": current.version,
        "grace_seconds": policy.grace.as_secs_f64(),
        "retention": policy.retention.as_ref().map(rules),
    })
}

/// A policy as people read it, a rule a line.
pub(super) fn table(current: &CurrentPolicy) -> String {
    let policy = &current.policy;
    let version = current.version.map_or_else(
        || "none (the defaults apply); create one with `persist policy set`".to_owned(),
        |version| version.to_string(),
    );
    let duration = |time| humantime::format_duration(time).to_string();
    let mut rows = vec![("version", version), ("grace", duration(policy.grace))];
    match &policy.retention {
        None => rows.push(("keep", "every version".to_owned())),
        Some(rules) => rows.extend([
            ("keep-last", rules.keep_last.to_string()),
            ("keep-within", duration(rules.keep_within)),
            ("keep-hourly", rules.keep_hourly.to_string()),
            ("keep-daily", rules.keep_daily.to_string()),
            ("keep-weekly", rules.keep_weekly.to_string()),
        ]),
    }
    let lines = rows.iter().map(|(key, value)| format!("{key:<12} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn rules(rules: &Retention) -> Value {
    json!({
        "keep_last": rules.keep_last,
        "keep_within_seconds": rules.keep_within.as_secs_f64(),
        "keep_hourly": rules.keep_hourly,
        "keep_daily": rules.keep_daily,
        "keep_weekly": rules.keep_weekly,
    })
}
