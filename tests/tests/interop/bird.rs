//! BIRD.

use std::fmt::Write;

use anyhow::{Context, Result};
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Bird, Family};

use crate::scenario::scenarios;
use crate::{
    FAMILIES, Neighbour, ROUTER_ASN, ROUTER_V4, Setup, default_route, family_name, our_address,
    router_address,
};

scenarios!(Bird:
    routes_come_change_and_go,
    its_default_route_comes_and_goes,
    a_refresh_tells_it_all_again,
    it_restarts_and_hears_it_all_again,
    our_restart_keeps_the_routes,
    without_graceful_restart_the_routes_go,
    its_restart_keeps_its_routes,
    only_the_right_password_establishes,
    either_side_may_connect,
    a_wrong_as_is_refused_and_said,
);

fn config(setup: Setup) -> Result<String> {
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
    writeln!(text, "}}")?;
    for family in FAMILIES {
        let (name, default) = (family_name(family), default_route(family));
        let disabled = if setup.default_routes { "" } else { "disabled;" };
        writeln!(
            text,
            "protocol static default_{name} {{ {name}; {disabled} route {default} unreachable; }}\n\
             protocol bgp node_{name} from node {{ local {} as {ROUTER_ASN}; neighbor {} as {};\n\
             {name} {{ import all; export where source = RTS_STATIC; }}; }}",
            router_address(family),
            our_address(family),
            setup.our_asn
        )?;
    }
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
