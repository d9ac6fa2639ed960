//! FRR.

use std::fmt::Write;

use anyhow::{Context, Result};
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Family, Frr};

use crate::scenario::scenarios;
use crate::{Neighbour, ROUTER_ASN, ROUTER_V4, Setup, family_name, our_address};

scenarios!(Frr:
    routes_come_change_and_go,
    its_default_route_comes_and_goes,
    a_refresh_tells_it_all_again,
    it_restarts_and_hears_it_all_again,
    our_restart_keeps_the_routes,
    our_crash_keeps_the_routes,
    without_graceful_restart_the_routes_go,
    its_restart_keeps_its_routes,
    only_the_right_password_establishes,
    either_side_may_connect,
    it_connects_from_within_our_range,
    a_recorded_life_replays_as_the_same,
    one_session_carries_both_families,
    a_link_local_session_carries_both_families,
    leaving_for_good_takes_the_routes_along,
    only_full_ttls_pass_ttl_security,
    a_router_of_another_as_is_refused,
    our_as_is_refused_where_another_is_expected,
);

pub(crate) fn config(setup: Setup) -> Result<String> {
    let mut text = format!(
        "log stdout\nfrr defaults datacenter\nrouter bgp {ROUTER_ASN}\n bgp router-id {ROUTER_V4}\n \
         no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n"
    );
    if setup.graceful_restart {
        text += " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
    }
    for session in setup.sessions.list() {
        let us = session.our_address;
        writeln!(text, " neighbor {us} remote-as {}\n neighbor {us} timers connect 1", setup.our_asn)?;
        if let Some(password) = setup.password {
            writeln!(text, " neighbor {us} password {password}")?;
        }
        if setup.passive {
            writeln!(text, " neighbor {us} passive")?;
        }
        if setup.ttl_security {
            writeln!(text, " neighbor {us} ttl-security hops 1")?;
        }
        if session.link_local {
            writeln!(text, " neighbor {us} interface eth0\n neighbor {us} capability extended-nexthop")?;
        }
        if !setup.more.is_empty() {
            writeln!(text, " neighbor {us} {}", setup.more)?;
        }
        for family in session.families {
            writeln!(text, " address-family {} unicast\n  neighbor {us} activate", family_name(*family))?;
            if !setup.channel.is_empty() {
                writeln!(text, "  neighbor {us} {}", setup.channel)?;
            }
            if setup.default_routes {
                writeln!(text, "  neighbor {us} default-originate")?;
            }
            writeln!(text, " exit-address-family")?;
        }
    }
    text += setup.global;
    Ok(text)
}

impl Neighbour for Frr {
    const ATTRIBUTES: [&'static str; 3] = ["Community: 64512:100", "Large Community: 64512:1:2", "metric 50"];

    fn launch_as(netns: &Netns, setup: Setup) -> Result<Frr> {
        Frr::launch(netns, &config(setup)?)
    }

    fn announce_default(&mut self, family: Family, on: bool) -> Result<()> {
        let line =
            format!("{}neighbor {} default-originate", if on { "" } else { "no " }, our_address(family));
        self.configure(&[
            &format!("router bgp {ROUTER_ASN}"),
            &format!("address-family {} unicast", family_name(family)),
            &line,
        ])
    }

    fn ask_refresh(&mut self, family: Family) -> Result<bool> {
        let family_name = family_name(family);
        self.vtysh(&format!("clear bgp {family_name} unicast {} soft in", our_address(family)))?;
        Ok(true)
    }

    fn heard(&self, family: Family) -> Result<u64> {
        let us = our_address(family);
        let shown = self.json(&format!("show bgp neighbors {us} json"))?;
        shown[us]["messageStats"]["updatesRecv"].as_u64().context("no updatesRecv")
    }

    fn route_details(&self, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { Family::V6 } else { Family::V4 };
        self.vtysh(&format!("show bgp {} unicast {prefix}", family_name(family)))
    }
}
