//! Servers of object storage that others wrote, for the tests and the demo: each on loopback ports
//! of its own, gone when the process is that started it.
//!
//! ```no_run
//! use persist_servers::{Kind, Server};
//!
//! let server = Server::shared(Kind::SeaweedFs);
//! // ... use a storage at server.endpoint() ...
//! ```
//!
//! `cargo xtask test` installs the servers, and builds the program `persist-servers`, which keeps
//! one of them running. `xtask` depends on this crate, too, so it depends on little itself.

mod server;

pub use server::{Facts, Kind, Server};
