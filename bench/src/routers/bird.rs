//! BIRD: one process, no kernel protocol, defaults but for the timers.
use anyhow::Result;
use plainroute_tests::netns::{Daemon, Netns};

use super::{Directory, Product, Task, spawn};
use crate::site::{self, HOST, address, asn, host};
use crate::wire::{Family, HOLD_TIME, Marker};

pub(super) fn config(family: Family, task: Task) -> String {
    let channel = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let marker = format!("where net = {}", Marker::text(family));
    let import = if task == Task::Discard { marker.as_str() } else { "all" };
    let mut text = format!("router id {};\nprotocol device {{}}\n", site::router_id(HOST));
    let mut neighbor = |name: &str, number: u8, import: &str, export: &str| {
        text += &format!(
            "protocol bgp {name} {{\n  local {} as {};\n  neighbor {} as {};\n  passive;\n  hold time {HOLD_TIME};\n  \
             {channel} {{ import {import}; export {export}; }};\n}}\n",
            address(family, HOST),
            asn(HOST),
            address(family, number),
            asn(number),
        );
    };
    neighbor("feeder", host::FEEDER, import, "none");
    neighbor("observer", host::OBSERVER, "none", &marker);
    for number in host::READERS {
        neighbor(&format!("reader{number}"), number, "none", "all");
    }
    text
}

pub(super) fn start(
    product: &Product,
    netns: &Netns,
    directory: &Directory,
    config: &str,
) -> Result<Vec<Daemon>> {
    directory.write("bird.conf", config)?;
    let (config, control) = (directory.file("bird.conf"), directory.file("bird.ctl"));
    let argv = product.argv(product.binary, &["-f", "-c", &config, "-s", &control]);
    Ok(vec![spawn(netns, directory, &argv, "log")?])
}
