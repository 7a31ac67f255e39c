//! `persist-servers NAME`: starts a server, prints where it is as one line of JSON, and keeps it
//! until standard input is closed.

mod launcher;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use persist_servers::Kind;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let kind = Kind::of(&name).with_context(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        format!("name a server: {names}")
    })?;
    let mut kept = launcher::start(kind)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", serde_json::to_string(&kept.facts)?)?;
    stdout.flush()?;

    let (closed, closing) = channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = closed.send(());
    });
    loop {
        match closing.recv_timeout(Duration::from_millis(500)) {
            Err(RecvTimeoutError::Timeout) if kept.has_ended()? => bail!("{name} ended by itself"),
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(()),
        }
    }
}
