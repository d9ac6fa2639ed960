//! ExaBGP. It has no table and waits for nobody: we listen to it, and nothing is kept over our restart.

use std::fmt::Write;

use anyhow::{Context, Result};
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Exabgp, Family};
use serde_json::Value;

use crate::scenario::scenarios;
use crate::{Neighbour, ROUTER_ASN, ROUTER_V4, Setup, default_route, family_name, our_address};

scenarios!(Exabgp:
    a_recorded_life_replays_as_the_same,
    routes_come_change_and_go,
    its_default_route_comes_and_goes,
    a_refresh_tells_it_all_again,
    it_restarts_and_hears_it_all_again,
    without_graceful_restart_the_routes_go,
    only_the_right_password_establishes,
    one_session_carries_both_families,
    a_router_of_another_as_is_refused,
    our_as_is_refused_where_another_is_expected,
);

fn config(setup: Setup) -> Result<String> {
    let mut text = String::new();
    for session in setup.sessions.list() {
        let password = setup.password.map(|password| format!("md5-password '{password}';"));
        let routes = session.families.iter().filter(|_| setup.default_routes);
        let routes: String =
            routes.map(|family| format!("route {} next-hop self; ", default_route(*family))).collect();
        let families: String =
            session.families.iter().map(|family| format!("{} unicast; ", family_name(*family))).collect();
        writeln!(
            text,
            "neighbor {} {{\nrouter-id {ROUTER_V4};\nlocal-address {};\nlocal-as {ROUTER_ASN};\npeer-as {};\n\
             adj-rib-out true;\n{}\ncapability {{ route-refresh enable; {} }}\n\
             family {{ {families}}}\nstatic {{ {routes}}}\n\
             api {{ processes [ events ]; neighbor-changes; receive {{ parsed; update; }} }}\n}}",
            session.our_address,
            session.router_address,
            setup.our_asn,
            password.unwrap_or_default(),
            setup.more,
        )?;
    }
    Ok(text)
}

/// The events of the session of that family that announce something.
fn announcements(exabgp: &Exabgp, family: Family) -> Result<Vec<Value>> {
    let announces = |event: &Value| {
        event["neighbor"]["address"]["peer"] == our_address(family)
            && event["neighbor"]["message"]["update"]["announce"].is_object()
    };
    Ok(exabgp.events()?.into_iter().filter(announces).collect())
}

impl Neighbour for Exabgp {
    const ATTRIBUTES: [&'static str; 3] =
        ["\"community\":[[64512,100]]", "\"large-community\":[[64512,1,2]]", "\"med\":50"];

    const LISTENS: bool = false;

    /// It drops the session when it is asked for a refresh that it has agreed to mark.
    const MARKS_REFRESH: bool = false;

    fn launch_as(netns: &Netns, setup: Setup) -> Result<Exabgp> {
        Exabgp::launch(netns, &config(setup)?)
    }

    fn announce_default(&mut self, family: Family, on: bool) -> Result<()> {
        let verb = if on { "announce" } else { "withdraw" };
        let (us, default) = (our_address(family), default_route(family));
        self.command(&format!("neighbor {us} {verb} route {default} next-hop self"))
    }

    fn ask_refresh(&mut self, family: Family) -> Result<bool> {
        let (us, name) = (our_address(family), family_name(family));
        self.command(&format!("neighbor {us} announce route-refresh {name} unicast"))?;
        Ok(true)
    }

    fn heard(&self, family: Family) -> Result<u64> {
        Ok(announcements(self, family)?.len() as u64)
    }

    fn route_details(&self, prefix: &str) -> Result<String> {
        let family = if prefix.contains(':') { Family::V6 } else { Family::V4 };
        let last = announcements(self, family)?.into_iter().rev().map(|event| event.to_string());
        last.into_iter().find(|event| event.contains(&format!("\"{prefix}\""))).context("never announced")
    }
}
