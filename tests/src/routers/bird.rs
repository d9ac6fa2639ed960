//! BIRD 2, asked through birdc. It has no JSON; the few lines that matter are read here.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::{Family, Instance, Router, Table, await_ready};
use crate::netns::{Daemon, Netns};

/// One bird.
#[derive(Debug)]
pub struct Bird {
    daemon: Daemon,
    instance: Instance,
}

impl Bird {
    /// Starts it from a `bird.conf` text; returns when it answers.
    pub fn launch(netns: &Netns, config: &str) -> Result<Bird> {
        let instance = Instance::new(netns, "bird")?;
        instance.write("bird.conf", config)?;
        let daemon = start(&instance, &[])?;
        Ok(Bird { instance, daemon })
    }

    /// Starts again as one whose routes in the kernel are still there (RFC 4724: the R and F bits are set).
    pub fn recover(&mut self) -> Result<()> {
        self.daemon = start(&self.instance, &["-R"])?;
        Ok(())
    }

    /// A birdc command's output.
    pub fn birdc(&self, command: &str) -> Result<String> {
        birdc(&self.instance, command)
    }

    /// The state of its BFD session with a peer, in lower case, with the interval and the detection time in seconds; none
    /// where it knows no such peer.
    pub fn bfd(&self, peer: IpAddr) -> Result<Option<(String, f64, f64)>> {
        Ok(bfd_of(&self.birdc("show bfd sessions")?, peer))
    }

    /// A command as one argument, so with quoted texts in it.
    pub fn birdc_line(&self, command: &str) -> Result<String> {
        self.instance.netns.run(&["birdc", "-s", &self.instance.arg("ctl"), command])
    }

    /// What it has logged to its standard error.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Replaces the configuration and has BIRD read it.
    pub fn reconfigure(&self, config: &str) -> Result<()> {
        self.instance.write("bird.conf", config)?;
        let said = self.birdc("configure")?;
        anyhow::ensure!(said.contains("Reconfigur"), "configure: {said}");
        Ok(())
    }
}

impl Router for Bird {
    fn name(&self) -> &'static str {
        "BIRD"
    }

    fn state(&self, neighbor: IpAddr) -> Result<String> {
        Ok(state_of(&self.birdc("show protocols all")?, neighbor))
    }

    fn learned(&self, family: Family) -> Result<Table> {
        // BIRD answers an empty table with an error line of its own, and birdc still ends with 0.
        Ok(parse_routes(&self.birdc(&format!("show route table {} all", table(family)))?))
    }

    fn stop(&mut self) -> Result<()> {
        self.daemon.terminate(Duration::from_secs(10)).map(drop)
    }

    fn kill(&mut self) {
        self.daemon.kill();
    }

    fn start(&mut self) -> Result<()> {
        self.daemon = start(&self.instance, &[])?;
        Ok(())
    }
}

fn start(instance: &Instance, more: &[&str]) -> Result<Daemon> {
    let _ = std::fs::remove_file(instance.path("ctl"));
    let (config, ctl, pid) = (instance.arg("bird.conf"), instance.arg("ctl"), instance.arg("pid"));
    let mut argv = vec!["bird", "-f", "-c", &config, "-s", &ctl, "-P", &pid];
    argv.extend(more);
    let mut daemon = instance.spawn(&argv, "bird.log")?;
    await_ready(&mut daemon, "bird", || birdc(instance, "show status").map(drop))?;
    Ok(daemon)
}

fn birdc(instance: &Instance, command: &str) -> Result<String> {
    let ctl = instance.arg("ctl");
    let mut argv = vec!["birdc", "-s", &ctl];
    argv.extend(command.split_whitespace());
    instance.netns.run(&argv)
}

/// The name of a family's table.
pub(crate) fn table(family: Family) -> &'static str {
    match family {
        Family::V4 => "master4",
        Family::V6 => "master6",
    }
}

/// From `show protocols all`: the `BGP state:` of the protocol whose `Neighbor address:` it is.
pub(crate) fn state_of(shown: &str, neighbor: IpAddr) -> String {
    let mut state = "none".to_owned();
    for line in shown.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("BGP state:") {
            state = rest.trim().to_lowercase();
        } else if let Some(rest) = line.strip_prefix("Neighbor address:") {
            // A link-local neighbour is shown with its interface.
            if rest.trim().split('%').next().and_then(|text| text.parse().ok()) == Some(neighbor) {
                return state;
            }
        }
    }
    "none".to_owned()
}

/// From `show bfd sessions`: address, interface, state, since, interval, timeout.
fn bfd_of(shown: &str, peer: IpAddr) -> Option<(String, f64, f64)> {
    shown.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, state) = (words.first()?.parse::<IpAddr>().ok()?, words.get(2)?);
        // A moment of another day has two words.
        let [interval, timeout] = words.get(words.len().checked_sub(2)?..)? else { return None };
        (address == peer).then_some((state.to_lowercase(), interval.parse().ok()?, timeout.parse().ok()?))
    })
}

/// From `show route all`: a path starts with its prefix, or with white space for a further path to the same prefix; its
/// attributes follow, indented by tabs.
pub(crate) fn parse_routes(shown: &str) -> Table {
    let mut table = Table::new();
    let mut prefix = None;
    let mut learned_by_bgp = false;
    for line in shown.lines() {
        if let Some(first) = line.split_whitespace().next().filter(|_| !line.starts_with(char::is_whitespace))
        {
            prefix = first.contains('/').then(|| first.to_owned());
            learned_by_bgp = false;
        } else if line.trim_start().starts_with("Type:") {
            learned_by_bgp = line.contains("BGP");
        } else if let (Some(hops), Some(prefix), true) =
            (line.trim_start().strip_prefix("BGP.next_hop:"), &prefix, learned_by_bgp)
        {
            let hops = hops.split_whitespace().filter_map(|hop| hop.parse::<IpAddr>().ok());
            table.entry(prefix.clone()).or_default().extend(hops);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bfd_sessions() {
        let shown = "BIRD 2.0.12 ready.\nbfd1:\nIP address   Interface  State   Since   Interval  Timeout\n\
            fe80::1      eth0       Down       16:03:45.469    1.000    0.000\n\
            172.16.0.1   eth0       Up         2026-11-22 16:03:45.469    0.100    0.300\n";
        let of = |peer: &str| bfd_of(shown, peer.parse().unwrap());
        assert_eq!(of("172.16.0.1"), Some(("up".to_owned(), 0.1, 0.3)));
        assert_eq!(of("fe80::1"), Some(("down".to_owned(), 1.0, 0.0)));
        assert_eq!(of("172.16.0.2"), None);
    }

    #[test]
    fn reads_what_birdc_shows() {
        let routes = "BIRD 2.0.12 ready.\nTable master4:\n\
            10.20.0.10/32        unicast [a 10:00:00.000] * (100) [AS64512i]\n\
            \tvia 172.16.0.1 on eth1\n\tType: BGP univ\n\tBGP.origin: IGP\n\tBGP.next_hop: 172.16.0.1\n\
            \x20                    unicast [b 10:00:00.000] (100) [AS64512i]\n\
            \tvia 172.16.1.1 on eth2\n\tType: BGP univ\n\tBGP.next_hop: 172.16.1.1\n\
            0.0.0.0/0            unreachable [static1 10:00:00.000] * (200)\n\tType: static univ\n";
        let table = parse_routes(routes);
        assert_eq!(table.len(), 1);
        assert_eq!(format!("{:?}", table["10.20.0.10/32"]), "{172.16.0.1, 172.16.1.1}");
        let protocols = "a  BGP --- up 10:00:00.000 Established\n  BGP state:          Established\n    \
            Neighbor address: 172.16.0.1\nb BGP --- start 10:00:00.000 Active\n  BGP state:          Active\n    \
            Neighbor address: fe80::1%eth2\n";
        assert_eq!(state_of(protocols, "172.16.0.1".parse().unwrap()), "established");
        assert_eq!(state_of(protocols, "fe80::1".parse().unwrap()), "active");
        assert_eq!(state_of(protocols, "172.16.0.9".parse().unwrap()), "none");
    }
}
