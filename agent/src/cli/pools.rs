//! `plainroute pools check`.
use std::{fmt::Write, time::Duration};

use hyper::Method;

use super::{
    Asked, Output, client,
    output::{print, print_value},
};
use crate::{admin::view::PoolsCheck, ipam::Disagreement};

/// The agent waits for copies that are about to follow; before a repair is believed it looks twice, half a minute apart.
const PATIENCE: Duration = Duration::from_secs(30);
const REPAIR: Duration = Duration::from_secs(90);

pub(super) fn check(asked: Asked, repair: bool) -> anyhow::Result<bool> {
    let (method, patience) = if repair { (Method::POST, REPAIR) } else { (Method::GET, PATIENCE) };
    let asked = Asked { patience: asked.patience.max(patience), ..asked };
    let checked: PoolsCheck = client::tell(&asked, method, "/v1/pools/check")?;
    match asked.output {
        Output::Json | Output::Yaml => print_value(&checked, asked.output)?,
        Output::Table | Output::Wide => print(&text(&checked, repair))?,
    }
    Ok(checked.disagreements.is_empty() && checked.unknown.is_empty())
}

fn text(checked: &PoolsCheck, repair: bool) -> String {
    let mut text = String::new();
    for one in &checked.mended {
        text.push_str(&sides(one));
        text.push_str("  => mended\n");
    }
    for one in &checked.disagreements {
        text.push_str(&sides(one));
        let _ = writeln!(text, "  => {}", one.outlook);
        if one.mendable {
            text.push_str(if repair { "  not mended yet\n" } else { "  `--repair` mends it now\n" });
        }
    }
    for unknown in &checked.unknown {
        let _ = writeln!(text, "not compared: {unknown}");
    }
    if checked.disagreements.is_empty() && checked.unknown.is_empty() {
        let _ = writeln!(text, "journal, IPBlocks, sandboxes and Pods of node {} agree", checked.node);
    }
    text
}

fn sides(one: &Disagreement) -> String {
    let Disagreement { subject, against, journal, other, .. } = one;
    format!("{subject}\n  journal  {journal}\n  {against:7?}  {other}\n")
}
