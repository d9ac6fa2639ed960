//! Packets that must not count: from too far away, cut short, for no session of ours, signed although nothing is
//! (RFC 5880 section 6.8.6, RFC 5881 section 5). Each is dropped and counted by its cause; the session goes on.

use std::net::UdpSocket;
use std::num::NonZeroU8;

use plainroute_agent::bfd::protocol::{BfdPath, Told};
use plainroute_bfd::{ControlPacket, Diagnostic, Discriminator, State};
use plainroute_tests::routers::Frr;

use crate::process::{Agent, Process, all, of};
use crate::{Link, OURS, THEIRS, frr_config, ip};

/// What the router would say that has just lost us.
fn down(view: &plainroute_agent::bfd::protocol::BfdView) -> Vec<u8> {
    let packet = ControlPacket {
        diagnostic: Diagnostic::CONTROL_DETECTION_TIME_EXPIRED,
        state: State::Down,
        poll: false,
        final_: false,
        control_plane_independent: false,
        demand: false,
        detect_multiplier: NonZeroU8::new(3).unwrap(),
        my_discriminator: Discriminator::new(view.remote_discriminator.unwrap()).unwrap(),
        your_discriminator: Discriminator::new(view.local_discriminator),
        desired_min_tx: None,
        required_min_rx: None,
        required_min_echo_rx: None,
    };
    packet.encode().to_vec()
}

/// Sends from the router's namespace.
fn send(link: &Link, ttl: u32, port: u16, packet: &[u8]) {
    let socket = link.theirs.within(|| UdpSocket::bind((ip(THEIRS[0]), 0))).unwrap();
    socket.set_ttl(ttl).unwrap();
    socket.send_to(packet, (ip(OURS[0]), port)).unwrap();
}

/// Waits until the cause was counted that often, in all.
fn await_count(agent: &mut Agent, cause: &str, number: u64) -> Told {
    let counted = |told: &Told| {
        let early = told.discarded.get(cause).copied().unwrap_or(0);
        early + of(told, THEIRS[0]).discarded.get(cause).copied().unwrap_or(0)
    };
    let told = agent.await_told(cause, |told| counted(told) >= number);
    assert_eq!(counted(&told), number, "{cause}");
    told
}

#[test]
fn what_must_not_count_is_dropped_and_counted_by_cause() {
    let link = Link::new();
    let timing = "receive-interval 100\n  transmit-interval 100\n  detect-multiplier 10";
    let _frr = Frr::launch(&link.theirs, &frr_config(timing)).unwrap();
    let process = Process::start(&link.ours);
    let mut agent = process.attach();
    agent.want(&all()[..1]);
    let view = of(&agent.await_up(), THEIRS[0]);
    let valid = down(&view);
    let change = |place: usize, value: u8| {
        let mut packet = valid.clone();
        packet[place] = value;
        packet
    };
    let unknown = view.local_discriminator.wrapping_add(1).to_be_bytes()[3];
    let cases: [(&str, u32, u16, Vec<u8>); 9] = [
        ("hop_limit", 254, 3784, valid.clone()),
        ("version", 255, 3784, change(0, 0x40)),
        ("length_too_small", 255, 3784, change(3, 23)),
        ("length_beyond_payload", 255, 3784, valid[..20].to_vec()),
        ("detect_mult_zero", 255, 3784, change(2, 0)),
        ("your_discriminator_unknown", 255, 3784, change(11, unknown)),
        ("multipoint", 255, 3784, change(1, valid[1] | 1)),
        ("authentication_not_in_use", 255, 3784, {
            let mut signed = change(1, valid[1] | 4);
            signed[3] = 28;
            signed.extend([1, 4, 0, b'x']);
            signed
        }),
        ("port", 255, 4784, valid.clone()),
    ];
    // Somebody has to listen on the other port for the last of them.
    let mut wanted = all()[..1].to_vec();
    let mut far = wanted[0].clone();
    far.target.hops = NonZeroU8::new(2);
    far.target.peer_address = ip("10.9.9.9");
    far.target.local_address = Some(ip(OURS[0]));
    wanted.push(far);
    agent.want(&wanted);
    agent.await_told("both", |told| told.sessions.len() == 2);
    for (cause, ttl, port, packet) in &cases {
        for _ in 0..3 {
            send(&link, *ttl, *port, packet);
        }
        let told = await_count(&mut agent, cause, 3);
        let view = of(&told, THEIRS[0]);
        assert_eq!((view.path, view.down_count), (BfdPath::Up, 0), "{cause}");
    }
    // Negative control: the same packet from one hop away ends the session, so nothing else was wrong with it.
    send(&link, 255, 3784, &valid);
    // It may be up again by the time that it is told, so that the diagnostic is gone; a silent peer is no reason.
    let told = agent.await_told("down", |told| of(told, THEIRS[0]).down_count == 1);
    let diagnostic = of(&told, THEIRS[0]).diagnostic;
    assert_ne!(diagnostic.as_deref(), Some("control detection time expired"));
}
