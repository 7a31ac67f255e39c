//! The comparison of two versions of a name.

use axum::extract::Request;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::page::{Page, chosen, crumbs};
use super::visit::{Place, Visit};
use crate::address::Address;
use crate::commands::diff::Comparison;
use crate::compute::compute;
use crate::serve::problem::{Problem, Result};
use crate::serve::token::TokenRight;
use crate::text;

/// Lines of a difference, and bytes of a line, at most.
const MAX_LINES: usize = 5000;
const MAX_LINE: usize = 4000;

pub(super) async fn show(visit: Visit, _: Request) -> Result<Response> {
    let (place, _) = visit.scope(TokenRight::Read)?;
    let name = visit.name()?;
    let missing = |side: &str| Problem::usage(format!("no version is given as `{side}`"));
    let from = visit
        .fields
        .version("from")?
        .ok_or_else(|| missing("from"))?;
    let to = visit.fields.version("to")?.ok_or_else(|| missing("to"))?;
    let side = |version| Address {
        agent: place.agent.clone(),
        session: place.session.clone(),
        name: name.clone(),
        version: Some(version),
    };
    let permit = visit.app.computing().await?;
    let compared = Comparison::of(&visit.app.store, &side(from), &side(to)).await?;
    let rendered = compute(move || {
        let compared = compared.value();
        (summary(&compared), compared["diff"].as_str().map(lines))
    });
    let (summary, lines) = rendered.await?;
    drop(permit);
    let link = |place: &Place, version| {
        let url = place.version_url("/version", &name, version);
        html! { a href=(url) { "version " (version) } }
    };
    let user = visit.user();
    let content = html! {
        h1 { "Comparison of " (chosen(name.as_str())) }
        p { "From " (link(&place, from)) " to " (link(&place, to)) "." }
        (summary)
        @if let Some(lines) = lines { (lines) }
        p {
            @let other = [("from", to.to_string()), ("to", from.to_string())];
            @let other = other.each_ref().map(|(key, value)| (*key, value.as_str()));
            a .button href=(place.name_url("/diff", &name, &other)) { "Swap the versions" }
        }
    };
    let page = Page {
        title: format!("Comparison of {}", text::one_line(name.as_str())),
        user: Some(&user),
        search: "",
        trail: crumbs(Some(&place), Some(&name), Some("Comparison")),
        live: None,
        content,
    };
    page.response()
}

fn summary(compared: &Value) -> Markup {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let size = |side: &str| text::bytes(number(&compared[side]["size"]));
    let bytes = &compared["bytes"];
    html! {
        dl .facts {
            div { dt { "Size" } dd { (size("from")) " → " (size("to")) } }
            div { dt { "State" } dd {
                @if compared["same"] == true { "the same, by SHA-256" }
                @else if bytes.is_null() { "only one of them is deleted" }
                @else {
                    "differs in " (text::count(number(&bytes["changed"]), "byte")) " in "
                    (text::count(number(&bytes["ranges"]), "range")) ", from byte "
                    (number(&bytes["first"])) " to byte " (number(&bytes["last"]))
                }
            } }
            @match compared["format"].as_str() {
                Some("json") => { div { dt { "Compared as" } dd { "JSON, a value a line" } } }
                Some("text") => { div { dt { "Compared as" } dd { "text" } } }
                Some(_) => { div { dt { "Compared as" } dd { "bytes: they are not text" } } }
                None => {}
            }
        }
    }
}

fn lines(diff: &str) -> Markup {
    // The first two lines name the versions, which are above.
    let all: Vec<_> = diff.lines().skip(2).collect();
    let hidden = all.len().saturating_sub(MAX_LINES);
    html! {
        pre .state.diff tabindex="0" role="region" aria-label="Lines that differ" dir="ltr" {
            @for line in all.iter().take(MAX_LINES) { (line_of(line)) "\n" }
        }
        @if hidden > 0 { p .alert role="status" { (hidden) " more lines are not shown." } }
    }
}

fn line_of(line: &str) -> Markup {
    let end = line.char_indices().nth(MAX_LINE).map(|(end, _)| end);
    let rest = end.map_or(0, |end| line.len() - end);
    let shown = text::plain(&line[..end.unwrap_or(line.len())]);
    let more = if rest > 0 {
        format!("… {rest} more bytes")
    } else {
        String::new()
    };
    html! {
        @match line.as_bytes().first() {
            Some(b'+') => { ins { (shown) (more) } }
            Some(b'-') => { del { (shown) (more) } }
            Some(b'@') => { span .muted { (shown) (more) } }
            _ => { (shown) (more) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_text_and_bounded() {
        let diff = format!(
            "--- a\n+++ b\n@@ -1 +1 @@\n-<b>\u{202e}\n+{}\n",
            "x".repeat(9000)
        );
        let shown = lines(&diff).into_string();
        assert!(shown.contains("<del>-&lt;b&gt;\\u{202e}</del>"), "{shown}");
        assert!(shown.contains("… 5001 more bytes</ins>"), "{shown}");
        let long = format!("--- a\n+++ b\n{}", "+x\n".repeat(MAX_LINES + 7));
        let shown = lines(&long).into_string();
        assert_eq!(shown.matches("<ins>").count(), MAX_LINES);
        assert!(shown.contains("7 more lines are not shown."));
    }
}
