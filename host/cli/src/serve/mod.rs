//! `persist serve`: agents and their snapshots over HTTP.
//!
//! The service keeps nothing of its own: what matters is in the store, so that any replica can
//! answer.

mod app;
mod body;
mod changes;
mod components;
mod conditional;
mod console;
mod instruments;
mod keyed_versions;
mod listen;
mod manifest;
mod metrics;
mod openapi;
mod problem;
mod queue;
mod route;
mod routes;
mod runs;
mod snapshots;
pub(crate) mod token;
mod version;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use serde_json::json;
use tokio::net::TcpListener;

use crate::error::Usage;
use crate::print::Out;
use crate::settings::Settings;
use crate::stores::{Create, Stores};
use app::App;
use listen::{Limits, Listener};
use manifest::Manifest;
use metrics::{Durations, Metrics};
use queue::Runs;

/// Serve agents and their snapshots over HTTP
///
/// A manifest names the agents: which component each runs, and what it may use; and the tokens that
/// clients send. SIGTERM and SIGINT end the service: no request is accepted any more, runs get
/// --grace to end, and the command then exits with code 0.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist serve --manifest agents.toml --check
  persist serve --manifest agents.toml
  persist serve --manifest agents.toml --listen 0.0.0.0:8443 --tls-cert c.pem --tls-key k.pem")]
pub(crate) struct Serve {
    /// Manifest that names agents and tokens
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// Validate the manifest, compile its components and end
    #[arg(long)]
    check: bool,
    /// Address to listen on; port 0 is a free port, which is printed
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070",
        value_parser = listen_address)]
    listen: SocketAddr,
    /// Ask for no token; only on a loopback address
    #[arg(long)]
    no_auth: bool,
    /// Serve TLS with the certificate chain in FILE, in PEM format
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM format
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve only the operations under /v1, and no pages for browsers
    #[arg(long)]
    no_console: bool,
    /// Time that runs get to end after a signal
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    grace: Duration,
    /// Requests that wait for or are in a run of one agent or session, at most
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = count())]
    queue: usize,
    /// Open connections, at most
    #[arg(long, value_name = "COUNT", default_value_t = 512, value_parser = count())]
    max_connections: usize,
    /// Time without progress after which a request or a response is ended
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    idle_timeout: Duration,
    /// Time between two looks at the store for clients that watch its changes
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    poll: Duration,
    #[command(flatten)]
    create: Create,
}

/// Largest count of connections and of waiting runs.
const MAX_COUNT: u64 = 1_000_000;

/// Longest timeout.
const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Refuses zero, with which the service would answer no request.
fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_COUNT)
}

/// Refuses zero, which would mean "at once" for a timeout and "without a pause" for a poll.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        Err("the minimum is more than 0".into())
    } else if duration > MAX_DURATION {
        Err("the maximum is 7days".into())
    } else {
        Ok(duration)
    }
}

/// Reads an address to listen on. A host name may stand for several.
fn listen_address(text: &str) -> std::result::Result<SocketAddr, String> {
    let what = "not an IP address with a port, such as 127.0.0.1:7070 or [::1]:7070";
    text.parse().map_err(|_| what.to_owned())
}

impl Serve {
    pub(crate) async fn run(
        self,
        stores: &Stores<'_>,
        settings: &Settings,
        out: Out,
    ) -> Result<()> {
        let durations = Arc::new(Durations::default());
        let store = stores.recorded_host(self.create, durations.clone())?;
        let manifest = Manifest::read(&self.manifest, settings)?;
        let has_auth = self.auth(&manifest)?;
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some(listen::tls(cert, key)?),
            _ => None,
        };
        let count = manifest.agents.len();
        let components = components::Components::load(manifest.agents.as_slice(), settings).await?;
        if self.check {
            let value = json!({ "event": "manifest-valid", "agents": count });
            let text = || format!("{}: valid", self.manifest.display());
            return Ok(out.print(&value, text)?);
        }
        store.require().await.or_else(|error| match error {
            // Made by the first save, where that is allowed.
            persist_host::snapshot::Error::NoStore { .. } if self.create.is_allowed(settings) => {
                Ok(())
            }
            error => Err(error),
        })?;
        let listener = TcpListener::bind(self.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}", self.listen))?;
        let address = listener.local_addr()?;
        let console = if self.no_console {
            None
        } else {
            Some(app::Console::new(tls.is_some())?)
        };
        let runs = Arc::new(Runs::default());
        let current = Arc::clone(&runs);
        let current = Arc::new(move || current.active_and_waiting());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let run_durations = runs.durations.clone();
        let metrics = Metrics::new(durations, run_durations, current, store.clone(), scheme);
        let app = Arc::new(App::new(
            store,
            metrics,
            runs,
            manifest,
            components,
            app::Options {
                has_auth,
                audits: settings.audits()?,
                queue: self.queue,
                idle: self.idle_timeout,
                poll: self.poll,
                console,
            },
        ));
        let url = format!("{scheme}://{address}");
        let event = json!({ "event": "listening", "url": url });
        out.print(&event, || format!("listening on {url}"))?;
        if !has_auth {
            out.note(format_args!(
                "note: --no-auth: every process of this machine can run agents and change states"
            ));
        }
        let limits = Limits {
            connections: self.max_connections,
            idle: self.idle_timeout,
            grace: self.grace,
        };
        Listener::new(listener, tls, limits).serve(app).await
    }

    /// Returns true if clients need a token; an error where anyone could send requests.
    fn auth(&self, manifest: &Manifest) -> Result<bool> {
        let is_loopback = self.listen.ip().is_loopback();
        if self.no_auth && !is_loopback {
            let what = format!("--no-auth: {} is not a loopback address", self.listen);
            return Err(Usage::new(what)
                .with_hint("remove --no-auth, or listen on 127.0.0.1")
                .into());
        }
        if !self.no_auth && manifest.tokens.is_empty() && !self.check {
            return Err(Usage::new("the manifest has no [[tokens]]")
                .with_hint(
                    "run `persist token new`, and add the lines that it prints; on a loopback \
                     address, --no-auth serves without tokens",
                )
                .into());
        }
        if !self.no_auth && !is_loopback && self.tls_cert.is_none() && !self.check {
            tracing::warn!("tokens are sent in clear text; use --tls-cert, or a proxy with TLS");
        }
        Ok(!self.no_auth)
    }
}
