//! Simulates many agents on many hosts, and prints the tables of `docs/src/scale.md`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use persist_host::storage::Memory;
use persist_simulation::{Kind, Plan, Provider, Report, Step, Steps, measure_take_over, simulate};

/// Simulates many agents on many hosts that share one bucket
#[derive(Debug, Parser)]
struct Options {
    /// Numbers of agents to simulate
    #[arg(default_values_t = [100, 1000, 10_000])]
    agents: Vec<u32>,
    /// Number of hosts [default: one for 1,000 agents, at least 4]
    #[arg(long)]
    hosts: Option<u32>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Limits and prices of Google Cloud Storage instead of Amazon S3
    #[arg(long)]
    gcs: bool,
    /// Partitions of the keys in the bucket [default: one for 50,000 agents, or 25,000 with --gcs]
    #[arg(long)]
    partitions: Option<u32>,
    /// Plants a fault: no wait has a random part, and requests that failed are sent again at once
    #[arg(long)]
    no_jitter: bool,
    /// Only prints the requests of each step
    #[arg(long)]
    steps: bool,
    /// Prints what leases cost that are held all the time: one for each agent, and one for each
    /// host
    #[arg(long)]
    leases: bool,
    /// Measures how long agents of a dead host wait, on a store in memory with a term of 6 s, and
    /// simulates the same
    #[arg(long)]
    measure: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    let steps = runtime.block_on(Steps::record())?;
    if options.steps {
        print_steps(&steps);
        return Ok(());
    }
    if options.leases {
        print_leases(&options.agents, &steps);
        return Ok(());
    }
    if options.measure {
        for agents in options.agents {
            // One of two hosts dies: half of the agents are on it.
            let mut plan = Plan::new(2 * agents);
            plan.term = Duration::from_secs(6);
            let plan = plan.take_over();
            let memory = Arc::new(Memory::new());
            let measured = runtime.block_on(measure_take_over(memory, agents, &plan))?;
            let simulated = simulate(&plan, &steps).take_over;
            println!("{agents} agents, measured:  {measured:.2?}");
            println!("{agents} agents, simulated: {simulated:.2?}");
        }
        return Ok(());
    }
    println!("{}", Report::HEADER);
    for agents in options.agents {
        let started = Instant::now();
        let mut plan = Plan::new(agents);
        plan.seed = options.seed;
        plan.has_jitter = !options.no_jitter;
        plan.hosts = options.hosts.unwrap_or(plan.hosts);
        if options.gcs {
            plan.provider = Provider::Gcs;
            plan.partitions = agents.div_ceil(25_000).max(1);
        }
        plan.partitions = options.partitions.unwrap_or(plan.partitions);
        let report = simulate(&plan, &steps);
        println!("{report}");
        eprintln!("{report:?}\n{:.1} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Prints the creates and dollars of an hour, of leases of agents and of leases of hosts.
fn print_leases(agents: &[u32], steps: &Steps) {
    println!("| active agents | hosts | creates an hour, a lease for each agent | $ an hour |");
    println!("|--:|--:|--:|--:|");
    for agents in agents {
        let plan = Plan::new(*agents);
        // A host with a lease renews it as an agent does.
        for leases in [*agents, plan.hosts] {
            let busy = Plan {
                agents: leases,
                ..plan.clone()
            };
            let report = simulate(&busy.busy(), steps);
            // Ten minutes, without what begins and ends them.
            let ends = [Step::AcquireFirst, Step::SaveFirst, Step::ReleaseRenewed];
            let ends = ends.map(|step| steps.count(step, Kind::Create));
            let ends = ends.iter().sum::<u64>() * u64::from(leases);
            let creates = (report.count(Kind::Create).saturating_sub(ends)) * 6;
            let dollars = creates as f64 * Provider::S3.limits().write_price;
            println!("| {agents} | {leases} | {creates} | {dollars:.2} |");
        }
    }
}

fn print_steps(steps: &Steps) {
    println!("| step | lists | reads | creates | deletes |\n|---|--:|--:|--:|--:|");
    for step in Step::ALL {
        let counts = Kind::ALL.map(|kind| steps.count(step, kind).to_string());
        println!("| {step:?} | {} |", counts.join(" | "));
    }
}
