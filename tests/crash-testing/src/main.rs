//! `cargo xtask crash-test`: tries every target, prints one table, and fails if anything was found.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use persist_crash_testing::{Plan, TARGETS, Target, WORKER};

/// Tries to make the local store lose, tear or mix up what it acknowledged
#[derive(Debug, Parser)]
struct Options {
    /// Only these targets
    targets: Vec<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much each target tries, instead of its own number
    #[arg(long)]
    count: Option<u64>,
    /// Only name the targets
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if let Some((WORKER, args)) = args
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        return match persist_crash_testing::worker(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let options = Options::parse();
    if options.list {
        for target in TARGETS {
            println!("{:<12} {}", target.name, target.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = options
        .targets
        .iter()
        .find(|name| TARGETS.iter().all(|target| target.name != name.as_str()))
    {
        eprintln!("error: there is no target {unknown}; --list names them");
        return ExitCode::FAILURE;
    }
    let wanted = |target: &&Target| {
        options.targets.is_empty() || options.targets.iter().any(|name| name == target.name)
    };
    let failed = TARGETS
        .iter()
        .filter(wanted)
        .filter(|target| !try_out(target, &options))
        .count();
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Runs one target and prints its rows; whether nothing was found.
fn try_out(target: &Target, options: &Options) -> bool {
    let plan = Plan {
        seed: options.seed,
        count: options.count.unwrap_or(target.count),
    };
    let started = Instant::now();
    match (target.run)(plan) {
        Ok(report) => {
            for (kind, count) in &report.tried {
                println!("| {} | {kind} | {count} |", target.name);
            }
            let total = report.total();
            let found = report.violations.len();
            let seconds = started.elapsed().as_secs();
            println!("| {} | **violations** | **{found}** |", target.name);
            eprintln!(
                "{}: {total} tried in {seconds} s, {found} violations",
                target.name
            );
            for violation in &report.violations {
                eprintln!(
                    "\nVIOLATION of {} (seed {}): {violation}",
                    target.name, plan.seed
                );
            }
            found == 0
        }
        Err(error) => {
            eprintln!("error: {}: {error:#}", target.name);
            false
        }
    }
}
