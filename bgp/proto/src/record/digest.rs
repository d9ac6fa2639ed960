//! What came out of a session as one number. FNV-1a: the same on every machine and in every build, unlike a keyed hash.
use crate::session::{Action, Event};

pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn new() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn number(&self) -> u64 {
        self.0
    }

    fn put(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = (self.0 ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn action(&mut self, action: &Action) {
        match action {
            Action::Connect(id) => self.put(&tagged(1, id.0)),
            Action::Send(id, octets) => {
                self.put(&tagged(2, id.0));
                self.put(octets);
            }
            Action::Close(id) => self.put(&tagged(3, id.0)),
        }
    }

    /// Events are told by their text, whole: it shows every route, finding and reason.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::StateChanged { from, to } => self.put(format!("{from}>{to}").as_bytes()),
            Event::Established(id, negotiated) => {
                self.put(&tagged(4, id.0));
                self.put(&negotiated.peer_open_octets);
                self.put(format!("{} {:?}", negotiated.hold_time, negotiated.families).as_bytes());
            }
            Event::Down(reason) => self.put(format!("down {reason}").as_bytes()),
            Event::Failed(reason) => self.put(format!("failed {reason}").as_bytes()),
            Event::Update(update, findings) => self.put(format!("{update:?} {findings:?}").as_bytes()),
            Event::RefreshRequested(family) => self.put(format!("refresh {family}").as_bytes()),
            Event::RefreshBegan(family) => self.put(format!("began {family}").as_bytes()),
            Event::RefreshEnded(family) => self.put(format!("ended {family}").as_bytes()),
        }
    }

    pub(super) fn answer(&mut self, answer: u64) {
        self.put(&tagged(5, answer));
    }
}

fn tagged(tag: u8, number: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [tag, a, b, c, d, e, f, g, h]
}
