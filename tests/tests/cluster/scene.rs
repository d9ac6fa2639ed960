//! The scene: the control plane on a network of its own, two nodes in a rack of two ToRs, and a host outside that each ToR
//! reaches by another address.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use plainroute_tests::kubelab::controllers::{self, Controllers};
use plainroute_tests::kubelab::{ApiServer, Options, User};
use plainroute_tests::kubenode::{self, Image, KubeNode, PodAddresses};
use plainroute_tests::netns::{Netns, checked, veth};
use plainroute_tests::routers::{Bird, Frr};
use plainroute_tests::scratch;
use serde_json::Value;
use tempfile::TempDir;

use super::manifests;
use super::release::Release;

const CONTROL: &str = "172.18.0.1";
/// Name, address in the control plane's network, addresses in the racks of both ToRs, range of its Pods.
pub(crate) const NODES: [(&str, &str, [&str; 2], &str); 2] = [
    ("node-a", "172.18.0.11", ["172.16.1.1", "172.16.2.1"], "10.20.0.0/25"),
    ("node-b", "172.18.0.12", ["172.16.1.2", "172.16.2.2"], "10.20.0.128/25"),
];
pub(crate) const PODS: &str = "10.20.0.0/24";
pub(crate) const TORS: [&str; 2] = ["172.16.1.254", "172.16.2.254"];
/// What is outside, and the host's address and gateway at each ToR.
pub(crate) const OUTSIDE: &str = "198.51.100.0/24";
pub(crate) const OUTSIDE_HOST: [&str; 2] = ["198.51.100.1", "198.51.100.65"];
const OUTSIDE_GATEWAYS: [&str; 2] = ["198.51.100.62", "198.51.100.126"];

/// Who gives Pods their addresses.
#[derive(Clone, Copy)]
pub(crate) enum Addressing {
    HostLocal,
    Agents,
}

impl Addressing {
    fn values(self, api: SocketAddr) -> Value {
        match self {
            Addressing::HostLocal => manifests::values(api, TORS, PODS, OUTSIDE),
            Addressing::Agents => manifests::values_with_ipam(api, TORS, OUTSIDE),
        }
    }
}

pub(crate) struct Scene {
    // Dropped in this order: who talks before whom they talk to.
    pub(crate) nodes: Vec<KubeNode>,
    controllers: Controllers,
    pub(crate) api: ApiServer,
    pub(crate) release: Release,
    pub(crate) frr: Frr,
    pub(crate) bird: Bird,
    pub(crate) outside: Netns,
    _control: Netns,
    _images: TempDir,
}

impl Scene {
    /// Everything but agents and Pods: both nodes are ready.
    pub(crate) async fn start(addressing: Addressing) -> Result<Scene> {
        let control = Netns::new("control")?;
        control.exec("ip link add nodes type bridge")?;
        control.address("nodes", &format!("{CONTROL}/24"))?;
        control.up("nodes")?;
        let tors = [rack("tor-a", 0)?, rack("tor-b", 1)?];
        let outside = outside(&tors)?;
        let frr = Frr::launch(&tors[0], FRR)?;
        let bird = Bird::launch(&tors[1], &bird_config(true))?;

        let mut users: Vec<User> = controllers::users().into();
        users.extend(NODES.map(|(name, ..)| User {
            name: format!("system:node:{name}"),
            groups: vec!["system:nodes".into()],
        }));
        let arguments = ["--authorization-mode=Node", "--kubelet-preferred-address-types=InternalIP"];
        let options = Options {
            listen: CONTROL.parse()?,
            netns: Some(control.name().to_owned()),
            users,
            arguments: arguments.map(str::to_owned).to_vec(),
            ..Options::default()
        };
        let image_directory = scratch::directory("images")?;
        let archives = images(image_directory.path())?;
        let api = ApiServer::start_with(options).await?;
        let release = Release::render(&addressing.values(api.address()))?;
        let controllers = api.start_controllers().await?;
        let start = |index: usize| -> Result<KubeNode> {
            let (name, address, _, range) = NODES[index];
            let options = kubenode::Options {
                name,
                address,
                pod_addresses: match addressing {
                    Addressing::HostLocal => PodAddresses::Ranges(&[range]),
                    Addressing::Agents => PodAddresses::Agent,
                },
                kubeconfig: &api.kubeconfig_of(&format!("system:node:{name}")),
                images: &archives,
                pause_image: manifests::TOOLS_IMAGE,
            };
            KubeNode::start(&node_netns(index, &control, &tors)?, &options)
        };
        let nodes = vec![start(0)?, start(1)?];
        let mut scene = Scene {
            nodes,
            controllers,
            api,
            release,
            frr,
            bird,
            outside,
            _control: control,
            _images: image_directory,
        };
        scene.await_nodes().await?;
        scene.create_namespaces().await?;
        Ok(scene)
    }

    /// One of the nodes.
    pub(crate) fn node(&self, name: &str) -> Result<&KubeNode> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("no node {name}"))
    }

    pub(crate) fn last_words(&self) -> String {
        let nodes = self.nodes.iter().map(KubeNode::last_words).collect::<String>();
        self.controllers.last_words() + "\n" + &nodes
    }
}

/// A ToR's namespace, with a bridge that is its rack.
fn rack(name: &str, index: usize) -> Result<Netns> {
    let tor = Netns::new(name)?;
    tor.exec("ip link add rack type bridge")?;
    tor.address("rack", &format!("{}/24", TORS[index]))?;
    tor.up("rack")?;
    tor.sysctl("net.ipv4.ip_forward", "1")?;
    Ok(tor)
}

/// The host outside. What it sends goes to the ToR that its source address is known at.
fn outside(tors: &[Netns; 2]) -> Result<Netns> {
    let outside = Netns::new("outside")?;
    for (index, tor) in tors.iter().enumerate() {
        let (link, table) = (format!("tor{index}"), format!("{}", 100 + index));
        veth((&outside, &link), (tor, "outside"))?;
        outside.address(&link, &format!("{}/26", OUTSIDE_HOST[index]))?;
        tor.address("outside", &format!("{}/26", OUTSIDE_GATEWAYS[index]))?;
        outside.exec(&format!("ip rule add from {} lookup {table}", OUTSIDE_HOST[index]))?;
        outside.exec(&format!("ip route add default via {} table {table}", OUTSIDE_GATEWAYS[index]))?;
    }
    Ok(outside)
}

/// A node's namespace, cabled to the control plane and to both ToRs.
fn node_netns(index: usize, control: &Netns, tors: &[Netns; 2]) -> Result<Netns> {
    let (name, address, uplinks, _) = NODES[index];
    let node = Netns::new(name)?;
    node.sysctl("net.ipv4.ip_forward", "1")?;
    veth((control, name), (&node, "control"))?;
    control.run(&["ip", "link", "set", name, "master", "nodes"])?;
    node.address("control", &format!("{address}/24"))?;
    for (tor, (uplink, address)) in tors.iter().zip(["eth0", "eth1"].into_iter().zip(uplinks)) {
        veth((tor, name), (&node, uplink))?;
        tor.run(&["ip", "link", "set", name, "master", "rack"])?;
        node.address(uplink, &format!("{address}/24"))?;
    }
    Ok(node)
}

/// The image of the agents and that of everything else.
fn images(directory: &Path) -> Result<[PathBuf; 2]> {
    let tools = directory.join("tools.tar");
    Image::tools(manifests::TOOLS_IMAGE).write(&tools)?;
    Ok([agent_image(directory)?, tools])
}

/// `$PLAINROUTE_IMAGE`, or what `make image` makes of these sources, in the development profile.
fn agent_image(directory: &Path) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PLAINROUTE_IMAGE") {
        return Ok(path.into());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/image.sh");
    checked(Command::new(script).env("IMAGE_PROFILE", "dev").env("IMAGE_OUT", directory))?;
    Ok(directory.join("plainroute.tar"))
}

/// bgpd does not know the section of BFD, and ends its reading at the second `exit`: so it is the last.
const FRR: &str = "\
log stdout
router bgp 64600
 bgp router-id 172.16.1.254
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 coalesce-time 0
 neighbor nodes peer-group
 neighbor nodes remote-as 64512
 neighbor nodes passive
 neighbor 172.16.1.1 peer-group nodes
 neighbor 172.16.1.2 peer-group nodes
 neighbor 172.16.1.1 bfd
 neighbor 172.16.1.1 bfd profile slow
 neighbor 172.16.1.2 bfd
 neighbor 172.16.1.2 bfd profile slow
 address-family ipv4 unicast
  network 198.51.100.0/26
  neighbor nodes activate
 exit-address-family
bfd
 profile slow
  receive-interval 500
  transmit-interval 500
  detect-multiplier 5
 exit
exit
";

/// BIRD's configuration; `helps` restarting peers or does not.
pub(crate) fn bird_config(helps: bool) -> String {
    let helps = if helps { "aware" } else { "off" };
    let mut config = format!(
        "router id {tor};\n\
         log stderr all;\n\
         protocol device {{}}\n\
         protocol direct {{ ipv4; interface \"outside\"; }}\n\
         protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
         protocol bfd {{ interface \"*\" {{ interval 500 ms; multiplier 5; }}; }}\n\
         template bgp node {{\n\
         \x20   debug {{ states, routes, events }};\n\
         \x20   local {tor} as 64600;\n\
         \x20   passive;\n\
         \x20   bfd on;\n\
         \x20   graceful restart {helps};\n\
         \x20   ipv4 {{ import all; export where source = RTS_DEVICE; }};\n\
         }}\n",
        tor = TORS[1],
    );
    for (name, _, uplinks, _) in NODES {
        let name = name.replace('-', "_");
        config += &format!("protocol bgp {name} from node {{ neighbor {} as 64512; }}\n", uplinks[1]);
    }
    config
}
