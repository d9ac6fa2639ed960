//! BIRD.

use std::fmt::Write;

use anyhow::{Context, Result};
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Bird, Family};

use crate::scenario::scenarios;
use crate::{FAMILIES, Neighbour, ROUTER_ASN, ROUTER_V4, Setup, default_route, family_name};

scenarios!(Bird:
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
        "router id {ROUTER_V4};\nlog stderr all;\nprotocol device {{}}\ntemplate bgp node {{\n\
         connect retry time 1;\nconnect delay time 1;\nerror wait time 1, 2;\ngraceful restart {};\n",
        if setup.graceful_restart { "on" } else { "aware" }
    );
    if let Some(password) = setup.password {
        writeln!(text, "password \"{password}\";")?;
    }
    if setup.passive {
        writeln!(text, "passive;")?;
    }
    if setup.ttl_security {
        writeln!(text, "ttl security on;")?;
    }
    writeln!(text, "}}")?;
    for family in FAMILIES {
        let (name, default) = (family_name(family), default_route(family));
        let disabled = if setup.default_routes { "" } else { "disabled;" };
        writeln!(
            text,
            "protocol static default_{name} {{ {name}; {disabled} route {default} unreachable; }}"
        )?;
    }
    for session in setup.sessions.list() {
        let interface = if session.link_local { "%eth0" } else { "" };
        writeln!(
            text,
            "protocol bgp node_{} from node {{\nlocal {} as {ROUTER_ASN};\nneighbor {}{interface} as {};\n{}",
            family_name(session.families[0]),
            session.router_address,
            session.our_address,
            setup.our_asn,
            setup.more
        )?;
        for family in session.families {
            let extended = session.link_local && *family == Family::V4;
            let extended = if extended { "extended next hop;" } else { "" };
            let name = family_name(*family);
            writeln!(
                text,
                "{name} {{ import all; export where source = RTS_STATIC; {extended} {} }};",
                setup.channel
            )?;
        }
        writeln!(text, "}}")?;
    }
    text += setup.global;
    Ok(text)
}

impl Neighbour for Bird {
    const ATTRIBUTES: [&'static str; 3] =
        ["BGP.community: (64512,100)", "BGP.large_community: (64512, 1, 2)", "BGP.med: 50"];

    fn launch_as(netns: &Netns, setup: Setup) -> Result<Bird> {
        Bird::launch(netns, &config(setup)?)
    }

    fn announce_default(&mut self, family: Family, on: bool) -> Result<()> {
        let verb = if on { "enable" } else { "disable" };
        self.birdc(&format!("{verb} default_{}", family_name(family))).map(drop)
    }

    fn ask_refresh(&mut self, family: Family) -> Result<bool> {
        self.birdc(&format!("reload in node_{}", family_name(family)))?;
        Ok(true)
    }

    fn heard(&self, family: Family) -> Result<u64> {
        let shown = self.birdc(&format!("show protocols all node_{}", family_name(family)))?;
        let line = shown.lines().find_map(|line| line.trim().strip_prefix("Import updates:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no import updates in: {shown}"))
    }

    fn route_details(&self, prefix: &str) -> Result<String> {
        self.birdc(&format!("show route {prefix} all"))
    }
}
