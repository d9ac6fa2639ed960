//! OpenBGPD: three processes, nothing for the kernel.
use std::fs;

use anyhow::Result;
use plainroute_tests::netns::{Daemon, Netns};

use super::{Directory, Product, Task, own_routes, spawn};
use crate::site::{self, HOST, address, asn, host};
use crate::wire::{Family, HOLD_TIME, Marker};

pub(super) fn config(family: Family, task: Task) -> String {
    let announce = match family {
        Family::V4 => "announce IPv4 unicast",
        Family::V6 => "announce IPv4 none\n  announce IPv6 unicast",
    };
    let update = if task == Task::Install { "yes" } else { "no" };
    let mut text = format!(
        "AS {}\nrouter-id {}\nholdtime {HOLD_TIME}\nfib-update {update}\nlisten on {}\n",
        asn(HOST),
        site::router_id(HOST),
        address(family, HOST),
    );
    if task == Task::Start {
        let reader = *host::READERS.start();
        text += &format!("neighbor {} {{\n  remote-as {}\n}}\n", address(family, reader), asn(reader));
        own_routes().for_each(|route| text += &format!("network {route}/32\n"));
        return text + "allow to any\n";
    }
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
