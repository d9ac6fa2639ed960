//! GoBGP: one process, all policies global.
use anyhow::Result;
use plainroute_tests::netns::{Daemon, Netns};

use super::{Directory, Product, Task, spawn};
use crate::site::{self, HOST, address, asn, host};
use crate::wire::{Family, HOLD_TIME, Marker};

pub(super) fn config(family: Family, task: Task) -> String {
    let (name, longest) = match family {
        Family::V4 => ("ipv4-unicast", 32),
        Family::V6 => ("ipv6-unicast", 128),
    };
    let import = if task == Task::Discard { "reject-route" } else { "accept-route" };
    let mut text = format!(
        "[global.config]\n  as = {}\n  router-id = \"{}\"\n  port = 179\n\
         [global.apply-policy.config]\n  import-policy-list = [\"marker\"]\n  \
         default-import-policy = \"{import}\"\n  export-policy-list = [\"observer\"]\n  \
         default-export-policy = \"accept-route\"\n",
        asn(HOST),
        site::router_id(HOST),
    );
    let mut neighbor = |number: u8| {
        text += &format!(
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{}\"\n    peer-as = {}\n  \
             [neighbors.transport.config]\n    passive-mode = true\n  [neighbors.timers.config]\n    \
             hold-time = {HOLD_TIME}\n    keepalive-interval = {}\n  [[neighbors.afi-safis]]\n    \
             [neighbors.afi-safis.config]\n      afi-safi-name = \"{name}\"\n",
            address(family, number),
            asn(number),
            HOLD_TIME / 3,
        );
    };
    neighbor(host::FEEDER);
    neighbor(host::OBSERVER);
    host::READERS.for_each(neighbor);
    text + &format!(
        "[[defined-sets.prefix-sets]]\n  prefix-set-name = \"marker\"\n  [[defined-sets.prefix-sets.prefix-list]]\n    \
         ip-prefix = \"{}\"\n[[defined-sets.neighbor-sets]]\n  neighbor-set-name = \"observer\"\n  \
         neighbor-info-list = [\"{}/{longest}\"]\n\
         [[policy-definitions]]\n  name = \"marker\"\n  [[policy-definitions.statements]]\n    name = \"in\"\n    \
         [policy-definitions.statements.conditions.match-prefix-set]\n      prefix-set = \"marker\"\n    \
         [policy-definitions.statements.actions]\n      route-disposition = \"accept-route\"\n\
         [[policy-definitions]]\n  name = \"observer\"\n  [[policy-definitions.statements]]\n    name = \"marker\"\n    \
         [policy-definitions.statements.conditions.match-prefix-set]\n      prefix-set = \"marker\"\n    \
         [policy-definitions.statements.actions]\n      route-disposition = \"accept-route\"\n  \
         [[policy-definitions.statements]]\n    name = \"nothing-else\"\n    \
         [policy-definitions.statements.conditions.match-neighbor-set]\n      neighbor-set = \"observer\"\n    \
         [policy-definitions.statements.actions]\n      route-disposition = \"reject-route\"\n",
        Marker::text(family),
        address(family, host::OBSERVER),
    )
}

pub(super) fn start(
    product: &Product,
    netns: &Netns,
    directory: &Directory,
    config: &str,
) -> Result<Vec<Daemon>> {
    directory.write("gobgpd.toml", config)?;
    let (config, api) = (directory.file("gobgpd.toml"), format!("unix://{}", directory.file("api.sock")));
    let argv = product.argv(product.binary, &["-f", &config, "--api-hosts", &api]);
    Ok(vec![spawn(netns, directory, &argv, "log")?])
}
