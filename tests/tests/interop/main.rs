//! Our speaker against the routers that others run, each in network namespaces of its own, over a cable.
//!
//! The router's own view is the judge: a route is there when its table shows it. What all routers must pass is in
//! `scenario`, written once; how each is configured and asked stands in its own file. docs/reference/interop.md says what
//! ran against which version.

mod bird;
mod exabgp;
mod features;
mod frr;
mod gobgp;
mod node;
mod openbgpd;
mod restart;
mod scenario;
mod wire;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use plainroute_tests::netns::{Netns, veth};
use plainroute_tests::routers::{Family, Router};

/// For anything that should take a second or less. GoBGP takes no connection in the first seconds after its start or the end
/// of a session, and a busy machine gets some more.
const DEADLINE: Duration = Duration::from_secs(20);

const OUR_ASN: u32 = 64512;
const ROUTER_ASN: u32 = 64600;
const OUR_V4: &str = "172.16.0.1";
const OUR_V6: &str = "fd00::1";
const ROUTER_V4: &str = "172.16.0.254";
const ROUTER_V6: &str = "fd00::254";

const OUR_LINK_LOCAL: &str = "fe80::1";
const ROUTER_LINK_LOCAL: &str = "fe80::254";

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Which sessions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sessions {
    /// One over IPv4 for IPv4 routes, and one over IPv6 for IPv6 routes.
    OnePerFamily,
    /// One over IPv4 for both.
    OverIpv4,
    /// One over link-local addresses for both; IPv4 routes have an IPv6 next hop (RFC 8950).
    OverLinkLocal,
}

/// One session: whom it is with, and which families it carries.
#[derive(Clone, Copy, Debug)]
struct Session {
    our_address: &'static str,
    router_address: &'static str,
    families: &'static [Family],
    link_local: bool,
}

impl Sessions {
    fn list(self) -> &'static [Session] {
        const V4: Session = Session {
            our_address: OUR_V4,
            router_address: ROUTER_V4,
            families: &[Family::V4],
            link_local: false,
        };
        const V6: Session = Session {
            our_address: OUR_V6,
            router_address: ROUTER_V6,
            families: &[Family::V6],
            link_local: false,
        };
        const LINK_LOCAL: Session = Session {
            our_address: OUR_LINK_LOCAL,
            router_address: ROUTER_LINK_LOCAL,
            families: &FAMILIES,
            link_local: true,
        };
        match self {
            Sessions::OnePerFamily => const { &[V4, V6] },
            Sessions::OverIpv4 => const { &[Session { families: &FAMILIES, ..V4 }] },
            Sessions::OverLinkLocal => const { &[LINK_LOCAL] },
        }
    }
}

/// How a router is set up, as far as scenarios differ.
#[derive(Clone, Copy, Debug)]
struct Setup {
    /// Its sessions with us.
    sessions: Sessions,
    /// The AS that it takes us for.
    our_asn: u32,
    /// TCP MD5.
    password: Option<&'static str>,
    /// It does not connect, but waits for us.
    passive: bool,
    /// It takes part in graceful restart: keeps our routes, and where it can, asks us to keep its own.
    graceful_restart: bool,
    /// It announces a default route of each family from its configuration, so also after a restart.
    default_routes: bool,
    /// It believes only packets that no router has forwarded (RFC 5082).
    ttl_security: bool,
    /// Lines of its configuration for each session; of ExaBGP its capabilities.
    more: &'static str,
    /// A line for each family of each session.
    channel: &'static str,
    /// Lines at the end of its configuration.
    global: &'static str,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            sessions: Sessions::OnePerFamily,
            our_asn: OUR_ASN,
            password: None,
            passive: false,
            graceful_restart: false,
            default_routes: false,
            ttl_security: false,
            more: "",
            channel: "",
            global: "",
        }
    }
}

/// What the scenarios ask of a router beyond [`Router`].
trait Neighbour: Router + Sized {
    /// How it writes the communities 64512:100 and 64512:1:2 and the MED 50.
    const ATTRIBUTES: [&'static str; 3];

    /// Whether it waits for connections at all; to one that does not, we listen.
    const LISTENS: bool = true;

    /// Whether it tells its routes again when asked for a refresh.
    const ANSWERS_REFRESH: bool = true;

    /// Whether it can mark a refresh (RFC 7313) where both sides offer that.
    const MARKS_REFRESH: bool = true;

    /// The families over which its TTL security works.
    const TTL_SECURITY: &'static [Family] = &FAMILIES;

    /// Starts it.
    fn launch_as(netns: &Netns, setup: Setup) -> Result<Self>;

    /// Starts or stops announcing a default route of the family to us.
    fn announce_default(&mut self, family: Family, on: bool) -> Result<()>;

    /// Has it ask us for a route refresh; false where it has no means to.
    fn ask_refresh(&mut self, family: Family) -> Result<bool>;

    /// How many UPDATEs, or announcements, it has counted from us in the session of that family.
    fn heard(&self, family: Family) -> Result<u64>;

    /// All that it shows of a route, for [`Neighbour::ATTRIBUTES`].
    fn route_details(&self, prefix: &str) -> Result<String>;
}

/// The cable: our end, and the router's.
struct Link {
    ours: Netns,
    theirs: Netns,
}

impl Link {
    fn new() -> Link {
        let (ours, theirs) = (Netns::new("node").unwrap(), Netns::new("router").unwrap());
        veth((&ours, "eth0"), (&theirs, "eth0")).unwrap();
        for (netns, v4, v6, link_local) in
            [(&ours, OUR_V4, OUR_V6, OUR_LINK_LOCAL), (&theirs, ROUTER_V4, ROUTER_V6, ROUTER_LINK_LOCAL)]
        {
            netns.exec("ip address flush dev eth0 scope link").unwrap();
            netns.address("eth0", &format!("{link_local}/64")).unwrap();
            netns.address("eth0", &format!("{v4}/24")).unwrap();
            netns.address("eth0", &format!("{v6}/64")).unwrap();
        }
        Link { ours, theirs }
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Our address in the session of that family.
fn our_address(family: Family) -> &'static str {
    match family {
        Family::V4 => OUR_V4,
        Family::V6 => OUR_V6,
    }
}

/// The router's address in the session of that family.
fn router_address(family: Family) -> &'static str {
    match family {
        Family::V4 => ROUTER_V4,
        Family::V6 => ROUTER_V6,
    }
}

/// As most routers write the family.
fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// The default route.
fn default_route(family: Family) -> &'static str {
    match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    }
}
