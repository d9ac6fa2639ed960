//! `plainroute who`: the ledger of this node, then its plan, then the IPBlocks of the cluster.
use std::{cmp::Reverse, net::IpAddr};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use plainroute_blocks::BlockObject;
use plainroute_config::IpAllocation;
use serde::Deserialize;

use super::server::{Access, Refused};
use crate::{
    ipam::{allocation_words, ordinal},
    ledger::{BlockSays, Holder, HolderSource, HolderView, Who},
};

/// `?address=IP&at=TIME`; without `at`, now.
#[derive(Deserialize)]
pub(super) struct OfAddress {
    address: IpAddr,
    at: Option<jiff::Timestamp>,
}

/// Now, the plan knows it too: also where the ledger is behind, or cannot be read.
pub(super) async fn who(
    State(shared): State<Access>,
    Query(query): Query<OfAddress>,
) -> Result<Json<Who>, Refused> {
    let OfAddress { address, at } = query;
    let now = jiff::Timestamp::now();
    if at.is_some_and(|at| at > now) {
        return Err((StatusCode::BAD_REQUEST, "that time is still to come".to_owned()));
    }
    let state = shared.state();
    let read = shared
        .read_ledger(move |ledger| Ok((ledger.who(address, at.unwrap_or(now))?, ledger.known_since()?)));
    let (written, known_since) = match read.await {
        Ok(read) => read,
        Err(refused) if at.is_some() => return Err(refused),
        Err(_) => (None, None),
    };
    let planned = || crate::ledger::holders(&state.plan).remove(&address).map(Holder::from);
    let holders = match (written, at) {
        (Some(written), _) => vec![written],
        (None, None) => {
            planned().into_iter().map(|holder| HolderView::planned(holder, state.node.clone())).collect()
        }
        (None, Some(_)) => Vec::new(),
    };
    let node = state.node.clone();
    let mut who = Who { address, node, at, holders, known_since, blocks: Vec::new(), blocks_unknown: None };
    if let Some(desk) = shared.ipam.as_ref().filter(|_| who.holders.is_empty()) {
        match desk.covering(address).await {
            Ok(blocks) => by_blocks(&mut who, blocks),
            Err(why) => who.blocks_unknown = Some(why),
        }
    }
    Ok(Json(who))
}

/// The most specific block is that of the node which has the address: what is lent lies in the borrower's.
fn by_blocks(who: &mut Who, mut blocks: Vec<BlockObject>) {
    let of_address = |block: &BlockObject| -> Option<IpAllocation> {
        let ordinal = ordinal(block.spec.cidr.prefix(), who.address)?;
        block.spec.allocations.iter().find(|one| one.ordinal == ordinal).cloned()
    };
    blocks.sort_by_key(|block| Reverse(block.spec.cidr.prefix().length()));
    let holder = blocks.iter().find_map(|block| {
        let one = of_address(block).filter(|one| one.lent_to.is_none() && one.container_id.is_some())?;
        let until_then = who.at.is_none_or(|at| one.since <= at);
        until_then.then(|| HolderView {
            namespace: one.namespace.unwrap_or_default(),
            pod: one.name.unwrap_or_default(),
            node: block.spec.node.clone(),
            uid: one.pod_uid,
            pool: Some(block.spec.pool.clone()),
            since: Some(one.since),
            until: None,
            source: HolderSource::Block,
        })
    });
    let says = |block: &BlockObject| {
        let one = of_address(block);
        BlockSays {
            block: block.name.clone(),
            node: block.spec.node.clone(),
            pool: block.spec.pool.clone(),
            says: one.as_ref().map_or_else(|| "nobody has it".to_owned(), allocation_words),
            since: one.map(|one| one.since),
        }
    };
    let said = blocks.iter().map(says).collect();
    who.holders.extend(holder);
    who.blocks = said;
}

#[cfg(test)]
mod tests {
    use plainroute_config::IpBlockSpec;
    use serde_json::json;

    use super::*;

    fn block(cidr: &str, node: &str, allocations: serde_json::Value) -> BlockObject {
        let mut spec = IpBlockSpec::new(cidr.parse().unwrap(), node, "erp");
        spec.allocations = serde_json::from_value(allocations).unwrap();
        BlockObject { name: spec.name(), uid: "u".to_owned(), version: "1".to_owned(), spec }
    }

    fn ask(blocks: Vec<BlockObject>, at: Option<&str>) -> Who {
        let mut who = Who {
            address: "10.20.0.21".parse().unwrap(),
            node: "node-a".to_owned(),
            at: at.map(|at| at.parse().unwrap()),
            holders: Vec::new(),
            known_since: None,
            blocks: Vec::new(),
            blocks_unknown: None,
        };
        by_blocks(&mut who, blocks);
        who
    }

    #[test]
    fn the_borrower_has_what_is_lent() {
        let since = "2026-11-23T01:00:00Z";
        let lent = json!([{ "ordinal": 5, "lentTo": "node-c", "loan": "l", "since": since }]);
        let held = json!([{ "ordinal": 0, "namespace": "erp", "name": "app", "podUID": "u1", "containerID": "c", "since": since }]);
        let blocks =
            vec![block("10.20.0.16/28", "node-b", lent), block("10.20.0.21/32", "node-c", held.clone())];
        let who = ask(blocks.clone(), None);
        assert_eq!(who.holders.len(), 1);
        let holder = &who.holders[0];
        assert_eq!((holder.pod.as_str(), holder.node.as_str()), ("app", "node-c"));
        assert_eq!(holder.source, HolderSource::Block);
        let says: Vec<_> = who.blocks.iter().map(|one| format!("{}: {}", one.node, one.says)).collect();
        assert_eq!(
            says,
            [
                "node-c: held by Pod erp/app (UID u1, sandbox c)",
                "node-b: lent to node node-c (IPBlock of UID l)"
            ]
        );
        // Who has had it since before that time had it then; of others the ledgers know.
        assert_eq!(ask(blocks.clone(), Some("2026-11-23T01:30:00Z")).holders.len(), 1);
        let before = ask(blocks, Some("2026-11-23T00:59:59Z"));
        assert_eq!((before.holders.len(), before.blocks.len()), (0, 2));
    }

    #[test]
    fn a_free_or_kept_address_is_nobodys() {
        let kept = json!([{ "ordinal": 5, "namespace": "erp", "name": "db-0", "statefulSet": "db", "since": "2026-11-23T01:00:00Z" }]);
        let who = ask(vec![block("10.20.0.16/28", "node-b", kept)], None);
        assert_eq!(who.holders, Vec::new());
        assert_eq!(who.blocks[0].says, "kept for Pod erp/db-0 of StatefulSet db");
        let who = ask(vec![block("10.20.0.16/28", "node-b", json!([]))], None);
        assert_eq!(who.blocks[0].says, "nobody has it");
        assert_eq!(ask(Vec::new(), None).blocks, Vec::new());
    }
}
