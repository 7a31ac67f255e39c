//! `cargo xtask demo`: an agent follows a conversation and saves its memory after each turn, while
//! the host that it runs in is killed over and over. Nothing that was acknowledged may be
//! forgotten.
//!
//! What counts as acknowledged is what the host had printed before it died: the pipe is read to its
//! end after the kill. The first turn that the agent saves after the restart then tells what it
//! remembered:
//!
//! | first turn saved | what happened |
//! |---|---|
//! | last acknowledged + 1 | the save in flight was not made; the agent makes it again |
//! | last acknowledged + 2 | the save in flight was made, and died before it could say so |
//! | anything else | a turn was forgotten or skipped: the demo fails |

mod host;
mod schedule;

use crate::machine::{self, Workspace};
use crate::servers::{self, Cloud};
use crate::{conversation, guests};
use anyhow::{Context, Result, bail, ensure};
use host::{Host, Saved};
use persist_servers::Server;
use schedule::Moment;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Decides when the host is killed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often the host is killed
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// New place where the agent's memory is kept; `s3` or `gcs` starts a server for it; a fresh
    /// folder if not given
    #[arg(long, value_name = "URL")]
    storage: Option<String>,
    /// How much of the conversation is followed; all of it if not given
    #[arg(long)]
    turns: Option<usize>,
}

/// The whole demo, with its explanations.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let (place, persist) = match options.storage.as_deref() {
        Some("s3") => build_with_server(workspace, Cloud::S3)?,
        Some("gcs") => build_with_server(workspace, Cloud::Gcs)?,
        Some(url) if !is_local(url) => {
            announce(
                1,
                "building the `persist` command with all backends, 10 minutes",
            );
            machine::run(&mut workspace.cargo(BUILD_ALL))?;
            (Place::given(url), persist(workspace))
        }
        url => {
            announce(
                1,
                "building the `persist` command with its WebAssembly engine, 3 minutes",
            );
            machine::run(&mut workspace.cargo(BUILD_LOCAL))?;
            let place = url.map_or_else(|| Place::fresh(workspace), |url| Ok(Place::given(url)))?;
            (place, workspace.target.join("quick/persist"))
        }
    };
    announce(2, "building the agent for WebAssembly, 2 minutes");
    let agent = guests::build_chat_memory(workspace)?;
    announce(3, "running the conversation, 1 minute");
    let host = place.host(persist, agent);
    let turns = first_turns(workspace, options.turns)?;
    let moments = schedule::moments(options.seed, turns.len(), options.kills)?;

    introduce(workspace, &host, &turns, options);
    let acknowledged = play(&host, &turns, &moments)?;
    prove(&host, &turns, &acknowledged)?;
    summarize(turns.len(), moments.len());
    show_history(workspace, &host)?;
    if let Some(folder) = &place.folder {
        show_newest_file(workspace, folder)?;
    }
    match place.server {
        Some(_) => println!("The server ends here, and its data is gone."),
        None => suggest(workspace, &host, options),
    }
    Ok(())
}

/// Arguments of cargo that build the command for the local disk alone, quickly.
const BUILD_LOCAL: [&str; 8] = [
    "build",
    "--locked",
    "--profile",
    "quick",
    "--package",
    "persist-cli",
    "--no-default-features",
    "--bin=persist",
];

/// Arguments of cargo that build the command with all backends. No package is named: with the
/// features of the whole workspace, as the tests are built, wasmtime is compiled once for both.
const BUILD_ALL: [&str; 3] = ["build", "--locked", "--bin=persist"];

/// Installs and starts a server, and builds the command with all backends.
fn build_with_server(workspace: &Workspace, cloud: Cloud) -> Result<(Place, PathBuf)> {
    announce(
        1,
        "fetching a server, and building the `persist` command with all backends, 10 minutes",
    );
    servers::install(workspace, cloud.package())?;
    machine::run(workspace.cargo(BUILD_ALL).arg("--bin=persist-servers"))?;
    Ok((Place::on(cloud)?, persist(workspace)))
}

/// Prints what is built next, and how long it takes on two cores where nothing was built before.
fn announce(step: usize, what: &str) {
    eprintln!("\nStep {step} of 3: {what} (on two cores, the first time)");
}

/// Returns true if a URL names a folder on this disk.
fn is_local(url: &str) -> bool {
    url.starts_with("file:") || !url.contains(':')
}

/// The demo as a test: small, in a folder that is gone afterwards, with a host that is built.
pub(crate) fn rehearse(workspace: &Workspace, turns: usize, kills: usize) -> Result<()> {
    let place = Place::fresh(workspace)?;
    rehearse_in(workspace, &place, turns, kills)?;
    // Left in place when the demo fails: it is the evidence.
    Ok(place.folder.map_or(Ok(()), fs::remove_dir_all)?)
}

/// Runs the demo as a test, on a server that is installed.
pub(crate) fn rehearse_on(
    workspace: &Workspace,
    cloud: Cloud,
    turns: usize,
    kills: usize,
) -> Result<()> {
    rehearse_in(workspace, &Place::on(cloud)?, turns, kills)
}

fn rehearse_in(workspace: &Workspace, place: &Place, turns: usize, kills: usize) -> Result<()> {
    let host = place.host(persist(workspace), guests::build(workspace)?.chat_memory);
    let turns = first_turns(workspace, Some(turns))?;
    let moments = schedule::moments(1, turns.len(), kills)?;
    println!(
        "\nThe demo in small: {} turns, {kills} kills, in {}",
        turns.len(),
        host.storage
    );
    let acknowledged = play(&host, &turns, &moments)?;
    prove(&host, &turns, &acknowledged)?;
    summarize(turns.len(), moments.len());
    Ok(())
}

/// Place where the agent's memory is kept.
struct Place {
    url: String,
    /// Folder where the memory can be viewed as files.
    folder: Option<PathBuf>,
    /// Server that must run meanwhile.
    server: Option<Server>,
}

impl Place {
    fn given(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            folder: local_folder(url),
            server: None,
        }
    }

    fn fresh(workspace: &Workspace) -> Result<Self> {
        let folder = fresh_folder(workspace)?;
        Ok(Self {
            url: file_url(&folder),
            folder: Some(folder),
            server: None,
        })
    }

    fn on(cloud: Cloud) -> Result<Self> {
        let server = Server::launch(cloud.kind())?;
        println!("{} runs at {}", cloud.server(), server.endpoint());
        Ok(Self {
            url: server.url(&server.facts().bucket, "agents"),
            folder: None,
            server: Some(server),
        })
    }

    fn host(&self, persist: PathBuf, agent: PathBuf) -> Host {
        Host {
            persist,
            agent,
            storage: self.url.clone(),
            environment: self
                .server
                .as_ref()
                .map(|server| server.environment(server.endpoint()))
                .unwrap_or_default(),
        }
    }
}

/// The command as it is built for the tests, with all backends.
fn persist(workspace: &Workspace) -> PathBuf {
    workspace.target.join("debug/persist")
}

fn first_turns(workspace: &Workspace, count: Option<usize>) -> Result<Vec<String>> {
    let mut turns = conversation::turns(workspace)?;
    turns.truncate(count.unwrap_or(usize::MAX));
    Ok(turns)
}

/// A new, numbered folder, so that what earlier demos left can still be looked at.
fn fresh_folder(workspace: &Workspace) -> Result<PathBuf> {
    let demos = workspace.target.join("demo");
    fs::create_dir_all(&demos)?;
    for number in 1.. {
        let folder = demos.join(number.to_string());
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("{}", folder.display())),
        }
    }
    bail!("no number is free in {}", demos.display())
}

fn file_url(folder: &Path) -> String {
    let mut url = String::from("file://");
    for byte in folder.to_string_lossy().bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => url.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => url.push(byte.into()),
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// The folder that a URL names, if it is a plain one on this disk.
fn local_folder(url: &str) -> Option<PathBuf> {
    url.strip_prefix("file://")
        .filter(|path| !path.contains('%'))
        .map(PathBuf::from)
}

fn introduce(workspace: &Workspace, host: &Host, turns: &[String], options: &Options) {
    println!(
        "\n\
         An agent in a sandbox follows a conversation and saves its memory after each turn.\n\
         The host that it runs in is killed (SIGKILL) {} times on the way and started again.\n\
         \n\
         conversation  {} turns, {}\n\
         agent         {}\n\
         memory        {}\n",
        options.kills,
        turns.len(),
        conversation::SOURCE,
        workspace.short(&host.agent).display(),
        host.storage,
    );
}

/// Runs the agent to the end of the conversation, through all the kills. What was acknowledged.
fn play(host: &Host, turns: &[String], moments: &[Moment]) -> Result<Vec<Saved>> {
    println!("kill  when                  acknowledged  goes on with  the save in flight");
    let mut played = Played::default();
    for (number, moment) in (1..).zip(moments) {
        played
            .until(host, turns, moment)
            .with_context(|| format!("before kill {number}"))?;
    }
    played.finish(host, turns).context("after the last kill")?;
    Ok(played.acknowledged)
}

/// Progress of the demo so far.
#[derive(Default)]
struct Played {
    acknowledged: Vec<Saved>,
    pace: Pace,
    /// How the host was killed last, as a half-printed row.
    killed: Option<String>,
    kills: usize,
}

impl Played {
    /// Starts the host, and kills it at `moment`.
    fn until(&mut self, host: &Host, turns: &[String], moment: &Moment) -> Result<()> {
        let mut run = host.start(turns)?;
        let mut first = true;
        loop {
            let Some(saved) = run.next_saved()? else {
                run.finish()?;
                if first {
                    // It remembers the whole conversation, perhaps from before this demo.
                    self.resume(turns.len() + 1)?;
                }
                bail!(
                    "the host finished before turn {} could be its last",
                    moment.turn
                );
            };
            let turn = saved.turn;
            self.acknowledge(saved, std::mem::take(&mut first))?;
            if turn >= moment.turn {
                break;
            }
        }
        let delay = self.pace.mean().mul_f64(moment.fraction);
        std::thread::sleep(delay);
        let turn = self.last_turn();
        for saved in run.kill()? {
            self.acknowledge(saved, false)?;
        }
        self.pace.pause();
        self.kills += 1;
        let when = format!("turn {turn} + {:.2} ms", delay.as_secs_f64() * 1e3);
        let last = format!("turn {}", self.last_turn());
        self.killed = Some(format!("{:>4}  {when:<20}  {last:<12}", self.kills));
        Ok(())
    }

    /// Starts the host and lets it be.
    fn finish(&mut self, host: &Host, turns: &[String]) -> Result<()> {
        let mut run = host.start(turns)?;
        let mut first = true;
        while let Some(saved) = run.next_saved()? {
            self.acknowledge(saved, std::mem::take(&mut first))?;
        }
        run.finish()?;
        if first {
            // Nothing was left to save: as if it went on with a turn after the last.
            self.resume(turns.len() + 1)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, saved: Saved, first: bool) -> Result<()> {
        if first {
            self.resume(saved.turn)?;
        } else {
            let next = self.last_turn() + 1;
            ensure!(
                saved.turn == next,
                "turn {} was saved, turn {next} was next",
                saved.turn
            );
        }
        self.pace.tick();
        self.acknowledged.push(saved);
        Ok(())
    }

    /// The host was started and goes on with `turn`. Prints the row of the kill before it.
    fn resume(&mut self, turn: usize) -> Result<()> {
        let Some(row) = self.killed.take() else {
            ensure!(
                turn == 1,
                "the agent already remembers a conversation here; give --storage a new place"
            );
            return Ok(());
        };
        let goes_on = format!("turn {turn}");
        match flight(self.last_turn(), turn) {
            Ok(Flight::Lost) => {
                println!("{row}  {goes_on:<12}  not made; the agent makes it again")
            }
            Ok(Flight::Made) => println!("{row}  {goes_on:<12}  made, turn {} is kept", turn - 1),
            Err(error) => {
                println!("{row}  {goes_on:<12}  FAILED");
                return Err(error);
            }
        }
        Ok(())
    }

    fn last_turn(&self) -> usize {
        self.acknowledged.last().map_or(0, |saved| saved.turn)
    }
}

/// Outcome of the save during which the host was killed.
#[derive(Debug, PartialEq)]
enum Flight {
    Lost,
    Made,
}

/// Judges by the last turn that was acknowledged and the first that was saved after the restart.
fn flight(last: usize, first: usize) -> Result<Flight> {
    match first.checked_sub(last) {
        Some(1) => Ok(Flight::Lost),
        Some(2) => Ok(Flight::Made),
        None | Some(0) => {
            bail!("the agent forgot: turn {last} was acknowledged, {first} came again")
        }
        Some(_) => bail!("the agent skipped turns: {last} was acknowledged, {first} came next"),
    }
}

/// How long one save takes, by the time between two acknowledgements of one run of the host.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
    total: Duration,
    count: u32,
}

impl Pace {
    fn tick(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.total += now - last;
            self.count += 1;
        }
    }

    /// The host is down: the time until the next tick is not that of a save.
    fn pause(&mut self) {
        self.last = None;
    }

    fn mean(&self) -> Duration {
        self.total.checked_div(self.count).unwrap_or_default()
    }
}

/// That nothing was forgotten, neither in the history nor in the memory itself.
fn prove(host: &Host, turns: &[String], acknowledged: &[Saved]) -> Result<()> {
    check(&host.history()?, acknowledged, turns.len())?;
    ensure!(
        host.memory()? == turns,
        "the memory is not the conversation"
    );
    Ok(())
}

/// That the history is what was acknowledged, and the whole conversation, and nothing else.
fn check(history: &[Saved], acknowledged: &[Saved], turns: usize) -> Result<()> {
    let mut history: Vec<&Saved> = history.iter().collect();
    history.sort_by_key(|saved| saved.version);
    for (number, saved) in (1..).zip(&history) {
        ensure!(
            saved.version == number,
            "version {number} is missing from the history"
        );
        ensure!(
            saved.turn as u64 == number,
            "version {number} is of turn {}: a turn was saved twice or not at all",
            saved.turn
        );
    }
    ensure!(
        history.len() == turns,
        "{} versions for {turns} turns",
        history.len()
    );
    for saved in acknowledged {
        ensure!(
            history.contains(&saved),
            "version {} was acknowledged and is not in the history as it was",
            saved.version
        );
    }
    Ok(())
}

fn summarize(turns: usize, kills: usize) {
    println!("\n{turns} turns, {turns} versions, {kills} kills, 0 forgotten\n");
}

fn show_history(workspace: &Workspace, host: &Host) -> Result<()> {
    const LINES: usize = 6;
    let persist = workspace.short(&host.persist).display();
    println!("Every turn is a version, newest first:\n");
    println!("$ {persist} history demo/memory --storage {}", host.storage);
    let history = machine::output(&mut host.command(&["history", "demo/memory"]))?;
    for line in history.lines().take(LINES) {
        println!("{line}");
    }
    println!("... {} versions in all\n", history.lines().skip(1).count());
    Ok(())
}

/// Shows that an ordinary tool opens what is kept.
fn show_newest_file(workspace: &Workspace, folder: &Path) -> Result<()> {
    // Names sort newest first.
    let versions = fs::read_dir(folder.join("demo/~/memory"))?;
    let files = versions
        .map(|file| Ok(file?.path()))
        .collect::<Result<Vec<_>>>()?;
    let newest = files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "gz"))
        .min()
        .context("no file is where the newest version should be")?;
    let shown = format!("zcat {} | head -c 300", workspace.short(newest).display());
    println!("What is kept is gzip, which ordinary tools open:\n\n$ {shown}");
    // The file is an argument, not part of the script: its path is the user's and may hold
    // anything.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "zcat <\"$1\" | head -c 300", "sh"])
        .arg(newest);
    let state = shell.output().context("cannot run zcat")?.stdout;
    ensure!(
        !state.is_empty(),
        "zcat printed nothing of {}",
        newest.display()
    );
    println!("{}...\n", String::from_utf8_lossy(&state));
    Ok(())
}

fn suggest(workspace: &Workspace, host: &Host, options: &Options) {
    let persist = workspace.short(&host.persist).display();
    let seed = options.seed.wrapping_add(1);
    println!("Try next:\n\n    export PERSIST_STORAGE={}", host.storage);
    for (command, what) in [
        (
            format!("{persist} ls"),
            "what is kept, with its newest version",
        ),
        (
            format!("{persist} show demo/memory@12"),
            "what is known of one version",
        ),
        (
            format!("{persist} cat demo/memory@12"),
            "what the agent remembered then",
        ),
        (
            format!("{persist} rm demo/memory"),
            "delete it: older versions stay",
        ),
        (
            format!("{persist} restore demo/memory@12"),
            "and go on from one of them",
        ),
        (
            format!("cargo xtask demo --seed {seed}"),
            "be killed at other moments",
        ),
    ] {
        println!("    {command:<46}# {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(turn: usize, version: u64) -> Saved {
        Saved {
            turn,
            version,
            sha256: format!("{version:064x}"),
        }
    }

    #[test]
    fn a_save_in_flight_may_be_lost_or_made_and_nothing_else() {
        assert_eq!(flight(7, 8).ok(), Some(Flight::Lost));
        assert_eq!(flight(7, 9).ok(), Some(Flight::Made));
        for first in [1, 6, 7, 10] {
            assert!(flight(7, first).is_err(), "{first}");
        }
    }

    #[test]
    fn a_whole_history_passes_in_any_order() {
        let history = [saved(3, 3), saved(2, 2), saved(1, 1)];
        assert!(check(&history, &[saved(1, 1), saved(3, 3)], 3).is_ok());
    }

    #[test]
    fn a_version_that_was_acknowledged_and_is_gone_or_changed_is_found() {
        let history = [saved(1, 1), saved(2, 2)];
        assert!(check(&history, &[saved(3, 3)], 2).is_err());
        let changed = Saved {
            sha256: "0".repeat(64),
            ..saved(2, 2)
        };
        assert!(check(&history, &[changed], 2).is_err());
    }

    #[test]
    fn a_hole_in_the_numbers_a_turn_saved_twice_and_a_short_history_are_found() {
        assert!(check(&[saved(1, 1), saved(2, 3)], &[], 2).is_err());
        assert!(check(&[saved(1, 1), saved(1, 2)], &[], 2).is_err());
        assert!(check(&[saved(1, 1)], &[], 2).is_err());
    }

    #[test]
    fn a_storage_that_remembers_already_is_refused() {
        let mut played = Played::default();
        assert!(played.acknowledge(saved(5, 5), true).is_err());
    }

    #[test]
    fn a_folder_with_a_space_is_a_valid_url() {
        assert_eq!(file_url(Path::new("/a b/ü")), "file:///a%20b/%C3%BC");
        assert_eq!(local_folder("file:///a/b"), Some("/a/b".into()));
        assert_eq!(local_folder("s3://bucket/a"), None);
    }
}
