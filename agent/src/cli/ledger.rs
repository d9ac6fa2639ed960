//! The commands about who held which address.
use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;

use super::{
    Asked, Output, Who, client,
    output::{Rows, or_dash, print, print_rows, print_value},
};
use crate::ledger::{self, HolderView, LedgerVerdict, Row};

/// A ledger of years is long.
const PATIENCE: Duration = Duration::from_secs(600);

pub(super) fn who(who: &Who) -> anyhow::Result<bool> {
    let Who { address, at, asked } = who;
    let at = at.map(|at| format!("&at={at}")).unwrap_or_default();
    let answer: ledger::Who = client::ask(asked, &format!("/v1/who?address={address}{at}"))?;
    match asked.output {
        Output::Json | Output::Yaml => print_value(&answer, asked.output)?,
        Output::Table | Output::Wide => {
            print_rows(&answer.holders, asked.output, &nobody(&answer))?;
            print(&elsewhere(&answer))?;
        }
    }
    Ok(!answer.holders.is_empty())
}

/// That nobody is known is not that there was nobody.
fn nobody(answer: &ledger::Who) -> String {
    let ledger::Who { address, node, at, known_since, .. } = answer;
    match (at, known_since) {
        (None, _) => format!("no Pod of node {node} holds {address}"),
        (Some(at), Some(since)) if at >= since => format!("no Pod of node {node} held {address} at {at}"),
        (Some(at), Some(since)) => {
            format!("who held {address} at {at} is not known: the ledger of node {node} begins at {since}")
        }
        (Some(at), None) => {
            format!("who held {address} at {at} is not known: the ledger of node {node} is empty")
        }
    }
}

/// Where the one who knows is to be found.
fn elsewhere(answer: &ledger::Who) -> String {
    let ledger::Who { address, at, holders, blocks, blocks_unknown, .. } = answer;
    let mut text = String::new();
    if !holders.is_empty() {
        return text;
    }
    if let Some(why) = blocks_unknown {
        text.push_str(&format!("the IPBlocks of the cluster could not be asked: {why}\n"));
    }
    for ledger::BlockSays { block, node, pool, says, since } in blocks {
        let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
        text.push_str(&format!("now: IPBlock {block} of node {node} (IPPool {pool}): {says}{since}\n"));
    }
    if let Some(at) = at {
        let ask = format!("plainroute who {address} --at {at}");
        let others = "then another node may have owned it: ask those of the pool, or the exports of all";
        text.push_str(&match blocks.first() {
            Some(now) => format!(
                "whose it was then the ledger of that node knows: on {} `{ask}`; {others}\n",
                now.node
            ),
            None => String::new(),
        });
    }
    text
}

pub(super) fn export(since: Option<Timestamp>, socket: PathBuf) -> anyhow::Result<bool> {
    let asked = Asked { output: Output::Json, socket, patience: PATIENCE };
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let mut after = 0;
    loop {
        let rows: Vec<Row> = client::ask(&asked, &format!("/v1/ledger?after={after}{since}"))?;
        let Some(last) = rows.last() else { return Ok(true) };
        after = last.number;
        let mut lines = String::new();
        for row in &rows {
            lines.push_str(&serde_json::to_string(row)?);
            lines.push('\n');
        }
        print(&lines)?;
    }
}

pub(super) fn verify(asked: Asked) -> anyhow::Result<bool> {
    let asked = Asked { patience: asked.patience.max(PATIENCE), ..asked };
    let verdict: LedgerVerdict = client::ask(&asked, "/v1/ledger/verify")?;
    match asked.output {
        Output::Json | Output::Yaml => print_value(&verdict, asked.output)?,
        Output::Table | Output::Wide => print(&verdict_text(&verdict))?,
    }
    Ok(verdict.damaged.is_none())
}

fn verdict_text(verdict: &LedgerVerdict) -> String {
    let LedgerVerdict { rows, cut, last, hash, damaged } = verdict;
    let cut = if *cut == 0 { String::new() } else { format!(", after {cut} that were cut for their age") };
    let mut text = match damaged {
        Some(damage) => format!("row {} is damaged: {}\n", damage.row, damage.message),
        None => "every row is as it was written\n".to_owned(),
    };
    text.push_str(&format!(
        "  {rows} rows are right{cut}\n  the last of them is {last}, its hash is {hash}\n"
    ));
    text
}

impl Rows for HolderView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["NAMESPACE", "POD", "NODE", "SINCE", "UNTIL", "POOL"];
        if wide {
            titles.extend(["UID", "SOURCE"]);
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let mut cells = vec![
            self.namespace.clone(),
            self.pod.clone(),
            self.node.clone(),
            or_dash(self.since),
            or_dash(self.until),
            or_dash(self.pool.as_ref()),
        ];
        if wide {
            cells.extend([or_dash(self.uid.as_ref()), format!("{:?}", self.source)]);
        }
        cells
    }
}
