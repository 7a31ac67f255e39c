//! Agents as virtual objects of Restate: one object for each agent and session, which runs in this
//! process and keeps its snapshots in a bucket.
//!
//! `persist-fleet AGENT.wasm` listens for Restate on `LISTEN` (default 127.0.0.1:9080). The storage
//! is that of `PERSIST_STORAGE`, such as `s3://my-bucket/agents`. `LEASE_SECONDS` (default 10) is
//! the term of leases, `MAX_RUNS` (default 32) the number of concurrent calls.

mod turns;

use std::env;
use std::error::Error;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use persist_host::snapshot::{LeaseOptions, Store};
use persist_host::storage::StorageConfig;
use persist_host::wasm::AgentHost;
use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use turns::{Failure, Heads, Turns};

/// Handlers of the object. Restate runs one call of a key at a time.
struct AgentObject {
    turns: Arc<Turns>,
    /// Places for calls. A call that waits for one holds no lease.
    places: Arc<Semaphore>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    args: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    answer: Option<String>,
    versions: Vec<String>,
    /// Process that ran the agent, or found what an earlier attempt had saved.
    worker: u32,
}

#[restate_sdk::object(name = "agent", client_visibility = "pub(crate)")]
impl AgentObject {
    /// Runs the agent.
    #[handler(invocation_retry_policy(
        initial_interval = "100ms",
        factor = 2.0,
        max_interval = "5s"
    ))]
    async fn run(
        &self,
        ctx: ObjectContext<'_>,
        request: Json<Request>,
    ) -> Result<Json<Answer>, HandlerError> {
        let Json(request) = request;
        let key = ctx.key().to_owned();
        let call = ctx.invocation_id().to_owned();
        let look = {
            let (turns, key) = (Arc::clone(&self.turns), key.clone());
            || async move { Ok(Json(turns.heads(&key).await.map_err(handler_error)?)) }
        };
        let Json(heads): Json<Heads> = ctx.run(look).name("heads").await?;
        let turn = {
            let (turns, places) = (Arc::clone(&self.turns), Arc::clone(&self.places));
            || async move {
                let _place = places.acquire().await?;
                let turn = turns.run(&key, &call, &heads, &request.args).await;
                let turn = turn.map_err(handler_error)?;
                Ok(Json(Answer {
                    answer: turn.answer,
                    versions: turn.versions,
                    worker: std::process::id(),
                }))
            }
        };
        Ok(ctx.run(turn).name("run").await?)
    }
}

fn handler_error(failure: Failure) -> HandlerError {
    match failure {
        Failure::Retry(why) => why.into(),
        Failure::Final(why) => TerminalError::new(why).into(),
    }
}

/// Returns a number of the environment.
fn number(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    let Ok(text) = env::var(name) else {
        return Ok(default);
    };
    let number = text.parse();
    number.map_err(|_| format!("{name} is {text:?}; write a number").into())
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let component = env::args()
        .nth(1)
        .ok_or("usage: persist-fleet AGENT.wasm")?;
    let mut lease = LeaseOptions::default();
    lease.term = Duration::from_secs(number("LEASE_SECONDS", 10)?);
    // A lease of a worker that died ends within this time.
    lease.wait = 2 * lease.term;
    lease.check()?;
    let store = Store::new(StorageConfig::from_env()?.build()?);
    let agent = AgentHost::new()?.load(&fs::read(component)?).await?;
    let object = AgentObject {
        turns: Arc::new(Turns {
            store,
            agent,
            lease,
        }),
        places: Arc::new(Semaphore::new(number("MAX_RUNS", 32)?.try_into()?)),
    };
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:9080".into());
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    HttpServer::new(Endpoint::builder().bind(object).build())
        .serve_with_cancel(listener, async move { terminate.recv().await })
        .await;
    Ok(())
}
