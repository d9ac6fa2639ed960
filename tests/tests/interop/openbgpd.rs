//! OpenBGPD. It keeps others' routes over their restart, but does not restart gracefully itself.

use std::fmt::Write;

use anyhow::{Context, Result};
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Family, Openbgpd};

use crate::scenario::scenarios;
use crate::{FAMILIES, Neighbour, ROUTER_ASN, ROUTER_V4, Setup, default_route, our_address};

scenarios!(Openbgpd:
    a_recorded_life_replays_as_the_same,
    routes_come_change_and_go,
    its_default_route_comes_and_goes,
    a_refresh_tells_it_all_again,
    it_restarts_and_hears_it_all_again,
    our_restart_keeps_the_routes,
    our_crash_keeps_the_routes,
    without_graceful_restart_the_routes_go,
    only_the_right_password_establishes,
    either_side_may_connect,
    one_session_carries_both_families,
    leaving_for_good_takes_the_routes_along,
    only_full_ttls_pass_ttl_security,
    a_router_of_another_as_is_refused,
    our_as_is_refused_where_another_is_expected,
);

fn config(setup: Setup) -> Result<String> {
    let mut text = format!("AS {ROUTER_ASN}\nrouter-id {ROUTER_V4}\nfib-update no\n");
    if setup.default_routes {
        FAMILIES.iter().for_each(|family| text += &format!("network {}\n", default_route(*family)));
    }
    for session in setup.sessions.list() {
        writeln!(text, "neighbor {} {{\nremote-as {}", session.our_address, setup.our_asn)?;
        for family in FAMILIES {
            let announced = if session.families.contains(&family) { "unicast" } else { "none" };
            let name = match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            };
            writeln!(text, "announce {name} {announced}")?;
        }
        if let Some(password) = setup.password {
            writeln!(text, "tcp md5sig password {password}")?;
        }
        if setup.passive {
            writeln!(text, "passive")?;
        }
        if setup.ttl_security {
            writeln!(text, "ttl-security yes")?;
        }
        writeln!(text, "{}\n}}", setup.more)?;
    }
    text += setup.global;
    text += "allow to any\nallow from any\n";
    Ok(text)
}

impl Neighbour for Openbgpd {
    const ATTRIBUTES: [&'static str; 3] =
        ["Communities: 64512:100", "Large Communities: 64512:1:2", "metric 50"];

    /// 7.7 takes every negotiated family for one that is not; mended since (openbgpd-portable issue 46).
    const ANSWERS_REFRESH: bool = false;

    /// 7.7 takes an IPv6 session in which every packet has a hop limit of 1, on Linux.
    const TTL_SECURITY: &'static [Family] = &[Family::V4];

    fn launch_as(netns: &Netns, setup: Setup) -> Result<Openbgpd> {
        Openbgpd::launch(netns, &config(setup)?)
    }

    fn announce_default(&mut self, family: Family, on: bool) -> Result<()> {
        let verb = if on { "add" } else { "delete" };
        self.bgpctl(&format!("network {verb} {}", default_route(family))).map(drop)
    }

    fn ask_refresh(&mut self, family: Family) -> Result<bool> {
        self.bgpctl(&format!("neighbor {} refresh", our_address(family)))?;
        Ok(true)
    }

    fn heard(&self, family: Family) -> Result<u64> {
        let shown = self.json(&format!("show neighbor {}", our_address(family)))?;
        let received = &shown["neighbors"][0]["stats"]["update"]["received"]["updates"];
        received.as_u64().with_context(|| format!("{shown}"))
    }

    fn route_details(&self, prefix: &str) -> Result<String> {
        self.bgpctl(&format!("show rib detail {prefix}"))
    }
}
