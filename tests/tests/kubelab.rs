//! The harness itself: what other suites take for granted about their API server.

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Error};
use plainroute_tests::kubelab::objects::TestPod;
use plainroute_tests::kubelab::{ApiServer, Options, User};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 20, 0, 5));

async fn client_from(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
}

fn code<T>(answer: Result<T, Error>) -> Option<u16> {
    match answer {
        Err(Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[tokio::test]
async fn pods_live_and_die_as_the_test_says() -> Result<()> {
    let api = ApiServer::start().await?;
    api.create_namespace("erp", &[("team", "finance")]).await?;
    api.create_node("node-a", &["172.16.0.1".parse()?]).await?;
    let pods = Api::<Pod>::namespaced(api.client(), "erp");

    api.run_pod(&TestPod::new("erp", "ledger", "node-a").address(ADDRESS).label("app", "ledger")).await?;
    let pod = pods.get("ledger").await?;
    let status = pod.status.context("no status")?;
    assert_eq!(pod.spec.context("no spec")?.node_name.as_deref(), Some("node-a"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.20.0.5"));
    assert_eq!(status.phase.as_deref(), Some("Running"));

    let moved: [IpAddr; 2] = ["10.20.0.9".parse()?, "fd00:20::9".parse()?];
    api.set_pod_addresses("erp", "ledger", &moved).await?;
    api.set_pod_ready("erp", "ledger", false).await?;
    let status = pods.get("ledger").await?.status.context("no status")?;
    let ips: Vec<_> = status.pod_ips.context("no podIPs")?.into_iter().map(|pod_ip| pod_ip.ip).collect();
    assert_eq!(ips, ["10.20.0.9", "fd00:20::9"]);
    assert_eq!(status.conditions.context("no conditions")?[0].status, "False");

    api.terminate_pod("erp", "ledger", 30).await?;
    assert!(
        pods.get("ledger").await?.metadata.deletion_timestamp.is_some(),
        "it terminates, and is still there"
    );
    api.delete_pod("erp", "ledger").await?;
    assert_eq!(code(pods.get("ledger").await), Some(404));
    Ok(())
}

#[tokio::test]
async fn it_comes_back_at_the_same_address_with_the_same_data() -> Result<()> {
    let mut api = ApiServer::start().await?;
    let address = api.address();
    api.create_namespace("erp", &[]).await?;
    api.run_pod(&TestPod::new("erp", "ledger", "node-a").address(ADDRESS)).await?;

    api.kill().await?;
    assert!(TcpStream::connect(address).is_err(), "killed, so nobody listens");
    api.restart().await?;
    assert_eq!(api.address(), address);
    Api::<Pod>::namespaced(api.client(), "erp").get("ledger").await.context("after SIGKILL")?;

    // An open watch is what makes the API server outlive SIGTERM by 10 s.
    let client = client_from(&api.kubeconfig()).await?;
    let watch = Api::<Pod>::all(client).watch(&Default::default(), "0").await?;
    let stopping = Instant::now();
    api.stop().await?;
    ensure!(stopping.elapsed() < Duration::from_secs(5), "stopping took {:?}", stopping.elapsed());
    assert!(TcpStream::connect(address).is_err(), "stopped, so nobody listens");
    drop(watch);
    api.restart().await?;
    Api::<Pod>::namespaced(api.client(), "erp").get("ledger").await.context("after SIGTERM")?;

    drop(api);
    assert!(TcpStream::connect(address).is_err(), "dropped, so nobody listens");
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_holds_connections_and_says_nothing() -> Result<()> {
    let api = ApiServer::start().await?;
    let pods = Api::<Pod>::all(api.client());
    api.freeze()?;
    let silent = tokio::time::timeout(Duration::from_millis(500), pods.list(&ListParams::default())).await;
    assert!(silent.is_err(), "it answered although it is frozen");
    api.thaw()?;
    pods.list(&ListParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn users_may_do_nothing_until_rbac_says_so() -> Result<()> {
    let users = vec![User { name: "agent".into(), groups: Vec::new() }];
    let api = ApiServer::start_with(Options { users, ..Options::default() }).await?;
    let agent = client_from(&api.kubeconfig_of("agent")).await?;
    assert_eq!(code(Api::<Pod>::all(agent).list(&ListParams::default()).await), Some(403));
    Ok(())
}

/// A network namespace with an address of its own, and no way in or out.
struct Netns(String);

impl Netns {
    fn create(address: &str) -> Result<Self> {
        let this = Self(format!("kubelab-{}", std::process::id()));
        ip(&["netns", "add", &this.0])?;
        ip(&["-n", &this.0, "link", "set", "lo", "up"])?;
        ip(&["-n", &this.0, "address", "add", address, "dev", "lo"])?;
        Ok(this)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.0]) {
            eprintln!("{error:#}");
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

#[tokio::test]
async fn it_runs_inside_a_network_namespace_and_is_driven_from_outside() -> Result<()> {
    let netns = Netns::create("198.18.0.1/32")?;
    let options =
        Options { listen: "198.18.0.1".parse()?, netns: Some(netns.0.clone()), ..Options::default() };
    let mut api = ApiServer::start_with(options).await?;
    api.create_namespace("erp", &[]).await?;

    // From inside, by the address and the certificate that the kubeconfig names.
    let kubeconfig = Kubeconfig::read_from(api.kubeconfig())?;
    let cluster = kubeconfig.clusters[0].cluster.clone().context("no cluster")?;
    let (server, ca) =
        (cluster.server.context("no server")?, cluster.certificate_authority.context("no CA")?);
    let inside = Command::new("ip")
        .args(["netns", "exec", &netns.0, "curl", "--silent", "--cacert", &ca])
        .arg(format!("{server}/readyz"))
        .output()?;
    let said = String::from_utf8_lossy(&inside.stdout);
    ensure!(said.contains("Unauthorized"), "curl without a token ended with {}: {said}", inside.status);

    api.kill().await?;
    assert!(Api::<Pod>::all(api.client()).list(&ListParams::default()).await.is_err());
    api.restart().await?;
    Api::<Pod>::all(api.client()).list(&ListParams::default()).await?;
    Ok(())
}
