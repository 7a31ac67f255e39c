//! A relay that adds the round trip of a network to a TCP server on this machine.
//!
//! Half of the round trip is added to each direction. Each direction of a connection has a queue of
//! what was read and when it is due, so bytes that are sent one after the other arrive one after
//! the other, and not one round trip each. A new connection costs a round trip before its first
//! byte is on its way, as the handshake of TCP does.
//!
//! It is kinder than a network: no TLS, no limit of throughput, no slow start, nothing is lost, and
//! the round trip is always the same. The sleep of a thread ends some 0.1 ms late.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{AddAssign, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The most bytes of one read.
const CHUNK: usize = 64 << 10;

/// Reads that wait in a direction: 64 MiB, more than any server here sends in half a round trip.
const QUEUE: usize = 1024;

/// How a request begins. HTTP/1.1 sends the next one only when the last one was answered, so it
/// begins a read.
const METHODS: [&[u8]; 5] = [b"DELETE ", b"GET ", b"HEAD ", b"POST ", b"PUT "];

/// Connections and requests that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) connections: u64,
    pub(crate) requests: u64,
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            requests: self.requests - before.requests,
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.connections += more.connections;
        self.requests += more.requests;
    }
}

#[derive(Debug, Default)]
struct State {
    connections: AtomicU64,
    requests: AtomicU64,
    is_over: AtomicBool,
}

/// A relay that is running. It takes no more connections when this value is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    state: Arc<State>,
}

impl Relay {
    /// Starts a relay before `upstream`, such as `http://127.0.0.1:12103`.
    pub(crate) fn start(upstream: &str, round_trip: Duration) -> Result<Self> {
        let upstream = upstream.trim_start_matches("http://");
        let upstream: SocketAddr = upstream.parse().context("an address of a server")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay = Self {
            address: listener.local_addr()?,
            state: Arc::default(),
        };
        let state = Arc::clone(&relay.state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if state.is_over.load(Relaxed) {
                    break;
                }
                let joined = client.and_then(|client| join(&client, upstream, round_trip, &state));
                if let Err(error) = joined {
                    eprintln!("a connection of the relay failed: {error}");
                }
            }
        });
        Ok(relay)
    }

    /// Such as `http://127.0.0.1:40001`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections and requests so far.
    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            connections: self.state.connections.load(Relaxed),
            requests: self.state.requests.load(Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.is_over.store(true, Relaxed);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// Connects a client with the server, in both directions.
fn join(
    client: &TcpStream,
    upstream: SocketAddr,
    round_trip: Duration,
    state: &Arc<State>,
) -> io::Result<()> {
    let is_open = Instant::now() + round_trip;
    state.connections.fetch_add(1, Relaxed);
    let server = TcpStream::connect(upstream)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    let sent = Arc::clone(state);
    let count = move |bytes: &[u8]| {
        if METHODS.iter().any(|method| bytes.starts_with(method)) {
            sent.requests.fetch_add(1, Relaxed);
        }
    };
    let delay = round_trip / 2;
    pass(client.try_clone()?, server.try_clone()?, count, move || {
        Instant::now().max(is_open) + delay
    });
    pass(
        server,
        client.try_clone()?,
        |_| {},
        move || Instant::now() + delay,
    );
    Ok(())
}

/// Passes on what comes `from` one side when it is `due`, in threads that end with the connection.
fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    seen: impl Fn(&[u8]) + Send + 'static,
    due: impl Fn() -> Instant + Send + 'static,
) {
    let (queue, queued) = sync_channel::<(Instant, Vec<u8>)>(QUEUE);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            // The end is passed on late, too: as no bytes.
            let len = from.read(&mut buffer).unwrap_or_default();
            seen(&buffer[..len]);
            let is_taken = queue.send((due(), buffer[..len].to_vec())).is_ok();
            if len == 0 || !is_taken {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in queued {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(40);

    /// A server that sends back what it gets.
    fn echo() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut reader = stream.try_clone().expect("a clone");
                    let _ = io::copy(&mut reader, &mut &stream);
                    let _ = stream.shutdown(Shutdown::Write);
                });
            }
        });
        format!("http://{address}")
    }

    fn connect(relay: &Relay) -> TcpStream {
        TcpStream::connect(relay.address).expect("the relay listens")
    }

    /// Sends a request and waits until all of it is back.
    fn exchange(mut stream: &TcpStream, request: &[u8]) -> Duration {
        let started = Instant::now();
        stream.write_all(request).expect("sent");
        let mut answer = vec![0; request.len()];
        stream.read_exact(&mut answer).expect("an answer");
        assert!(answer == request);
        started.elapsed()
    }

    #[test]
    fn a_new_connection_costs_a_round_trip_more() {
        let relay = Relay::start(&echo(), ROUND_TRIP).expect("starts");
        let started = Instant::now();
        let stream = connect(&relay);
        exchange(&stream, b"GET / HTTP/1.1\r\n");
        let first = started.elapsed();
        assert!(first >= 2 * ROUND_TRIP, "{first:?}");
        // The machine may be busy at one moment.
        let again = (0..5).map(|_| exchange(&stream, b"PUT / HTTP/1.1\r\n"));
        let next = again.min().expect("five");
        assert!(next >= ROUND_TRIP, "{next:?}");
        assert!(next < 2 * ROUND_TRIP, "{next:?}");
        let seen = Traffic {
            connections: 1,
            requests: 6,
        };
        assert_eq!(relay.traffic(), seen);
    }

    #[test]
    fn bytes_that_follow_each_other_wait_together() {
        let relay = Relay::start(&echo(), ROUND_TRIP).expect("starts");
        let stream = connect(&relay);
        let mut writer = stream.try_clone().expect("a clone");
        let bytes: Vec<u8> = (0..16 << 20).map(|n: u32| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let started = Instant::now();
        thread::spawn(move || {
            writer.write_all(&sent).expect("sent");
            writer.shutdown(Shutdown::Write).expect("open");
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).expect("an answer");
        let took = started.elapsed();
        assert!(back == bytes);
        // At one read of 64 KiB for each round trip it would be 10 seconds.
        assert!(took < 50 * ROUND_TRIP, "{took:?}");
    }

    #[test]
    fn no_connection_is_taken_after_the_end() {
        let relay = Relay::start(&echo(), Duration::ZERO).expect("starts");
        let address = relay.address;
        drop(relay);
        let gone = || TcpStream::connect(address).is_err();
        let waited = (0..100).any(|_| {
            thread::sleep(Duration::from_millis(10));
            gone()
        });
        assert!(waited, "it still listens");
    }
}
