//! BFD against the routers that others run: `plainroute bfd` in one network namespace, FRR's bfdd or BIRD in another, and a
//! cable between.
//!
//! The router's own view is the judge of what it was told. The process is told what to do over its socket, as the agent
//! does.

mod failover;
mod hostile;
mod life;
mod load;
mod node;
mod process;
mod restart;
mod sessions;

use std::net::IpAddr;
use std::time::Duration;

use plainroute_tests::netns::{Netns, veth};

/// For anything that should take three seconds or less: a session that is down sends once a second.
const DEADLINE: Duration = Duration::from_secs(20);

const OURS: [&str; 3] = ["172.16.0.1", "fd00::1", "fe80::1"];
const THEIRS: [&str; 3] = ["172.16.0.254", "fd00::254", "fe80::254"];

/// The cable: our end, and the router's.
struct Link {
    ours: Netns,
    theirs: Netns,
}

impl Link {
    fn new() -> Link {
        let (ours, theirs) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
        veth((&ours, "eth0"), (&theirs, "eth0")).unwrap();
        for (netns, addresses) in [(&ours, OURS), (&theirs, THEIRS)] {
            netns.exec("ip address flush dev eth0 scope link").unwrap();
            for address in addresses {
                let length = if address.contains(':') { 64 } else { 24 };
                netns.address("eth0", &format!("{address}/{length}")).unwrap();
            }
        }
        Link { ours, theirs }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// FRR's configuration of sessions with all our addresses.
fn frr_config(timing: &str) -> String {
    let peer = |ours: &str, theirs: &str| {
        format!(" peer {ours} local-address {theirs} interface eth0\n  {timing}\n exit\n")
    };
    let peers: String = OURS.iter().zip(THEIRS).map(|(ours, theirs)| peer(ours, theirs)).collect();
    format!("hostname router\nlog stdout\nbfd\n{peers}exit\n")
}

/// BIRD's.
fn bird_config(timing: &str) -> String {
    let peers: String = OURS.iter().map(|ours| format!("  neighbor {ours} dev \"eth0\";\n")).collect();
    format!(
        "router id 172.16.0.254;\nprotocol device {{}}\nprotocol bfd {{\n  interface \"*\" {{ {timing} }};\n{peers}}}\n"
    )
}
