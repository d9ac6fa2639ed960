//! What was chosen, over a restart: in `stateDir/egress.json`. Whoever starts again has heard no router yet, and must send the
//! Pods' packets where they went before.
use std::{collections::BTreeMap, fs, io, net::IpAddr, path::Path};

use serde::{Deserialize, Serialize};

use super::Choice;
use crate::state_file;

const FILE: &str = "egress.json";

/// What a later process begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// For each egress IP where its packets went.
    pub choices: BTreeMap<IpAddr, Choice>,
    /// The number of each gateway.
    pub slots: BTreeMap<u8, IpAddr>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    /// By egress IP: the node and its address, or none where they left here.
    choices: BTreeMap<IpAddr, Option<(String, IpAddr)>>,
    slots: BTreeMap<u8, IpAddr>,
}

impl Remembered {
    /// What an earlier process left; nothing where there was none.
    pub fn load(state_dir: &Path) -> io::Result<Remembered> {
        let text = match fs::read(state_dir.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
            Err(error) => return Err(error),
        };
        let Written { choices, slots } = serde_json::from_slice(&text).map_err(io::Error::other)?;
        let choice = |(address, gateway): (IpAddr, Option<(String, IpAddr)>)| {
            let choice = gateway.map_or(Choice::Here, |(node, address)| Choice::Gateway { node, address });
            (address, choice)
        };
        Ok(Remembered { choices: choices.into_iter().map(choice).collect(), slots })
    }

    /// Leaves it for the next.
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        let choice = |(address, choice): (&IpAddr, &Choice)| {
            let gateway = match choice {
                Choice::Here => None,
                Choice::Gateway { node, address } => Some((node.clone(), *address)),
            };
            (*address, gateway)
        };
        let written =
            Written { choices: self.choices.iter().map(choice).collect(), slots: self.slots.clone() };
        state_file::replace(&state_dir.join(FILE), &serde_json::to_vec(&written).map_err(io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_and_what_is_damaged_is_said() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Remembered::load(dir.path()).unwrap(), Remembered::default());
        let gateway = Choice::Gateway { node: "gw-1".into(), address: [192, 0, 2, 1].into() };
        let left = Remembered {
            choices: [([198, 51, 100, 7].into(), gateway), ([198, 51, 100, 8].into(), Choice::Here)].into(),
            slots: [(3, [192, 0, 2, 1].into())].into(),
        };
        left.save(dir.path()).unwrap();
        assert_eq!(Remembered::load(dir.path()).unwrap(), left);
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Remembered::load(dir.path()).is_err());
    }
}
