//! Verification that the stored data is what was saved.

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{CheckSummary, Finding, FindingKind, ReadData, Severity, Store};
use serde_json::{Value, json};

use super::{nothing, nowhere};
use crate::address::{self, Address, SelectionArg};
use crate::error::Found;
use crate::print::{self, Out};
use crate::progress::Progress;
use crate::stdio::{BAD, DIM, WARNING, say, stderr_is_coloured, stdout_is_coloured};
use crate::text::{self, one_line, painted};

/// Verify every byte of a version
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist verify bot/memory
  persist verify bot/memory@3 --json")]
pub(crate) struct Verify {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]
    address: Address,
}

/// Check the stored data for damage
///
/// Verifies the length and the trailer of each version. The trailer holds the metadata and the
/// checksums of the blocks; the blocks are read only with --read-data or --sample. Exit code 6:
/// data is damaged. 5: this account may not read all data, and the rest is undamaged. 10: warnings
/// only. Cost: a request for each version, and with --read-data a request for each 8 MiB.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist check
  persist check bot --read-data
  persist check --sample 5% --json")]
pub(crate) struct Check {
    /// Agent, session or name: agent, agent/session/, agent/name or agent/session/name [default:
    /// everything]
    selection: Option<SelectionArg>,
    /// Read and verify every byte
    #[arg(long, conflicts_with = "sample")]
    read_data: bool,
    /// Read and verify every byte of PERCENT of the versions, chosen at random
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<f64>,
    /// Print only totals
    #[arg(long)]
    summary: bool,
}

impl Verify {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let address = &self.address;
        let scope = address.scope(store)?;
        let verified = scope.verify(address.name.as_str(), address.version).await?;
        let verified = verified.ok_or_else(|| nothing(address))?;
        let info = &verified.info;
        let text = address.at(info.version);
        let value = print::event("verified", &text, info);
        out.print(&value, || {
            let size = text::bytes(info.size);
            let stored = text::bytes(info.stored_size);
            format!(
                "verified {text}: {size} of state, {stored} stored, sha256 {}",
                info.sha256
            )
        })?;
        Ok(())
    }
}

impl Check {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let read = match (self.read_data, self.sample) {
            (true, _) => ReadData::All,
            (false, Some(share)) => ReadData::Sample(share),
            (false, None) => ReadData::None,
        };
        let whole = self.selection.is_none();
        let selection = self.selection.map(|what| what.0).unwrap_or_default();
        let mut progress = Progress::items(out, "checked versions:", None);
        let mut counts = Counts::default();
        let mut printed = Ok(());
        let checked = store.check(&selection, read, |_, finding| {
            let Some(finding) = finding else {
                return progress.add(1);
            };
            counts.add(finding.kind.severity());
            if self.summary {
                return;
            }
            // A finding that cannot be printed does not stop the check.
            if let Err(error) = progress.aside(|| tell(finding, out)) {
                printed = Err(error);
            }
        });
        let checked = checked.await?;
        drop(progress);
        if checked.versions + checked.findings == 0 {
            // A disk that is not mounted is no store that was checked.
            store.require().await?;
            if !whole {
                return Err(nowhere(store, &selection).await);
            }
        }
        super::printed(printed, "the store is checked")?;
        conclude(&checked, &counts, out)
    }
}

/// Findings, by severity.
#[derive(Default)]
struct Counts {
    damaged: u64,
    denied: u64,
    warnings: u64,
}

impl Counts {
    fn add(&mut self, severity: Severity) {
        match severity {
            Severity::Damage => self.damaged += 1,
            Severity::Denied => self.denied += 1,
            Severity::Note => {}
            // A severity of a later version of the library is counted as a warning.
            _ => self.warnings += 1,
        }
    }
}

fn tell(finding: &Finding, out: Out) -> std::io::Result<()> {
    let severity = finding.kind.severity().as_str();
    let address = finding.version.as_ref().map(|(scope, name, version)| {
        let name = address::address(scope.agent(), scope.session(), name);
        format!("{name}@{version}")
    });
    let kind = finding.kind.as_str();
    let hint = hint(finding.kind);
    let value = json!({
        "severity": severity, "kind": kind, "key": finding.key, "message": finding.what,
        "hint": hint,
    });
    let located = print::located(address.as_deref().unwrap_or_default());
    let mut value = print::extend(value, located);
    if address.is_none() {
        value["address"] = Value::Null;
    }
    let text = || {
        // A stranger may have chosen both.
        let what = one_line(&finding.what);
        let key = one_line(&finding.key);
        let place = match address {
            None => key,
            Some(address) => format!("{address} ({key})"),
        };
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{severity:<8} {kind:<15} {place}: {what}{hint}")
    };
    let style = match finding.kind.severity() {
        Severity::Damage | Severity::Denied => BAD,
        Severity::Note => DIM,
        _ => WARNING,
    };
    if out.quiet && !out.json {
        // A problem is never kept quiet. It is no result that was asked for.
        say(format_args!(
            "{}",
            painted(stderr_is_coloured(), style, &text())
        ));
        return Ok(());
    }
    out.print(&value, || painted(stdout_is_coloured(), style, &text()))
}

/// Returns what to do about a finding, if the finding itself does not say it.
fn hint(kind: FindingKind) -> Option<&'static str> {
    match kind {
        FindingKind::Misplaced => Some(
            "move the file to the key of that version, or adopt it with `persist repair --adopt`",
        ),
        FindingKind::Corrupt => Some("restore an older version, or copy it again from a backup"),
        FindingKind::Unsupported => Some("use a newer version of Persist"),
        FindingKind::Unreadable => Some("check the disk"),
        FindingKind::InTheWay | FindingKind::Foreign => Some("move it elsewhere"),
        FindingKind::DanglingPin => Some("remove the pin with `persist unpin`"),
        _ => None,
    }
}

fn conclude(checked: &CheckSummary, counts: &Counts, out: Out) -> Result<()> {
    let Counts {
        damaged,
        denied,
        warnings,
    } = *counts;
    let CheckSummary {
        names,
        versions,
        read,
        bytes,
        findings,
        ..
    } = *checked;
    let value = json!({
        "event": "checked", "names": names, "versions": versions, "read": read, "bytes": bytes,
        "findings": findings, "damaged": damaged, "denied": denied, "warnings": warnings,
    });
    let summary = out.print(&value, || {
        let bytes = text::bytes(bytes);
        format!(
            "checked {} of {}, {bytes} stored, {read} read completely: {damaged} damaged, \
             {denied} denied, {}, {}",
            text::count(versions, "version"),
            text::count(names, "name"),
            text::count(warnings, "warning"),
            text::count(findings - damaged - denied - warnings, "note")
        )
    });
    super::printed(summary, "the store is checked")?;
    let found = |severity, what: String| Err(Found { severity, what }.into());
    if damaged > 0 {
        return found(Severity::Damage, format!("damaged: {damaged}"));
    }
    if denied > 0 {
        let what = format!("permission denied: {denied}; no damage in what could be read");
        return found(Severity::Denied, what);
    }
    if warnings > 0 {
        let what = "no damage; the warnings above need attention";
        return found(Severity::Warning, what.into());
    }
    Ok(())
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number / 100.0),
        _ => Err("write a share of the versions from 0% to 100%".into()),
    }
}
