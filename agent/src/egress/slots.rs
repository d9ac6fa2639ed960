//! The number that each gateway has on this node: in the packet mark, and of its table. It stays with the gateway for as long
//! as anything in the kernel may use it.
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// How many there can be: one mark is kept for packets that leave on this node.
const SLOTS: std::ops::RangeInclusive<u8> = 1..=253;

/// Gateways and their numbers.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    assigned: BTreeMap<u8, IpAddr>,
    wanted: BTreeSet<IpAddr>,
    /// The last generation of nftables' desired state that marked packets for a slot.
    marked: BTreeMap<u8, u64>,
    generation: u64,
    installed: u64,
}

impl Slots {
    /// Begins with the numbers of an earlier process.
    pub fn new(assigned: BTreeMap<u8, IpAddr>) -> Slots {
        // What that one had marked last is unknown until nftables has taken something of ours.
        let marked = assigned.keys().map(|slot| (*slot, 1)).collect();
        Slots { assigned, marked, ..Slots::default() }
    }

    /// These gateways are in use. Where there are more than numbers, the last ones have none.
    pub fn assign(&mut self, gateways: BTreeSet<IpAddr>) {
        self.wanted = gateways;
        self.forget();
        let missing: Vec<IpAddr> =
            self.wanted.iter().filter(|gateway| self.of(gateway).is_none()).copied().collect();
        let free = SLOTS.filter(|slot| !self.assigned.contains_key(slot));
        let new: Vec<(u8, IpAddr)> = free.zip(missing).collect();
        self.assigned.extend(new);
    }

    /// nftables is to mark for these slots from this generation on.
    pub fn handle_desired(&mut self, used: &BTreeSet<u8>, generation: u64) {
        self.generation = generation;
        for slot in used {
            self.marked.insert(*slot, generation);
        }
    }

    /// nftables holds what was desired in this generation.
    pub fn handle_installed(&mut self, generation: u64) {
        self.installed = generation;
        self.forget();
    }

    /// The number of a gateway.
    pub fn of(&self, gateway: &IpAddr) -> Option<u8> {
        self.assigned.iter().find(|(_, of)| *of == gateway).map(|(slot, _)| *slot)
    }

    /// All numbers that are taken.
    pub fn assigned(&self) -> &BTreeMap<u8, IpAddr> {
        &self.assigned
    }

    /// Those whose tables must stand.
    pub fn standing(&self) -> impl Iterator<Item = (&u8, &IpAddr)> {
        self.assigned.iter()
    }

    /// Gives numbers back that neither is wanted nor can be marked any more.
    fn forget(&mut self) {
        let (wanted, marked) = (&self.wanted, &mut self.marked);
        let (generation, installed) = (self.generation, self.installed);
        self.assigned.retain(|slot, gateway| {
            // Marked last by a generation that a later one has replaced in the kernel.
            let replaced = marked.get(slot).is_none_or(|last| *last < generation && generation <= installed);
            wanted.contains(gateway) || !replaced
        });
        marked.retain(|slot, _| self.assigned.contains_key(slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn set(lasts: &[u8]) -> BTreeSet<IpAddr> {
        lasts.iter().map(|last| gateway(*last)).collect()
    }

    #[test]
    fn a_number_stays_until_nothing_in_the_kernel_can_use_it() {
        let mut slots = Slots::default();
        slots.assign(set(&[1, 2]));
        assert_eq!((slots.of(&gateway(1)), slots.of(&gateway(2))), (Some(1), Some(2)));
        slots.handle_desired(&[1, 2].into(), 1);
        slots.handle_installed(1);
        // The first is not used any more, but packets are still marked for it.
        slots.assign(set(&[2, 3]));
        assert_eq!(slots.of(&gateway(1)), Some(1));
        assert_eq!(slots.of(&gateway(3)), Some(3), "a number in use is nobody else's");
        slots.handle_desired(&[2, 3].into(), 2);
        assert_eq!(slots.of(&gateway(1)), Some(1));
        slots.handle_installed(2);
        assert_eq!(slots.of(&gateway(1)), None);
        slots.assign(set(&[2, 3, 4]));
        assert_eq!(slots.of(&gateway(4)), Some(1), "then it is");
    }

    #[test]
    fn the_numbers_of_an_earlier_process_stay_until_ours_stand() {
        let mut slots = Slots::new([(5, gateway(1))].into());
        slots.assign(set(&[2]));
        assert_eq!((slots.of(&gateway(1)), slots.of(&gateway(2))), (Some(5), Some(1)));
        slots.handle_desired(&[1].into(), 1);
        slots.handle_installed(1);
        slots.assign(set(&[2]));
        assert_eq!(slots.of(&gateway(1)), Some(5), "the first of ours might be equal to what was there");
        slots.handle_desired(&[1].into(), 2);
        slots.handle_installed(2);
        assert_eq!(slots.of(&gateway(1)), None);
    }

    #[test]
    fn more_gateways_than_numbers_leave_the_last_without() {
        let mut slots = Slots::default();
        let many: BTreeSet<IpAddr> =
            (0..300u16).map(|n| IpAddr::from([192, 0, (n >> 8) as u8, n as u8])).collect();
        slots.assign(many);
        assert_eq!(slots.assigned().len(), 253);
        assert_eq!(slots.of(&[192, 0, 1, 43].into()), None);
    }
}
