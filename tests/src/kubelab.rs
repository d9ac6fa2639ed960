//! A real Kubernetes API for tests: etcd and kube-apiserver as two processes of our own.
//!
//! Owns their directory, certificates, tokens and ports, so that the API can be killed, left silent, and
//! started again at the same address over the same data. There are no controllers and no kubelets: what
//! they would do (a namespace's ServiceAccount, a Pod's status, the end of a graceful deletion) the test
//! does itself, by the builders in [`objects`]. That is the point: each change is the test's own. A test that
//! wants the cluster to act starts [`controllers`], and nodes by [`kubenode`](crate::kubenode).

pub mod audit;
mod bulk;
pub mod controllers;
mod credentials;
mod custom;
mod etcd;
mod kubectl;
pub mod objects;
mod ports;
mod process;
mod relay;
pub mod rights;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;

use credentials::Credentials;
pub use credentials::User;
pub use etcd::Backup;
use etcd::Etcd;
use ports::free_port;
use process::Process;
use relay::Relay;

const READY: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);
/// The API server keeps its listeners for 10 s after SIGTERM; no test needs that.
const STOP: Duration = Duration::from_secs(2);

/// Where the API server runs and who may talk to it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address it listens on. Agents in network namespaces need one that they can reach: an address of
    /// a bridge or veth that the lab owns.
    pub listen: IpAddr,
    /// The network namespace (a name of `ip netns`) that both processes run in; it must have `lo` up.
    /// [`ApiServer::client`] works from outside all the same.
    pub netns: Option<String>,
    /// More addresses to be named in its certificate.
    pub alternative_addresses: Vec<IpAddr>,
    /// Who can log in beside the administrator. RBAC is on: they may do nothing until the test says so.
    pub users: Vec<User>,
    /// Start a second API server over the same data, for the test's own use: so it can change things while
    /// the one that agents know is away.
    pub standby: bool,
    /// More arguments for kube-apiserver.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Ipv4Addr::LOCALHOST.into(),
            netns: None,
            alternative_addresses: Vec::new(),
            users: Vec::new(),
            standby: false,
            arguments: Vec::new(),
        }
    }
}

/// A running API server. Dropping it kills its processes and removes their directory.
pub struct ApiServer {
    options: Options,
    programs: PathBuf,
    credentials: Credentials,
    instance: Instance,
    standby: Option<Instance>,
    // Dropped after the API servers, and before the directory.
    etcd: Etcd,
    directory: TempDir,
}

/// One kube-apiserver: where it is, and its process while it runs.
struct Instance {
    address: SocketAddr,
    /// The administrator's, from where the test runs.
    client: Client,
    relay: Option<Relay>,
    process: Option<Process>,
}

impl ApiServer {
    /// Starts one on the host's loopback.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts etcd and kube-apiserver, and returns when the API is ready. The first call on a machine
    /// builds both, which takes minutes.
    pub async fn start_with(options: Options) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(|| programs(&["etcd", "kube-apiserver"])).await??;
        let directory = crate::scratch::directory("kubelab")?;
        let mut names = options.alternative_addresses.clone();
        names.extend([options.listen, Ipv4Addr::LOCALHOST.into()]);
        let address = SocketAddr::new(options.listen, free_port(&[options.listen])?);
        let credentials = Credentials::create(directory.path(), address, &names, &options.users)?;

        let netns = options.netns.as_deref();
        let instance = Instance::new(address, netns, &credentials).await?;
        let standby = if options.standby {
            let address = SocketAddr::new(options.listen, free_port(&[options.listen])?);
            Some(Instance::new(address, netns, &credentials).await?)
        } else {
            None
        };
        let etcd = Etcd::start(&programs, directory.path(), netns).await?;
        let mut this = Self { options, programs, credentials, instance, standby, etcd, directory };
        this.restart().await?;
        this.start_standby().await?;
        Ok(this)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.instance.address
    }

    /// Where the standby listens.
    pub fn standby_address(&self) -> Result<SocketAddr> {
        self.standby.as_ref().map(|standby| standby.address).context("there is no standby")
    }

    /// The administrator's kubeconfig, for programs that reach [`Self::address`].
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_of(credentials::ADMINISTRATOR)
    }

    /// The kubeconfig of one of [`Options::users`].
    pub fn kubeconfig_of(&self, user: &str) -> PathBuf {
        self.credentials.kubeconfig_path(user)
    }

    /// The administrator's client; it goes to the standby where there is one.
    pub fn client(&self) -> Client {
        self.standby.as_ref().unwrap_or(&self.instance).client.clone()
    }

    /// A client of one of [`Options::users`], which goes to the API server that agents know.
    pub async fn client_of(&self, user: &str) -> Result<Client> {
        let Instance { address, relay, .. } = &self.instance;
        client_of(self.credentials.kubeconfig(user, relay.as_ref().map_or(*address, Relay::address))?).await
    }

    /// What the API server that agents know answers to a watch, as the administrator asks it: the codes of the errors in it.
    pub async fn errors_of_watch(&self, uri: &str) -> Result<Vec<u64>> {
        let answer = self.instance.client.request_text(http::Request::get(uri).body(Vec::new())?).await?;
        let event = |line| serde_json::from_str::<serde_json::Value>(line).context("an event of a watch");
        let events = answer.lines().map(event).collect::<Result<Vec<_>>>()?;
        let errors = events.iter().filter(|event| event["type"] == "ERROR");
        Ok(errors.filter_map(|event| event["object"]["code"].as_u64()).collect())
    }

    /// Ends the API server by SIGTERM, and by SIGKILL soon after; etcd, its data and a standby stay.
    pub async fn stop(&mut self) -> Result<()> {
        match self.instance.process.take() {
            Some(mut process) => process.stop(STOP).await,
            None => Ok(()),
        }
    }

    /// Ends the API server by SIGKILL; etcd, its data and a standby stay.
    pub async fn kill(&mut self) -> Result<()> {
        match self.instance.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Stops the process without ending it: connections stay open and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.running()?.freeze()
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.running()?.thaw()
    }

    /// The process id of the API server, for what it costs.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    fn running(&self) -> Result<&Process> {
        self.instance.process.as_ref().context("the API server is not running")
    }

    /// Starts the API server again at the same address over the same data, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.instance.process =
            Some(self.start_apiserver("kube-apiserver", self.instance.address, etcd::CUTTABLE)?);
        self.instance.ready().await
    }

    async fn start_standby(&mut self) -> Result<()> {
        let Some(address) = self.standby.as_ref().map(|standby| standby.address) else { return Ok(()) };
        let process = self.start_apiserver("standby", address, Ipv4Addr::LOCALHOST)?;
        match &mut self.standby {
            Some(standby) => {
                standby.process = Some(process);
                standby.ready().await
            }
            None => Ok(()),
        }
    }

    fn start_apiserver(&self, name: &'static str, address: SocketAddr, etcd: Ipv4Addr) -> Result<Process> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut command = program(&self.programs, "kube-apiserver", self.options.netns.as_deref());
        command
            .arg(format!("--etcd-servers=http://{etcd}:{}", self.etcd.port))
            .arg(format!("--bind-address={}", address.ip()))
            .arg(format!("--secure-port={}", address.port()))
            // Nobody uses the `kubernetes` Service here, and a loopback address is refused for it.
            .args(["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"])
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg(format!("--cert-dir={}", path("certificates")))
            .arg(format!("--tls-cert-file={}", path(credentials::SERVER_CERTIFICATE)))
            .arg(format!("--tls-private-key-file={}", path(credentials::SERVER_KEY)))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", path(credentials::SERVICE_ACCOUNT_PUBLIC_KEY)))
            .arg(format!("--service-account-signing-key-file={}", path(credentials::SERVICE_ACCOUNT_KEY)))
            .arg(format!("--token-auth-file={}", path(credentials::TOKENS)))
            .args(["--authorization-mode=RBAC", "--anonymous-auth=false", "--profiling=false"])
            .args(&self.options.arguments);
        Process::start(name, command, self.directory.path())
    }
}

impl Instance {
    async fn new(address: SocketAddr, netns: Option<&str>, credentials: &Credentials) -> Result<Self> {
        let relay = netns.map(|netns| Relay::start(netns, address)).transpose()?;
        let reached_at = relay.as_ref().map_or(address, Relay::address);
        let client = client_of(credentials.kubeconfig(credentials::ADMINISTRATOR, reached_at)?).await?;
        Ok(Self { address, client, relay, process: None })
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            let Err(error) = self.client.request_text(request).await else { return Ok(()) };
            let process = self.process.as_mut().context("the API server was not started")?;
            process.still_runs()?;
            if Instant::now() > deadline {
                let last_words = process.last_words();
                bail!("the API server was not ready after {READY:?}: {error}; it said last:\n{last_words}");
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn client_of(config: Kubeconfig) -> Result<Client> {
    let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(2));
    config.read_timeout = Some(Duration::from_secs(10));
    Ok(Client::try_from(config)?)
}

/// The command that runs one of the programs, in `netns` if there is one. It dies with the test, even when
/// the test is killed. Each step of the chain replaces itself by the next, so the process id stays.
fn program(programs: &Path, name: &str, netns: Option<&str>) -> Command {
    let mut command = match netns {
        Some(netns) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", relay::netns_path(netns))).args(["--", "setpriv"]);
            command
        }
        None => Command::new("setpriv"),
    };
    command.args(["--pdeathsig", "KILL", "--"]).arg(programs.join(name));
    command
}

/// The directory of these programs of Kubernetes, built when missing.
pub(crate) fn programs(names: &[&str]) -> Result<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kubelab.sh");
    let output = Command::new(script)
        .args(names)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {script}"))?;
    if !output.status.success() {
        bail!("{script} failed: {}", output.status);
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim_end()))
}

/// Enough randomness for a port or a token of a test, from the standard library's own hash seeds.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
