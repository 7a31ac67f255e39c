//! The store's policy: shown and changed.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use persist_host::snapshot::{
    CurrentPolicy, Expect, ExpireRule, Name, Retention, Selection, Store,
};
use persist_host::units::parse_duration;
use serde_json::{Value, json};

use super::printed;
use super::retention::KeepRules;
use crate::address::{self, SelectionArg};
use crate::error::Usage;
use crate::print::Out;
use crate::text::{self, one_line};

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
  persist policy set --grace 2h
  persist policy set --expire-after 90d --expire-after bot/monday=7d --expire-after ops=never")]
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
    /// Remove the rules about labels
    #[arg(long, conflicts_with_all = ["keep_label", "keep_all"])]
    no_keep_label: bool,
    /// Keep every version until an operator prunes
    #[arg(long, conflicts_with_all = ["keep_last", "keep_within", "keep_hourly", "keep_daily",
    "keep_weekly", "keep_monthly", "keep_yearly", "keep_label"])]
    keep_all: bool,
    /// Let names expire that were not saved for DURATION: `persist prune` deletes them, and purges
    /// them after the same time again. PREFIX is an agent or agent/session [default: everything];
    /// the most specific rule applies. `never` exempts names. May be repeated. Loads do not count
    #[arg(long, value_name = "[PREFIX=]DURATION", value_parser = expire_rule)]
    expire_after: Vec<ExpireRule>,
    /// Remove all expiry rules, before those of --expire-after are added
    #[arg(long)]
    no_expire: bool,
}

/// Parses an expiry rule.
fn expire_rule(text: &str) -> Result<ExpireRule, String> {
    let (prefix, after) = match text.rsplit_once('=') {
        Some((prefix, after)) => (Some(prefix), after),
        None => (None, text),
    };
    let after = match after {
        "never" => None,
        after => Some(parse_duration(after).map_err(|error| error.to_string())?),
    };
    if after == Some(Duration::ZERO) {
        return Err("the duration is 0; write `never` for names that do not expire".into());
    }
    let Some(prefix) = prefix else {
        return Ok(ExpireRule::new(None, None, after));
    };
    // A session is selected with a slash at its end.
    let prefix = prefix.trim_end_matches('/');
    let prefix = if prefix.contains('/') {
        format!("{prefix}/")
    } else {
        prefix.to_owned()
    };
    match prefix.parse::<SelectionArg>().map(|parsed| parsed.0) {
        Ok(Selection::Agent(agent)) => Ok(ExpireRule::new(Some(agent), None, after)),
        Ok(Selection::Session(agent, Some(session))) => {
            Ok(ExpireRule::new(Some(agent), Some(session), after))
        }
        Ok(_) => Err("write agent=DURATION or agent/session=DURATION".into()),
        Err(error) => Err(error.to_string()),
    }
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
        let changes_expiry = self.no_expire || !self.expire_after.is_empty();
        if self.no_expire {
            policy.expire.clear();
        }
        for rule in self.expire_after {
            let is_same =
                |old: &ExpireRule| (&old.agent, &old.session) == (&rule.agent, &rule.session);
            policy.expire.retain(|old| !is_same(old));
            policy.expire.push(rule);
        }
        if self.keep_all {
            policy.retention = None;
        } else if self.rules.given().is_some() {
            let mut rules = policy.retention.unwrap_or_else(Retention::nothing);
            self.rules.change(&mut rules);
            policy.retention = Some(rules);
        } else if self.grace.is_none() && !changes_expiry && !self.no_keep_label {
            let hint = "add --grace, --expire-after, --keep-all or another --keep option";
            return Err(Usage::new("no change was given").with_hint(hint).into());
        }
        if let (true, Some(rules)) = (self.no_keep_label, &mut policy.retention) {
            rules.keep_labels.clear();
        }
        let soonest = policy.expire.iter().filter_map(|rule| rule.after).min();
        if let Some(soonest) = soonest.filter(|after| *after < policy.grace) {
            let soonest = text::duration(soonest);
            let grace = text::duration(policy.grace);
            let what = format!("names cannot expire after {soonest}: the grace period is {grace}");
            let hint = "choose a longer duration for --expire-after, or a shorter --grace";
            return Err(Usage::new(what).with_hint(hint).into());
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
        "expire": policy.expire.iter().map(expiry).collect::<Vec<_>>(),
    })
}

/// A policy as people read it, a rule a line.
pub(super) fn table(current: &CurrentPolicy) -> String {
    let policy = &current.policy;
    let version = current.version.map_or_else(
        || "none (the defaults apply); create one with `persist policy set`".to_owned(),
        |version| version.to_string(),
    );
    let duration = text::duration;
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
    if let Some(rules) = &policy.retention {
        let counts = [
            ("keep-monthly", rules.keep_monthly),
            ("keep-yearly", rules.keep_yearly),
        ];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        rows.extend(counts.map(|(key, count)| (key, count.to_string())));
        let labels = rules.keep_labels.iter().map(|rule| match &rule.value {
            Some(value) => one_line(&format!("{}={value}", rule.key)),
            None => one_line(&rule.key),
        });
        rows.extend(labels.map(|label| ("keep-label", label)));
    }
    let expiries = policy.expire.iter().map(|rule| {
        let after = rule.after.map_or_else(|| "never".to_owned(), duration);
        match &rule.agent {
            None => after,
            Some(agent) => format!("{}={after}", prefix(agent, rule.session.as_ref())),
        }
    });
    rows.extend(expiries.map(|expiry| ("expire-after", expiry)));
    let lines = rows.iter().map(|(key, value)| format!("{key:<12} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The prefix of an expiry rule, as `--expire-after` takes it.
fn prefix(agent: &Name, session: Option<&Name>) -> String {
    match session {
        None => address::part(agent),
        Some(_) => {
            let session = address::session_address(agent, session);
            session.trim_end_matches('/').to_owned()
        }
    }
}

fn expiry(rule: &ExpireRule) -> Value {
    json!({
        "agent": rule.agent.as_ref().map(Name::as_str),
        "session": rule.session.as_ref().map(Name::as_str),
        "after_seconds": rule.after.map(|after| after.as_secs_f64()),
    })
}

fn rules(rules: &Retention) -> Value {
    let labels = rules.keep_labels.iter();
    let labels = labels.map(|rule| json!({ "key": rule.key, "value": rule.value }));

    json!({
        "keep_last": rules.keep_last,
        "keep_within_seconds": rules.keep_within.as_secs_f64(),
        "keep_hourly": rules.keep_hourly,
        "keep_daily": rules.keep_daily,
        "keep_weekly": rules.keep_weekly,
        "keep_monthly": rules.keep_monthly,
        "keep_yearly": rules.keep_yearly,
        "keep_labels": labels.collect::<Vec<_>>(),
    })
}
