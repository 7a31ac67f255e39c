//! The form that takes a token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use maud::html;

use super::page::{self, Page, protected, see};
use super::session::{Session, cookies, same_key};
use super::visit::{Fields, Visit, console, url};
use crate::serve::app::App;
use crate::serve::problem::{Problem, Result};

/// Paths of pages that a browser is sent to after it signed in.
const PAGES: [&str; 8] = [
    "/",
    "/agent",
    "/name",
    "/version",
    "/download",
    "/diff",
    "/changes",
    "/health",
];

/// Answers the request of a page without a session.
pub(super) fn refused(request: &Request, error: &Problem) -> Response {
    // The stream of changes is not a page: its script gives up.
    if error.status != StatusCode::UNAUTHORIZED || request.uri().path() == "/events" {
        return page::problem(error, None);
    }
    let wanted = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    see(&url("/sign-in", [("next", wanted)])).unwrap_or_else(Problem::into_response)
}

pub(super) async fn show(State(app): State<Arc<App>>, request: Request) -> Response {
    let fields = Fields::of(request.uri().query().unwrap_or("").as_bytes());
    let shown = || {
        let console = console(&app)?;
        match Session::of(&app, console, request.headers()) {
            Ok(_) => see(next(&fields)),
            Err(error) if error.status == StatusCode::UNAUTHORIZED => {
                form(&app, request.headers(), next(&fields), None)
            }
            Err(error) => Err(error),
        }
    };
    protected(shown().unwrap_or_else(|error| page::problem(&error, None)))
}

pub(super) async fn sign_in(State(app): State<Arc<App>>, request: Request) -> Response {
    let headers = request.headers().clone();
    let signed_in = async {
        let console = console(&app)?;
        let fields = Fields::of_form(&app, request).await?;
        // There is no session yet that a secret could be made of: the form repeats a cookie.
        let mut keys = cookies(&headers, console.form_cookie());
        same_key(keys.next().unwrap_or(""), fields.text("key"))?;
        let token = fields.text("token").unwrap_or("").trim();
        if app.known_token(token).is_none() {
            let next = next(&fields);
            return form(&app, &headers, next, Some("The token is not known."));
        }
        let mut response = see(next(&fields))?;
        let value = hex::encode(token);
        let cookie = console.cookie(&headers, console.token_cookie(), &value);
        response.headers_mut().append(header::SET_COOKIE, cookie);
        Ok(response)
    };
    protected(
        signed_in
            .await
            .unwrap_or_else(|error| page::problem(&error, None)),
    )
}

pub(super) async fn sign_out(visit: Visit) -> Result<Response> {
    let console = console(&visit.app)?;
    let mut response = see("/sign-in")?;
    let cookie = console.cookie(&HeaderMap::new(), console.token_cookie(), "");
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Returns the page to go to, which must be one of the console.
fn next(fields: &Fields) -> &str {
    let next = fields.text("next").unwrap_or("/");
    let path = next.split(['?', '#']).next().unwrap_or("");
    if PAGES.contains(&path) && next.bytes().all(|byte| byte.is_ascii_graphic()) {
        next
    } else {
        "/"
    }
}

fn form(app: &App, headers: &HeaderMap, next: &str, error: Option<&str>) -> Result<Response> {
    let console = console(app)?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| Problem::from(anyhow::Error::from(error)))?;
    let key = hex::encode(key);
    let page = Page {
        title: "Sign in".to_owned(),
        user: None,
        search: "",
        trail: html! { li { "Sign in" } },
        live: None,
        content: html! {
            h1 { "Sign in" }
            @if let Some(error) = error { p .alert role="alert" { (error) } }
            form .stacked method="post" action="/sign-in" {
                input type="hidden" name="key" value=(key);
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                input #token type="password" name="token" required autocomplete="current-password"
                    aria-describedby="about-token";
                p #about-token .muted {
                    "A token of the manifest, as " code { "persist token new" } " printed it. "
                    "This browser keeps it for 12 hours, or until you sign out."
                }
                button .main { "Sign in" }
            }
        },
    };
    let status = match error {
        Some(_) => StatusCode::UNAUTHORIZED,
        None => StatusCode::OK,
    };
    let mut response = page::html_response(status, page.markup());
    let cookie = console.cookie(headers, console.form_cookie(), &key);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_only_to_pages_of_this_server() {
        let next = |text: &str| {
            let query = url("", [("next", text)]);
            next(&Fields::of(&query.as_bytes()[1..])).to_owned()
        };
        let page = "/name?agent=bot&name=%3Cscript%3E";
        assert_eq!(next(page), page);
        for other in [
            "",
            "https://example.com",
            "//example.com",
            "/\\example.com",
            "/\n",
            "/sign-out",
            "/events",
            "/v1/agents",
            "/name/x",
        ] {
            assert_eq!(next(other), "/", "{other}");
        }
    }
}
