//! What `make bench` runs: Plainroute, its peers and the floor, in one run and in turn, on one machine.
//!
//! `run` is the tool: it makes the namespaces, starts the contestants in them, talks BGP to them and counts. `speak` and
//! `floor` are contestants that it starts. docs/benchmarks.md says what each row means.
mod agent;
mod bench;
mod bfd;
mod clock;
mod floor;
mod grpc;
mod kernel;
mod page;
mod process;
mod report;
mod routers;
mod rows;
mod scan;
mod session;
mod site;
mod speak;
mod stats;
mod usage;
mod wire;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures Plainroute, its peers and the floor on one machine in one run")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(bench::Run),
    Speak(speak::Speak),
    Floor(floor::Floor),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Speak(speak) => speak.run(),
        Command::Floor(floor) => floor.run(),
    }
}
