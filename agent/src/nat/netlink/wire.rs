//! Netlink messages of the kernel's netfilter: bytes out and bytes in. Nothing here knows what they are about.
use netlink_packet_core::{NLA_TYPE_MASK, NetlinkBuffer, NlasIterator};

/// Header of a netlink message, then of a netfilter message.
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NESTED: u16 = 1 << 15;

/// Builds messages one behind the other.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

/// What stands before a message's attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) family: u8,
    /// In a batch's frame the subsystem that it is for.
    pub(super) resource: u16,
}

impl Writer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn message(&mut self, head: Head, body: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(head.kind.to_ne_bytes());
        self.bytes.extend(head.flags.to_ne_bytes());
        self.bytes.extend(head.sequence.to_ne_bytes());
        // The port: the kernel fills it in.
        self.bytes.extend([0; 4]);
        self.bytes.extend([head.family, 0]);
        self.bytes.extend(head.resource.to_be_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.overwrite(start, &length.to_ne_bytes());
    }

    pub(super) fn bytes_of(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |writer| writer.bytes.extend(value));
    }

    /// A text, ended by a zero byte.
    pub(super) fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, |writer| {
            writer.bytes.extend(text.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// Numbers stand in network order.
    pub(super) fn number(&mut self, kind: u16, number: u32) {
        self.bytes_of(kind, &number.to_be_bytes());
    }

    pub(super) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) {
        self.attribute(kind | NESTED, body);
    }

    fn attribute(&mut self, kind: u16, body: impl FnOnce(&mut Writer)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        body(self);
        let length = self.bytes.len() - start;
        // Callers split what might not fit.
        debug_assert!(length <= usize::from(u16::MAX));
        self.overwrite(start, &(length as u16).to_ne_bytes());
        self.bytes.resize(start + length.next_multiple_of(4), 0);
    }

    fn overwrite(&mut self, at: usize, with: &[u8]) {
        self.bytes.iter_mut().skip(at).zip(with).for_each(|(to, from)| *to = *from);
    }
}

/// One message of a datagram.
pub(super) struct Frame<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) port: u32,
    /// Behind the netlink header.
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The family, and the attributes behind it.
    pub(super) fn netfilter(&self) -> Option<(u8, &'a [u8])> {
        Some((*self.payload.first()?, self.payload.get(4..)?))
    }
}

/// The messages of a datagram; it ends early at one that is cut short.
pub(super) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(datagram).ok()?;
        let length = buffer.length() as usize;
        let frame = Frame {
            kind: buffer.message_type(),
            flags: buffer.flags(),
            sequence: buffer.sequence_number(),
            port: buffer.port_number(),
            payload: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(frame)
    })
}

/// The attributes in `bytes`, each with its kind without flags; it ends at the first that is cut short.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    NlasIterator::new(bytes).map_while(Result::ok).map_while(move |attribute| {
        let length = attribute.length() as usize;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((attribute.kind() & NLA_TYPE_MASK, value))
    })
}

/// The first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn long(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// A text that may end with a zero byte.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(bytes.get(..end)?).ok()
}
