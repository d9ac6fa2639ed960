//! BIRD: one process, no kernel protocol, defaults but for the timers.
use anyhow::Result;
use plainroute_tests::netns::{Daemon, Netns};

use super::{Directory, Product, Task, own_routes, spawn};
use crate::bfd::{INTERVAL, MULTIPLIER};
use crate::site::{self, HOST, address, asn, host};
use crate::wire::{Family, HOLD_TIME, Marker};

pub(super) fn config(family: Family, task: Task) -> String {
    let channel = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    if task == Task::Start {
        return start_config(channel);
    }
    let marker = format!("where net = {}", Marker::text(family));
    let import = if task == Task::Discard { marker.as_str() } else { "all" };
    let mut text = format!("router id {};\nprotocol device {{}}\n", site::router_id(HOST));
    if task == Task::Watch {
        let interval = INTERVAL.as_millis();
        text += &format!(
            "protocol bfd {{\n  interface \"eth0\" {{\n    min rx interval {interval} ms;\n    \
             min tx interval {interval} ms;\n    multiplier {MULTIPLIER};\n  }};\n}}\n"
        );
    }
    let mut neighbor = |name: &str, number: u8, import: &str, export: &str| {
        let bfd = if task == Task::Watch && number == host::FEEDER { "  bfd on;\n" } else { "" };
        text += &format!(
            "protocol bgp {name} {{\n  local {} as {};\n  neighbor {} as {};\n  passive;\n  hold time {HOLD_TIME};\n{bfd}  \
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
    if task == Task::Install {
        text += &format!("protocol kernel {{\n  {channel} {{ import none; export all; }};\n}}\n");
    }
    if task == Task::Change {
        text += &format!("protocol kernel {{\n  learn;\n  {channel} {{ import all; export none; }};\n}}\n");
    }
    text
}

/// Tuned: it connects a second after its start, not five.
fn start_config(channel: &str) -> String {
    let mut text = format!(
        "router id {};\nprotocol device {{}}\nprotocol bgp reader {{\n  local {} as {};\n  neighbor {} as {};\n  \
         hold time {HOLD_TIME};\n  connect delay time 1;\n  {channel} {{ import none; export all; }};\n}}\n\
         protocol static {{\n  {channel};\n",
        site::router_id(HOST),
        address(Family::V4, HOST),
        asn(HOST),
        address(Family::V4, *host::READERS.start()),
        asn(*host::READERS.start()),
    );
    own_routes().for_each(|route| text += &format!("  route {route}/32 blackhole;\n"));
    text + "}\n"
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
