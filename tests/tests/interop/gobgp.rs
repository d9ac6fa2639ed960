//! GoBGP. It never asks for a route refresh: `softresetin` works on what it holds.

use std::fmt::Write;

use anyhow::{Context, Result};
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Family, Gobgp};

use crate::scenario::scenarios;
use crate::{Neighbour, ROUTER_ASN, ROUTER_V4, Setup, default_route, family_name, our_address};

scenarios!(Gobgp:
    a_recorded_life_replays_as_the_same,
    routes_come_change_and_go,
    its_default_route_comes_and_goes,
    it_restarts_and_hears_it_all_again,
    our_restart_keeps_the_routes,
    our_crash_keeps_the_routes,
    without_graceful_restart_the_routes_go,
    only_the_right_password_establishes,
    either_side_may_connect,
    one_session_carries_both_families,
    a_link_local_session_carries_both_families,
    leaving_for_good_takes_the_routes_along,
    only_full_ttls_pass_ttl_security,
    a_router_of_another_as_is_refused,
    our_as_is_refused_where_another_is_expected,
);

pub(crate) fn config(setup: Setup) -> Result<String> {
    let mut text = format!("[global.config]\nas = {ROUTER_ASN}\nrouter-id = \"{ROUTER_V4}\"\n");
    for session in setup.sessions.list() {
        let interface = if session.link_local { "%eth0" } else { "" };
        writeln!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}{interface}\"\npeer-as = {}",
            session.our_address, setup.our_asn
        )?;
        if let Some(password) = setup.password {
            writeln!(text, "auth-password = \"{password}\"")?;
        }
        writeln!(text, "[neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1")?;
        writeln!(text, "[neighbors.transport.config]\npassive-mode = {}", setup.passive)?;
        writeln!(
            text,
            "[neighbors.graceful-restart.config]\nenabled = {}\nrestart-time = 60",
            setup.graceful_restart
        )?;
        if setup.ttl_security {
            writeln!(text, "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255")?;
        }
        for family in session.families {
            writeln!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{}-unicast\"\n\
                 [neighbors.afi-safis.mp-graceful-restart.config]\nenabled = {}",
                family_name(*family),
                setup.graceful_restart
            )?;
            writeln!(text, "{}", setup.channel)?;
        }
    }
    text += setup.global;
    Ok(text)
}

impl Neighbour for Gobgp {
    const ATTRIBUTES: [&'static str; 3] =
        ["{Communities: 64512:100}", "{LargeCommunity: [ 64512:1:2]}", "{Med: 50}"];

    /// 3.10 takes an IPv6 session in which every packet has a hop limit of 1.
    const TTL_SECURITY: &'static [Family] = &[Family::V4];

    fn launch_as(netns: &Netns, setup: Setup) -> Result<Gobgp> {
        Gobgp::launch(netns, &config(setup)?)
    }

    fn announce_default(&mut self, family: Family, on: bool) -> Result<()> {
        let verb = if on { "add" } else { "del" };
        let (name, default) = (family_name(family), default_route(family));
        self.gobgp(&format!("global rib {verb} -a {name} {default}")).map(drop)
    }

    fn ask_refresh(&mut self, _family: Family) -> Result<bool> {
        Ok(false)
    }

    fn heard(&self, family: Family) -> Result<u64> {
        let shown = self.json(&format!("neighbor {}", our_address(family)))?;
        shown["state"]["messages"]["received"]["update"].as_u64().with_context(|| format!("{shown}"))
    }

    fn route_details(&self, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { Family::V6 } else { Family::V4 };
        self.gobgp(&format!("global rib -a {} {prefix}", family_name(family)))
    }
}
