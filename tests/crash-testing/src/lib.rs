//! Tries to make the local store lose, tear or mix up what it acknowledged.
//!
//! Each module is one way of trying, runs alone, and replays from a seed. `cargo xtask crash-test`
//! runs them all at full size and writes the figures of docs/src/reliability.md. The tests of this
//! crate run a bounded part of each, and show that each finds what was broken on purpose.

pub mod copies;
pub mod corrupt;
pub mod crash;
pub mod faults;
pub mod fixture_store;
pub mod fuzz;
pub mod golden;
pub mod histories;
pub mod kill;
pub mod leases;
mod links;
pub mod malformed_file;
pub mod report;
mod steps;
#[path = "../../src/version_key.rs"]
pub mod version_key;

pub use fastrand::Rng;
pub use report::Report;

/// How much to try, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything that is random follows from it.
    pub seed: u64,
    /// How many states, kills, histories or faults to try, where the target has no number of its
    /// own.
    pub count: u64,
}

/// One way of trying.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the target in the command.
    pub name: &'static str,
    /// Description of what the target tries, in a line.
    pub about: &'static str,
    /// How much, where nothing else is asked for.
    pub count: u64,
    /// Tries it.
    pub run: fn(Plan) -> anyhow::Result<Report>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "crash",
        about: "every state in which a crash may leave the disk",
        count: 10_000,
        run: crash::run,
    },
    Target {
        name: "faults",
        about: "every call to the disk fails, in every operation",
        count: 0,
        run: faults::run,
    },
    histories::TARGET,
    leases::TARGET,
    kill::TARGET,
    copies::TARGET,
    corrupt::TARGET,
    fuzz::TARGET,
];

/// The first argument of a process that is part of a target, and not the whole laboratory.
pub const WORKER: &str = "worker";

/// Is such a process; `args` are those after [`WORKER`].
///
/// # Errors
/// Where they name no part.
pub fn worker(args: &[String]) -> anyhow::Result<()> {
    match args.split_first() {
        Some((part, args)) if part == "history" => histories::worker(args),
        Some((part, args)) if part == "lease" => leases::worker(args),
        Some((part, args)) if part == "kill" => kill::worker(args),
        _ => anyhow::bail!("there is no such worker"),
    }
}

/// A folder for a store that is looked at and thrown away: in memory where there is such a file
/// system, which honours the same calls.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    Ok(tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir())?)
}
