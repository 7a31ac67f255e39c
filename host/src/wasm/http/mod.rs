//! Outgoing HTTP of agents (`wasi:http/outgoing-handler`), to hosts that the operator allows.
//!
//! Requests are HTTP/1.1, each on a connection of its own, without a proxy. A redirect is an answer
//! like any other: a request that follows it is a new request, which is checked as the first was.

mod address;
mod body;
mod connection;
mod hooks;
mod policy;

pub(super) use connection::TlsConfig;
pub(super) use hooks::HttpHooks;
pub use policy::{HttpPolicy, HttpPolicyError};

use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView};

/// HTTP of one run, in its store.
pub(super) struct HttpState {
    ctx: WasiHttpCtx,
    hooks: HttpHooks,
}

impl HttpState {
    pub(super) fn new(hooks: HttpHooks) -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(hooks::FIELDS);
        Self { ctx, hooks }
    }

    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table,
            ctx: &mut self.ctx,
        }
    }
}
