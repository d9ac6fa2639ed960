//! OPEN (RFC 4271 section 4.2) with capabilities (RFC 5492) and extended optional parameters (RFC 9072).
use bytes::{BufMut, BytesMut};
use nom::{
    Parser,
    combinator::all_consuming,
    multi::{length_data, many0},
    number::complete::{be_u8, be_u16, be_u32},
};

use super::{
    AddPathFamily, Capability, GracefulRestart, LongLivedFamily, Notification, Role, capability, frame,
    iana::{MessageType, error, parameter},
    parse::{Parsed, finish, refuse},
};
use crate::{AfiSafi, Asn, Families, HoldTime, RouterId};

const VERSION: u8 = 4;

/// An OPEN, sent or received. Invalid ones cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: the four-octet one where the capability carries it (RFC 6793).
    pub asn: Asn,
    /// The proposed hold time.
    pub hold_time: HoldTime,
    /// The sender's BGP Identifier.
    pub router_id: RouterId,
    /// The capabilities, in the order of the wire.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Parses the body; an error is the NOTIFICATION of RFC 4271 section 6.2.
    pub fn decode(body: &[u8]) -> Result<Open, Notification> {
        finish(all_consuming(open).parse(body), Notification::open(error::UNSPECIFIC))
    }

    /// Writes the whole message: the capabilities in one optional parameter, with RFC 9072's lengths where 255
    /// octets do not hold them. A capability that has no wire form, being longer than 255 octets, is left out;
    /// so is what would lead beyond 4096 octets.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = frame::begin(MessageType::Open, out);
        out.put_u8(VERSION);
        out.put_u16(self.asn.two_octets());
        out.put_u16(self.hold_time.seconds());
        out.put_u32(self.router_id.number());
        let mut capabilities = BytesMut::new();
        for capability in &self.capabilities {
            let before = capabilities.len();
            capability.encode(&mut capabilities);
            if capabilities.len() > MAX_CAPABILITIES {
                capabilities.truncate(before);
            }
        }
        put_parameters(&capabilities, out);
        frame::finish(start, out);
    }

    /// The families that the sender speaks: without any multiprotocol capability, IPv4 unicast (RFC 4760
    /// section 8).
    pub fn families(&self) -> Families {
        let multi_protocol = |capability: &Capability| match capability {
            Capability::MultiProtocol(family) => Some(Some(*family)),
            Capability::Unknown { code, .. } if *code == super::iana::capability::MULTI_PROTOCOL => {
                Some(None)
            }
            _ => None,
        };
        let mut said = self.capabilities.iter().filter_map(multi_protocol).peekable();
        match said.peek() {
            Some(_) => said.flatten().collect(),
            None => [AfiSafi::Ipv4Unicast].into_iter().collect(),
        }
    }

    /// Whether the sender writes AS numbers in four octets (RFC 6793).
    pub fn four_octet_asn(&self) -> bool {
        self.capabilities.iter().any(|capability| matches!(capability, Capability::FourOctetAsn(_)))
    }

    /// Whether exactly this capability is there.
    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }

    /// The graceful restart capability; the last where there are several (RFC 4724 section 3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    }

    /// The families of long-lived graceful restart (RFC 9494); the last where the capability is there several
    /// times, `None` where it is not there or has no companion: it means nothing without graceful restart
    /// (section 4.1).
    pub fn long_lived(&self) -> Option<&[LongLivedFamily]> {
        self.graceful_restart()?;
        self.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::LongLivedGracefulRestart(families) => Some(families.as_slice()),
            _ => None,
        })
    }

    /// What the sender says of add-path (RFC 7911), family by family.
    pub fn add_path(&self) -> impl Iterator<Item = AddPathFamily> {
        let families = self.capabilities.iter().filter_map(|capability| match capability {
            Capability::AddPath(families) => Some(families.iter().copied()),
            _ => None,
        });
        families.flatten()
    }

    /// The roles that the sender claims (RFC 9234), `None` for one that is not assigned. More than one value is
    /// an error of the sender.
    pub fn roles(&self) -> impl Iterator<Item = Option<Role>> {
        self.capabilities.iter().filter_map(|capability| match capability {
            Capability::Role(role) => Some(Some(*role)),
            Capability::Unknown { code, .. } if *code == super::iana::capability::ROLE => Some(None),
            _ => None,
        })
    }

    /// The families whose next hop the sender takes as IPv6 too (RFC 8950).
    pub fn extended_next_hop(&self) -> Families {
        let families = self.capabilities.iter().filter_map(|capability| match capability {
            Capability::ExtendedNextHop(families) => Some(families.iter().copied()),
            _ => None,
        });
        families.flatten().collect()
    }
}

/// What is left of 4096 octets for capabilities: header 19, fixed fields 9, extended lengths 4, parameter header 3.
const MAX_CAPABILITIES: usize = frame::MAX_LENGTH - 19 - 9 - 4 - 3;

fn put_parameters(capabilities: &[u8], out: &mut BytesMut) {
    let total = capabilities.len().saturating_add(2);
    match (u8::try_from(capabilities.len()), u8::try_from(total)) {
        _ if capabilities.is_empty() => out.put_u8(0),
        (Ok(length), Ok(total)) if total < parameter::EXTENDED_LENGTH => {
            out.put_u8(total);
            out.put_u8(parameter::CAPABILITIES);
            out.put_u8(length);
        }
        _ => {
            let length = u16::try_from(capabilities.len()).unwrap_or(u16::MAX);
            out.put_u8(parameter::EXTENDED_LENGTH);
            out.put_u8(parameter::EXTENDED_LENGTH);
            out.put_u16(length.saturating_add(3));
            out.put_u8(parameter::CAPABILITIES);
            out.put_u16(length);
        }
    }
    out.put_slice(capabilities);
}

fn open(input: &[u8]) -> Parsed<'_, Open> {
    let (input, version) = be_u8(input)?;
    if version != VERSION {
        return Err(refuse(Notification::unsupported_version()));
    }
    let (input, (two_octets, hold_time, router_id)) = (be_u16, be_u16, be_u32).parse(input)?;
    // RFC 7607 section 2: zero in the field, like zero in the capability, is a bad peer AS.
    let bad_as = || refuse(Notification::open(error::BAD_PEER_AS));
    let field = Asn::new(u32::from(two_octets)).ok_or_else(bad_as)?;
    let hold_time =
        HoldTime::new(hold_time).ok_or_else(|| refuse(Notification::open(error::UNACCEPTABLE_HOLD_TIME)))?;
    let router_id =
        RouterId::new(router_id).ok_or_else(|| refuse(Notification::open(error::BAD_BGP_IDENTIFIER)))?;
    let (input, capabilities) = optional_parameters(input)?;
    let wide = capabilities.iter().find_map(|capability| match capability {
        Capability::FourOctetAsn(asn) => Some(*asn),
        _ => None,
    });
    Ok((input, Open { asn: wide.unwrap_or(field), hold_time, router_id, capabilities }))
}

/// The optional parameters, in either form: RFC 9072 is told by the type 255 where the first parameter would be.
fn optional_parameters(input: &[u8]) -> Parsed<'_, Vec<Capability>> {
    let (input, parameters, extended) = match input {
        [1..=255, parameter::EXTENDED_LENGTH, rest @ ..] => {
            let (input, parameters) = length_data(be_u16).parse(rest)?;
            (input, parameters, true)
        }
        _ => {
            let (input, parameters) = length_data(be_u8).parse(input)?;
            (input, parameters, false)
        }
    };
    let one = |input| if extended { parameter(be_u16, input) } else { parameter(be_u8, input) };
    let (_, lists) = all_consuming(many0(one)).parse(parameters)?;
    Ok((input, lists.into_iter().flatten().collect()))
}

/// One optional parameter; all but capabilities are unsupported (RFC 4271 section 6.2).
fn parameter<'a, L, N>(length: L, input: &'a [u8]) -> Parsed<'a, Vec<Capability>>
where
    L: Parser<&'a [u8], Output = N, Error = super::parse::Malformed>,
    N: nom::ToUsize,
{
    let (input, kind) = be_u8(input)?;
    if kind != parameter::CAPABILITIES {
        return Err(refuse(Notification::open(error::UNSUPPORTED_OPTIONAL_PARAMETER)));
    }
    let (input, value) = length_data(length).parse(input)?;
    let (_, capabilities) = all_consuming(many0(capability::parse)).parse(value)?;
    Ok((input, capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(parameters: &[u8]) -> Vec<u8> {
        let mut body = vec![4, 0xfc, 0x00, 0, 9, 10, 0, 0, 1];
        body.extend_from_slice(parameters);
        body
    }

    fn decode(parameters: &[u8]) -> Result<Open, Notification> {
        Open::decode(&body(parameters))
    }

    #[test]
    fn each_wrong_field_has_its_subcode() {
        let change = |at: usize, with: &[u8]| {
            let mut octets = body(&[0]);
            octets[at..at + with.len()].copy_from_slice(with);
            Open::decode(&octets).unwrap_err()
        };
        assert_eq!(change(0, &[3]), Notification::new(2, 1, vec![0, 4]));
        assert_eq!(change(1, &[0, 0]), Notification::open(error::BAD_PEER_AS));
        assert_eq!(change(3, &[0, 2]), Notification::open(error::UNACCEPTABLE_HOLD_TIME));
        assert_eq!(change(3, &[0, 1]), Notification::open(error::UNACCEPTABLE_HOLD_TIME));
        assert_eq!(change(5, &[0, 0, 0, 0]), Notification::open(error::BAD_BGP_IDENTIFIER));
        assert_eq!(
            decode(&[2, 1, 0]).unwrap_err(),
            Notification::open(error::UNSUPPORTED_OPTIONAL_PARAMETER)
        );
    }

    #[test]
    fn lengths_that_do_not_add_up_are_unspecific() {
        for parameters in
            [&[][..], &[1][..], &[0, 0][..], &[3, 2, 2, 65][..], &[2, 2, 1][..], &[4, 2, 2, 65, 4][..]]
        {
            assert_eq!(decode(parameters), Err(Notification::open(error::UNSPECIFIC)), "{parameters:?}");
        }
    }

    #[test]
    fn the_four_octet_number_wins_and_must_not_be_zero() {
        let open = decode(&[8, 2, 6, 65, 4, 0xfa, 0x56, 0xea, 0x00]).unwrap();
        assert_eq!(open.asn.number(), 4_200_000_000);
        let zero = decode(&[8, 2, 6, 65, 4, 0, 0, 0, 0]);
        assert_eq!(zero, Err(Notification::open(error::BAD_PEER_AS)));
    }

    #[test]
    fn both_forms_of_parameters_are_read() {
        let expected = decode(&[4, 2, 2, 2, 0]).unwrap();
        assert_eq!(decode(&[8, 2, 0, 2, 4, 2, 0, 6, 0]).unwrap().capabilities.len(), 2);
        assert_eq!(decode(&[255, 255, 0, 5, 2, 0, 2, 2, 0]).unwrap(), expected);
        // RFC 9072 section 2: any length but zero may stand before the type 255.
        assert_eq!(decode(&[7, 255, 0, 5, 2, 0, 2, 2, 0]).unwrap(), expected);
    }

    #[test]
    fn many_capabilities_need_and_get_extended_lengths() {
        let unknown = |code| Capability::Unknown { code, value: bytes::Bytes::from(vec![code; 100]) };
        let mut open = decode(&[0]).unwrap();
        open.capabilities = (200..240).map(unknown).collect();
        let mut out = BytesMut::new();
        open.encode(&mut out);
        assert_eq!(&out[28..32], &[255, 255, 0x0f, 0x8d]);
        let mut kept = Open::decode(&out[19..]).unwrap();
        assert_eq!(kept.capabilities.len(), 39, "what does not fit 4096 octets is left out");
        kept.capabilities.push(open.capabilities.pop().unwrap());
        assert_eq!(kept.capabilities, (200..240).map(unknown).collect::<Vec<_>>());
    }

    #[test]
    fn without_the_capability_ipv4_is_meant() {
        let families = |parameters: &[u8]| decode(parameters).unwrap().families();
        assert_eq!(families(&[0]), [AfiSafi::Ipv4Unicast].into_iter().collect());
        assert_eq!(families(&[8, 2, 6, 1, 4, 0, 2, 0, 1]), [AfiSafi::Ipv6Unicast].into_iter().collect());
        assert_eq!(families(&[8, 2, 6, 1, 4, 0, 25, 0, 70]), Families::NONE);
    }
}
