//! State of the service, what a request is about, and who may send it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::RawPathParams;
use axum::http::{HeaderMap, StatusCode, header};
use persist_host::snapshot::{Name, Scope, Store, Version};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::body::Incoming;
use super::components::Components;
use super::keyed_versions::KeyedVersions;
use super::manifest::Manifest;
use super::metrics::Metrics;
use super::problem::{Problem, Result};
use super::queue::Runs;
use super::token::{self, TokenRight};
use super::watch::Changes;
use crate::audit;

/// Entries of a page where a client does not say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Requests at a time that hold whole states in memory to compare or to show them.
const COMPUTING: usize = 4;

/// Address that a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub(super) IpAddr);

/// State that all requests share.
pub(super) struct App {
    pub(super) store: Store,
    pub(super) metrics: Metrics,
    pub(super) manifest: Manifest,
    pub(super) components: Components,
    pub(super) runs: Arc<Runs>,
    pub(super) keyed_versions: KeyedVersions,
    pub(super) changes: Changes,
    computing: Semaphore,
    pub(super) options: Options,
    /// Cancelled when the service ends.
    pub(super) ending: CancellationToken,
}

/// Options of the service.
pub(super) struct Options {
    pub(super) has_auth: bool,
    /// True if versions tell which client created them.
    pub(super) audits: bool,
    pub(super) queue: usize,
    pub(super) idle: Duration,
    pub(super) poll: Duration,
    /// None without a console.
    pub(super) console: Option<Console>,
}

/// Settings of the console.
#[derive(Debug)]
pub(super) struct Console {
    /// Secret of this process, for forms where no token is asked for.
    pub(super) secret: [u8; 32],
    /// True if this process serves TLS itself.
    pub(super) is_tls: bool,
}

impl Console {
    /// Makes the settings, with a random secret.
    pub(super) fn new(is_tls: bool) -> anyhow::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { secret, is_tls })
    }
}

/// Parts of the store that a request is about.
pub(super) struct Target {
    pub(super) agent: Option<Name>,
    pub(super) session: Option<Name>,
    pub(super) name: Option<Name>,
    version: Option<String>,
    query: HashMap<String, String>,
    /// Token of the client, by its place in the manifest; none where none is asked for.
    pub(super) token: Option<usize>,
    pub(super) client: Option<Client>,
}

impl App {
    pub(super) fn new(
        store: Store,
        metrics: Metrics,
        runs: Arc<Runs>,
        manifest: Manifest,
        components: Components,
        options: Options,
    ) -> Self {
        Self {
            store,
            metrics,
            manifest,
            components,
            runs,
            keyed_versions: KeyedVersions::default(),
            changes: Changes::default(),
            computing: Semaphore::new(COMPUTING),
            options,
            ending: CancellationToken::new(),
        }
    }

    /// Returns the state of a service without agents and tokens, over a store in memory.
    #[cfg(test)]
    pub(super) fn for_tests() -> anyhow::Result<Self> {
        use persist_host::storage::Memory;

        let store = Store::new(Arc::new(Memory::new()));
        let runs = Arc::new(Runs::default());
        let current = Arc::new(|| (0_usize, 0_usize));
        let durations = runs.durations.clone();
        Ok(Self::new(
            store.clone(),
            Metrics::new(Arc::default(), durations, current, store, "http"),
            runs,
            Manifest {
                lease: None,
                agents: Vec::new(),
                tokens: Vec::new(),
            },
            Components::none()?,
            Options {
                has_auth: false,
                audits: false,
                queue: 1,
                idle: Duration::from_secs(30),
                poll: Duration::from_secs(2),
                console: Some(Console::new(false)?),
            },
        ))
    }

    /// Looks for changes until it is stopped.
    pub(super) async fn watch(self: Arc<Self>) {
        self.changes.watch(&self.store, self.options.poll).await;
    }

    /// Waits until the request may hold whole states in memory, for as long as it has the permit.
    pub(super) async fn computing(&self) -> Result<SemaphorePermit<'_>> {
        let permit = tokio::time::timeout(self.options.idle, self.computing.acquire());
        match permit.await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Problem::busy("many states are compared or shown already")),
        }
    }

    /// Lists agents after `after` that a token may read, and the one after which a list of `limit`
    /// goes on. Others are passed over: their names are not told.
    pub(super) async fn agents(
        &self,
        token: Option<usize>,
        mut after: Option<Name>,
        limit: usize,
    ) -> Result<(Vec<Name>, Option<Name>)> {
        let mut agents = Vec::new();
        let mut size = limit;
        loop {
            let page = self.store.agents(after.as_ref(), size).await?;
            let Some(last) = page.last().cloned() else {
                return Ok((agents, None));
            };
            for agent in page {
                let allowed = self.authorize(token, TokenRight::Read, Some(&agent));
                if allowed.is_err() {
                    continue;
                }
                agents.push(agent);
                if agents.len() == limit {
                    let next = agents.last().cloned();
                    return Ok((agents, next));
                }
            }
            after = Some(last);
            size = MAX_PAGE;
        }
    }

    /// Returns the body of a request.
    pub(super) fn body(&self, body: Body) -> Incoming {
        Incoming::new(body, self.options.idle)
    }

    /// Returns the token of a request; none where none is asked for.
    pub(super) fn token(&self, headers: &HeaderMap) -> Result<Option<usize>> {
        if !self.options.has_auth {
            return no_browser(headers).map(|()| None);
        }
        let sent = headers.get(header::AUTHORIZATION);
        let sent = sent.and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match sent.and_then(|sent| self.known_token(sent)) {
            Some(found) => Ok(Some(found)),
            None => {
                let (what, hint) = match sent {
                    Some(_) => (
                        "the token is not known",
                        "send a token of the manifest, which the service reads when it starts",
                    ),
                    None => (
                        "the request has no token",
                        "send the header `Authorization: Bearer TOKEN`",
                    ),
                };
                let error = Problem::new(StatusCode::UNAUTHORIZED, "denied", what);
                Err(error.hint(hint))
            }
        }
    }

    /// Returns the place of a token in the manifest; none where it is not known.
    pub(super) fn known_token(&self, sent: &str) -> Option<usize> {
        let tokens = &self.manifest.tokens;
        let found = token::find(tokens, sent)?;
        tokens.iter().position(|one| std::ptr::eq(one, found))
    }

    /// Refuses a request after a signal to end.
    pub(super) fn refuse_if_ending(&self) -> Result<()> {
        if self.ending.is_cancelled() {
            return Err(Problem::ending("the service is ending"));
        }
        Ok(())
    }

    /// Refuses a token that lacks a right, or may not name an agent.
    pub(super) fn authorize(
        &self,
        token: Option<usize>,
        right: TokenRight,
        agent: Option<&Name>,
    ) -> Result<()> {
        let Some(token) = token.and_then(|token| self.manifest.tokens.get(token)) else {
            return Ok(());
        };
        let denied = |what: String| {
            let error = Problem::new(StatusCode::FORBIDDEN, "denied", what);
            error.hint("use another token, or change its entry in the manifest")
        };
        if !token.allows(right) {
            return Err(denied(format!("the token does not have the right {right}")));
        }
        match agent {
            Some(agent) if !token.covers(agent.as_str()) => {
                Err(denied("the token is for other agents".into()))
            }
            _ => Ok(()),
        }
    }

    /// Returns a scope whose new versions tell which client created them.
    pub(super) fn audited(
        &self,
        scope: Scope,
        token: Option<usize>,
        client: Option<Client>,
    ) -> Scope {
        let Some(Client(address)) = client.filter(|_| self.options.audits) else {
            return scope;
        };
        let token = token.and_then(|token| self.manifest.tokens.get(token));
        let token = token.map(|token| token.name.as_str());
        scope.with_host_labels(audit::labels_of_client(token, address))
    }

    /// Returns true if a request may see an agent.
    pub(super) fn sees(&self, target: &Target, agent: &Name) -> bool {
        let agent = Some(agent);
        self.authorize(target.token, TokenRight::Read, agent)
            .is_ok()
    }
}

impl Target {
    pub(super) fn at(
        agent: Option<Name>,
        session: Option<Name>,
        name: Option<Name>,
        query: HashMap<String, String>,
        token: Option<usize>,
    ) -> Self {
        Self {
            agent,
            session,
            name,
            version: None,
            query,
            token,
            client: None,
        }
    }

    pub(super) fn of(params: &RawPathParams, query: HashMap<String, String>) -> Result<Self> {
        let mut target = Self {
            agent: None,
            session: None,
            name: None,
            version: None,
            query,
            token: None,
            client: None,
        };
        for (key, value) in params {
            let name = || {
                let name = Name::new(value);
                name.map_err(|error| {
                    let why = error.to_string();
                    let why = why.strip_prefix("invalid: ").unwrap_or(&why).to_owned();
                    Problem::usage(format!("{key} of the path: {why}"))
                })
            };
            match key {
                "agent" => target.agent = Some(name()?),
                "session" => target.session = Some(name()?),
                "name" => target.name = Some(name()?),
                _ => target.version = Some(value.to_owned()),
            }
        }
        Ok(target)
    }

    pub(super) fn agent(&self) -> Result<&Name> {
        let missing = || Problem::usage("the path names no agent");
        self.agent.as_ref().ok_or_else(missing)
    }

    pub(super) fn name(&self) -> Result<&Name> {
        let missing = || Problem::usage("the path has no name");
        self.name.as_ref().ok_or_else(missing)
    }

    pub(super) fn scope(&self, app: &App) -> Result<Scope> {
        let session = self.session.as_ref().map(Name::as_str);
        Ok(app.store.scope(self.agent()?.as_str(), session)?)
    }

    /// Returns the scope of a request that changes something.
    pub(super) fn audited_scope(&self, app: &App) -> Result<Scope> {
        Ok(app.audited(self.scope(app)?, self.token, self.client))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    pub(super) fn version(&self, key: &str) -> Result<Option<Version>> {
        let version = self.text(key).map(|text| parsed(key, text));
        version.transpose()
    }

    /// Returns the version that the path names.
    pub(super) fn version_in_path(&self) -> Result<Version> {
        parsed("version", self.version.as_deref().unwrap_or(""))
    }

    pub(super) fn limit(&self) -> Result<usize> {
        match self.version("limit")? {
            None => Ok(PAGE),
            Some(limit @ 1..) => Ok(usize::try_from(limit).unwrap_or(MAX_PAGE).min(MAX_PAGE)),
            Some(0) => Err(Problem::usage("limit: the minimum is 1")),
        }
    }
}

pub(super) fn parsed(key: &str, text: &str) -> Result<Version> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| Problem::usage(format!("{key}: not a number from 0")))
}

/// Refuses requests that a page in a browser sends, also one whose host name was made to lead to
/// this machine: without tokens, nothing else keeps it out.
fn no_browser(headers: &HeaderMap) -> Result<()> {
    // Browsers send no `Origin` for scripts and images of a page. A person who opens an address is
    // "none".
    let sites = headers.get_all("sec-fetch-site");
    let is_other_site = sites
        .iter()
        .any(|site| site != "none" && site != "same-origin");
    if is_for_loopback(headers) && !headers.contains_key(header::ORIGIN) && !is_other_site {
        return Ok(());
    }
    let what = "without tokens, requests of web pages and for other hosts are refused";
    let error = Problem::new(StatusCode::FORBIDDEN, "denied", what);
    Err(error.hint("send requests to 127.0.0.1 or localhost, or use tokens"))
}

/// Returns true for a request whose host is this machine by name or address, and not by a name
/// that someone else made lead to it.
pub(super) fn is_for_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    // Of two, another server may take the other one.
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let host = host.to_str().unwrap_or("");
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => host.split(':').next(),
    };
    matches!(host, Some("localhost" | "::1")) || {
        let address = host.and_then(|host| host.parse::<std::net::Ipv4Addr>().ok());
        address.is_some_and(|address| address.is_loopback())
    }
}
