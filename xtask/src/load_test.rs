//! `cargo xtask load-test`: agents of `persist serve` that run again and again, while the service
//! is restarted and killed and its storage fails. No acknowledged save may be lost.
//!
//! | part of the time | what happens |
//! |---|---|
//! | 1/4 | SIGTERM; the service must exit with 0, and is started again |
//! | 1/2 | SIGKILL, and a start |
//! | 3/4 | the storage fails for 20 seconds, or a sixth of the time |
//!
//! Then each version that a client was told of is loaded and compared with what its run saved.
//!
//! Other load generators measure requests. This one also knows what was acknowledged.

#[cfg(feature = "load-test")]
mod client;
#[cfg(feature = "load-test")]
mod service;

use crate::machine::Workspace;
use anyhow::Result;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Storage of the service: `local` or `s3`, which starts SeaweedFS; both if not given
    #[arg(long, value_enum)]
    storage: Vec<Kind>,
    /// Agents, each of which runs again as soon as its run has ended
    #[arg(long, default_value_t = 50)]
    agents: usize,
    /// Time of the load on each storage
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Program to test; built in release mode if not given
    #[arg(long, value_name = "FILE")]
    persist: Option<PathBuf>,
    /// Put the figures into docs/src/production.md
    #[arg(long, conflicts_with = "persist")]
    write: bool,
}

/// Storage of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Local,
    S3,
}

#[cfg(feature = "load-test")]
pub(crate) use measure::run;

/// Runs this program again, with the client.
#[cfg(not(feature = "load-test"))]
pub(crate) fn run(workspace: &Workspace, _: &Options) -> Result<()> {
    let again = ["run", "--locked", "--all-features", "--bin", "xtask", "--"];
    let words = std::env::args_os().skip(1);
    crate::machine::run(workspace.cargo(again).args(words))
}

#[cfg(feature = "load-test")]
mod measure {
    use super::client::{Client, Tally};
    use super::service::{Place, Service};
    use super::{Kind, Options, Result, Workspace};
    use crate::figures::Page;
    use crate::{guests, machine};
    use anyhow::{Context, ensure};
    use std::borrow::Cow;
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    const PAGE: Page = Page {
        name: "docs/src/production.md",
        chore: Cow::Borrowed("cargo xtask load-test"),
    };

    const HEADER: &str = "\
| storage | agents | time | runs | runs a second | p50 | p99 | memory | errors | saves lost |
|---|---:|---:|---:|---:|---:|---:|---:|---|---:|
";

    /// Longest outage of the storage.
    const OUTAGE: Duration = Duration::from_secs(20);

    /// Figures of one storage.
    struct Report {
        all: Tally,
        lost: usize,
        /// Peak of the resident memory, in KiB.
        memory: u64,
        /// Runs after the last disturbance.
        recovered: usize,
    }

    pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
        let persist = match &options.persist {
            Some(file) => std::path::absolute(file)?,
            None => {
                machine::build_release(workspace, &["persist"])?;
                workspace.target.join("release/persist")
            }
        };
        let agent = guests::build(workspace)?.test_guest;
        let kinds = match &*options.storage {
            [] => &[Kind::Local, Kind::S3],
            some => some,
        };
        let mut table = HEADER.to_owned();
        let mut lost = 0;
        for kind in kinds {
            let report = measured(workspace, options, *kind, &persist, &agent)?;
            let row = report.row(*kind, options);
            // What is known stays known if the next storage fails.
            eprint!("{row}");
            table += &row;
            lost += report.lost;
            ensure!(report.recovered > 0, "no run succeeded after the outage");
        }
        let mut args = vec![
            format!("--agents {}", options.agents),
            format!("--seconds {}", options.seconds),
        ];
        if let [kind] = &*options.storage {
            args.insert(0, format!("--storage {}", kind.name()));
        }
        if options.persist.is_some() {
            args.push("--persist FILE".into());
        }
        let figures = PAGE.headed(workspace, &args, &table)?;
        println!("{figures}");
        if options.write {
            PAGE.write(workspace, &figures)?;
        }
        ensure!(lost == 0, "{lost} acknowledged saves were lost");
        Ok(())
    }

    fn measured(
        workspace: &Workspace,
        options: &Options,
        kind: Kind,
        persist: &Path,
        agent: &Path,
    ) -> Result<Report> {
        let place = Place::make(workspace, kind)?;
        let mut service = Service::start(persist, agent, &place, options.agents)?;
        let (url, token) = (service.url().to_owned(), service.token().to_owned());
        let began = Instant::now();
        let time = Duration::from_secs(options.seconds);
        let end = began + time;
        let (mut tallies, disturbed) = thread::scope(|scope| {
            let clients: Vec<_> = (0..options.agents)
                .map(|number| {
                    let client = Client::new(&url, &token, number);
                    scope.spawn(move || client.run_until(end))
                })
                .collect();
            let disturbed = disturb(&mut service, &place, began, time);
            let tallies = clients.into_iter().map(|client| client.join());
            let tallies: Vec<_> = tallies.map(Result::unwrap_or_default).collect();
            (tallies, disturbed)
        });
        let disturbed = disturbed?;
        eprintln!("{}: verifying what was acknowledged", kind.name());
        let lost: usize = thread::scope(|scope| {
            let checks: Vec<_> = tallies
                .iter()
                .enumerate()
                .map(|(number, tally)| {
                    let client = Client::new(&url, &token, number);
                    scope.spawn(move || client.lost(&tally.acknowledged))
                })
                .collect();
            // A check that panics has proved nothing.
            let checks = checks.into_iter().zip(&tallies);
            let lost =
                checks.map(|(check, tally)| check.join().unwrap_or(tally.acknowledged.len()));
            lost.sum()
        });
        let memory = service.end()?;
        let mut all = Tally::default();
        for tally in &mut tallies {
            all.add(tally);
        }
        let after = all.ended.iter().filter(|ended| **ended > disturbed).count();
        ensure!(!all.acknowledged.is_empty(), "no run was answered");
        Ok(Report {
            all,
            lost,
            memory,
            recovered: after,
        })
    }

    /// Ends the service and its storage in turn, and returns the time when all was well again.
    fn disturb(
        service: &mut Service,
        place: &Place,
        began: Instant,
        time: Duration,
    ) -> Result<Instant> {
        let wait_until = |part: f64| {
            let moment = began + time.mul_f64(part);
            thread::sleep(moment.saturating_duration_since(Instant::now()));
            eprintln!("{:>4} s:", began.elapsed().as_secs());
        };
        wait_until(0.25);
        service.restart("-TERM").context("a restart by SIGTERM")?;
        wait_until(0.5);
        service.restart("-KILL").context("a restart by SIGKILL")?;
        wait_until(0.75);
        let outage = OUTAGE.min(time / 6);
        eprintln!("the storage fails for {} seconds", outage.as_secs());
        place.fail()?;
        thread::sleep(outage);
        place.mend()?;
        Ok(Instant::now())
    }

    impl Report {
        fn row(&self, kind: Kind, options: &Options) -> String {
            let runs = self.all.acknowledged.len();
            let errors = self.all.errors.iter();
            let errors: Vec<_> = errors.map(|(what, n)| format!("{what}: {n}")).collect();
            let errors = match errors.join(", ") {
                none if none.is_empty() => "none".into(),
                some => some,
            };
            let seconds = options.seconds;
            format!(
                "| {} | {} | {seconds} s | {runs} | {:.0} | {} | {} | {} MiB | {errors} | {} |\n",
                kind.name(),
                options.agents,
                runs as f64 / seconds as f64,
                milliseconds(self.all.quantile(0.5)),
                milliseconds(self.all.quantile(0.99)),
                self.memory / 1024,
                self.lost,
            )
        }
    }

    fn milliseconds(duration: Duration) -> String {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    }
}

#[cfg(feature = "load-test")]
impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::S3 => "s3",
        }
    }
}
