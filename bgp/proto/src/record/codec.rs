//! An input as octets and back. Numbers are big-endian; what may be absent has an octet 0 or 1 before it.
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use nom::{
    IResult, Parser,
    combinator::{map_opt, rest, verify},
    multi::length_data,
    number::complete::{be_u8, be_u16, be_u32, be_u64},
};

use super::Input;
use crate::{
    AfiSafi, Asn, Families, HoldTime, RouterId,
    session::{ConnectionId, GracefulRestartConfig, SessionConfig, StopReason},
    wire::{CeaseReason, Role},
};

/// Jitter takes a quarter of it at most.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

type Parsed<'a, T> = IResult<&'a [u8], T>;

pub(super) fn put(input: &Input, out: &mut BytesMut) {
    match input {
        Input::New(config) => {
            out.put_u8(0);
            put_config(config, out);
        }
        Input::Start => out.put_u8(1),
        Input::Stop(StopReason::Retain) => out.put_slice(&[2, 0]),
        Input::Stop(StopReason::Cease(reason, text)) => put_stop(1, *reason, text, out),
        Input::Stop(StopReason::HardReset(reason, text)) => put_stop(2, *reason, text, out),
        Input::Connected(id) => put_id(3, *id, out),
        Input::ConnectFailed(id) => put_id(4, *id, out),
        Input::Accepted => out.put_u8(5),
        Input::Octets(id, octets) => {
            put_id(6, *id, out);
            out.put_slice(octets);
        }
        Input::Closed(id) => put_id(7, *id, out),
        Input::Timeout => out.put_u8(8),
        Input::Sent => out.put_u8(9),
        Input::RestartComplete => out.put_u8(10),
        Input::Config(config) => {
            out.put_u8(11);
            put_config(config, out);
        }
        Input::RequestRefresh(family) => {
            out.put_u8(12);
            out.put_u16(family.afi());
            out.put_u8(family.safi());
        }
    }
}

pub(super) fn parse(input: &[u8]) -> Parsed<'_, Input> {
    let (input, kind) = be_u8(input)?;
    match kind {
        0 => config(input).map(|(input, config)| (input, Input::New(Box::new(config)))),
        1 => Ok((input, Input::Start)),
        2 => stop(input).map(|(input, reason)| (input, Input::Stop(reason))),
        3 => id(input).map(|(input, id)| (input, Input::Connected(id))),
        4 => id(input).map(|(input, id)| (input, Input::ConnectFailed(id))),
        5 => Ok((input, Input::Accepted)),
        6 => {
            let (input, (id, octets)) = (id, rest).parse(input)?;
            Ok((input, Input::Octets(id, Bytes::copy_from_slice(octets))))
        }
        7 => id(input).map(|(input, id)| (input, Input::Closed(id))),
        8 => Ok((input, Input::Timeout)),
        9 => Ok((input, Input::Sent)),
        10 => Ok((input, Input::RestartComplete)),
        11 => config(input).map(|(input, config)| (input, Input::Config(Box::new(config)))),
        12 => map_opt((be_u16, be_u8), |(afi, safi)| AfiSafi::from_code(afi, safi))
            .parse(input)
            .map(|(input, family)| (input, Input::RequestRefresh(family))),
        _ => Err(nom::Err::Failure(nom::error::Error::new(input, nom::error::ErrorKind::Tag))),
    }
}

fn put_id(kind: u8, id: ConnectionId, out: &mut BytesMut) {
    out.put_u8(kind);
    out.put_u64(id.0);
}

fn id(input: &[u8]) -> Parsed<'_, ConnectionId> {
    be_u64.map(ConnectionId).parse(input)
}

fn put_stop(form: u8, reason: CeaseReason, text: &str, out: &mut BytesMut) {
    out.put_slice(&[2, form, reason.code()]);
    // 255 octets at most leave for the peer, so no more matter.
    let text = text.get(..text.floor_char_boundary(usize::from(u16::MAX))).unwrap_or_default();
    out.put_u16(u16::try_from(text.len()).unwrap_or_default());
    out.put_slice(text.as_bytes());
}

fn stop(input: &[u8]) -> Parsed<'_, StopReason> {
    let (input, form) = verify(be_u8, |form| *form <= 2).parse(input)?;
    if form == 0 {
        return Ok((input, StopReason::Retain));
    }
    let (input, reason) = map_opt(be_u8, CeaseReason::from_code).parse(input)?;
    let text = |text: &[u8]| std::str::from_utf8(text).ok().map(str::to_owned);
    let (input, text) = map_opt(length_data(be_u16), text).parse(input)?;
    let reason =
        if form == 1 { StopReason::Cease(reason, text) } else { StopReason::HardReset(reason, text) };
    Ok((input, reason))
}

fn put_config(config: &SessionConfig, out: &mut BytesMut) {
    // Whole, so that a new field does not compile until it has its place here.
    let SessionConfig {
        local_asn,
        peer_asn,
        router_id,
        passive,
        hold_time,
        connect_retry,
        keepalive,
        families,
        graceful_restart,
        restarting,
        forwarding_preserved,
        extended_next_hop,
        enhanced_refresh,
        extended_messages,
        role,
        role_required,
        add_path_receive,
        add_path_send,
        send_hold,
        jitter_seed,
    } = config;
    out.put_u32(local_asn.number());
    out.put_u32(peer_asn.number());
    out.put_u32(router_id.number());
    out.put_u16(hold_time.seconds());
    out.put_u64(*jitter_seed);
    put_duration(*connect_retry, out);
    for duration in [keepalive, send_hold] {
        out.put_u8(u8::from(duration.is_some()));
        put_duration(duration.unwrap_or_default(), out);
    }
    for families in [families, forwarding_preserved, add_path_receive, add_path_send] {
        let bit = |family: AfiSafi| u8::from(families.contains(family));
        out.put_u8(bit(AfiSafi::Ipv4Unicast) | bit(AfiSafi::Ipv6Unicast) << 1);
    }
    for flag in [passive, restarting, extended_next_hop, enhanced_refresh, extended_messages, role_required] {
        out.put_u8(u8::from(*flag));
    }
    out.put_u8(role.map_or(u8::MAX, Role::code));
    out.put_u8(u8::from(graceful_restart.is_some()));
    if let Some(GracefulRestartConfig { restart_time, notification, long_lived_stale_time }) =
        graceful_restart
    {
        out.put_u16(*restart_time);
        out.put_u8(u8::from(*notification));
        out.put_u32(*long_lived_stale_time);
    }
}

fn config(input: &[u8]) -> Parsed<'_, SessionConfig> {
    let (input, (local_asn, peer_asn)) =
        (map_opt(be_u32, Asn::new), map_opt(be_u32, Asn::new)).parse(input)?;
    let (input, router_id) = map_opt(be_u32, RouterId::new).parse(input)?;
    let (input, hold_time) = map_opt(be_u16, HoldTime::new).parse(input)?;
    let (input, (jitter_seed, connect_retry)) = (be_u64, interval).parse(input)?;
    let (input, (keepalive, send_hold)) = (optional_interval, optional_interval).parse(input)?;
    let (input, (families, forwarding_preserved, add_path_receive, add_path_send)) =
        (self::families, self::families, self::families, self::families).parse(input)?;
    let (input, (passive, restarting, extended_next_hop)) = (flag, flag, flag).parse(input)?;
    let (input, (enhanced_refresh, extended_messages, role_required)) = (flag, flag, flag).parse(input)?;
    let role = |code| if code == u8::MAX { Some(None) } else { Role::from_code(code).map(Some) };
    let (input, role) = map_opt(be_u8, role).parse(input)?;
    let (input, graceful) = flag(input)?;
    let (input, graceful_restart) = if graceful {
        let (input, (restart_time, notification, long_lived_stale_time)) =
            (be_u16, flag, be_u32).parse(input)?;
        (input, Some(GracefulRestartConfig { restart_time, notification, long_lived_stale_time }))
    } else {
        (input, None)
    };
    let config = SessionConfig {
        local_asn,
        peer_asn,
        router_id,
        passive,
        hold_time,
        connect_retry,
        keepalive,
        families,
        graceful_restart,
        restarting,
        forwarding_preserved,
        extended_next_hop,
        enhanced_refresh,
        extended_messages,
        role,
        role_required,
        add_path_receive,
        add_path_send,
        send_hold,
        jitter_seed,
    };
    Ok((input, config))
}

fn flag(input: &[u8]) -> Parsed<'_, bool> {
    map_opt(be_u8, |octet| match octet {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    })
    .parse(input)
}

fn families(input: &[u8]) -> Parsed<'_, Families> {
    let of = |bits: u8| {
        let both = [(1, AfiSafi::Ipv4Unicast), (2, AfiSafi::Ipv6Unicast)];
        both.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, family)| family).collect()
    };
    verify(be_u8, |bits| *bits < 4).map(of).parse(input)
}

pub(super) fn put_duration(duration: Duration, out: &mut BytesMut) {
    out.put_u64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
}

pub(super) fn duration(input: &[u8]) -> Parsed<'_, Duration> {
    be_u64.map(Duration::from_nanos).parse(input)
}

/// One that a timer begins anew with. A session whose timer has run out again as soon as it began would never come to
/// an end with it; none is told so little.
fn interval(input: &[u8]) -> Parsed<'_, Duration> {
    verify(duration, |interval| *interval >= SHORTEST_INTERVAL).parse(input)
}

fn optional_interval(input: &[u8]) -> Parsed<'_, Option<Duration>> {
    let (input, there) = flag(input)?;
    if there {
        interval.map(Some).parse(input)
    } else {
        // The place is there all the same.
        duration.map(|_| None).parse(input)
    }
}
