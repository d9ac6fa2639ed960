//! AS_PATH: two or four octets a number, segments, and how AS4_PATH is merged in (RFC 6793).
use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{AsPath, AsPathSegment, SegmentKind};
use crate::Asn;

/// The most numbers of one segment on the wire.
const MAX_SEGMENT: usize = 255;

impl SegmentKind {
    const fn from_code(code: u8) -> Option<SegmentKind> {
        match code {
            1 => Some(SegmentKind::Set),
            2 => Some(SegmentKind::Sequence),
            3 => Some(SegmentKind::ConfedSequence),
            4 => Some(SegmentKind::ConfedSet),
            _ => None,
        }
    }

    const fn code(self) -> u8 {
        match self {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => 2,
            SegmentKind::ConfedSequence => 3,
            SegmentKind::ConfedSet => 4,
        }
    }

    /// Whether the segment belongs to a confederation (RFC 5065).
    pub const fn is_confederation(self) -> bool {
        matches!(self, SegmentKind::ConfedSequence | SegmentKind::ConfedSet)
    }
}

impl AsPathSegment {
    /// What the segment adds to the path's length (RFC 4271 section 9.1.2.2, RFC 5065 section 5.3).
    fn hop_count(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.asns.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        }
    }
}

impl AsPath {
    /// The path with these numbers as one AS_SEQUENCE, nearest first; without any, the empty path.
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> AsPath {
        let asns: Vec<Asn> = asns.into_iter().collect();
        let segment = AsPathSegment { kind: SegmentKind::Sequence, asns };
        AsPath { segments: if segment.asns.is_empty() { Vec::new() } else { vec![segment] } }
    }

    /// The length that best path selection compares: a set counts as one, a confederation's segments as none.
    pub fn hop_count(&self) -> usize {
        self.segments.iter().map(AsPathSegment::hop_count).sum()
    }

    /// All numbers, nearest first.
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.segments.iter().flat_map(|segment| segment.asns.iter().copied())
    }

    /// Whether `asn` is anywhere in the path (RFC 4271 section 9.1.2: a loop, where it is ours).
    pub fn contains(&self, asn: Asn) -> bool {
        self.asns().any(|other| other == asn)
    }

    /// The neighbouring AS: the first number of a leading AS_SEQUENCE, which MED compares by.
    pub fn first_asn(&self) -> Option<Asn> {
        let outside = self.segments.iter().find(|segment| !segment.kind.is_confederation())?;
        outside.asns.first().copied().filter(|_| outside.kind == SegmentKind::Sequence)
    }

    /// The AS that originated the route: the last number, where the path ends in an AS_SEQUENCE. The end of an
    /// aggregate's path is a set, which does not say who of them.
    pub fn origin_asn(&self) -> Option<Asn> {
        let last = self.segments.last()?;
        last.asns.last().copied().filter(|_| last.kind == SegmentKind::Sequence)
    }

    /// Whether it holds segments of a confederation.
    pub(super) fn has_confederation(&self) -> bool {
        self.segments.iter().any(|segment| segment.kind.is_confederation())
    }

    /// AS4_PATH must not carry them (RFC 6793 section 6).
    pub(super) fn without_confederation(mut self) -> AsPath {
        self.segments.retain(|segment| !segment.kind.is_confederation());
        self
    }

    /// Whether some number needs four octets.
    pub(super) fn is_wide(&self) -> bool {
        self.asns().any(|asn| asn.number() > u32::from(u16::MAX))
    }

    /// Adjacent sequences are one: a sender splits them at 255 numbers at the latest, and where it does has no
    /// meaning.
    fn push(&mut self, segment: AsPathSegment) {
        match self.segments.last_mut() {
            Some(last) if last.kind == SegmentKind::Sequence && segment.kind == SegmentKind::Sequence => {
                last.asns.extend(segment.asns);
            }
            _ => self.segments.push(segment),
        }
    }

    /// The value of AS_PATH or AS4_PATH; the error says what is malformed (RFC 7606 section 7.2, RFC 7607).
    pub(super) fn decode(value: &[u8], four_octets: bool) -> Result<AsPath, &'static str> {
        let mut path = AsPath::default();
        let mut rest = value;
        while !rest.is_empty() {
            let (&[kind, count], after) =
                rest.split_first_chunk().ok_or("AS_PATH ends within a segment (RFC 7606 section 7.2)")?;
            let kind = SegmentKind::from_code(kind).ok_or("unknown segment type (RFC 7606 section 7.2)")?;
            if count == 0 {
                return Err("empty segment (RFC 7606 section 7.2)");
            }
            let width: usize = if four_octets { 4 } else { 2 };
            let (numbers, after) = after
                .split_at_checked(usize::from(count).saturating_mul(width))
                .ok_or("segment overruns AS_PATH (RFC 7606 section 7.2)")?;
            let asns = if four_octets { wide(numbers) } else { narrow(numbers) };
            let asns = asns.ok_or("AS 0 in AS_PATH (RFC 7607 section 2)")?;
            path.push(AsPathSegment { kind, asns });
            rest = after;
        }
        Ok(path)
    }

    /// Writes the value, in four octets or with AS_TRANS in two.
    pub(super) fn encode(&self, four_octets: bool, out: &mut BytesMut) {
        for segment in &self.segments {
            for part in segment.asns.chunks(MAX_SEGMENT) {
                out.put_u8(segment.kind.code());
                out.put_u8(u8::try_from(part.len()).unwrap_or(u8::MAX));
                for asn in part {
                    match four_octets {
                        true => out.put_u32(asn.number()),
                        false => out.put_u16(asn.two_octets()),
                    }
                }
            }
        }
    }

    /// Puts AS4_PATH in the place of the AS_PATH that an OLD speaker sent (RFC 6793 section 4.2.3): what AS_PATH
    /// has more at its front, the hops that did not understand, stays before it.
    pub(super) fn merge(self, as4_path: AsPath) -> AsPath {
        let Some(mut keep) = self.hop_count().checked_sub(as4_path.hop_count()) else { return self };
        let mut merged = AsPath::default();
        for mut segment in self.segments {
            if !segment.kind.is_confederation() {
                if keep == 0 {
                    break;
                }
                if segment.kind == SegmentKind::Sequence {
                    segment.asns.truncate(keep);
                }
                keep = keep.saturating_sub(segment.hop_count());
            }
            merged.push(segment);
        }
        for segment in as4_path.segments {
            merged.push(segment);
        }
        merged
    }
}

fn wide(numbers: &[u8]) -> Option<Vec<Asn>> {
    let (numbers, _) = numbers.as_chunks();
    numbers.iter().map(|number| Asn::new(u32::from_be_bytes(*number))).collect()
}

fn narrow(numbers: &[u8]) -> Option<Vec<Asn>> {
    let (numbers, _) = numbers.as_chunks();
    numbers.iter().map(|number| Asn::new(u32::from(u16::from_be_bytes(*number)))).collect()
}

impl fmt::Display for AsPath {
    /// `64600 64512 {65001,65002}`, confederations in parentheses or brackets; empty for the empty path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let (open, separator, close) = match segment.kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
                SegmentKind::ConfedSequence => ("(", " ", ")"),
                SegmentKind::ConfedSet => ("[", ",", "]"),
            };
            f.write_str(if index == 0 { "" } else { " " })?;
            f.write_str(open)?;
            for (index, asn) in segment.asns.iter().enumerate() {
                f.write_str(if index == 0 { "" } else { separator })?;
                write!(f, "{asn}")?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(kind: SegmentKind, asns: &[u32]) -> AsPathSegment {
        AsPathSegment { kind, asns: asns.iter().map(|n| Asn::new(*n).unwrap()).collect() }
    }

    fn path(segments: &[AsPathSegment]) -> AsPath {
        AsPath { segments: segments.to_vec() }
    }

    fn sequence(asns: &[u32]) -> AsPath {
        AsPath::sequence(asns.iter().map(|n| Asn::new(*n).unwrap()))
    }

    #[test]
    fn as4_path_stands_behind_what_it_lacks() {
        let merged = sequence(&[100, 200, 23456, 300]).merge(sequence(&[70_000, 300]));
        assert_eq!(merged, sequence(&[100, 200, 70_000, 300]));
        // More hops in AS4_PATH than in AS_PATH: it is ignored.
        assert_eq!(sequence(&[100]).merge(sequence(&[70_000, 300])), sequence(&[100]));
        // A set counts as one hop and stays whole.
        let set = segment(SegmentKind::Set, &[1, 2, 3]);
        let old = path(&[set.clone(), segment(SegmentKind::Sequence, &[23456])]);
        assert_eq!(old.merge(sequence(&[70_000])), path(&[set, segment(SegmentKind::Sequence, &[70_000])]));
    }

    #[test]
    fn a_leading_confederation_survives_the_merge() {
        let confed = segment(SegmentKind::ConfedSequence, &[65001]);
        let old = path(&[confed.clone(), segment(SegmentKind::Sequence, &[23456, 300])]);
        let expected = path(&[confed, segment(SegmentKind::Sequence, &[70_000, 300])]);
        assert_eq!(old.merge(sequence(&[70_000, 300])), expected);
    }

    #[test]
    fn a_long_sequence_is_split_and_joined() {
        let long: Vec<u32> = (1..=600).collect();
        let mut out = BytesMut::new();
        sequence(&long).encode(true, &mut out);
        assert_eq!((out[1], out[2 + 255 * 4 + 1], out.len()), (255, 255, 600 * 4 + 6));
        assert_eq!(AsPath::decode(&out, true), Ok(sequence(&long)));
    }

    #[test]
    fn an_empty_segment_is_never_written() {
        let mut out = BytesMut::new();
        path(&[segment(SegmentKind::Sequence, &[]), segment(SegmentKind::Set, &[])]).encode(true, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn lengths_loops_and_neighbours() {
        let confed = segment(SegmentKind::ConfedSequence, &[65001, 65002]);
        let whole = path(&[
            confed,
            segment(SegmentKind::Sequence, &[64600, 64601]),
            segment(SegmentKind::Set, &[7, 8]),
        ]);
        assert_eq!(whole.hop_count(), 3);
        assert_eq!(whole.first_asn(), Asn::new(64600));
        assert!(whole.contains(Asn::new(8).unwrap()) && !whole.contains(Asn::new(9).unwrap()));
        assert_eq!(whole.to_string(), "(65001 65002) 64600 64601 {7,8}");
        assert_eq!(path(&[segment(SegmentKind::Set, &[7])]).first_asn(), None);
    }
}
