//! What each node is shown, late, incomplete or wrong once; and what breaks: agents, machines, the network, clocks and pools.

use super::world::{Event, Sim};
use crate::{Input, Observation, Ticket};

impl Sim {
    pub(super) fn watches(&mut self, node: usize) -> Result<(), String> {
        // In the quiet at the end all that happens takes its time.
        let pause = if self.quiet { self.rng.u64(1_000..15_000) } else { self.rng.u64(100..1500) };
        self.after(pause, Event::Watches(node));
        if self.nodes[node].cut_off {
            return Ok(());
        }
        let behind = if self.quiet || self.chance(600) { 0 } else { self.rng.usize(0..40) };
        let view = self.store.view(behind);
        let name = self.nodes[node].name.clone();
        let owned = view.values().filter(|object| object.spec.node == name).cloned().collect();
        let asked =
            view.values().filter(|object| object.spec.lender_node.as_ref() == Some(&name)).cloned().collect();
        self.feed(node, Input::Owned(owned))?;
        self.feed(node, Input::Asked(asked))
    }

    pub(super) fn observes(&mut self, node: usize) -> Result<(), String> {
        let pause = self.rng.u64(8_000..25_000);
        self.after(pause, Event::Observes(node));
        let mut sandboxes = self.nodes[node].sandboxes.clone();
        // One look may be wrong, never two in a row.
        let wrong = self.chaos.events && !self.quiet && !self.nodes[node].looked_wrong && self.chance(150);
        self.nodes[node].looked_wrong = wrong;
        if wrong && self.nodes[node].ipam.as_ref().is_some_and(|ipam| ipam.is_whole()) {
            let missed = sandboxes.keys().next().cloned();
            missed.iter().for_each(|attachment| drop(sandboxes.remove(attachment)));
        }
        if self.rng.u32(0..4) == 0 {
            let ticket = Ticket(self.number());
            return self.feed(node, Input::Gc(ticket, self.nodes[node].live()));
        }
        let stateful_sets = Some(self.sets.clone());
        self.feed(node, Input::Observed(Observation { sandboxes, stateful_sets }))
    }

    pub(super) fn trouble(&mut self) -> Result<(), String> {
        if self.quiet || !self.chaos.events {
            return Ok(());
        }
        let pause = self.rng.u64(500..6_000);
        self.after(pause, Event::Trouble);
        let node = self.rng.usize(0..self.nodes.len());
        match self.rng.u32(0..10) {
            0..=3 if self.nodes[node].ipam.is_some() => return self.agent_dies(node),
            4 | 5 => {
                self.nodes[node].cut_off = true;
                let heals = self.rng.u64(200..10_000);
                self.after(heals, Event::Heals(node));
            }
            6 if self.nodes[node].on && self.fenced.is_empty() => return self.machine_dies(node),
            7 => self.nodes[node].skew = self.rng.i64(-90..90),
            8 => {
                // A pool is edited, and the nodes hear of it one by one.
                self.edited = !self.edited;
                for node in 0..self.nodes.len() {
                    let hears = self.rng.u64(0..4_000);
                    self.after(hears, Event::World(node));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn machine_dies(&mut self, node: usize) -> Result<(), String> {
        self.nodes[node].on = false;
        self.nodes[node].boots += 1;
        self.nodes[node].sandboxes.clear();
        self.truth.retain(|_, (of, _)| *of != node);
        self.agent_dies(node)?;
        self.pods_of_dead(node);
        let fences = self.rng.u64(1_000..20_000);
        self.after(fences, Event::Fences(node));
        Ok(())
    }

    /// First the dead node is fenced; later it comes back. Both is heard of sooner or later.
    pub(super) fn fences(&mut self, node: usize) -> Result<(), String> {
        let name = self.nodes[node].name.clone();
        let back = !self.fenced.insert(name.clone());
        if back {
            self.fenced.remove(&name);
            self.nodes[node].on = true;
            self.after(10, Event::Starts(node));
        } else {
            let returns = self.rng.u64(2_000..30_000);
            self.after(returns, Event::Fences(node));
        }
        for other in 0..self.nodes.len() {
            let hears = self.rng.u64(0..5_000);
            self.after(hears, Event::Hears(other));
        }
        Ok(())
    }

    pub(super) fn hears(&mut self, node: usize) -> Result<(), String> {
        self.feed(node, Input::Fenced(self.fenced.clone()))?;
        // Now and then a node sees that to the whole of it.
        match self.fenced.first().cloned() {
            Some(dead) if self.rng.u32(0..4) == 0 => self.feed(node, Input::Inherit(dead, None)),
            Some(_) | None => Ok(()),
        }
    }
}
