//! Health of the store: what can be told cheaply, and what to do about it.
//!
//! Each part has a few seconds. A part that needs longer says how far it came, and names the
//! command that has no such limit. Nothing is changed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::response::Response;
use maud::{Markup, html};
use persist_host::snapshot::{
    self, CheckSummary, CurrentPolicy, Finding, GcOptions, LeaseInfo, LeaseState, Name, ReadData,
    Selection, Severity, Store,
};
use tokio::time::timeout;

use super::page::{self, Page, chosen, crumbs, scrolled};
use super::visit::{Place, Visit};
use crate::commands::policy;
use crate::serve::problem::{Problem, Result};
use crate::serve::token::TokenRight;
use crate::text;

/// Time for each part, and for a check for damage.
const TIME: Duration = Duration::from_secs(3);
const CHECK_TIME: Duration = Duration::from_secs(10);

/// Agents or sessions that are listed together.
const PAGE: usize = 1000;

/// Leases and findings that are shown.
const MAX_SHOWN: usize = 50;

/// Label of a deletion that an expiry made.
const EXPIRED: &str = "persist.expired-after";

/// How good a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Good,
    Note,
    Bad,
}

/// A part of the store: what was found, and what to do, if something is to be done.
struct Part {
    what: &'static str,
    grade: Grade,
    found: String,
    remedy: Option<String>,
}

impl Part {
    fn new(what: &'static str, grade: Grade, found: impl Into<String>) -> Self {
        Self {
            what,
            grade,
            found: found.into(),
            remedy: None,
        }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Returns the part of a storage that refused. The log has what only the operator may know.
    fn failed(what: &'static str, error: snapshot::Error) -> Self {
        let problem = Problem::from(error);
        let remedy = problem.hint.unwrap_or_default();
        let part = Self::new(what, Grade::Bad, problem.detail);
        let more = "the log of the service has the error; run `persist doctor`";
        if remedy.is_empty() {
            part.remedy(more)
        } else {
            part.remedy(format!("{remedy}; {more}"))
        }
    }

    fn too_long(what: &'static str, command: &str) -> Self {
        let found = format!("not known: it takes more than {}", seconds(TIME));
        Self::new(what, Grade::Note, found).remedy(format!("run `{command}`"))
    }

    fn markup(&self) -> Markup {
        html! {
            tr {
                th scope="row" { (self.what) }
                td { (badge(self.grade)) }
                td .prose { (text::one_line(&self.found)) }
                td .prose {
                    @match &self.remedy {
                        Some(remedy) => (text::one_line(remedy)),
                        None => "–",
                    }
                }
            }
        }
    }
}

fn badge(grade: Grade) -> Markup {
    html! {
        @match grade {
            Grade::Good => { span .badge.good { "ok" } }
            Grade::Note => { span .badge { "note" } }
            Grade::Bad => { span .badge.bad { "problem" } }
        }
    }
}

fn seconds(time: Duration) -> String {
    text::count(time.as_secs(), "second")
}

pub(super) async fn show(visit: Visit, _: Request) -> Result<Response> {
    visit.authorize(TokenRight::Metrics, None)?;
    let is_checked = visit.fields.text("check").is_some();
    if is_checked {
        visit.authorize(TokenRight::Admin, None)?;
    }
    let store = &visit.app.store;
    let (storage, versions, leftovers, leases, policy) = tokio::join!(
        storage(store),
        versions(store),
        leftovers(store),
        timeout(TIME, store.leases()),
        timeout(TIME, store.policy()),
    );
    let (leases, held) = leases_of(&visit, leases);
    let mut parts = vec![storage, versions, leftovers, leases];
    let rules = match policy {
        Ok(Ok(policy)) => {
            parts.extend(expiry(store, &policy).await);
            policy::rows(&policy)
        }
        Ok(Err(error)) => {
            parts.push(Part::failed("Policy", error));
            Vec::new()
        }
        Err(_) => {
            parts.push(Part::too_long("Policy", "persist policy"));
            Vec::new()
        }
    };
    parts.push(runs(&visit));
    let may_check = visit.authorize(TokenRight::Admin, None).is_ok();
    let checked = if is_checked {
        check(&visit).await
    } else {
        html! {}
    };
    let user = visit.user();
    let content = html! {
        h1 { "Health of the store" }
        (summary(&parts))
        (scrolled("Parts of the store", html! {
            table {
                thead { tr {
                    th scope="col" { "Part" } th scope="col" { "State" }
                    th scope="col" { "Found" } th scope="col" { "What to do" }
                } }
                tbody { @for part in &parts { (part.markup()) } }
            }
        }))
        h2 { "Damage" }
        (checked)
        @if may_check {
            p .muted {
                "Reads the metadata of versions for at most " (seconds(CHECK_TIME)) ", and changes "
                "nothing."
            }
            form action="/health" {
                input type="hidden" name="check" value="1";
                button { "Check for damage" }
            }
        } @else {
            p .muted { "Tokens with the right " code { "admin" } " can check for damage here." }
        }
        (held)
        @if !rules.is_empty() {
            h2 { "Policy" }
            dl .facts {
                @for (key, value) in &rules {
                    div { dt { (key) } dd { (text::one_line(value)) } }
                }
            }
            p .muted { "Change it with " code { "persist policy set" } "." }
        }
    };
    let page = Page {
        title: "Health of the store".to_owned(),
        user: Some(&user),
        search: "",
        trail: crumbs(None, None, Some("Health")),
        live: None,
        content,
    };
    page.response()
}

fn summary(parts: &[Part]) -> Markup {
    let bad = parts.iter().filter(|part| part.grade == Grade::Bad).count();
    html! {
        @if bad == 0 {
            p .done role="status" { "No problem is known." }
        } @else {
            p .alert role="alert" { (text::count(bad as u64, "problem")) ": see what to do." }
        }
    }
}

/// Tells if the storage answers, and how fast.
async fn storage(store: &Store) -> Part {
    const WHAT: &str = "Storage";
    let began = Instant::now();
    match timeout(TIME, store.is_there()).await {
        Ok(Ok(is_there)) => {
            let millis = began.elapsed().as_millis();
            if is_there {
                Part::new(WHAT, Grade::Good, format!("answers in {millis} ms"))
            } else {
                let found = format!("answers in {millis} ms; nothing was ever saved");
                Part::new(WHAT, Grade::Note, found).remedy("the first save makes the store")
            }
        }
        Ok(Err(error)) => Part::failed(WHAT, error),
        Err(_) => {
            let found = format!("did not answer within {}", seconds(TIME));
            Part::new(WHAT, Grade::Bad, found).remedy("run `persist doctor`")
        }
    }
}

/// Numbers of a store.
#[derive(Default)]
struct Totals {
    agents: u64,
    names: u64,
    versions: u64,
    bytes: u64,
}

async fn versions(store: &Store) -> Part {
    const WHAT: &str = "Versions";
    let mut totals = Totals::default();
    let counted = timeout(TIME, count(store, &mut totals)).await;
    let found = format!(
        "{} and {} of {}, {} at rest",
        text::count(totals.versions, "version"),
        text::count(totals.names, "name"),
        text::count(totals.agents, "agent"),
        text::bytes(totals.bytes),
    );
    match counted {
        Ok(Ok(())) => Part::new(WHAT, Grade::Good, found),
        Ok(Err(error)) => Part::failed(WHAT, error),
        Err(_) => {
            let found = format!("at least {found}");
            Part::new(WHAT, Grade::Note, found).remedy("run `persist stats` for all numbers")
        }
    }
}

async fn count(store: &Store, totals: &mut Totals) -> snapshot::Result<()> {
    let mut last: Option<Name> = None;
    loop {
        let agents = store.agents(last.as_ref(), PAGE).await?;
        let Some(next) = agents.last().cloned() else {
            return Ok(());
        };
        for agent in &agents {
            totals.agents += 1;
            let mut last: Option<Option<Name>> = None;
            loop {
                let after = last.as_ref().map(Option::as_ref);
                let sessions = store.sessions(agent, after, PAGE).await?;
                let Some(next) = sessions.last().cloned() else {
                    break;
                };
                for session in &sessions {
                    let session = session.as_ref().map(Name::as_str);
                    let usage = store.scope(agent.as_str(), session)?.usage().await?;
                    totals.names += usage.names;
                    totals.versions += usage.versions;
                    totals.bytes += usage.bytes;
                }
                last = Some(next);
            }
        }
        last = Some(next);
    }
}

/// Tells what `persist gc` would remove.
async fn leftovers(store: &Store) -> Part {
    const WHAT: &str = "Leftovers";
    let mut options = GcOptions::default();
    options.dry_run = true;
    match timeout(TIME, store.gc(&options)).await {
        Ok(Ok(swept)) if swept.removed > 0 => {
            let found = format!(
                "{} of unfinished saves, older than a day: {}",
                text::count(swept.removed, "object"),
                text::bytes(swept.bytes),
            );
            Part::new(WHAT, Grade::Note, found)
                .remedy("run `persist gc`, from time to time: nothing else removes them")
        }
        Ok(Ok(swept)) if swept.unlisted.is_some() => {
            let found = "none that can be seen: the server cannot list unfinished uploads";
            let remedy = "let a lifecycle rule of the bucket abort incomplete uploads";
            Part::new(WHAT, Grade::Note, found).remedy(remedy)
        }
        Ok(Ok(_)) => Part::new(
            WHAT,
            Grade::Good,
            "none of unfinished saves, older than a day",
        ),
        Ok(Err(error)) => Part::failed(WHAT, error),
        Err(_) => Part::too_long(WHAT, "persist gc --dry-run"),
    }
}

/// Returns the part of the leases, and a table of those that hosts hold.
fn leases_of(
    visit: &Visit,
    found: std::result::Result<snapshot::Result<Vec<LeaseInfo>>, tokio::time::error::Elapsed>,
) -> (Part, Markup) {
    const WHAT: &str = "Leases";
    let leases = match found {
        Ok(Ok(leases)) => leases,
        Ok(Err(error)) => return (Part::failed(WHAT, error), html! {}),
        Err(_) => return (Part::too_long(WHAT, "persist leases"), html! {}),
    };
    let held: Vec<_> = leases
        .iter()
        .filter(|lease| lease.state == LeaseState::Held)
        .collect();
    let is_late = |lease: &LeaseInfo| lease.remaining() == Some(Duration::ZERO);
    let late = held.iter().filter(|lease| is_late(lease)).count();
    let text = format!("{} held", text::count(held.len() as u64, "lease"));
    let part = if late > 0 {
        let found = format!("{text}, {late} not renewed in time: their hosts ended or are cut off");
        Part::new(WHAT, Grade::Note, found)
            .remedy("nothing, if the hosts are gone: another host takes over with its next run")
    } else {
        Part::new(WHAT, Grade::Good, text)
    };
    let seen: Vec<_> = held
        .into_iter()
        .filter(|lease| visit.may(TokenRight::Read, &lease.agent))
        .collect();
    if seen.is_empty() {
        return (part, html! {});
    }
    let table = html! {
        h2 { "Leases" }
        (scrolled("Leases", html! {
            table {
                thead { tr {
                    th scope="col" { "Agent or session" } th scope="col" { "Holder" }
                    th scope="col" { "Free for others in" }
                } }
                tbody { @for lease in seen.iter().take(MAX_SHOWN) {
                    @let place = Place {
                        agent: lease.agent.clone(),
                        session: lease.session.clone(),
                    };
                    tr {
                        th scope="row" {
                            a href=(place.url("/agent", &[])) {
                                (chosen(place.agent.as_str()))
                                @if let Some(session) = &place.session {
                                    "/" (chosen(session.as_str()))
                                }
                            }
                        }
                        td .prose { (chosen(&lease.holder)) }
                        td {
                            @match lease.remaining() {
                                Some(Duration::ZERO) => { span .badge { "now" } }
                                Some(left) => (seconds(left + Duration::from_millis(999))),
                                None => "not known",
                            }
                        }
                    }
                } }
            }
        }))
        p .muted {
            @if seen.len() > MAX_SHOWN {
                (seen.len() - MAX_SHOWN) " more are not shown. "
            }
            "To end the lease of a host that is known to be dead: "
            code { "persist leases break AGENT/SESSION" } "."
        }
    };
    (part, table)
}

/// Tells what expired, and what is overdue; nothing where no rule lets names expire.
async fn expiry(store: &Store, current: &CurrentPolicy) -> Option<Part> {
    const WHAT: &str = "Expiry";
    if current.policy.expire.is_empty() {
        return None;
    }
    let mut overdue = 0;
    let mut last: Option<u64> = None;
    let looked = timeout(TIME, async {
        let mut heads = store.heads(&Selection::All);
        while let Some(head) = heads.next().await? {
            let Ok(info) = head.info else { continue };
            if info.deleted {
                if info.labels.iter().any(|(key, _)| key == EXPIRED) {
                    last = last.max(Some(info.created_at));
                }
                continue;
            }
            let (agent, session) = (head.scope.agent(), head.scope.session());
            let after = current.policy.expire_after(agent, session);
            let saved = UNIX_EPOCH + Duration::from_millis(info.created_at);
            let age = SystemTime::now().duration_since(saved).unwrap_or_default();
            if after.is_some_and(|after| age > after) {
                overdue += 1;
            }
        }
        snapshot::Result::Ok(())
    });
    let is_whole = match looked.await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => return Some(Part::failed(WHAT, error)),
        Err(_) => false,
    };
    let at_least = if is_whole { "" } else { "at least " };
    let last = last.map_or_else(
        || "no deletion by expiry is left".to_owned(),
        |last| format!("the last deletion by expiry was at {}", text::time(last)),
    );
    let overdue_text = text::count(overdue, "name");
    let found = format!("{at_least}{overdue_text} overdue; {last}");
    Some(if overdue > 0 {
        let remedy = "run `persist prune`, from time to time: only it deletes names that expire";
        Part::new(WHAT, Grade::Note, found).remedy(remedy)
    } else {
        Part::new(WHAT, Grade::Good, found)
    })
}

/// Tells the runs of this process.
fn runs(visit: &Visit) -> Part {
    const WHAT: &str = "Runs here";
    match visit.app.runs.under_way() {
        (_, 0) => Part::new(WHAT, Grade::Good, "none"),
        (queues, runs) => {
            let runs = text::count(runs as u64, "run");
            let queues = text::count(queues as u64, "queue");
            Part::new(
                WHAT,
                Grade::Good,
                format!("{runs} at work or waiting, in {queues}"),
            )
        }
    }
}

/// Findings of a check that may have been ended early.
async fn check(visit: &Visit) -> Markup {
    let store = &visit.app.store;
    let mut seen = CheckSummary::default();
    let mut findings: Vec<Finding> = Vec::new();
    let each = |summary: &CheckSummary, finding: Option<&Finding>| {
        seen = *summary;
        let finding = finding.filter(|finding| is_seen(visit, finding));
        if findings.len() < MAX_SHOWN {
            findings.extend(finding.cloned());
        }
    };
    let checked = timeout(
        CHECK_TIME,
        store.check(&Selection::All, ReadData::None, each),
    )
    .await;
    let is_whole = match checked {
        Ok(Ok(summary)) => {
            seen = summary;
            true
        }
        Ok(Err(error)) => {
            let problem = Problem::from(error);
            return html! {
                p .alert role="alert" { (text::one_line(&problem.detail)) }
            };
        }
        Err(_) => false,
    };
    let bad = findings
        .iter()
        .any(|finding| finding.kind.severity() >= Severity::Denied);
    let class = if bad { "alert" } else { "done" };
    html! {
        div class=(class) role="status" {
            p {
                (text::count(seen.versions, "version")) " of " (text::count(seen.names, "name"))
                " checked; " (text::count(seen.findings, "finding")) "."
                @if !is_whole {
                    " The check stopped after " (seconds(CHECK_TIME)) "; "
                    code { "persist check" } " has no such limit."
                }
            }
        }
        @if !findings.is_empty() {
            (scrolled("Findings", html! {
                table {
                    thead { tr {
                        th scope="col" { "Kind" } th scope="col" { "Object" }
                        th scope="col" { "Found" } th scope="col" { "What to do" }
                    } }
                    tbody { @for finding in &findings { (finding_row(finding)) } }
                }
            }))
            @if seen.findings > findings.len() as u64 {
                p .muted { "Only the first " (findings.len()) " are shown." }
            }
        }
    }
}

/// Returns true if a finding is of an agent that the token may read, or of no agent.
fn is_seen(visit: &Visit, finding: &Finding) -> bool {
    let agent = match &finding.version {
        Some((scope, ..)) => Some(scope.agent().clone()),
        None => Name::new(finding.key.split('/').next().unwrap_or_default()).ok(),
    };
    match agent {
        Some(agent) => visit.may(TokenRight::Read, &agent),
        None => true,
    }
}

fn finding_row(finding: &Finding) -> Markup {
    let severity = finding.kind.severity();
    let remedy = match severity {
        Severity::Damage => {
            "run `persist repair`, which prints what it can do; --from copies from a backup"
        }
        Severity::Denied => "let the account of the service read it",
        Severity::Warning => "run `persist check`; `persist repair` prints what it can do",
        _ => "run `persist repair` or `persist gc`, when it suits you",
    };
    html! {
        tr {
            td {
                @let class = if severity >= Severity::Denied { "badge bad" } else { "badge" };
                span class=(class) { (finding.kind.as_str()) }
            }
            th scope="row" {
                @match &finding.version {
                    Some((scope, name, version)) => {
                        @let place = Place::of(scope);
                        a href=(place.name_url("/name", name, &[])) {
                            (chosen(scope.agent().as_str())) "/" (chosen(name.as_str()))
                            ", version " (page::decimal(*version))
                        }
                    }
                    None => (chosen(&finding.key)),
                }
            }
            td .prose { (text::one_line(&finding.what)) }
            td .prose { (remedy) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use persist_host::snapshot::{Expect, ExpireRule, Policy, SaveOptions};
    use persist_host::storage::Memory;

    use super::*;

    #[tokio::test]
    async fn versions_are_counted_in_all_agents_and_sessions() {
        let store = Store::new(Arc::new(Memory::new()));
        assert_eq!(
            storage(&store).await.grade,
            Grade::Note,
            "nothing was ever saved"
        );
        for (agent, session) in [("a", None), ("a", Some("s")), ("b", Some("s"))] {
            let scope = store.scope(agent, session).expect("a scope");
            for _ in 0..2 {
                let state = Bytes::from_static(b"x");
                let saved = scope.save("n", state, SaveOptions::default()).await;
                saved.expect("saved");
            }
        }
        let part = versions(&store).await;
        assert!(
            part.found
                .starts_with("6 versions and 3 names of 2 agents, "),
            "{}",
            part.found
        );
        assert_eq!(
            (part.grade, storage(&store).await.grade),
            (Grade::Good, Grade::Good)
        );
    }

    #[tokio::test]
    async fn an_overdue_expiry_says_what_to_do() {
        let store = Store::new(Arc::new(Memory::new()));
        let scope = store.scope("bot", None).expect("a scope");
        let state = Bytes::from_static(b"x");
        let saved = scope.save("n", state, SaveOptions::default()).await;
        saved.expect("saved");
        let current = store.policy().await.expect("a policy");
        assert!(expiry(&store, &current).await.is_none(), "no rule");
        let mut policy = Policy::default();
        policy.grace = Duration::ZERO;
        let after = Some(Duration::from_millis(1));
        policy.expire = vec![ExpireRule::new(None, None, after)];
        let set = store.set_policy(&policy, Expect::Any).await;
        set.expect("set");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let current = store.policy().await.expect("a policy");
        let part = expiry(&store, &current).await.expect("a part");
        assert_eq!(part.grade, Grade::Note);
        assert!(part.found.starts_with("1 name overdue"), "{}", part.found);
        assert!(part.remedy.expect("a remedy").contains("persist prune"));
    }

    #[test]
    fn a_part_is_text() {
        let part = Part::new("Storage", Grade::Bad, "<b>\u{202e}").remedy("<i>");
        let shown = part.markup().into_string();
        assert!(shown.contains("&lt;b&gt;\\u{202e}"), "{shown}");
        assert!(
            shown.contains("&lt;i&gt;") && shown.contains("problem"),
            "{shown}"
        );
    }
}
