//! What this runner starts in place of a container image: the host's own packages, and our own binary.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// A container image, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// FRRouting from the host's package, its daemons as `/etc/frr/daemons` says.
    Frr,
    /// BIRD 2 from the host's package.
    Bird,
    /// The agent and its command line: this very build.
    Plainroute,
    /// Network tools, nothing running: Pods and hosts.
    Tools,
}

/// As the image's own start script: the daemons that are switched on, then /etc/frr/frr.conf for all of them by vtysh.
const FRR: &str = r#"
. /etc/frr/daemons
# Left by a daemon that was killed, a socket would look like readiness.
rm -f /run/frr/*.vty /run/frr/zserv.api
for daemon in zebra staticd bgpd bfdd; do
  eval "wanted=\$$daemon"
  [ "$daemon" = zebra ] || [ "$wanted" = yes ] || continue
  /usr/lib/frr/$daemon -A 127.0.0.1 &
  until [ -S /run/frr/$daemon.vty ]; do sleep 0.02; done
done
vtysh -b
wait
"#;

const BIRD: &str = "exec bird -f -c /etc/bird.conf";

impl Image {
    /// Recognises an image by the last part of its name.
    pub(crate) fn of(reference: Option<&str>) -> Result<Image> {
        let Some(reference) = reference else { return Ok(Image::Tools) };
        let name = reference.rsplit('/').next().unwrap_or(reference);
        Ok(match name.split([':', '@']).next().unwrap_or(name) {
            "frr" => Image::Frr,
            "bird" => Image::Bird,
            "plainroute" => Image::Plainroute,
            "netshoot" | "alpine" | "network-multitool" => Image::Tools,
            _ => bail!(
                "image {reference}: this runner knows frr, bird, plainroute, netshoot, alpine and network-multitool"
            ),
        })
    }

    /// What it runs when the topology gives no `cmd`.
    pub(crate) fn default_command(self) -> Option<Vec<String>> {
        let script = match self {
            Image::Frr => FRR,
            Image::Bird => BIRD,
            Image::Plainroute | Image::Tools => return None,
        };
        Some(["sh", "-c", script].map(str::to_owned).to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_by_their_name() {
        assert_eq!(Image::of(Some("quay.io/frrouting/frr:10.2.1")).unwrap(), Image::Frr);
        assert_eq!(Image::of(Some("localhost:5000/plainroute")).unwrap(), Image::Plainroute);
        assert_eq!(Image::of(None).unwrap(), Image::Tools);
        assert!(Image::of(Some("ghcr.io/nokia/srlinux")).is_err());
    }
}
