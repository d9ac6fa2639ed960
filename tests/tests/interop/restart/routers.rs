//! How each router is set up to forward and to restart, and how it shows a stale route.

use std::fmt::Write;

use anyhow::{Context, Result};
use plainroute_tests::netns::Netns;
use plainroute_tests::routers::{Bird, Family, Frr, Gobgp, Router};

use super::{Offer, Restarting};
use crate::{ROUTER_ASN, Setup, family_name};

fn family_of(prefix: &str) -> Family {
    if prefix.contains(':') { Family::V6 } else { Family::V4 }
}

impl Restarting for Frr {
    const FORWARDS: bool = true;

    fn launch_restarting(netns: &Netns, setup: Setup, offer: Offer) -> Result<Frr> {
        let mut config = crate::frr::config(setup)?;
        if setup.graceful_restart {
            let Offer { restart_time, notification } = offer;
            writeln!(
                config,
                "exit\nrouter bgp {ROUTER_ASN}\n bgp graceful-restart restart-time {restart_time}"
            )?;
            writeln!(config, " {}bgp graceful-restart notification", if notification { "" } else { "no " })?;
        }
        Frr::launch(netns, &config)
    }

    fn recover(&mut self) -> Result<()> {
        self.start()
    }

    fn shows_stale(&self, prefix: &str) -> Result<bool> {
        let shown = self.json(&format!("show bgp {} unicast json", family_name(family_of(prefix))))?;
        let paths = shown["routes"][prefix].as_array().with_context(|| format!("no {prefix}: {shown}"))?;
        Ok(paths.iter().any(|path| path["stale"].as_bool() == Some(true)))
    }
}

impl Restarting for Bird {
    const FORWARDS: bool = true;

    fn launch_restarting(netns: &Netns, setup: Setup, offer: Offer) -> Result<Bird> {
        Bird::launch(netns, &bird_config(setup, &format!("graceful restart time {};", offer.restart_time))?)
    }

    fn recover(&mut self) -> Result<()> {
        Bird::recover(self)
    }

    /// It does not mark the routes, but says that it keeps them.
    fn shows_stale(&self, prefix: &str) -> Result<bool> {
        let name = family_name(family_of(prefix));
        let kept = !self.birdc(&format!("show route {prefix}"))?.contains("not found");
        let shown = self.birdc(&format!("show protocols all node_{name}"))?;
        Ok(kept && shown.contains("Neighbor graceful restart active"))
    }
}

/// BIRD with what it learns in the kernel, and a line more about its sessions.
pub(crate) fn bird_config(setup: Setup, sessions: &str) -> Result<String> {
    let config = crate::bird::config(setup)?
        .replace("connect retry time 1;", &format!("connect retry time 1;\n{sessions}"));
    let kernel = |family: &str| {
        format!(
            "protocol kernel kernel_{family} {{ {family} {{ import none; export where source = RTS_BGP; }}; }}\n"
        )
    };
    Ok(config + &kernel("ipv4") + &kernel("ipv6"))
}

impl Restarting for Gobgp {
    /// It leaves forwarding to others.
    const FORWARDS: bool = false;
    const CONFIGURES_ROUTES: bool = false;

    fn launch_restarting(netns: &Netns, setup: Setup, offer: Offer) -> Result<Gobgp> {
        let Offer { restart_time, notification } = offer;
        let said = format!("restart-time = {restart_time}\nnotification-enabled = {notification}");
        Gobgp::launch(netns, &crate::gobgp::config(setup)?.replace("restart-time = 60", &said))
    }

    fn recover(&mut self) -> Result<()> {
        Gobgp::recover(self)
    }

    fn shows_stale(&self, prefix: &str) -> Result<bool> {
        let shown = self.json(&format!("global rib -a {}", family_name(family_of(prefix))))?;
        let paths = shown[prefix].as_array().with_context(|| format!("no {prefix}: {shown}"))?;
        Ok(paths.iter().any(|path| path["stale"].as_bool() == Some(true)))
    }
}
