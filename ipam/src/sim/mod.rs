//! A deterministic simulation: many nodes with their journals, one API server, a network that delays and loses, and time that
//! only the simulation moves. A checker that knows what really runs watches every step.
//!
//! `cargo test` runs a few seconds' worth. `PLAINROUTE_SIM=1000000 cargo test -p plainroute-blocks no_address_is_held` runs until that
//! many addresses were given out. `PLAINROUTE_SIM_SEED=N` begins at that seed; with `PLAINROUTE_SIM=1` it runs just that one,
//! and `PLAINROUTE_SIM_TRACE=10.0.0.5` prints what has to do with a text.
mod node;
mod quiet;
mod store;
mod trouble;
mod workload;
mod world;

use std::time::Duration;

pub(crate) use world::{Chaos, Sim};

/// Ways to break the state machine on purpose: what the checker must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// What a Pod holds is not written down.
    SkipJournal,
    /// Updates and deletions are sent without the version that they are about.
    IgnoreVersions,
    /// What one look does not see is freed.
    FreeAtFirstLook,
    /// A new block is used though another overlaps it.
    SkipVerification,
    /// A borrowed address is used before its owner has said so.
    UseBeforeGranted,
    /// A block is used again when its deletion seems to have failed.
    ReuseAfterDelete,
    /// What an old view says of an own block is taken for so.
    TrustTheWatch,
    /// A loan that an old view does not show is taken back.
    BelieveTheWatch,
    /// A block that a lost journal may have known is used before anybody looked at what runs on the node.
    UseUnproven,
    /// What was lent of a block before it became this node's is not looked for.
    ForgetLoans,
    /// Whether a node is fenced still is not looked at before what it has is deleted.
    DeleteUnlooked,
    /// Nothing is freed.
    ForgetToFree,
}

/// Each with a seed that finds it, tried before all others: what runs there changes with the code.
const EVERY: [(Mutant, u64); 12] = [
    (Mutant::SkipJournal, 1),
    (Mutant::IgnoreVersions, 1),
    (Mutant::FreeAtFirstLook, 1),
    (Mutant::SkipVerification, 1),
    (Mutant::UseBeforeGranted, 1),
    (Mutant::ReuseAfterDelete, 1),
    (Mutant::TrustTheWatch, 1),
    (Mutant::BelieveTheWatch, 1),
    (Mutant::UseUnproven, 1),
    (Mutant::ForgetLoans, 4),
    (Mutant::DeleteUnlooked, 10),
    (Mutant::ForgetToFree, 1),
];

/// One run: trouble for so long, then quiet until nothing should be held. Returns how many addresses were given out.
fn run(seed: u64, trouble: Duration, chaos: Chaos, mutant: Option<Mutant>) -> Result<u64, String> {
    let whole = || {
        let mut sim = Sim::new(seed, chaos, mutant);
        sim.run_until(trouble)?;
        // What gives an address to two does so in the trouble.
        if mutant.is_none_or(|mutant| mutant == Mutant::ForgetToFree) {
            sim.quiesce()?;
        }
        Ok(sim.given)
    };
    // An assertion of the state machine's own catches some mutants.
    let ended = std::panic::catch_unwind(whole).unwrap_or_else(|_| Err("it panicked".to_owned()));
    ended.map_err(|what| format!("seed {seed}: {what}"))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_address_is_held_twice_and_none_leaks() {
    let wanted = number("PLAINROUTE_SIM").unwrap_or(1_500);
    let first = number("PLAINROUTE_SIM_SEED").unwrap_or(1);
    let mut given = 0;
    for seed in first.. {
        given += run(seed, Duration::from_secs(240), Chaos::full(), None).unwrap();
        println!("{given} addresses given out, seeds {first} to {seed}");
        if given >= wanted {
            break;
        }
    }
}

/// The control of the checker: without trouble nothing is refused for long, and every Pod got its address.
#[test]
fn without_trouble_every_pod_gets_its_address() {
    let mut sim = Sim::new(7, Chaos::none(), None);
    sim.run_until(Duration::from_secs(120)).unwrap();
    sim.quiesce().unwrap();
    assert!(sim.given > 400, "{} given", sim.given);
    assert_eq!(sim.refused_for("NoAPIServer") + sim.refused_for("TookTooLong"), 0, "{:?}", sim.refusals);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let trace = |seed| {
        let mut sim = Sim::new(seed, Chaos::full(), None);
        sim.run_until(Duration::from_secs(30)).unwrap();
        sim.digest
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

/// The negative controls: each way to break it is found, or the checker and the trouble are worth nothing.
#[test]
fn every_mutant_is_caught() {
    let mut missed = Vec::new();
    for (mutant, likely) in EVERY {
        let found = std::iter::once(likely)
            .chain(1..=60)
            .find_map(|seed| run(seed, Duration::from_secs(240), Chaos::full(), Some(mutant)).err());
        match found {
            Some(what) => println!("{mutant:?}: {what}"),
            None => missed.push(mutant),
        }
    }
    assert_eq!(missed, []);
}
