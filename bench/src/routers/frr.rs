//! FRR: zebra and bgpd, tuned: no pause before routes are sent (`coalesce-time 0`, `advertisement-interval 0`). Without
//! the kernel (`bgpd --no_kernel`) wherever the kernel is not what is measured.
use anyhow::Result;
use plainroute_tests::netns::{Daemon, Netns, wait_until};
use plainroute_tests::routers::FRR_KEEPER;

use super::{Directory, Product, Task, own_routes, spawn};
use crate::bfd::{INTERVAL, MULTIPLIER};
use crate::site::{self, HOST, address, asn, host};
use crate::wire::{Family, HOLD_TIME, Marker};

pub(super) fn config(family: Family, task: Task) -> String {
    if task == Task::Start {
        return start_config();
    }
    let (ip, unicast) = match family {
        Family::V4 => ("ip", "ipv4"),
        Family::V6 => ("ipv6", "ipv6"),
    };
    let mut text = format!(
        "{ip} prefix-list MARKER seq 5 permit {}\n{ip} prefix-list NOTHING seq 5 deny any\nrouter bgp {}\n \
         bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n coalesce-time 0\n \
         timers bgp {} {HOLD_TIME}\n",
        Marker::text(family),
        asn(HOST),
        site::router_id(HOST),
        HOLD_TIME / 3,
    );
    let mut activations = String::new();
    let mut neighbor = |number: u8, lists: &[&str]| {
        let address = address(family, number);
        text += &format!(
            " neighbor {address} remote-as {}\n neighbor {address} passive\n \
             neighbor {address} advertisement-interval 0\n",
            asn(number)
        );
        activations += &format!("  neighbor {address} activate\n");
        for list in lists {
            activations += &format!("  neighbor {address} prefix-list {list}\n");
        }
    };
    let feeder: &[&str] =
        if task == Task::Discard { &["MARKER in", "NOTHING out"] } else { &["NOTHING out"] };
    neighbor(host::FEEDER, feeder);
    let feeder = address(family, host::FEEDER);
    neighbor(host::OBSERVER, &["NOTHING in", "MARKER out"]);
    for number in host::READERS {
        neighbor(number, &[]);
    }
    if task == Task::Watch {
        let interval = INTERVAL.as_millis();
        text += &format!(" neighbor {feeder} bfd {MULTIPLIER} {interval} {interval}\n");
    }
    if task == Task::Change {
        activations += "  redistribute kernel\n";
    }
    format!("{text} address-family {unicast} unicast\n{activations} exit-address-family\nexit\n")
}

fn start_config() -> String {
    let reader = address(Family::V4, *host::READERS.start());
    let mut text = format!(
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         coalesce-time 0\n timers bgp {} {HOLD_TIME}\n neighbor {reader} remote-as {}\n \
         neighbor {reader} advertisement-interval 0\n neighbor {reader} timers connect 1\n \
         address-family ipv4 unicast\n",
        asn(HOST),
        site::router_id(HOST),
        HOLD_TIME / 3,
        asn(*host::READERS.start()),
    );
    own_routes().for_each(|route| text += &format!("  network {route}/32\n"));
    text + " exit-address-family\nexit\n"
}

pub(super) fn start(
    product: &Product,
    netns: &Netns,
    directory: &Directory,
    config: &str,
    task: Task,
) -> Result<Vec<Daemon>> {
    directory.write("frr.conf", config)?;
    directory.give_to("frr")?;
    let start = |name: &str, more: &[&str]| {
        let [config, zebra, pid] =
            ["frr.conf", "zserv.api", &format!("{name}.pid")].map(|file| directory.file(file));
        let mut arguments = vec![
            "-f",
            &config,
            "-z",
            &zebra,
            "--vty_socket",
            &directory.inside,
            "-i",
            &pid,
            "-A",
            "127.0.0.1",
        ];
        arguments.extend(more);
        let inner = product.argv(&format!("/usr/lib/frr/{name}"), &arguments);
        // They give up root, and with it the signal of their parent's death.
        let keeper = ["setpriv", "--pdeathsig", "HUP", "sh", "-c", FRR_KEEPER, "sh"].map(str::to_owned);
        spawn(netns, directory, &[&keeper[..], &inner].concat(), &format!("{name}.log"))
    };
    let zebra = start("zebra", &[])?;
    wait_until("zebra's socket", std::time::Duration::from_secs(20), || {
        if directory.path("zserv.api").exists() { Ok(()) } else { Err(zebra.log()) }
    })?;
    let mut daemons = vec![zebra];
    if task == Task::Watch {
        daemons.push(start("bfdd", &["--bfdctl", &directory.file("bfdd.sock")])?);
        wait_until("bfdd's socket", std::time::Duration::from_secs(20), || {
            if directory.path("bfdd.vty").exists() { Ok(()) } else { Err("no bfdd.vty") }
        })?;
    }
    let mut more = vec!["-p", "179"];
    if task != Task::Install {
        more.push("--no_kernel");
    }
    daemons.push(start("bgpd", &more)?);
    Ok(daemons)
}
