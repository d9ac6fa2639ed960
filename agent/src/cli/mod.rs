//! The commands that a person types. All but `agent`, `bfd`, `config`, `crds`, `replay` and `completions` ask a running
//! agent over its Unix socket.
//!
//! Exit code: 0 all is well, 1 what was asked about is not healthy, 2 wrong usage or no agent to ask.
mod client;
mod config;
mod egress;
mod ledger;
mod output;
mod pools;
mod replay;
mod show;

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::run::LogFormat;

/// Where the agent listens unless its AgentConfig says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/plainroute/agent.sock";

/// Where the BFD process listens unless the AgentConfig says otherwise.
pub const DEFAULT_BFD_SOCKET: &str = "/run/plainroute/bfd.sock";

/// Pods reachable by plain routing: a BGP advertiser for Kubernetes nodes, without overlay and without NAT.
#[derive(Debug, Parser)]
#[command(name = "plainroute", version, infer_subcommands = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent of this node
    Agent(Agent),
    /// Run BFD for the agent of this node, in a process that outlives it; the agent starts it by itself
    Bfd(Bfd),
    /// Show the BGP peers; 1 if one is not Established
    Peers(Asked),
    /// Show routes: advertised to peers, received from them, or kept in the kernel; 1 if one is not there
    Routes(Routes),
    /// Show every Pod address and whether it is advertised; 1 if the kernel is in the way of one
    Pods(Asked),
    /// Show the pools, or check the addresses that are given out of them
    Pools(Pools),
    /// Show each egress IP and the gateway that it leaves by, seen from this node; 1 if one has none
    Egress(Asked),
    /// Say which Pod of this node holds an address, or held it at a time; 1 if none is known
    Who(Who),
    /// Look at the ledger of who held which address when
    Ledger(Ledger),
    /// Say rule by rule why an address or a Pod is advertised, or why not; 1 if it is not
    Explain(Explain),
    /// Show the whole plan; with --config, of these files, without an agent; 1 if they are refused
    Plan(Plan),
    /// Say whether all is well, and what is not; 1 if something is not
    Check(Asked),
    /// Show objects that the API server lost, kept until somebody confirms their deletion; 1 if there are any
    Held(Held),
    /// Give back an address that this node keeps for a StatefulSet's Pod or holds for one that is gone
    Release(Release),
    /// Move traffic away from this node: mark its routes, wait, withdraw them; 1 while routes are still told
    Drain(Drain),
    /// Look at configuration files
    Config(Config),
    /// Print the CustomResourceDefinitions of our kinds, as YAML for `kubectl apply --server-side -f -`
    Crds,
    /// Replay what `agent --record` wrote, message by message; 1 if it is corrupt or not what happened
    Replay(replay::Replay),
    /// Print a completion script
    Completions {
        /// For this shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Agent {
    /// A YAML file, a directory of them, or - for standard input; may be repeated
    #[arg(long, required = true, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Record what every BGP session takes in, for `plainroute replay`; in a new or empty file, for its owner only
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Args)]
struct Bfd {
    /// The Unix socket on which agents find it
    #[arg(long, default_value = DEFAULT_BFD_SOCKET, value_name = "PATH")]
    socket: PathBuf,
    /// End when there was neither an agent nor a session for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    exit_when_idle: Option<Duration>,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Args)]
struct Log {
    /// The form of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "PLAINROUTE_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged: a level, or directives like info,plainroute_agent::fib=debug
    #[arg(long, default_value = "info", env = "PLAINROUTE_LOG")]
    log: String,
}

impl Log {
    /// Begins to log; false where what was asked for makes no sense, which is said.
    fn start(&self) -> bool {
        match crate::run::start_logging(self.log_format, &self.log) {
            Ok(()) => true,
            Err(error) => {
                anstream::eprintln!("plainroute: --log {}: {error}", self.log);
                false
            }
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

#[derive(Debug, Args)]
struct Asked {
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// The agent's admin socket
    #[arg(long, default_value = DEFAULT_SOCKET, env = "PLAINROUTE_SOCKET", value_name = "PATH")]
    socket: PathBuf,
    /// Seconds to wait for the answer
    #[arg(long, default_value = "10", value_parser = seconds, value_name = "SECONDS", hide = true)]
    patience: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
struct Routes {
    /// Which routes
    #[arg(value_enum, default_value_t = Which::Advertised)]
    which: Which,
    /// Only those of this peer (advertised and received)
    #[arg(long)]
    peer: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// As they were sent to the peers
    Advertised,
    /// As the peers sent them, after the import rules
    Received,
    /// As they should be in the kernel, and whether they are
    Kernel,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct Pools {
    #[command(subcommand)]
    command: Option<PoolsCommand>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Subcommand)]
enum PoolsCommand {
    /// Hold the journal of this node's addresses against its IPBlocks, sandboxes and Pods; 1 if they do not agree
    Check {
        /// First mend what can be mended without harm: what has leaked is freed after two looks, half a minute apart, and IPBlocks
        /// are written as the journal says
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        asked: Asked,
    },
}

#[derive(Debug, Args)]
struct Explain {
    /// An IP address, or a Pod as NAMESPACE/POD
    subject: String,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct Who {
    /// An IP address
    address: IpAddr,
    /// At that time instead of now, as RFC 3339 has it: 2026-11-22T10:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct Ledger {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Print its rows, the oldest first, as JSON: one a line
    Export {
        /// Only rows of what happened since that time, as RFC 3339 has it
        #[arg(long, value_name = "TIME")]
        since: Option<Timestamp>,
        /// The agent's admin socket
        #[arg(long, default_value = DEFAULT_SOCKET, env = "PLAINROUTE_SOCKET", value_name = "PATH")]
        socket: PathBuf,
    },
    /// Check that every row is as it was written; 1 if one is not, with its number
    Verify(Asked),
}

#[derive(Debug, Args)]
struct Plan {
    /// Plan these files instead of asking the agent; may be repeated
    #[arg(long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// The node to plan for (with --config); default: as the agent would choose
    #[arg(long, requires = "config")]
    node: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct Drain {
    /// Take the drain back: advertise again
    #[arg(long)]
    undo: bool,
    /// How long the peers have to move traffic away before the routes are withdrawn
    #[arg(long, value_name = "SECONDS", default_value_t = 10, conflicts_with = "undo")]
    wait: u32,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct Release {
    /// The address
    address: IpAddr,
    /// No Pod uses it any more, although the agent's records say so
    #[arg(long)]
    confirm: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct Held {
    /// Confirm the deletion of these objects, each KIND/NAME as shown
    #[arg(long, value_name = "OBJECT", num_args = 1.., value_delimiter = ',')]
    confirm: Vec<String>,
    /// Confirm the deletion of all of them
    #[arg(long, conflicts_with = "confirm")]
    confirm_all: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Args)]
struct Config {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check files as the agent would read them; 1 if they are refused
    Check {
        /// A YAML file, a directory of them, or - for standard input
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// The form of the answer
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

/// Parses the arguments and does what they say.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no errors.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Agent(agent) => {
            let Agent { config, record, log } = agent;
            return if log.start() { crate::run::main(config, record) } else { ExitCode::from(2) };
        }
        Command::Bfd(Bfd { socket, exit_when_idle, log }) => {
            let settings = crate::bfd::server::Settings { socket, exit_when_idle };
            return if log.start() { crate::bfd::server::main(settings) } else { ExitCode::from(2) };
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "plainroute", &mut script);
            output::print(&String::from_utf8_lossy(&script)).map(|()| true)
        }
        Command::Crds => output::print(&plainroute_config::crd::yaml()).map(|()| true),
        Command::Replay(asked) => replay::replay(&asked),
        Command::Config(Config { command: ConfigCommand::Check { paths, output } }) => {
            config::check(&paths, output)
        }
        Command::Plan(plan) if !plan.config.is_empty() => {
            config::plan(&plan.config, plan.node.as_deref(), plan.asked.output)
        }
        Command::Plan(plan) => show::plan(&plan.asked),
        Command::Peers(asked) => show::peers(&asked),
        Command::Routes(routes) => show::routes(&routes),
        Command::Pods(asked) => show::pods(&asked),
        Command::Pools(Pools { command: None, asked }) => show::pools(&asked),
        Command::Pools(Pools { command: Some(PoolsCommand::Check { repair, asked }), .. }) => {
            pools::check(asked, repair)
        }
        Command::Egress(asked) => egress::egress(&asked),
        Command::Who(who) => ledger::who(&who),
        Command::Ledger(Ledger { command: LedgerCommand::Export { since, socket } }) => {
            ledger::export(since, socket)
        }
        Command::Ledger(Ledger { command: LedgerCommand::Verify(asked) }) => ledger::verify(asked),
        Command::Explain(explain) => show::explain(&explain),
        Command::Check(asked) => show::check(&asked),
        Command::Held(held) => show::held(&held),
        Command::Release(release) => show::release(&release),
        Command::Drain(drain) => show::drain(&drain),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("plainroute: {error:#}");
            ExitCode::from(2)
        }
    }
}
