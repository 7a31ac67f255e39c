//! Servers for tests.
//!
//! - [`Server`]: a server that others wrote, on loopback ports of its own, gone when the process is
//!   that started it.
//! - [`Proxy`]: stands before one, counts what is asked of it, and cuts, delays or answers as
//!   planned.
//!
//! ```no_run
//! use persist_servers::{Fault, Kind, Proxy, Server};
//!
//! let server = Server::shared(Kind::SeaweedFs);
//! let proxy = Proxy::start(server.endpoint());
//! proxy.plan(1, Fault::ReplyLost); // of the second request from now
//! // ... use a storage at proxy.endpoint() ...
//! assert_eq!(proxy.operations(), ["ListObjectsV2", "PutObject", "GetObject"]);
//! ```
//!
//! `cargo xtask test` installs the servers, and builds the program `persist-servers`, which keeps
//! one of them running.

mod proxy;
mod server;

pub use proxy::{Fault, Proxy, Reply, Seen};
pub use server::{Facts, Kind, Server};
