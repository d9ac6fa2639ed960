//! What an address of a block is to its owner, and how the block's object says it.
use jiff::Timestamp;
use plainroute_config::IpAllocation;
use serde::{Deserialize, Serialize};

use crate::{Attachment, Holder};

/// An address that is not simply free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Slot {
    /// A Pod of this node has it.
    Held(Holder),
    /// Nobody has it; it waits for the next Pod of that name.
    Kept(Kept),
    /// Another node borrowed it.
    Lent(Lent),
    /// Nobody has it, but somebody had until then.
    Resting(Timestamp),
}

/// For whom an address is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's StatefulSet: while it exists, the address is kept.
    pub stateful_set: String,
    /// Since when.
    pub since: Timestamp,
}

/// To whom an address is lent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lent {
    /// The node.
    pub node: String,
    /// The UID of that node's IPBlock, which says that it still has the address.
    pub loan: String,
    /// For whom it is kept once it is given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Since when.
    pub since: Timestamp,
}

impl Holder {
    /// The interface that has the address, as CNI names it.
    pub fn attachment(&self) -> Attachment {
        Attachment { container_id: self.container_id.clone(), interface: self.interface.clone() }
    }

    /// For whom the address is kept after this Pod.
    pub(crate) fn kept(&self, since: Timestamp) -> Option<Kept> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        self.stateful_set.clone().map(|stateful_set| Kept { namespace, name, stateful_set, since })
    }

    /// As a block's object says it.
    pub(crate) fn allocation(&self, ordinal: u16) -> IpAllocation {
        IpAllocation {
            pod_uid: Some(self.pod_uid.clone()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            container_id: Some(self.container_id.clone()),
            interface: Some(self.interface.clone()).filter(|interface| !interface.is_empty()),
            stateful_set: self.stateful_set.clone(),
            ..empty(ordinal, self.since)
        }
    }
}

impl Kept {
    fn allocation(&self, ordinal: u16) -> IpAllocation {
        IpAllocation {
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            stateful_set: Some(self.stateful_set.clone()),
            ..empty(ordinal, self.since)
        }
    }

    /// Whether it is kept for that Pod.
    pub(crate) fn is_for(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }
}

impl Slot {
    /// As a block's object says it; that an address rests is the owner's affair.
    pub(crate) fn allocation(&self, ordinal: u16) -> Option<IpAllocation> {
        match self {
            Slot::Held(holder) => Some(holder.allocation(ordinal)),
            Slot::Kept(kept) => Some(kept.allocation(ordinal)),
            Slot::Lent(lent) => {
                let kept = lent.kept.as_ref().map(|kept| kept.allocation(ordinal));
                let base = kept.unwrap_or_else(|| empty(ordinal, lent.since));
                let (lent_to, loan) = (Some(lent.node.clone()), Some(lent.loan.clone()));
                Some(IpAllocation { lent_to, loan, since: lent.since, ..base })
            }
            Slot::Resting(_) => None,
        }
    }

    /// Whether the object says just that of the address, told without making it.
    pub(crate) fn is_said_by(&self, ordinal: u16, one: &IpAllocation) -> bool {
        let same = |field: &Option<String>, text: &str| field.as_deref() == Some(text);
        one.ordinal == ordinal
            && match self {
                Slot::Held(holder) => {
                    let interface = Some(holder.interface.as_str()).filter(|interface| !interface.is_empty());
                    one.lent_to.is_none()
                        && same(&one.container_id, &holder.container_id)
                        && same(&one.pod_uid, &holder.pod_uid)
                        && same(&one.namespace, &holder.namespace)
                        && same(&one.name, &holder.name)
                        && one.interface.as_deref() == interface
                        && one.stateful_set == holder.stateful_set
                        && one.since == holder.since
                }
                Slot::Kept(_) | Slot::Lent(_) => self.allocation(ordinal).as_ref() == Some(one),
                Slot::Resting(_) => false,
            }
    }

    /// From a block's object.
    pub(crate) fn of(one: &IpAllocation) -> Slot {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let kept = one.stateful_set.clone().map(|stateful_set| Kept {
            namespace: text(&one.namespace),
            name: text(&one.name),
            stateful_set,
            since: one.since,
        });
        match (&one.lent_to, &one.container_id, kept) {
            (Some(node), _, kept) => {
                Slot::Lent(Lent { node: node.clone(), loan: text(&one.loan), kept, since: one.since })
            }
            (None, None, Some(kept)) => Slot::Kept(kept),
            (None, container, _) => Slot::Held(Holder {
                namespace: text(&one.namespace),
                name: text(&one.name),
                pod_uid: text(&one.pod_uid),
                container_id: container.clone().unwrap_or_default(),
                interface: text(&one.interface),
                stateful_set: one.stateful_set.clone(),
                since: one.since,
            }),
        }
    }

    /// Who has it, for a message.
    pub(crate) fn who(&self) -> String {
        match self {
            Slot::Held(holder) => {
                format!("held by Pod {}/{} (UID {})", holder.namespace, holder.name, holder.pod_uid)
            }
            Slot::Kept(kept) => {
                format!("kept for Pod {}/{} of StatefulSet {}", kept.namespace, kept.name, kept.stateful_set)
            }
            Slot::Lent(lent) => format!("lent to node {}", lent.node),
            Slot::Resting(since) => format!("resting since {since}"),
        }
    }
}

fn empty(ordinal: u16, since: Timestamp) -> IpAllocation {
    IpAllocation {
        ordinal,
        pod_uid: None,
        namespace: None,
        name: None,
        container_id: None,
        interface: None,
        stateful_set: None,
        lent_to: None,
        loan: None,
        since,
    }
}
