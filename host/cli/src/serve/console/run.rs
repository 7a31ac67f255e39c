//! The form that runs an agent, and the page of what came of a run.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use persist_host::snapshot::Name;
use serde_json::Value;

use super::page::{self, Page, chosen, crumbs, hidden_fields, html_response};
use super::session::User;
use super::visit::{Place, Visit};
use crate::serve::problem::{Problem, Result};
use crate::serve::runs;
use crate::serve::token::TokenRight;
use crate::text;

/// Bytes of the answer, and of each stream of output, that are shown.
const SHOWN: usize = 64 << 10;

/// Versions that are listed.
const VERSIONS: usize = 200;

/// Returns the form that runs the agent of a place; nothing where the manifest does not name it, or
/// the token may not run it.
pub(super) fn form(visit: &Visit, user: &User, place: &Place, args: &str) -> Result<Markup> {
    let is_known = visit.app.manifest.entry(&place.agent).is_some();
    if !is_known || !visit.may(TokenRight::Run, &place.agent) {
        return Ok(html! {});
    }
    let mut once = [0; 16];
    getrandom::fill(&mut once).map_err(|error| Problem::from(anyhow::Error::from(error)))?;
    let once = hex::encode(once);
    Ok(html! {
        h2 { "Run" }
        form .stacked method="post" action="/run" {
            (hidden_fields(user, place, &[("once", &once)]))
            label for="args" { "Arguments, one a line" }
            textarea #args name="args" rows="3" spellcheck="false" autocapitalize="off" dir="auto" {
                // A browser drops the first line break.
                "\n" (args)
            }
            button { "Run" }
        }
    })
}

/// Runs the agent once, and shows what came of it. The same form that is sent again, as when the
/// page is loaded again, does not run the agent again.
pub(super) async fn run(visit: Visit) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Run)?;
    let typed = visit.fields.text("args").unwrap_or("").to_owned();
    let once = visit.fields.text("once");
    let ended = runs::run_of_form(&visit.app, scope, arguments(&typed), once).await;
    let (problem, result) = match ended {
        Ok(result) => (None, result),
        // The agent was begun, and may have saved something.
        Err(problem) if problem.more.contains_key("versions") => {
            let result = Value::Object(problem.more.clone());
            (Some(problem), result)
        }
        Err(problem) => return Err(problem),
    };
    let user = visit.user();
    let status = problem
        .as_ref()
        .map_or(StatusCode::OK, |problem| problem.status);
    let content = html! {
        h1 { "Run of " (chosen(place.agent.as_str())) }
        @if let Some(problem) = &problem {
            p .alert role="alert" { (text::one_line(&problem.detail)) }
            @if let Some(hint) = &problem.hint { p { "Hint: " (text::one_line(hint)) } }
        }
        @if result["replayed"] == "memory" {
            p .muted { "This form was sent before. This is the result of the run of then." }
        }
        @if let Some(answer) = result["answer"].as_str() {
            h2 { "Answer" }
            (shown("Answer", answer))
        }
        @for (key, label) in [("stdout", "Output"), ("stderr", "Error output")] {
            @if let Some(output) = result[key].as_str().filter(|output| !output.is_empty()) {
                h2 { (label) }
                (shown(label, output))
            }
        }
        (denied_hosts(&result))
        (saved(&visit, &user, &place, &result))
        (form(&visit, &user, &place, &typed)?)
    };
    let page = Page {
        title: format!("Run of {}", text::one_line(place.agent.as_str())),
        user: Some(&user),
        search: "",
        trail: crumbs(Some(&place), None, Some("Run")),
        live: None,
        content,
    };
    Ok(html_response(status, page.markup()))
}

/// Returns the arguments of a text with one a line. An empty line is an empty argument, but for the
/// end of the last line.
fn arguments(typed: &str) -> Vec<String> {
    // Browsers send line breaks so.
    let lines = typed.replace("\r\n", "\n");
    let lines = lines.strip_suffix('\n').unwrap_or(&lines);
    if lines.is_empty() {
        return Vec::new();
    }
    lines.split('\n').map(ToOwned::to_owned).collect()
}

/// Shows the beginning of a text that an agent chose.
fn shown(label: &str, whole: &str) -> Markup {
    let begin = &whole[..whole.floor_char_boundary(SHOWN)];
    html! {
        @if whole.is_empty() { p { "It has no text." } }
        @else {
            pre .state.wrapped tabindex="0" role="region" aria-label=(label) dir="ltr" {
                // A browser drops the first line break.
                "\n" (text::plain(begin))
            }
        }
        @if begin.len() < whole.len() {
            p .muted {
                "The first " (begin.len()) " of " (text::count(whole.len() as u64, "byte"))
                " are shown."
            }
        }
    }
}

fn denied_hosts(result: &Value) -> Markup {
    let hosts = result["denied_hosts"].as_array();
    let hosts = hosts.into_iter().flatten().filter_map(Value::as_str);
    let hosts: Vec<_> = hosts.collect();
    html! {
        @if !hosts.is_empty() {
            h2 { "Refused hosts" }
            p { "The manifest does not allow requests of the agent to these hosts." }
            ul { @for host in hosts { li { (chosen(host)) } } }
        }
    }
}

/// A version that the run saved.
struct Saved {
    name: Name,
    version: u64,
    has_parent: bool,
    deleted: bool,
}

impl Saved {
    fn of(value: &Value) -> Option<Self> {
        Some(Self {
            name: Name::new(value["name"].as_str()?).ok()?,
            version: value["version"].as_u64()?,
            has_parent: value["parent"].is_u64(),
            deleted: value["deleted"].as_bool()?,
        })
    }
}

/// Lists the versions that the run saved. The last one of each name can be undone.
fn saved(visit: &Visit, user: &User, place: &Place, result: &Value) -> Markup {
    let values = result["versions"].as_array();
    let all: Vec<_> = values.into_iter().flatten().filter_map(Saved::of).collect();
    let can_save = visit.may(TokenRight::Save, &place.agent);
    let can_undo = |at: usize, saved: &Saved| {
        let is_last = all
            .iter()
            .skip(at + 1)
            .all(|later| later.name != saved.name);
        can_save && is_last && (saved.has_parent || !saved.deleted)
    };
    html! {
        h2 { "Saved versions" }
        @if all.is_empty() { p { "The run saved nothing." } }
        @else {
            ul .feed aria-label="Saved versions" {
                @for (at, saved) in all.iter().enumerate().take(VERSIONS) {
                    li .row {
                        @if saved.deleted { span .badge.bad { "deleted" } }
                        @else { span .badge { "saved" } }
                        a href=(place.version_url("/version", &saved.name, saved.version)) {
                            (chosen(saved.name.as_str())) ", version " (saved.version)
                        }
                        @if can_undo(at, saved) { (undo(user, place, saved)) }
                    }
                }
            }
        }
        @if all.len() > VERSIONS {
            p .muted { "The first " (VERSIONS) " of " (all.len()) " versions are shown." }
        }
    }
}

fn undo(user: &User, place: &Place, saved: &Saved) -> Markup {
    let version = page::decimal(saved.version);
    let fields = [("name", saved.name.as_str()), ("version", &version)];
    let name = text::one_line(saved.name.as_str());
    html! {
        form .inline method="post" action="/undo" {
            (hidden_fields(user, place, &fields))
            button aria-label=(format!("Undo: version {version} of {name}")) { "Undo" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_argument() {
        assert_eq!(arguments(""), [""; 0]);
        assert_eq!(arguments("\r\n"), [""; 0]);
        assert_eq!(arguments("save\r\nx y\r\n"), ["save", "x y"]);
        assert_eq!(arguments("a\n\nb"), ["a", "", "b"]);
        assert_eq!(arguments("a\n\n"), ["a", ""]);
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = "é".repeat(SHOWN);
        let page = shown("Answer", &format!("x{long}<b>\u{202e}")).into_string();
        assert!(page.len() < SHOWN + 1000, "{}", page.len());
        assert!(
            page.contains("The first 65535 of"),
            "it tells what is left out"
        );
        let page = shown("Answer", "<b>\u{202e}").into_string();
        assert!(page.contains("&lt;b&gt;\\u{202e}</pre>"), "{page}");
        assert!(!page.contains("are shown"), "{page}");
    }
}
