//! What came out of a session as one number. FNV-1a: the same on every machine and in every build, unlike a keyed hash.
use std::fmt;

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
            Event::StateChanged { from, to } => self.text(format_args!("{from}>{to}")),
            Event::Established(id, negotiated) => {
                self.put(&tagged(4, id.0));
                self.put(&negotiated.peer_open_octets);
                self.text(format_args!("{} {:?}", negotiated.hold_time, negotiated.families));
            }
            Event::Down(reason) => self.text(format_args!("down {reason}")),
            Event::Failed(reason) => self.text(format_args!("failed {reason}")),
            Event::Update(update, findings) => self.text(format_args!("{update:?} {findings:?}")),
            Event::RefreshRequested(family) => self.text(format_args!("refresh {family}")),
            Event::RefreshBegan(family) => self.text(format_args!("began {family}")),
            Event::RefreshEnded(family) => self.text(format_args!("ended {family}")),
        }
    }

    /// Without a copy of the text: an UPDATE's may be long.
    fn text(&mut self, text: fmt::Arguments<'_>) {
        // Nothing here can fail.
        let _ = fmt::Write::write_fmt(self, text);
    }

    pub(super) fn answer(&mut self, answer: u64) {
        self.put(&tagged(5, answer));
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

fn tagged(tag: u8, number: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [tag, a, b, c, d, e, f, g, h]
}
