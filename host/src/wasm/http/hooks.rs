//! Sends the requests of one run.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::body::{ByteBudget, Counted, Timed, over_limit};
use super::connection::{TlsConfig, connect};
use super::policy::{HttpPolicy, Target};
use crate::guest::Limits;

/// Requests of a run that are under way at a time, each with its buffers.
pub(crate) const CONCURRENT_REQUESTS: usize = 16;

/// Bytes of an agent's write that the host takes at a time, for each open request body.
pub(crate) const CHUNK: usize = 16 << 10;

/// Bytes of one set of headers, in memory.
pub(crate) const FIELDS: usize = 16 << 10;

/// Buffer of a connection, which also limits the headers of a response.
const CONNECTION_BUFFER: usize = 64 << 10;

/// Hosts that are reported as denied.
const MAX_DENIED: usize = 8;

/// Requests that one run may send, and has sent.
pub(crate) struct HttpHooks {
    run: Arc<HttpRun>,
}

struct HttpRun {
    policy: HttpPolicy,
    tls: Arc<TlsConfig>,
    requests: AtomicU64,
    max_requests: u64,
    bytes: Arc<ByteBudget>,
    longest: Duration,
    places: Arc<Semaphore>,
    denied: Mutex<BTreeSet<String>>,
}

type Sent = (Response<WasiBody>, BoxFuture<Result<(), Error>>);
type BoxFuture<T> = Box<dyn Future<Output = T> + Send>;

impl HttpHooks {
    pub(crate) fn new(policy: HttpPolicy, tls: Arc<TlsConfig>, limits: &Limits) -> Self {
        Self {
            run: Arc::new(HttpRun {
                policy,
                tls,
                requests: AtomicU64::new(0),
                max_requests: limits.http_requests,
                bytes: Arc::new(ByteBudget::new(limits.http_bytes)),
                longest: limits.http_time,
                places: Arc::new(Semaphore::new(CONCURRENT_REQUESTS)),
                denied: Mutex::default(),
            }),
        }
    }

    /// Returns a view of the hosts that the policy denied, to read when the run has ended.
    pub(crate) fn denied(&self) -> impl Fn() -> Vec<String> + Send + use<> {
        let run = Arc::clone(&self.run);
        move || {
            let denied = run.denied.lock().unwrap_or_else(PoisonError::into_inner);
            denied.iter().cloned().collect()
        }
    }
}

impl WasiHttpHooks for HttpHooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: BoxFuture<Result<(), Error>>,
    ) -> BoxFuture<Result<Sent, Error>> {
        let run = Arc::clone(&self.run);
        Box::new(async move { run.send(request, options.unwrap_or_default()).await })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

impl HttpRun {
    async fn send(
        &self,
        mut request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Sent, Error> {
        let target = Target::of(request.uri()).ok_or(Error::HttpRequestUriInvalid)?;
        if !self.policy.allows(&target) {
            self.record_denied(&target);
            return Err(Error::HttpRequestDenied);
        }
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        if self.requests.fetch_add(1, Ordering::Relaxed) >= self.max_requests {
            return Err(over_limit("http-requests", self.max_requests));
        }
        let deadline = Instant::now() + self.longest;
        let until = |longest: Option<Duration>| match longest {
            Some(longest) => deadline.min(Instant::now() + longest.min(self.longest)),
            None => deadline,
        };
        let place = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await;
        let place = place.map_err(|_| Error::HttpResponseTimeout)?;
        let place = place.map_err(|_| Error::ConnectionLimitReached)?;

        self.policy.add_headers(&target, request.headers_mut());
        let stream = connect(&target, &self.policy, &self.tls);
        let stream = timeout_at(until(options.connect_timeout), stream).await;
        let stream = stream.map_err(|_| Error::ConnectionTimeout)??;
        let mut http = hyper::client::conn::http1::Builder::new();
        http.max_buf_size(CONNECTION_BUFFER);
        let (mut sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        let connection = wasmtime_wasi::runtime::spawn(connection);

        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Into::into).unwrap_or_default();
        let request = request.map(|body| Counted::new(body, Arc::clone(&self.bytes)));
        let response = sender.send_request(request);
        let response = timeout_at(until(options.first_byte_timeout), response).await;
        let response = response.map_err(|_| Error::HttpResponseTimeout)?;
        let response = response.map_err(of_request)?;
        let idle = options.between_bytes_timeout;
        let response = response.map(|body| {
            let body = Counted::new(body, Arc::clone(&self.bytes));
            Timed::new(body, deadline, idle, place).boxed_unsync()
        });
        // It is driven until the response is dropped.
        let driven = async move { connection.await.map_err(Error::from) };
        Ok((response, Box::new(driven)))
    }

    fn record_denied(&self, target: &Target) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < MAX_DENIED {
            denied.insert(target.to_string());
        }
    }
}

/// Returns the error of the request's own body, such as a limit, where that is the reason.
fn of_request(error: hyper::Error) -> Error {
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        if let Some(Error::InternalError(why)) = error.downcast_ref() {
            return Error::InternalError(why.clone());
        }
        source = error.source();
    }
    error.into()
}

impl fmt::Debug for HttpHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpHooks")
            .field("policy", &self.run.policy)
            .finish_non_exhaustive()
    }
}
