//! The operator's command: runs agents, and shows, keeps, moves and checks what they saved.

mod address;
mod build;
mod commands;
mod exit;
mod new;
mod print;
mod progress;
mod run;
mod sdk;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
use persist_host::snapshot::Store;

use commands::{archive, check, copy, diff, doctor, gc, generate, keep, list, state, stats};
use print::Out;
use settings::{Said, Settings};

/// How long a command that is done waits for retention.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs WebAssembly agents, and shows, keeps, moves and checks what they saved.
///
/// An ADDRESS is agent/name or agent/session/name, with @N behind it for version N. WHAT is an address without a version, agent for all
/// of an agent, or agent/session/ for all of a session. In a part of them, ~2f is a slash, ~40 an @ and ~7e a ~.
#[derive(Debug, Parser)]
#[command(name = "persist", version, after_help = exit::HELP)]
struct Cli {
    /// Where snapshots are kept: file:///absolute/path, s3://bucket/prefix or gs://bucket/prefix [default: PERSIST_STORAGE,
    /// else the directory PERSIST_LOCAL_PATH, else this user's data directory]
    #[arg(long, global = true, value_name = "URL")]
    storage: Option<String>,

    /// Read settings from this file [default: PERSIST_CONFIG, else persist/persist.toml in this user's configuration directory]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON, one value a line
    #[arg(long, global = true)]
    json: bool,

    /// Print results and errors, and nothing beside them
    #[arg(long, short, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent once and print its answer
    #[command(after_help = commands::RUN_EXAMPLES)]
    Run(run::Run),
    New(new::New),
    Build(build::Build),
    Ls(list::Ls),
    History(list::History),
    Show(state::Show),
    Cat(state::Cat),
    Save(state::Save),
    Rm(state::Rm),
    Restore(state::Restore),
    Fork(state::Fork),
    Diff(diff::Diff),
    Verify(check::Verify),
    Check(check::Check),
    Prune(keep::Prune),
    Pin(keep::Pin),
    Unpin(keep::Unpin),
    Purge(keep::Purge),
    Gc(gc::Gc),
    Copy(copy::Copy),
    Export(archive::Export),
    Import(archive::Import),
    Stats(stats::Stats),
    Doctor(doctor::Doctor),
    Settings(generate::Show),
    Completions(generate::Completions),
    Man(generate::Man),
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn start(cli: Cli) -> Result<()> {
    let out = Out {
        json: cli.json,
        quiet: cli.quiet,
    };
    let said = Said {
        storage: cli.storage,
        config: cli.config,
    };
    let settings = Settings::resolve(said)?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
                .parse_lossy(settings.log()?),
        )
        .with_writer(std::io::stderr)
        .init();
    // One thread is enough: the disk has its own, agents give way to each other, and servers are slower than it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(cli.command.run(&settings, out))
}

impl Command {
    async fn run(self, settings: &Settings, out: Out) -> Result<()> {
        // It is made where a command needs it, and nothing is asked of it before.
        let store = open(settings);
        let tended = store.as_ref().ok().cloned();
        let done = match self {
            Self::Run(run) => run.run(&store?, out).await,
            Self::New(new) => new.run(),
            Self::Build(build) => build.run(),
            Self::Ls(ls) => ls.run(&store?, out).await,
            Self::History(history) => history.run(&store?, out).await,
            Self::Show(show) => show.run(&store?, out).await,
            Self::Cat(cat) => cat.run(&store?, out).await,
            Self::Save(save) => save.run(&store?, out).await,
            Self::Rm(rm) => rm.run(&store?, out).await,
            Self::Restore(restore) => restore.run(&store?, out).await,
            Self::Fork(fork) => fork.run(&store?, out).await,
            Self::Diff(diff) => diff.run(&store?, out).await,
            Self::Verify(verify) => verify.run(&store?, out).await,
            Self::Check(check) => check.run(&store?, out).await,
            Self::Prune(prune) => prune.run(&store?, settings, out).await,
            Self::Pin(pin) => pin.run(&store?, out).await,
            Self::Unpin(unpin) => unpin.run(&store?, out).await,
            Self::Purge(purge) => purge.run(&store?, out).await,
            Self::Gc(gc) => gc.run(&store?, out).await,
            Self::Import(import) => import.run(&store?, out).await,
            Self::Stats(stats) => stats.run(&store?, out).await,
            Self::Copy(copy) => copy.run(settings, out).await,
            Self::Export(export) => {
                let storage = settings.storage()?.build()?;
                export.run(&store?, &*storage, out).await
            }
            Self::Doctor(doctor) => doctor.run(settings, out).await,
            Self::Settings(show) => show.run(settings, out),
            Self::Completions(completions) => completions.run(Cli::command()),
            Self::Man(man) => man.run(Cli::command()),
        };
        if let Some(store) = tended {
            // What old versions it does not come to, the next process removes.
            let _ = tokio::time::timeout(PATIENCE, store.settle()).await;
        }
        done
    }
}

fn open(settings: &Settings) -> Result<Store> {
    let storage = settings.storage()?.build()?;
    Ok(Store::with_options(storage, settings.store()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string);
            let example = format!("persist {}", command.get_name());
            assert!(
                help.is_some_and(|help| help.contains(&example)),
                "{example}"
            );
        }
    }
}
