//! The operator's command: runs agents, and shows and changes what they saved.

mod address;
mod build;
mod commands;
mod exit;
mod new;
mod print;
mod run;
mod sdk;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use persist_host::snapshot::{Expect, Store};
use persist_host::storage::StorageConfig;

use address::{Address, Place};

/// Runs WebAssembly agents, and shows and changes what they saved.
///
/// An ADDRESS is agent/name or agent/session/name, with @N behind it for version N. In a part of an address, ~2f is a
/// slash, ~40 an @ and ~7e a ~.
#[derive(Debug, Parser)]
#[command(name = "persist", version, after_help = exit::HELP)]
struct Cli {
    /// Where snapshots are kept: file:///absolute/path, s3://bucket/prefix or gs://bucket/prefix [default: PERSIST_STORAGE,
    /// else the directory PERSIST_LOCAL_PATH, else this user's data directory]
    #[arg(long, global = true, value_name = "URL")]
    storage: Option<String>,

    /// Print JSON, one value a line
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an agent once and print its answer
    Run(run::Run),
    /// Make a folder with a fresh agent, in the language of your choice
    New(new::New),
    /// Build the agent in a folder that `new` made
    Build(build::Build),
    /// List names, with their newest version
    Ls {
        /// agent, or agent/session [default: everything]
        place: Option<Place>,
        /// Show deleted names too
        #[arg(long)]
        all: bool,
    },
    /// Show what is known of a version, without its state
    Show {
        /// agent/name or agent/session/name, with @N for version N
        address: Address,
    },
    /// Print the state of a version, bit for bit (--json changes nothing)
    Cat {
        /// agent/name or agent/session/name, with @N for version N
        address: Address,
    },
    /// List the versions of a name, newest first
    History {
        /// agent/name or agent/session/name; with @N only versions below N
        address: Address,
        /// Show at most so many
        #[arg(long, short = 'n', value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Save a file, or standard input, as the next version
    Save {
        /// agent/name or agent/session/name
        address: Address,
        /// What to save; - is standard input
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Only if this is the newest version: a number, or `absent`
        #[arg(long, value_name = "VERSION", default_value = "any", value_parser = expect, hide_default_value = true)]
        expect: Expect,
        /// What kind of data it is, such as application/json
        #[arg(long, value_name = "TYPE")]
        media_type: Option<String>,
        /// A label to keep with it; may be given again
        #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
        label: Vec<(String, String)>,
    },
    /// Delete a name; its older versions stay, and `restore` brings one back
    Rm {
        /// agent/name or agent/session/name
        address: Address,
        /// Only if this is the newest version
        #[arg(long, value_name = "VERSION", default_value = "any", value_parser = expect, hide_default_value = true)]
        expect: Expect,
    },
    /// Save the state of an older version again, as the next one
    Restore {
        /// agent/name@N or agent/session/name@N
        address: Address,
        /// Only if this is the newest version
        #[arg(long, value_name = "VERSION", default_value = "any", value_parser = expect, hide_default_value = true)]
        expect: Expect,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
                .from_env_lossy(),
        )
        .with_writer(std::io::stderr)
        .init();
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}

fn start(cli: Cli) -> Result<()> {
    let config = match &cli.storage {
        Some(url) => StorageConfig::from_url(url)?,
        None => StorageConfig::from_env()?,
    };
    let store = Store::new(config.build()?);
    let out = print::Out { json: cli.json };
    // One thread is enough: the disk has its own, agents give way to each other, and servers are slower than it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Run(run) => run.run(&store, out).await,
            Command::New(new) => new.run(),
            Command::Build(build) => build.run(),
            Command::Ls { place, all } => commands::ls(&store, place, all, out).await,
            Command::Show { address } => commands::show(&store, &address, out).await,
            Command::Cat { address } => commands::cat(&store, &address).await,
            Command::History { address, limit } => {
                commands::history(&store, &address, limit, out).await
            }
            Command::Save {
                address,
                file,
                expect,
                media_type,
                label,
            } => {
                let options = persist_host::snapshot::SaveOptions {
                    expect,
                    media_type,
                    labels: label,
                };
                commands::save(&store, &address, &file, options, out).await
            }
            Command::Rm { address, expect } => commands::rm(&store, &address, expect, out).await,
            Command::Restore { address, expect } => {
                commands::restore(&store, &address, expect, out).await
            }
        }
    })
}

fn expect(text: &str) -> Result<Expect, String> {
    match text {
        "any" => Ok(Expect::Any),
        "absent" => Ok(Expect::Absent),
        number => number
            .parse()
            .map(Expect::Version)
            .map_err(|_| "write the number of a version, `absent` or `any`".into()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.into(), value.into()))
        .ok_or_else(|| "write KEY=VALUE".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
