//! Connections: their number, their time, TLS, and the end of the service.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::{App, Client};
use super::routes;
use crate::error::Usage;

/// Bytes of the head of a request, at most.
const MAX_HEAD: usize = 64 << 10;

/// Longest time for the leases of runs that were aborted.
const RELEASE: Duration = Duration::from_secs(5);

/// Time for the rest of the head of a request when the service ends.
const LAST_HEAD: Duration = Duration::from_secs(2);

/// Limits of all connections.
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) idle: Duration,
    pub(super) grace: Duration,
}

/// The socket that clients connect to.
pub(super) struct Listener {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: Limits,
}

/// Reads a certificate chain and its key.
pub(super) fn tls(cert: &Path, key: &Path) -> Result<TlsAcceptor> {
    let wrong = |option: &str, file: &Path, why: &dyn std::fmt::Display| {
        let what = format!("{option}: cannot use {}: {why}", file.display());
        Usage::new(what).with_hint("name a file in PEM format that this process can read")
    };
    let chain =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| wrong("--tls-cert", cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key);
    let secret = secret.map_err(|error| wrong("--tls-key", key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| wrong("--tls-cert", cert, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Listener {
    pub(super) fn new(listener: TcpListener, tls: Option<TlsAcceptor>, limits: Limits) -> Self {
        Self {
            listener,
            tls,
            limits,
        }
    }

    /// Serves until a signal comes, and then until runs have ended or the grace is over.
    pub(super) async fn serve(self, app: Arc<App>) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
        let router = routes::router(Arc::clone(&app));
        let connections = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        let watching = tokio::spawn(Arc::clone(&app).watch());
        loop {
            // More connections wait in the queue of the operating system.
            let accepted = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, self.listener.accept().await)
            };
            let (permit, stream) = tokio::select! {
                accepted = accepted => accepted,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            };
            let (stream, client) = match stream {
                Ok((stream, address)) => (stream, Client(address.ip())),
                Err(error) => {
                    // Too many open files, most likely: others may be closed soon.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Small responses go out at once.
            let _ = stream.set_nodelay(true);
            // hyper limits the time of reads alone: without this, a client that reads no response
            // would keep its connection for ever.
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(self.limits.idle));
            let stream = Box::pin(stream);
            let router = router.clone();
            let tls = self.tls.clone();
            let idle = self.limits.idle;
            let ending = app.ending.clone();
            connections.spawn(async move {
                let _permit = permit;
                match tls {
                    None => connection(stream, client, router, idle, ending).await,
                    Some(tls) => {
                        let accepted = tokio::time::timeout(idle, tls.accept(stream));
                        let accepted = tokio::select! {
                            accepted = accepted => accepted,
                            // No request has come yet.
                            () = ending.cancelled() => return,
                        };
                        if let Ok(Ok(stream)) = accepted {
                            connection(stream, client, router, idle, ending).await;
                        }
                    }
                }
            });
        }
        drop(self.listener);
        app.ending.cancel();
        watching.abort();
        connections.close();
        let grace = tokio::time::sleep(self.limits.grace);
        tokio::select! {
            () = async { app.runs.finish().await; connections.wait().await } => {}
            () = grace => {}
            // A second signal does not wait.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        app.runs.abort();
        // Their leases are released, so that other replicas need not wait for their terms.
        let _ = tokio::time::timeout(RELEASE, app.runs.finish()).await;
        Ok(())
    }
}

/// Body of a response. Its request has not ended before the body is dropped.
struct Answering {
    body: Body,
    _request: Arc<()>,
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves one connection. Its errors are the client's.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: Client,
    router: Router,
    idle: Duration,
    ending: CancellationToken,
) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MAX_HEAD);
    // Each request that has not ended holds one more.
    let requests = Arc::new(());
    let begun = Arc::downgrade(&requests);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(client);
        let service = TowerToHyperService::new(router.clone());
        let held = Arc::clone(&requests);
        async move {
            let answer = hyper::service::Service::call(&service, request).await;
            let answer = answer.unwrap_or_else(|never| match never {});
            Ok::<_, Infallible>(answer.map(|body| Answering {
                body,
                _request: held,
            }))
        }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_HEAD, connection.as_mut()).await {
                Ok(ended) => ended,
                Err(_) if begun.strong_count() > 1 => connection.await,
                // A head that is not complete would keep the connection for the whole grace.
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {}", io::Error::other(error));
    }
}
