//! What must be so at any time, of what the runtimes were told and of what the IPBlocks say.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::api::Api;
use plainroute_bgp::Prefix;
use plainroute_config::{IpAllocation, IpBlock, IpBlockSpec};
use serde_json::json;
use tokio::sync::watch;

use super::scene::within;

/// Namespaces and their pools: too few blocks for all nodes, and small ones.
pub(crate) const POOLS: [(&str, &str, &str); 2] =
    [("erp", "10.20.0.0/26", "28"), ("crm", "10.30.0.0/26", "30")];

/// Who has which address, by what the runtimes were told: from the answer to ADD until DEL is asked for.
#[derive(Default)]
pub(crate) struct Checker(Mutex<Told>);

#[derive(Default)]
struct Told {
    live: BTreeMap<IpAddr, String>,
    adds: usize,
    refused: usize,
}

impl Checker {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().expect("a lock that nobody broke")
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        let told = self.told();
        (told.adds, told.refused)
    }

    pub(crate) fn given(&self, namespace: &str, container: &str, address: IpAddr) -> Result<()> {
        let pool = POOLS.iter().find(|(name, ..)| *name == namespace).context("a pool")?.1;
        ensure!(pool.parse::<Prefix>()?.contains_address(address), "{address} is not of {namespace}'s pool");
        let mut told = self.told();
        told.adds += 1;
        match told.live.insert(address, container.to_owned()) {
            None => Ok(()),
            Some(other) => bail!("{address} is given to {container}, and {other} has it"),
        }
    }

    pub(crate) fn refused(&self) {
        self.told().refused += 1;
    }

    pub(crate) fn back(&self, address: IpAddr) {
        self.told().live.remove(&address);
    }
}

/// Looks at all IPBlocks until the end: none overlaps another but as a loan of it, each address has one holder, of its pool's
/// namespace.
pub(crate) async fn watch_blocks(
    blocks: Api<kube::api::DynamicObject>,
    mut end: watch::Receiver<bool>,
) -> Result<usize> {
    let mut looks = 0;
    while !*end.borrow() {
        // A busy machine's API server may not answer; the looks that there were are counted.
        let Ok(list) = blocks.list(&Default::default()).await else { continue };
        let read = |object| Ok(serde_json::from_value::<IpBlock>(serde_json::to_value(object)?)?.spec);
        let all: Vec<IpBlockSpec> = list.items.into_iter().map(read).collect::<Result<_>>()?;
        judge(&all)?;
        looks += 1;
        let _ = tokio::time::timeout(Duration::from_millis(100), end.wait_for(|over| *over)).await;
    }
    Ok(looks)
}

fn address_of(block: &IpBlockSpec, allocation: &IpAllocation) -> Option<IpAddr> {
    let IpAddr::V4(first) = block.cidr.prefix().address() else { return None };
    Some(std::net::Ipv4Addr::from_bits(first.to_bits() + u32::from(allocation.ordinal)).into())
}

fn judge(all: &[IpBlockSpec]) -> Result<()> {
    let owned: Vec<&IpBlockSpec> = all.iter().filter(|block| block.lender.is_none()).collect();
    for (index, block) in owned.iter().enumerate() {
        let first = block.cidr.prefix().address();
        let overlaps =
            |other: &&&IpBlockSpec| within(other, first) || within(block, other.cidr.prefix().address());
        if let Some(other) = owned[index + 1..].iter().find(overlaps) {
            bail!("two nodes own the same: {block:?} and {other:?}");
        }
    }
    let mut holders: BTreeMap<IpAddr, &IpBlockSpec> = BTreeMap::new();
    // A loan holds nothing until its lender says so.
    let counts = |block: &&IpBlockSpec| {
        let granted = |lender: &&IpBlockSpec| {
            let mut lent = lender.allocations.iter().filter(|one| one.lent_to.as_ref() == Some(&block.node));
            lent.any(|one| address_of(lender, one).is_some_and(|address| within(block, address)))
        };
        block.lender.is_none() || owned.iter().any(granted)
    };
    for block in all.iter().filter(counts) {
        for held in block.allocations.iter().filter(|one| one.lent_to.is_none()) {
            let address = address_of(block, held).with_context(|| format!("{block:?} is not of IPv4"))?;
            ensure!(
                held.namespace.as_deref() == Some(&block.pool),
                "{held:?} is in a block of {}",
                block.pool
            );
            if let Some(other) = holders.insert(address, block) {
                bail!("{address} is held in {other:?} and in {block:?}");
            }
        }
    }
    Ok(())
}

/// The negative control: what the checker is to find is found.
#[test]
fn the_checker_sees_an_address_with_two_holders_and_one_outside_its_pool() -> Result<()> {
    let checker = Checker::default();
    checker.given("erp", "one", "10.20.0.1".parse()?)?;
    let error = checker.given("erp", "other", "10.20.0.1".parse()?).unwrap_err().to_string();
    assert_eq!(error, "10.20.0.1 is given to other, and one has it");
    let error = checker.given("crm", "other", "10.20.0.2".parse()?).unwrap_err().to_string();
    assert_eq!(error, "10.20.0.2 is not of crm's pool");
    let spec = |cidr: &str, node: &str, pool: &str| -> Result<IpBlockSpec> {
        let held =
            json!([{ "ordinal": 0, "namespace": "erp", "name": "a", "since": "2026-04-02T13:00:00Z" }]);
        Ok(serde_json::from_value(json!({
            "cidr": cidr, "within": "10.20.0.0/20", "node": node, "pool": pool, "allocations": held,
        }))?)
    };
    let one = spec("10.20.0.0/28", "node-a", "erp")?;
    judge(std::slice::from_ref(&one))?;
    assert!(judge(&[spec("10.20.0.0/28", "node-a", "crm")?]).is_err());
    assert!(judge(&[one.clone(), spec("10.20.0.8/30", "node-b", "erp")?]).is_err());
    let mut loan = spec("10.20.0.0/32", "node-b", "erp")?;
    loan.lender = Some("10-20-0-0-28".to_owned());
    judge(&[one.clone(), loan.clone()]).context("it is asked for, and no more")?;
    let mut lender = one;
    lender.allocations[0] =
        IpAllocation { lent_to: Some("node-b".to_owned()), ..lender.allocations[0].clone() };
    judge(&[lender.clone(), loan.clone()])?;
    assert!(judge(&[lender, loan.clone(), loan]).is_err());
    Ok(())
}
