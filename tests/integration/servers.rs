//! The servers that the other tests use.

use std::net::TcpStream;

use persist_servers::{Kind, Server};

fn listens(endpoint: &str) -> bool {
    TcpStream::connect(endpoint.trim_start_matches("http://")).is_ok()
}

#[test]
fn a_server_of_each_kind_starts_beside_others_and_ends_with_its_value() {
    for kind in Kind::ALL {
        let one = Server::start(kind);
        let other = Server::start(kind);
        assert_ne!(one.endpoint(), other.endpoint());
        let gone = one.endpoint().to_owned();
        drop(one);
        assert!(!listens(&gone), "{kind:?}");
        assert!(listens(other.endpoint()), "{kind:?}");
        assert!(other.facts().log.exists());
    }
}
