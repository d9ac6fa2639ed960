//! Graceful restart in both roles, against routers that keep routes (RFC 4724, 8538, 9494).
//!
//! Where the router forwards, packets run through its kernel while we restart, by the routes that it has from us. Each
//! claim has its negative control: the same without graceful restart, where packets or routes are lost.

mod long_lived;
mod ours;
mod routers;
mod theirs;

use std::net::IpAddr;

use anyhow::Result;
use plainroute_tests::lab::probe::Running;
use plainroute_tests::netns::{Netns, veth, wait_until};

use crate::scenario::ONE;
use crate::{DEADLINE, Link, Neighbour, ROUTER_V4, ROUTER_V6, Setup, ip};

/// What a router says of its graceful restart.
#[derive(Clone, Copy, Debug)]
struct Offer {
    /// How long its routes shall be kept, in seconds.
    restart_time: u16,
    /// The N bit (RFC 8538), where it knows it.
    notification: bool,
}

impl Default for Offer {
    fn default() -> Offer {
        Offer { restart_time: 60, notification: false }
    }
}

/// A router that takes part in graceful restart.
trait Restarting: Neighbour {
    /// Whether its routes get into the kernel.
    const FORWARDS: bool;

    /// Whether the default routes are in its configuration; else it has to be told again after its start.
    const CONFIGURES_ROUTES: bool = true;

    /// Starts it; it forwards by what it learns.
    fn launch_restarting(netns: &Netns, setup: Setup, offer: Offer) -> Result<Self>;

    /// Starts it again after a crash, as one that has kept its forwarding state.
    fn recover(&mut self) -> Result<()>;

    /// Whether it holds our route only because we are restarting.
    fn shows_stale(&self, prefix: &str) -> Result<bool>;
}

/// A router that restarts gracefully, and keeps our routes when we do.
fn graceful_setup() -> Setup {
    Setup { graceful_restart: true, ..Setup::default() }
}

/// The cable, and a host beyond the router that talks to what the node serves.
struct Road {
    link: Link,
    beyond: Netns,
}

impl Road {
    fn new() -> Road {
        let (link, beyond) = (Link::new(), Netns::new("beyond").unwrap());
        veth((&link.theirs, "eth1"), (&beyond, "eth0")).unwrap();
        for (netns, interface, v4, v6) in [
            (&link.theirs, "eth1", "192.0.2.254/24", "2001:db8::254/64"),
            (&beyond, "eth0", "192.0.2.1/24", "2001:db8::1/64"),
            (&link.ours, "lo", ONE[0], ONE[1]),
        ] {
            netns.address(interface, v4).unwrap();
            netns.address(interface, v6).unwrap();
        }
        link.theirs.sysctl("net.ipv4.ip_forward", "1").unwrap();
        link.theirs.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
        for (netns, v4, v6) in [(&link.ours, ROUTER_V4, ROUTER_V6), (&beyond, "192.0.2.254", "2001:db8::254")]
        {
            netns.exec(&format!("ip route add default via {v4}")).unwrap();
            netns.exec(&format!("ip route add default via {v6}")).unwrap();
        }
        Road { link, beyond }
    }

    /// Packets of each family to what the node serves, where the router forwards.
    fn probes<R: Restarting>(&self) -> Vec<Running> {
        let probe = |to: &str| {
            let address: IpAddr = ip(to.split('/').next().unwrap());
            Running::between(&self.beyond, &self.link.ours, address).unwrap()
        };
        if R::FORWARDS { ONE.map(probe).into() } else { Vec::new() }
    }
}

/// Waits until the router shows our first route of each family as stale, or as fresh.
fn await_stale<R: Restarting>(router: &R, stale: bool) {
    for prefix in ONE {
        let what = format!("{prefix} to be {} at {}", if stale { "stale" } else { "fresh" }, router.name());
        wait_until(&what, DEADLINE, || match router.shows_stale(prefix) {
            Ok(shown) if shown == stale => Ok(()),
            shown => Err(format!("{shown:?}")),
        })
        .unwrap();
    }
}

/// The tests of one router: the scenarios that are named.
macro_rules! restarts {
    ($name:ident, $router:ty: $($module:ident::$scenario:ident),+ $(,)?) => {
        mod $name {
            $(
                #[test]
                fn $scenario() {
                    super::$module::$scenario::<$router>();
                }
            )+
        }
    };
}

restarts!(frr, plainroute_tests::routers::Frr:
    ours::our_restarts_lose_no_packet,
    ours::without_graceful_restart_packets_are_lost,
    ours::families_without_a_route_end_too,
    ours::without_forwarding_state_the_routes_go_at_the_open,
    ours::without_the_n_bit_a_cease_flushes,
    ours::with_the_n_bit_only_a_hard_reset_flushes,
    theirs::its_restart_loses_no_route,
    theirs::without_graceful_restart_its_routes_go,
    theirs::what_it_does_not_tell_again_goes,
    theirs::its_routes_go_with_its_restart_time,
);

restarts!(bird, plainroute_tests::routers::Bird:
    ours::our_restarts_lose_no_packet,
    ours::without_graceful_restart_packets_are_lost,
    ours::families_without_a_route_end_too,
    ours::without_forwarding_state_the_routes_go_at_the_open,
    ours::without_the_n_bit_a_cease_flushes,
    theirs::its_restart_loses_no_route,
    theirs::without_graceful_restart_its_routes_go,
    theirs::what_it_does_not_tell_again_goes,
    theirs::its_routes_go_with_its_restart_time,
);

restarts!(gobgp, plainroute_tests::routers::Gobgp:
    ours::our_restarts_lose_no_packet,
    ours::families_without_a_route_end_too,
    ours::without_the_n_bit_a_cease_flushes,
    ours::with_the_n_bit_only_a_hard_reset_flushes,
    theirs::its_restart_loses_no_route,
    theirs::without_graceful_restart_its_routes_go,
    theirs::what_it_does_not_tell_again_goes,
    theirs::its_routes_go_with_its_restart_time,
);
