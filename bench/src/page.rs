//! docs/benchmarks.md: the table with all that one must know to get it again.
use std::fmt::Write;
use std::process::Command;

use anyhow::Result;

use crate::report::Report;
use crate::routers::{Product, Task};
use crate::usage::load;
use crate::wire::Family;

pub(crate) fn page(report: &Report, peers: &[Product]) -> Result<String> {
    let mut text = include_str!("page.md").to_owned();
    let (processors, load) = load();
    let kernel = String::from_utf8_lossy(&Command::new("uname").arg("-r").output()?.stdout).trim().to_owned();
    let names: Vec<&str> = peers.iter().map(|peer| peer.label.as_str()).collect();
    let command = command(std::env::args().skip(2));
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

/// What to type for the same run: the arguments behind `run`, but for those that the script adds.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let (mut kept, mut arguments) = (Vec::new(), arguments);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--newer" | "--write" => drop(arguments.next()),
            _ => kept.push(argument),
        }
    }
    if kept.is_empty() { "make bench".to_owned() } else { format!("make bench BENCH=\"{}\"", kept.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_what_a_person_types() {
        let typed = |line: &str| command(line.split_whitespace().map(str::to_owned));
        assert_eq!(typed("--newer root --write page"), "make bench");
        assert_eq!(
            typed("--newer root --quick --rows a --write page"),
            "make bench BENCH=\"--quick --rows a\""
        );
    }
}
