//! A request to the console: its fields, what it is about, and who sent it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use form_urlencoded::Serializer;
use persist_host::snapshot::{Info, Name, Scope, Version};

use super::session::{Session, User, check_origin};
use crate::serve::app::{App, Client, Console, Target, parsed};
use crate::serve::problem::{Problem, Result};
use crate::serve::token::TokenRight;

/// Bytes of a form, at most.
const MAX_FORM: usize = 64 << 10;

/// Fields of a query or a form.
#[derive(Debug, Default)]
pub(super) struct Fields(HashMap<String, String>);

impl Fields {
    pub(super) fn of(encoded: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(encoded);
        Self(pairs.into_owned().collect())
    }

    /// Reads a form, which browsers send from pages of any site, so that its origin is checked.
    pub(super) async fn of_form(app: &App, request: Request) -> Result<Self> {
        check_origin(request.headers())?;
        let body = app.body(request.into_body()).small();
        let bytes = body.whole(MAX_FORM).await?;
        Ok(Self::of(&bytes))
    }

    /// Returns a field that is not empty.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let text = self.0.get(key).map(String::as_str);
        text.filter(|text| !text.is_empty())
    }

    pub(super) fn version(&self, key: &str) -> Result<Option<Version>> {
        self.text(key).map(|text| parsed(key, text)).transpose()
    }

    fn name(&self, key: &str) -> Result<Option<Name>> {
        let name = self.text(key).map(Name::new).transpose();
        name.map_err(|error| {
            let why = error.to_string();
            Problem::usage(format!("{key}: {}", why.trim_start_matches("invalid: ")))
        })
    }

    /// Returns the agent and session that the fields name.
    pub(super) fn place(&self) -> Result<Place> {
        let agent = self.name("agent")?;
        Ok(Place {
            agent: agent.ok_or_else(|| Problem::usage("no agent is given"))?,
            session: self.name("session")?,
        })
    }
}

/// Returns the address of a page.
pub(super) fn url<'a>(path: &str, query: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let begin = format!("{path}?");
    let length = begin.len();
    let mut url = Serializer::for_suffix(begin, length);
    url.extend_pairs(query);
    url.finish()
}

/// An agent, or a session of it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) agent: Name,
    pub(super) session: Option<Name>,
}

impl Place {
    pub(super) fn of(scope: &Scope) -> Self {
        Self {
            agent: scope.agent().clone(),
            session: scope.session().cloned(),
        }
    }

    /// Returns the fields of the address.
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![("agent", self.agent.as_str().to_owned())];
        let session = self.session.as_ref();
        pairs.extend(session.map(|session| ("session", session.as_str().to_owned())));
        pairs
    }

    /// Returns the address of a page about this place.
    pub(super) fn url(&self, path: &str, more: &[(&str, &str)]) -> String {
        let place = self.pairs();
        let place = place.iter().map(|(key, value)| (*key, value.as_str()));
        let more = more.iter().copied();
        url(path, place.chain(more))
    }

    /// Returns the address of a page about a name.
    pub(super) fn name_url(&self, path: &str, name: &Name, more: &[(&str, &str)]) -> String {
        let more = [&[("name", name.as_str())], more].concat();
        self.url(path, &more)
    }

    /// Returns the address of a page about a version.
    pub(super) fn version_url(&self, path: &str, name: &Name, version: Version) -> String {
        self.name_url(path, name, &[("version", &version.to_string())])
    }
}

/// A request of a client that is signed in.
pub(super) struct Visit {
    pub(super) app: Arc<App>,
    pub(super) session: Session,
    pub(super) fields: Fields,
    client: Option<Client>,
}

impl Visit {
    /// Returns the request of a page.
    pub(super) fn of_page(app: Arc<App>, request: &Request) -> Result<Self> {
        let session = Session::of(&app, console(&app)?, request.headers())?;
        let query = request.uri().query().unwrap_or("");
        let fields = Fields::of(query.as_bytes());
        Ok(Self {
            app,
            session,
            fields,
            client: request.extensions().get().copied(),
        })
    }

    /// Returns the request of a form, which must be of a page of this session.
    pub(super) async fn of_form(app: Arc<App>, request: Request) -> Result<Self> {
        let session = Session::of(&app, console(&app)?, request.headers())?;
        let client = request.extensions().get().copied();
        let fields = Fields::of_form(&app, request).await?;
        session.check_form(fields.text("key"))?;
        Ok(Self {
            app,
            session,
            fields,
            client,
        })
    }

    /// Returns what pages show of the client.
    pub(super) fn user(&self) -> User {
        User::of(&self.app, &self.session)
    }

    /// Refuses a request whose token lacks a right.
    pub(super) fn authorize(&self, right: TokenRight, agent: Option<&Name>) -> Result<()> {
        self.app.authorize(self.session.token, right, agent)
    }

    pub(super) fn may(&self, right: TokenRight, agent: &Name) -> bool {
        self.authorize(right, Some(agent)).is_ok()
    }

    /// Returns the place that the request names, and the scope, if the client may use them.
    pub(super) fn scope(&self, right: TokenRight) -> Result<(Place, Scope)> {
        let place = self.fields.place()?;
        self.authorize(right, Some(&place.agent))?;
        let session = place.session.as_ref().map(Name::as_str);
        let scope = self.app.store.scope(place.agent.as_str(), session)?;
        Ok((place, self.audited(scope)))
    }

    /// Returns a scope whose new versions tell which client created them.
    pub(super) fn audited(&self, scope: Scope) -> Scope {
        self.app.audited(scope, self.session.token, self.client)
    }

    pub(super) fn name(&self) -> Result<Name> {
        let name = self.fields.name("name")?;
        name.ok_or_else(|| Problem::usage("no name is given"))
    }

    /// Returns the version that the request is about.
    pub(super) fn version(&self) -> Result<Version> {
        let version = self.fields.version("version")?;
        version.ok_or_else(|| Problem::usage("no version is given"))
    }

    /// Returns this request as one of the operations under `/v1`.
    pub(super) fn target(&self) -> Result<Target> {
        let place = match self.fields.text("agent") {
            Some(_) => Some(self.fields.place()?),
            None => None,
        };
        let (agent, session) = match place {
            Some(place) => (Some(place.agent), place.session),
            None => (None, None),
        };
        let version = self.fields.text("version").map(ToOwned::to_owned);
        let query = version.map(|version| ("version".to_owned(), version));
        Ok(Target::at(
            agent,
            session,
            self.fields.name("name")?,
            query.into_iter().collect(),
            self.session.token,
        ))
    }
}

/// Returns the settings of the console. Without them, it has no routes.
pub(super) fn console(app: &App) -> Result<&Console> {
    let missing = || Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no console");
    app.options.console.as_ref().ok_or_else(missing)
}

/// Returns the information about a version that must exist.
pub(super) async fn existing(scope: &Scope, name: &Name, version: Version) -> Result<Info> {
    let info = scope.stat(name.as_str(), Some(version)).await?;
    info.ok_or_else(nothing)
}

pub(super) fn nothing() -> Problem {
    let what = "nothing is saved here";
    let problem = Problem::new(StatusCode::NOT_FOUND, "not_found", what);
    problem.hint("search for a part of the name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_an_address() {
        for name in [
            "..",
            "a&name=b",
            "a b+c",
            "<script>",
            "\u{202e}x",
            "日本/#?",
        ] {
            let name = Name::new(name).expect("a name");
            let place = Place {
                agent: name.clone(),
                session: Some(name.clone()),
            };
            let url = place.name_url("/name", &name, &[("version", "3")]);
            assert!(url.is_ascii(), "{url}");
            let query = url.strip_prefix("/name?").expect("a query");
            assert!(!query.contains(['<', '#', '"', '?']), "{url}");
            let fields = Fields::of(query.as_bytes());
            let read = fields.place().expect("a place");
            assert_eq!(
                (read.agent, read.session),
                (name.clone(), Some(name.clone()))
            );
            assert_eq!(fields.text("name"), Some(name.as_str()));
            assert_eq!(fields.text("version"), Some("3"));
        }
    }
}
