//! The end of a run: the trouble is over, all Pods go, and nothing may be left.
use std::time::Duration;

use super::world::{Event, Sim};
use crate::Input;

impl Sim {
    /// The trouble ends, all Pods go, and after a while nothing may be left.
    pub(crate) fn quiesce(&mut self) -> Result<(), String> {
        self.quiet = true;
        self.sets.clear();
        self.edited = false;
        for node in 0..self.nodes.len() {
            self.nodes[node].cut_off = false;
            if !self.nodes[node].on {
                self.fenced.remove(&self.nodes[node].name);
                self.nodes[node].on = true;
            }
            self.after(1, Event::Starts(node));
            self.after(50, Event::World(node));
        }
        for node in 0..self.nodes.len() {
            self.feed(node, Input::Fenced(self.fenced.clone()))?;
        }
        for pod in 0..self.pods.len() {
            self.after(2_000, Event::PodStops(pod));
        }
        let end = self.time + Duration::from_secs(1800);
        while self.time < end {
            self.run_until(self.time + Duration::from_secs(60))?;
            if self.what_is_left().is_ok() && self.store.objects.is_empty() {
                break;
            }
        }
        self.what_is_left()?;
        match self.store.objects.values().next() {
            Some(object) => Err(format!("a leak: {object:?}")),
            None => Ok(()),
        }
    }

    fn what_is_left(&self) -> Result<(), String> {
        for node in &self.nodes {
            let holdings = node.ipam.as_ref().map(crate::Ipam::holdings).unwrap_or_default();
            if let Some((address, holder)) = holdings.held.first_key_value() {
                return Err(format!("a leak: {} holds {address} for {holder:?}", node.name));
            }
            if !node.tickets.is_empty() {
                return Err(format!("{} never answered {:?}", node.name, node.tickets));
            }
            if let Some((cidr, block)) = holdings.blocks.first_key_value() {
                return Err(format!("a leak: {} keeps {cidr}: {block:?}", node.name));
            }
        }
        Ok(())
    }
}
