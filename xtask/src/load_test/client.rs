//! A client: one agent that runs again as soon as its run has ended.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};
use ureq::Agent;

/// Longest time of a request: the storage is asked again for less.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Pause after an error.
const PAUSE: Duration = Duration::from_millis(100);

/// Attempts to load a version before it counts as lost.
const ATTEMPTS: u32 = 50;

/// A save that the service acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    turn: u64,
    version: u64,
}

/// Outcomes of one client's requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) acknowledged: Vec<Acknowledged>,
    /// Durations of the answered runs, and their ends.
    durations: Vec<Duration>,
    pub(super) ended: Vec<Instant>,
    /// Errors by status, or by what became of the connection.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Moves all of another tally to this one.
    pub(super) fn add(&mut self, other: &mut Self) {
        self.acknowledged.append(&mut other.acknowledged);
        self.durations.append(&mut other.durations);
        self.ended.append(&mut other.ended);
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
    }

    /// Returns the duration that this part of the runs did not exceed.
    pub(super) fn quantile(&self, part: f64) -> Duration {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * part).ceil() as usize;
        let found = sorted.get(rank.saturating_sub(1));
        found.copied().unwrap_or_default()
    }
}

/// The client of one agent.
#[derive(Debug)]
pub(super) struct Client {
    http: Agent,
    authorization: String,
    /// Address of the agent.
    agent: String,
}

impl Client {
    pub(super) fn new(url: &str, token: &str, number: usize) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .proxy(None);
        Self {
            http: config.build().into(),
            authorization: format!("Bearer {token}"),
            agent: format!("{url}/v1/agents/bot-{number}"),
        }
    }

    pub(super) fn run_until(&self, end: Instant) -> Tally {
        let mut tally = Tally::default();
        for turn in 1.. {
            let began = Instant::now();
            if began >= end {
                break;
            }
            match self.run(turn) {
                Ok(version) => {
                    tally.acknowledged.push(Acknowledged { turn, version });
                    tally.durations.push(began.elapsed());
                    tally.ended.push(Instant::now());
                }
                Err(what) => {
                    *tally.errors.entry(what).or_default() += 1;
                    thread::sleep(PAUSE);
                }
            }
        }
        tally
    }

    /// Runs the agent once, and returns the version that it saved.
    fn run(&self, turn: u64) -> Result<u64, String> {
        let body = json!({ "args": ["save", "memory", state(turn)] }).to_string();
        let request = self.http.post(format!("{}/run", self.agent));
        let request = request.header("Authorization", &self.authorization);
        let answer = request.content_type("application/json").send(body);
        let (status, body) = read(answer)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (status, body["versions"][0]["version"].as_u64()) {
            (200, Some(version)) => Ok(version),
            (200, None) => Err("no version".into()),
            (status, _) => Err(status.to_string()),
        }
    }

    /// Returns how many of these saves are not there, or differ.
    pub(super) fn lost(&self, saves: &[Acknowledged]) -> usize {
        saves.iter().filter(|save| !self.is_kept(**save)).count()
    }

    fn is_kept(&self, save: Acknowledged) -> bool {
        let url = format!("{}/names/memory/state?version={}", self.agent, save.version);
        for _ in 0..ATTEMPTS {
            let request = self.http.get(&url);
            let answer = request.header("Authorization", &self.authorization).call();
            match read(answer) {
                Ok((200, body)) => return body == state(save.turn).as_bytes(),
                Ok((404, _)) => return false,
                _ => thread::sleep(PAUSE),
            }
        }
        false
    }
}

/// State of a turn.
fn state(turn: u64) -> String {
    format!("turn-{turn}")
}

fn read(
    answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<(u16, Vec<u8>), String> {
    let told = |error: ureq::Error| match error {
        ureq::Error::Timeout(_) => "no answer".to_owned(),
        _ => "connection closed".to_owned(),
    };
    let mut answer = answer.map_err(told)?;
    let body = answer.body_mut().read_to_vec().map_err(told)?;
    Ok((answer.status().as_u16(), body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// Answers requests in turn, each on a connection of its own.
    fn server(answers: Vec<(u16, String)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().expect("a client");
                let _ = stream.read(&mut [0; 4096]);
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n\
                     {body}"
                );
            }
        });
        url
    }

    /// A service that loses saves cannot be had, so that this one is made up.
    #[test]
    fn saves_that_are_gone_or_differ_are_lost() {
        let url = server(vec![
            (200, "turn-1".into()),
            (503, String::new()),
            (200, "turn-7".into()),
            (404, String::new()),
        ]);
        let client = Client::new(&url, "token", 0);
        let saves = [1, 2, 3].map(|turn| Acknowledged {
            turn,
            version: turn,
        });
        assert_eq!(client.lost(&saves), 2);
    }

    #[test]
    fn errors_are_counted_by_status() {
        let saved = json!({ "versions": [{ "version": 7 }] }).to_string();
        let url = server(vec![(200, saved), (429, String::new())]);
        let client = Client::new(&url, "token", 0);
        assert_eq!(client.run(1), Ok(7));
        assert_eq!(client.run(2), Err("429".to_owned()));
    }

    #[test]
    fn quantiles_are_of_all_runs() {
        let millis = |n| Duration::from_millis(n);
        let mut all = Tally::default();
        assert_eq!(all.quantile(0.99), Duration::ZERO);
        for n in [3, 1, 2] {
            let mut one = Tally {
                durations: vec![millis(n)],
                ..Tally::default()
            };
            all.add(&mut one);
        }
        assert_eq!(
            (all.quantile(0.5), all.quantile(0.99)),
            (millis(2), millis(3))
        );
    }
}
