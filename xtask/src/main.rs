//! The project's chores: `cargo xtask --help` lists them, and each is a module here.

mod bench;
mod bindings;
mod browser;
mod ci;
mod conversation;
mod crash_testing;
mod demo;
mod figures;
mod fleet;
mod guests;
mod hosts;
mod languages;
mod load_test;
mod machine;
mod pypi;
mod servers;
mod test;
#[path = "../../host/cli/src/toolchain_versions.rs"]
mod toolchain_versions;
mod toolchains;

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "The chores of this workspace",
    bin_name = "cargo xtask"
)]
enum Chore {
    /// Watch an agent be killed over and over and forget nothing
    Demo(demo::Options),
    /// Set up what is missing and run every test
    Test,
    /// Everything that is checked besides the tests: format, lints, docs, dependencies, packages
    Ci(ci::Options),
    /// Measure save and load beside what one would use instead
    Bench(bench::Options),
    /// Try to make the local store lose what it acknowledged
    #[command(alias = "lab")]
    CrashTest(crash_testing::Options),
    /// Run agents over HTTP while the service is killed and its storage fails
    LoadTest(load_test::Options),
    /// Compile the agents that the demo and the tests run to WebAssembly, and other projects' hosts
    Guests,
    /// Make the bindings that the SDKs for C and Go ship
    Bindings,
}

fn main() -> ExitCode {
    match run(Chore::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Not as the return value of `main`: that prints a backtrace where one is asked for by
        // RUST_BACKTRACE, which is meant for the tests that a chore runs.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let workspace = machine::Workspace::find()?;
    match chore {
        Chore::Demo(options) => demo::run(&workspace, &options),
        Chore::Test => test::run(&workspace),
        Chore::Ci(options) => ci::run(&workspace, &options),
        Chore::Bench(options) => bench::run(&workspace, &options),
        Chore::LoadTest(options) => load_test::run(&workspace, &options),
        Chore::CrashTest(options) => crash_testing::run(&workspace, &options),
        Chore::Guests => {
            let guests = guests::build(&workspace)?;
            let of_other_hosts = guests::build_others(&workspace)?;
            let hosts = hosts::build(&workspace)?;
            let others = languages::build(&workspace)?;
            let ours = [
                guests.chat_memory,
                guests.checkpoint,
                guests.test_guest,
                guests.wasi_guest,
                guests.model_chat,
                guests.quotes,
            ];
            let ours = ours.iter().chain(&of_other_hosts);
            for guest in ours.chain(&hosts).chain(&others) {
                println!("{}", workspace.short(guest).display());
            }
            Ok(())
        }
        Chore::Bindings => bindings::write(&workspace),
    }
}
