//! docs/benchmarks.md: the table with all that one must know to get it again.
use std::fmt::Write;
use std::process::Command;

use anyhow::Result;

use crate::bench::Run;
use crate::report::Report;
use crate::routers::{Product, Task};
use crate::usage::load;
use crate::wire::Family;

pub(crate) fn page(report: &Report, peers: &[Product], options: &Run) -> Result<String> {
    let mut text = include_str!("page.md").to_owned();
    let (processors, load) = load();
    let kernel = String::from_utf8_lossy(&Command::new("uname").arg("-r").output()?.stdout).trim().to_owned();
    let names: Vec<&str> = peers.iter().map(|peer| peer.label.as_str()).collect();
    let command = if options.is_quick() { "make bench QUICK=1" } else { "make bench" };
    let (met, of) = report.met();
    let _ = write!(
        text,
        "\n## Results\nBy `{command}` on {}: {processors} cores, Linux {kernel}, load {load:.1} at the end. \
         Plainroute {}, built by `cargo build --release`. Peers: {}. {met} of {of} goals met.\n\n\
         A cell is the median; in parentheses how many times Plainroute's it is.\n\n{}\n",
        jiff::Zoned::now().date(),
        env!("CARGO_PKG_VERSION"),
        if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        report.markdown(),
    );
    text += "\n## Configurations\nFor IPv4. 172.16.0.253 is the feeder, .252 the observer, .11 to .15 are the readers. \
             Where everything is to be refused, nothing is imported from the feeder but the marker.\n";
    let mut shown = Vec::new();
    for peer in peers {
        if !shown.contains(&peer.kind) {
            shown.push(peer.kind);
            let _ = write!(text, "\n### {}\n```\n{}```\n", peer.name(), peer.config(Family::V4, Task::Hold));
        }
    }
    Ok(text)
}
