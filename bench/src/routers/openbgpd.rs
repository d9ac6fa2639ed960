//! OpenBGPD: three processes, nothing for the kernel.
use std::fs;

use anyhow::Result;
use plainroute_tests::netns::{Daemon, Netns};

use super::{Directory, Product, Task, spawn};
use crate::site::{self, HOST, address, asn, host};
use crate::wire::{Family, HOLD_TIME, Marker};

pub(super) fn config(family: Family, task: Task) -> String {
    let announce = match family {
        Family::V4 => "announce IPv4 unicast",
        Family::V6 => "announce IPv4 none\n  announce IPv6 unicast",
    };
    let mut text = format!(
        "AS {}\nrouter-id {}\nholdtime {HOLD_TIME}\nfib-update no\nlisten on {}\n",
        asn(HOST),
        site::router_id(HOST),
        address(family, HOST),
    );
    let mut neighbor = |number: u8| {
        text += &format!(
            "neighbor {} {{\n  remote-as {}\n  passive\n  {announce}\n}}\n",
            address(family, number),
            asn(number)
        );
    };
    neighbor(host::FEEDER);
    neighbor(host::OBSERVER);
    host::READERS.for_each(neighbor);
    let (feeder, observer) = (address(family, host::FEEDER), address(family, host::OBSERVER));
    let marker = Marker::text(family);
    text += "allow from any\nallow to any\n";
    if task == Task::Discard {
        text += &format!("deny from {feeder}\nallow from {feeder} prefix {marker}\n");
    }
    text + &format!("deny to {feeder}\ndeny to {observer}\nallow to {observer} prefix {marker}\n")
}

pub(super) fn start(
    product: &Product,
    netns: &Netns,
    directory: &Directory,
    config: &str,
) -> Result<Vec<Daemon>> {
    // Its unprivileged processes change their root to there.
    fs::create_dir_all(directory.root.join("run/openbgpd"))?;
    directory.write("bgpd.conf", &format!("socket \"{}\"\n{config}", directory.file("bgpd.sock")))?;
    let argv = product.argv(product.binary, &["-d", "-f", &directory.file("bgpd.conf")]);
    Ok(vec![spawn(netns, directory, &argv, "log")?])
}
