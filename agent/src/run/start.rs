//! Starting and stopping: everything that the main task is given, and the order in which it comes and goes.
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;
use futures::{FutureExt, future::BoxFuture};
use plainroute_bgp::Families;
use plainroute_config::{AgentConfigSpec, Input, Kind};
use plainroute_speaker::{Recorder, Speaker, SpeakerConfig, StopMode, TcpAoSupport};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::{
    Agent, Giving, Inputs, Outputs,
    api_server::{ApiServer, own_namespace},
};
use crate::{
    admin::{self, Access, Published},
    bfd::client::Client,
    fib::{self, Desired, FibConfig, Installed},
    incarnation,
    index::{Awaited, Index, LastGood},
    ipam,
    last_good::{self, Told},
    ledger,
    nat::{self, NatConfig, NatDesired, NatInstalled},
    neighbours, private_socket,
    source::{
        Feed, SourceName,
        cni_cache::{self, CniCache},
        directory::FileSource,
        kubernetes::{self, Marks},
        secrets::Secrets,
    },
    status,
};

/// Changes of the sources that may wait; then the sources do.
const FEEDS: usize = 1024;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs the agent until it is told to stop.
pub fn main(paths: Vec<PathBuf>, record: Option<PathBuf>) -> ExitCode {
    let inputs = match paths.iter().map(|path| Input::open(path)).collect::<Result<Vec<_>, _>>() {
        Ok(inputs) => inputs,
        Err(error) => {
            anstream::eprintln!("plainroute: standard input: {error}");
            return ExitCode::from(2);
        }
    };
    let (files, loaded) = match FileSource::open(inputs) {
        Ok(opened) => opened,
        Err(errors) => {
            anstream::eprint!("{errors}");
            return ExitCode::from(2);
        }
    };
    let config = loaded.agent_config().cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        // On a worker: waking another task from there is no matter of two threads.
        let ended = runtime.block_on(runtime.spawn(run(config, files, record)));
        let result = ended.context("the main task failed").flatten();
        // A source that hangs in a blocking call must not keep a restart waiting.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Begins to log to standard error.
pub(crate) fn start_logging(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let quiet = kubernetes::QUIET.map(|target| (target, LevelFilter::OFF));
    let filter: Targets = filter.parse()?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter.with_targets(quiet))).init();
    Ok(())
}

/// The node's name: as configured, else `$NODE_NAME`, else the hostname.
pub fn node_name(configured: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = configured {
        return Ok(name.to_owned());
    }
    match std::env::var("NODE_NAME") {
        Ok(name) if !name.is_empty() => Ok(name),
        _ => {
            let name =
                nix::unistd::gethostname().context("the hostname cannot be read; set spec.nodeName")?;
            name.into_string().map_err(|_| anyhow::anyhow!("the hostname is not UTF-8; set spec.nodeName"))
        }
    }
}

async fn run(config: AgentConfigSpec, files: FileSource, record: Option<PathBuf>) -> anyhow::Result<()> {
    let recorder = match record {
        Some(path) => {
            let recorder = Recorder::create(&path);
            Some(recorder.with_context(|| format!("--record {}: cannot record there", path.display()))?)
        }
        None => None,
    };
    let node = node_name(config.node_name.as_deref())?;
    info!(node, version = env!("CARGO_PKG_VERSION"), "starting");
    let cancel = CancellationToken::new();
    let before = incarnation::take_over(&config.state_dir).unwrap_or_else(|error| {
        let state_dir = config.state_dir.display();
        warn!(%state_dir, %error, "the state directory cannot be used: graceful restart is not claimed");
        Default::default()
    });
    let preserved = if before.forwarding_preserved { Families::ALL } else { Families::NONE };
    let speaker = Speaker::start(SpeakerConfig {
        restarting: before.restarted,
        forwarding_preserved: preserved,
        tcp_ao: TcpAoSupport::probe(),
        recorder,
    });

    let (desired, desired_in) = watch::channel(Arc::new(Desired::default()));
    let (installed_out, installed) = watch::channel(Arc::new(Installed::default()));
    let routing = &config.routing;
    let fib_config = FibConfig { protocol: routing.protocol.get(), ..FibConfig::default() };
    let mut kernel = tokio::spawn(fib::run(fib_config, desired_in, installed_out, cancel.clone()));

    let (published, published_in) =
        watch::channel(Arc::new(Published::new(node.clone(), routing.table.number())));
    let listen = config.metrics.listen;
    let (commands_out, commands) = mpsc::channel(1);
    let (bfd, bfd_wanted) = watch::channel(None);
    let (views, bfd_views) = watch::channel(Arc::default());
    let ledger = ledger::Settings {
        path: config.state_dir.join(ledger::FILE),
        node: node.clone(),
        days: config.ledger.days.get(),
    };
    let (ledger_trouble, trouble) = watch::channel(None);
    let (holdings_out, holdings) = watch::channel(None);
    let (desk, counter, given) = match &config.ipam {
        Some(_) => {
            let (desk, counter, given) = ipam::desk(holdings.clone());
            (Some(desk), Some(counter), Some(given))
        }
        None => (None, None, None),
    };
    let access = Access {
        ipam: desk,
        ledger: ledger::Kept { path: ledger.path.clone(), trouble },
        published: published_in.clone(),
        speaker: speaker.clone(),
        commands: commands_out,
        bfd: bfd_views,
        readiness: config.readiness,
    };
    let serving = admin::serve(&config.admin_socket, listen, access.clone(), cancel.clone()).await?;
    let serving = tokio::spawn(serving);
    // It ends with the main task, whose end of the channel it watches.
    tokio::spawn(ledger::keep(ledger, published_in, given, ledger_trouble));

    let (feeds, feeds_in) = mpsc::channel(FEEDS);
    let kubernetes = config.source.kubernetes.as_ref().map(|source| kubernetes::Settings {
        kubeconfig: source.kubeconfig.clone(),
        node: node.clone(),
        streaming_lists: true,
        custom_resources: source.custom_resources,
        pace: kubernetes::Pace::default(),
    });
    if let (Some(settings), Some(source)) = (&kubernetes, &config.source.kubernetes)
        && source.status
    {
        let telling = status::run(settings.clone(), access);
        tokio::spawn(cancel.clone().run_until_cancelled_owned(telling));
        // Who runs outside a Pod has no namespace that all agents share.
        if let Some(namespace) = own_namespace() {
            let judging = status::conditions::run(settings.clone(), namespace);
            tokio::spawn(cancel.clone().run_until_cancelled_owned(judging));
        }
    }
    let for_blocks = kubernetes.clone();
    let (secrets, secrets_in) = watch::channel(BTreeSet::new());
    let (passwords_out, passwords) = watch::channel(Arc::default());
    let run_directory = config.admin_socket.parent().unwrap_or(Path::new("/"));
    let secret_source =
        Secrets::new(secrets_in, passwords_out, kubernetes.clone()).remembering_in(run_directory);
    let known = kubernetes.as_ref().and_then(|_| last_good(&config.state_dir, &node));
    let (known, marks) = known.unzip();
    let marks = watch::Sender::new(marks.unwrap_or_default());
    let api_server = kubernetes.as_ref().map(|_| {
        let (told, told_in) = watch::channel(Told::default());
        let keep = last_good::keep(config.state_dir.clone(), node.clone(), told_in, marks.subscribe());
        (ApiServer::new(told, own_namespace()), tokio::spawn(keep))
    });
    let (api_server, keeping) = api_server.unzip();
    let (scope, scope_in) = watch::channel(kubernetes::Scope::default());
    let cluster = kubernetes.map(|settings| (settings, marks, scope_in));
    let awaited = start_sources(files, secret_source, cluster, feeds, &cancel);
    let mut index = Index::new(awaited).of_node(&node);
    if let Some(source) = &config.source.kubernetes {
        index = index.with_limits(source.deletions.into());
    }
    if let Some(known) = known {
        index.restore(known);
    }

    let (interfaces, interfaces_in) = watch::channel(BTreeSet::new());
    let (heard_out, heard) = watch::channel(Arc::default());
    let finding = neighbours::run(interfaces_in, installed.clone(), heard_out);
    tokio::spawn(cancel.clone().run_until_cancelled_owned(finding));

    let ipam = match config.ipam.clone().zip(counter) {
        Some((ipam, counter)) => {
            let listener = private_socket::bind(&ipam.socket)
                .await
                .context("the CNI plugin's socket (spec.ipam.socket)")?;
            let (known, known_in) = watch::channel(None);
            let setup = ipam::Setup {
                node: node.clone(),
                config: ipam,
                state_dir: config.state_dir.clone(),
                boot: incarnation::boot_id().unwrap_or_default(),
                kubernetes: for_blocks,
            };
            let (releases, releases_in) = mpsc::channel(1);
            let giving = ipam::run(setup, listener, known_in, releases_in, counter, holdings_out);
            tokio::spawn(cancel.clone().run_until_cancelled_owned(giving));
            Some(Giving { known, releases })
        }
        None => None,
    };
    let (nat, nat_in) = watch::channel(Arc::new(NatDesired::default()));
    let (nat_out, nat_installed) = watch::channel(Arc::new(NatInstalled::default()));
    tokio::spawn(nat::run(NatConfig::default(), nat_in, nat_out, cancel.clone()));
    let inputs = Inputs { feeds: feeds_in, installed, passwords, commands, heard, holdings, nat_installed };
    let client = Client { settings: config.bfd.clone(), wanted: bfd_wanted, speaker: speaker.clone(), views };
    // It ends with the main task, whose end of the channel it watches.
    tokio::spawn(client.run());
    let outputs =
        Outputs { speaker: speaker.clone(), desired, published, secrets, interfaces, bfd, ipam, nat, scope };
    let mut agent = Agent::new(node, config, index, api_server, outputs);
    let result = agent.serve(inputs, &mut kernel).await;
    info!("stopping: sessions close without NOTIFICATION, routes stay");
    speaker.stop(StopMode::Retain).await;
    // With the main task goes who tells the API server's side of it, which is then written down.
    drop(agent);
    if let Some(keeping) = keeping {
        let _ = tokio::time::timeout(Duration::from_secs(1), keeping).await;
    }
    cancel.cancel();
    let _ = serving.await;
    result
}

/// What the process before this one knew of the API server, where it left that.
fn last_good(state_dir: &Path, node: &str) -> Option<(LastGood, Marks)> {
    let path = state_dir.join(last_good::FILE);
    match last_good::load(state_dir, node) {
        Ok(known) => known,
        Err(error) => {
            warn!(path = %path.display(), %error, "what an earlier process knew of the API server cannot be used");
            None
        }
    }
}

/// Starts every source; gives what each must deliver before anything is planned.
fn start_sources(
    files: FileSource,
    secrets: Secrets,
    cluster: Option<(kubernetes::Settings, watch::Sender<Marks>, watch::Receiver<kubernetes::Scope>)>,
    feeds: mpsc::Sender<Feed>,
    cancel: &CancellationToken,
) -> Vec<Awaited> {
    let mut awaited: Vec<Awaited> =
        Kind::IN_FILES.into_iter().map(|kind| Awaited::Objects(SourceName::Files, kind)).collect();
    let until_cancelled = |source: BoxFuture<'static, ()>| {
        let cancel = cancel.clone();
        tokio::spawn(async move { cancel.run_until_cancelled(source).await });
    };
    until_cancelled(files.run(feeds.clone()).boxed());
    awaited.push(Awaited::HostLinks);
    until_cancelled(CniCache::new(cni_cache::DEFAULT_DIRECTORY).run(feeds.clone()).boxed());
    until_cancelled(secrets.run().boxed());
    if let Some((settings, marks, scope)) = cluster {
        awaited.extend(settings.kinds().map(|kind| Awaited::Objects(SourceName::Kubernetes, kind)));
        until_cancelled(kubernetes::run(settings, marks, scope, feeds).boxed());
    }
    awaited
}
