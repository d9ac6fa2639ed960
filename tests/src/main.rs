//! `plainroute-lab`: builds the labs in network namespaces, checks what they promise, and shows it.
//!
//! Called by the name `plainroute` it is the agent and its command line, by the name `plainroute-ipam` the CNI plugin: the nodes
//! of a lab run this very file, so that what is tested is always what was just built.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use plainroute_tests::lab::run::run as go_through;
use plainroute_tests::lab::tell::{Detail, Teller};
use plainroute_tests::lab::{CNI_PLUGIN, Expectations, Lab, Lifetime};

/// Realises the topologies in `labs/` with network namespaces and this machine's packages. Needs root, no containers.
#[derive(Debug, Parser)]
#[command(name = "plainroute-lab")]
struct Arguments {
    /// The agent's binary, for nodes of the image `plainroute`; the CNI plugin is taken from beside it. Default: this program,
    /// which has both in it.
    #[arg(long, env = "PLAINROUTE", global = true)]
    plainroute: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Builds a lab and leaves it running.
    Up {
        /// A name in `labs/`, or a directory with a topology.clab.yml.
        lab: String,
    },
    /// Ends a lab that was left running.
    Down {
        /// The lab's name.
        lab: String,
    },
    /// Runs a command on a node of a running lab; without one, a shell.
    Exec {
        /// The lab's name.
        lab: String,
        /// The node's name.
        node: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Builds a lab, checks all that its expect.yaml claims, and ends it.
    Test {
        /// A name in `labs/`, or a directory.
        lab: String,
        /// Where the figures go, as JSON.
        #[arg(long)]
        figures: Option<PathBuf>,
    },
    /// As `test`, and shows each step with the real output of everything.
    Demo {
        /// A name in `labs/`, or a directory.
        #[arg(default_value = "single-tor")]
        lab: String,
        /// Where the figures go, as JSON.
        #[arg(long)]
        figures: Option<PathBuf>,
    },
    /// Names the labs, and says which are up.
    List,
}

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some("plainroute") => return plainroute_agent::cli::run(),
        Some(CNI_PLUGIN) => return plainroute_cni::program::run(),
        _ => {}
    }
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("plainroute-lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    let plainroute = || -> Result<PathBuf> {
        match &arguments.plainroute {
            Some(path) => path.canonicalize().with_context(|| path.display().to_string()),
            None => std::env::current_exe().context("the path of this program"),
        }
    };
    match &arguments.action {
        Action::Up { lab } => {
            let lab = Lab::up(&find(lab)?, &plainroute()?, &Lifetime::Left)?;
            println!("{} is up. Nodes:", lab.name());
            for node in lab.nodes() {
                println!("  plainroute-lab exec {} {}", lab.name(), node.name());
            }
            println!("`plainroute-lab down {}` ends it.", lab.name());
        }
        Action::Down { lab } => Lab::find(lab)?.down(),
        Action::Exec { lab, node, command } => {
            let lab = Lab::find(lab)?;
            let shell = ["bash".to_owned()];
            let command = if command.is_empty() { &shell[..] } else { command };
            return Err(lab.node(node)?.become_command(command).into());
        }
        Action::Test { lab, figures } => return show(lab, &plainroute()?, Detail::Steps, figures.as_deref()),
        Action::Demo { lab, figures } => {
            return show(lab, &plainroute()?, Detail::Everything, figures.as_deref());
        }
        Action::List => {
            let running = Lab::running();
            for name in names()? {
                println!("{name}{}", if running.contains(&name) { "  (up)" } else { "" });
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 1: a claim is not true.
fn show(lab: &str, plainroute: &Path, detail: Detail, figures: Option<&Path>) -> Result<ExitCode> {
    let dir = find(lab)?;
    let expectations = Expectations::read(&dir)?;
    let mut teller = Teller::new(detail);
    let start = Instant::now();
    let lab = Lab::up(&dir, plainroute, &Lifetime::Bound)?;
    teller.opening(&lab, start.elapsed());
    let report = go_through(&lab, &expectations, &mut teller);
    teller.closing(&report);
    if let Some(path) = figures {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The directory with the labs: of the checkout one stands in, or else of the one that this program was built from.
fn labs() -> PathBuf {
    let here = PathBuf::from("labs");
    if here.is_dir() { here } else { Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("labs") }
}

fn find(lab: &str) -> Result<PathBuf> {
    let known = labs().join(lab);
    let dir = if known.is_dir() { known } else { PathBuf::from(lab) };
    ensure!(dir.join("topology.clab.yml").exists(), "no lab {lab}; there are {}", names()?.join(", "));
    Ok(dir)
}

fn names() -> Result<Vec<String>> {
    let dir = labs();
    let entries = dir.read_dir().with_context(|| format!("read {}", dir.display()))?.flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("topology.clab.yml").exists())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}
