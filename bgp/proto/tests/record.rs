//! A recorded conversation of two sessions: replayed it is the same, and every damage to it is told.
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    AfiSafi, Asn, Families, RouterId,
    record::{Corrupt, End, Input, Reader, Record, Replay, TapedSession, write_end, write_header},
    session::{Action, ConnectionId, Event, GracefulRestartConfig, SessionConfig, State, StopReason},
    wire::{CeaseReason, Role},
};
use proptest::prelude::*;

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the origin of the virtual clock")]
    Instant::now()
}

fn config(local: u32, peer: u32) -> SessionConfig {
    let asn = |number| Asn::new(number).unwrap();
    SessionConfig {
        jitter_seed: 4711,
        graceful_restart: Some(GracefulRestartConfig {
            restart_time: 60,
            notification: true,
            long_lived_stale_time: 7,
        }),
        passive: local == 2,
        ..SessionConfig::new(asn(local), asn(peer), RouterId::new(local).unwrap())
    }
}

/// Two taped sessions whose octets take no time, and what both wrote into one recording.
struct Scene {
    now: Instant,
    sides: [TapedSession; 2],
    ids: [Option<ConnectionId>; 2],
    buffers: [BytesMut; 2],
    events: Vec<Event>,
    file: BytesMut,
}

impl Scene {
    fn new() -> Scene {
        let now = origin();
        let side = |number: u64, local, peer, name| {
            TapedSession::recorded(config(local, peer), number, name, now, now)
        };
        let mut file = BytesMut::new();
        write_header(&mut file);
        let sides = [side(1, 1, 2, "spine"), side(2, 2, 1, "leaf")];
        Scene { now, sides, ids: [None; 2], buffers: Default::default(), events: Vec::new(), file }
    }

    fn handle(&mut self, side: usize, input: Input) -> Option<ConnectionId> {
        let answer = self.sides[side].handle(self.now, input);
        self.settle();
        answer
    }

    /// Does what both ask for until neither asks for more.
    fn settle(&mut self) {
        while let Some((side, action)) =
            [0, 1].into_iter().find_map(|side| Some((side, self.sides[side].poll_action()?)))
        {
            let other = 1 - side;
            match action {
                Action::Connect(id) => {
                    self.ids[side] = Some(id);
                    self.ids[other] = self.sides[other].handle(self.now, Input::Accepted);
                    self.sides[side].handle(self.now, Input::Connected(id));
                }
                Action::Send(id, octets) if self.ids[side] == Some(id) => {
                    if let Some(to) = self.ids[other] {
                        // In two pieces, so that the rest of a message is kept over an input.
                        for piece in octets.chunks(octets.len().div_ceil(2)) {
                            self.buffers[other].extend_from_slice(piece);
                            self.sides[other].handle_input(self.now, to, &mut self.buffers[other]);
                        }
                    }
                }
                Action::Send(..) => {}
                Action::Close(_) => {
                    self.ids[side] = None;
                    if let Some(to) = self.ids[other].take() {
                        self.sides[other].handle(self.now, Input::Closed(to));
                    }
                }
            }
        }
        for side in &mut self.sides {
            self.events.extend(std::iter::from_fn(|| side.poll_event()));
            self.file.extend_from_slice(&side.take_records());
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.sides.iter().filter_map(|side| side.poll_timeout()).min() {
            if due > end {
                break;
            }
            self.now = self.now.max(due);
            for side in [0, 1] {
                self.handle(side, Input::Timeout);
            }
        }
        self.now = end;
    }

    /// Up, routes, a malformed UPDATE, a refresh, a change, quiet minutes, a lost connection, up again, down.
    fn life() -> Scene {
        let mut scene = Scene::new();
        scene.handle(1, Input::Start);
        scene.handle(0, Input::Start);
        assert_eq!(scene.sides[0].state(), State::Established, "{:?}", scene.events);
        let to = scene.ids[1].expect("connected");
        for update in [announcement(), malformed()] {
            scene.buffers[1].extend_from_slice(&update);
            scene.sides[1].handle_input(scene.now, to, &mut scene.buffers[1]);
        }
        scene.handle(1, Input::RequestRefresh(AfiSafi::Ipv4Unicast));
        scene.handle(
            0,
            Input::Config(Box::new(SessionConfig {
                keepalive: Some(Duration::from_secs(7)),
                ..config(1, 2)
            })),
        );
        scene.handle(0, Input::RestartComplete);
        scene.handle(0, Input::Sent);
        scene.run_for(Duration::from_secs(100));
        let lost = std::mem::take(&mut scene.ids);
        // The side that connects comes last: it does so at once.
        for side in [1, 0] {
            scene.handle(side, Input::Closed(lost[side].expect("connected")));
        }
        scene.run_for(Duration::from_secs(30));
        assert_eq!(scene.sides[0].counters().established, 2);
        scene.handle(
            0,
            Input::Stop(StopReason::Cease(CeaseReason::AdministrativeShutdown, "maintenance".into())),
        );
        scene
    }

    fn recording(mut self) -> Bytes {
        write_end(&mut self.file);
        self.file.freeze()
    }
}

fn announcement() -> BytesMut {
    let body =
        [0, 0, 0, 18, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0, 1, 0x40, 3, 4, 192, 0, 2, 1, 24, 10, 0, 1];
    let mut body = body.to_vec();
    body[3] = 20;
    framed(&body)
}

/// Without ORIGIN: RFC 7606 has it treated as a withdrawal.
fn malformed() -> BytesMut {
    framed(&[0, 0, 0, 16, 0x40, 2, 6, 2, 1, 0, 0, 0, 1, 0x40, 3, 4, 192, 0, 2, 1, 24, 10, 0, 2])
}

fn framed(body: &[u8]) -> BytesMut {
    let mut out = BytesMut::from(&[0xff; 16][..]);
    out.extend_from_slice(&u16::try_from(body.len() + 19).unwrap().to_be_bytes());
    out.extend_from_slice(&[2]);
    out.extend_from_slice(body);
    out
}

struct Replayed {
    records: usize,
    different: Vec<usize>,
    events: Vec<Event>,
    end: Result<End, Corrupt>,
    states: Vec<(String, State)>,
}

fn replay(octets: Bytes) -> Replayed {
    let mut replayed =
        Replayed { records: 0, different: vec![], events: vec![], end: Ok(End::Whole), states: vec![] };
    // Another origin than the recording's: only differences count.
    let mut replay = match Replay::new(octets, origin() + Duration::from_secs(1000)) {
        Ok(replay) => replay,
        Err(corrupt) => return Replayed { end: Err(corrupt), ..replayed },
    };
    replayed.end = loop {
        match replay.poll() {
            Ok(Ok(step)) => {
                replayed.records += 1;
                replayed.events.extend(step.events);
                if !step.same {
                    replayed.different.push(step.offset);
                }
            }
            Ok(Err(end)) => break Ok(end),
            Err(corrupt) => break Err(corrupt),
        }
    };
    replayed.states = replay.sessions().map(|(peer, session)| (peer.to_owned(), session.state())).collect();
    replayed
}

/// The recording's records, with where each begins.
fn records(octets: &Bytes) -> Vec<(usize, Record)> {
    let mut reader = Reader::new(octets.clone()).unwrap();
    let mut records = Vec::new();
    while let Ok(record) = reader.poll().unwrap() {
        records.push(record);
    }
    records
}

fn written<'a>(records: impl IntoIterator<Item = &'a Record>) -> Bytes {
    let mut out = BytesMut::new();
    write_header(&mut out);
    records.into_iter().for_each(|record| record.encode(&mut out));
    write_end(&mut out);
    out.freeze()
}

#[test]
fn a_replay_is_what_was_recorded() {
    let scene = Scene::life();
    let (mut events, states) = (scene.events.clone(), scene.sides.each_ref().map(|side| side.state()));
    let recorded = scene.recording();
    let mut replayed = replay(recorded.clone());
    assert_eq!((replayed.end, &replayed.different), (Ok(End::Whole), &Vec::new()));
    assert_eq!(replayed.states, [("spine".to_owned(), states[0]), ("leaf".to_owned(), states[1])]);
    // Both sides' events lie in the file as they were handed over, not in the order in which they came about.
    let text = |event: &Event| format!("{event:?}");
    events.sort_by_key(text);
    replayed.events.sort_by_key(text);
    assert_eq!(events, replayed.events);
    let findings =
        events.iter().filter(|event| matches!(event, Event::Update(_, findings) if !findings.is_empty()));
    assert_eq!(findings.count(), 1, "the malformed UPDATE");
    let kinds: std::collections::BTreeSet<_> = records(&recorded)
        .iter()
        .map(|(_, record)| format!("{:?}", record.input).split(['(', ' ']).next().unwrap().to_owned())
        .collect();
    assert_eq!(kinds.len(), 12, "every input but ConnectFailed: {kinds:?}");
}

/// The timers' jitter comes from the seed, so a replay with another one goes astray.
#[test]
fn without_the_seed_it_would_not_be() {
    let mut records: Vec<Record> =
        records(&Scene::life().recording()).into_iter().map(|(_, record)| record).collect();
    for record in &mut records {
        if let Input::New(config) = &mut record.input {
            config.jitter_seed += 1;
        }
    }
    let replayed = replay(written(&records));
    assert_eq!(replayed.end, Ok(End::Whole));
    assert!(!replayed.different.is_empty());
}

#[test]
fn a_cut_at_any_octet_is_told_and_all_before_it_is_replayed() {
    let whole = Scene::life().recording();
    let starts: Vec<usize> = records(&whole).into_iter().map(|(at, _)| at).collect();
    for cut in 0..whole.len() {
        let replayed = replay(whole.slice(..cut));
        assert_eq!(replayed.end, Ok(End::Cut(cut)));
        assert!(replayed.different.is_empty());
        let complete = starts.iter().skip(1).chain([&(whole.len() - 8)]).filter(|end| **end <= cut).count();
        assert_eq!(replayed.records, complete, "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_told_by_the_octet_of_its_record() {
    let whole = Scene::life().recording();
    let mut starts: Vec<usize> = records(&whole).into_iter().map(|(at, _)| at).collect();
    starts.push(whole.len() - 8);
    for at in 0..whole.len() {
        let mut flipped = BytesMut::from(&whole[..]);
        flipped[at] ^= 1 << (at % 8);
        let end = replay(flipped.freeze()).end;
        let expected = match at {
            0..8 => Corrupt::NotARecording,
            8..10 => Corrupt::Version(1 ^ if at == 8 { 1 << 8 } else { 2 }),
            _ => Corrupt::Record(*starts.iter().rfind(|start| **start <= at).unwrap()),
        };
        assert_eq!(end, Err(expected), "octet {at}");
    }
}

#[test]
fn what_stands_behind_the_end_is_corrupt() {
    let mut octets = BytesMut::from(&Scene::life().recording()[..]);
    let end = octets.len() - 8;
    octets.extend_from_slice(&[0]);
    assert_eq!(replay(octets.freeze()).end, Err(Corrupt::Record(end)));
}

#[test]
fn another_outcome_than_the_recorded_is_told_by_its_record() {
    let all = records(&Scene::life().recording());
    for (place, (offset, _)) in all.iter().enumerate() {
        let mut altered: Vec<Record> = all.iter().map(|(_, record)| record.clone()).collect();
        altered[place].digest ^= 1;
        assert_eq!(replay(written(&altered)).different, [*offset]);
    }
}

#[test]
fn an_input_that_is_missing_is_noticed() {
    let all = records(&Scene::life().recording());
    let without: Vec<&Record> = all
        .iter()
        .map(|(_, record)| record)
        .filter(|record| !matches!(record.input, Input::Connected(_)))
        .collect();
    assert!(!replay(written(without)).different.is_empty());
}

#[test]
fn a_recording_that_begins_within_a_session_is_refused() {
    let all = records(&Scene::life().recording());
    let octets =
        written(all.iter().map(|(_, record)| record).filter(|record| !matches!(record.input, Input::New(_))));
    assert_eq!(replay(octets).end, Err(Corrupt::Record(10)));
}

/// A timer that has run out again as soon as it began would keep the replay busy for ever. Found by the fuzz target.
#[test]
fn a_timer_without_an_interval_is_refused() {
    let alter: [fn(&mut SessionConfig); 3] = [
        |config| config.connect_retry = Duration::ZERO,
        |config| config.keepalive = Some(Duration::from_nanos(1)),
        |config| config.send_hold = Some(Duration::ZERO),
    ];
    for alter in alter {
        let mut config = config(1, 2);
        alter(&mut config);
        let input = Input::New(Box::new(config));
        let record = Record { session: 0, peer: "leaf".to_owned(), at: Duration::ZERO, input, digest: 0 };
        assert_eq!(replay(written(&[record])).end, Err(Corrupt::Record(10)));
    }
}

#[test]
fn a_peer_that_was_removed_and_is_back_is_another_session() {
    let now = origin();
    let (mut old, mut new) = (
        TapedSession::recorded(config(1, 2), 1, "leaf", now, now),
        TapedSession::recorded(config(1, 2), 2, "leaf", now, now),
    );
    // The old one's task ends behind the begin of the new one.
    old.handle(now, Input::Start);
    new.handle(now, Input::Start);
    old.handle(now, Input::Stop(StopReason::Retain));
    let mut file = BytesMut::new();
    write_header(&mut file);
    file.extend_from_slice(&new.take_records());
    file.extend_from_slice(&old.take_records());
    write_end(&mut file);
    let replayed = replay(file.freeze());
    assert_eq!((replayed.end, replayed.different), (Ok(End::Whole), vec![]));
    assert_eq!(replayed.states, [("leaf".to_owned(), State::Idle), ("leaf".to_owned(), State::Connect)]);
}

#[test]
fn a_recording_that_stopped_changes_nothing_for_the_session() {
    let now = origin();
    let mut taped = TapedSession::recorded(config(1, 2), 1, "leaf", now, now);
    taped.handle(now, Input::Start);
    taped.stop_recording();
    assert!(taped.take_records().is_empty());
    assert!(matches!(taped.poll_action(), Some(Action::Connect(_))), "what came out before is still there");
    assert!(taped.poll_event().is_some());
    taped.handle(now, Input::Stop(StopReason::Retain));
    assert!(matches!(taped.poll_action(), Some(Action::Close(_))));
    assert!(taped.take_records().is_empty());
}

fn configs() -> impl Strategy<Value = SessionConfig> {
    let families = || {
        prop::sample::select(vec![
            Families::NONE,
            Families::ALL,
            Families::from_iter([AfiSafi::Ipv4Unicast]),
            Families::from_iter([AfiSafi::Ipv6Unicast]),
        ])
    };
    let duration = || (1_000_000..=u64::MAX).prop_map(Duration::from_nanos);
    let restart = (any::<u16>(), any::<bool>(), any::<u32>()).prop_map(
        |(restart_time, notification, long_lived_stale_time)| GracefulRestartConfig {
            restart_time,
            notification,
            long_lived_stale_time,
        },
    );
    let roles: Vec<Option<Role>> = (0..=5).map(Role::from_code).collect();
    (
        (1..u32::MAX, 1..u32::MAX, any::<u64>(), duration()),
        prop::array::uniform4(families()),
        any::<[bool; 6]>(),
        (prop::option::of(duration()), prop::option::of(duration()), prop::option::of(restart)),
        prop::sample::select(roles),
    )
        .prop_map(
            |(
                (local, router, jitter_seed, connect_retry),
                families,
                flags,
                (keepalive, send_hold, graceful_restart),
                role,
            )| {
                let asn = Asn::new(local).unwrap_or(Asn::new(1).unwrap());
                SessionConfig {
                    jitter_seed,
                    connect_retry,
                    families: families[0],
                    forwarding_preserved: families[1],
                    add_path_receive: families[2],
                    add_path_send: families[3],
                    passive: flags[0],
                    restarting: flags[1],
                    extended_next_hop: flags[2],
                    enhanced_refresh: flags[3],
                    extended_messages: flags[4],
                    role_required: flags[5],
                    keepalive,
                    send_hold,
                    graceful_restart,
                    role,
                    ..SessionConfig::new(asn, Asn::new(65000).unwrap(), RouterId::new(router).unwrap())
                }
            },
        )
}

fn inputs() -> impl Strategy<Value = Input> {
    let id = || any::<u64>().prop_map(ConnectionId);
    let cease = prop::sample::select(vec![CeaseReason::AdministrativeShutdown, CeaseReason::BfdDown]);
    prop_oneof![
        configs().prop_map(|config| Input::New(Box::new(config))),
        configs().prop_map(|config| Input::Config(Box::new(config))),
        (cease.clone(), ".{0,40}").prop_map(|(reason, text)| Input::Stop(StopReason::Cease(reason, text))),
        (cease, ".{0,40}").prop_map(|(reason, text)| Input::Stop(StopReason::HardReset(reason, text))),
        id().prop_map(Input::Connected),
        id().prop_map(Input::ConnectFailed),
        id().prop_map(Input::Closed),
        (id(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(id, octets)| Input::Octets(id, octets.into())),
        Just(Input::RequestRefresh(AfiSafi::Ipv6Unicast)),
        Just(Input::Stop(StopReason::Retain)),
        prop::sample::select(vec![
            Input::Start,
            Input::Accepted,
            Input::Timeout,
            Input::Sent,
            Input::RestartComplete
        ]),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same(
        session in any::<u64>(), peer in ".{0,20}", at in any::<u64>(), digest in any::<u64>(), input in inputs(),
    ) {
        let record = Record { session, peer, at: Duration::from_nanos(at), input, digest };
        let read = records(&written([&record]));
        prop_assert_eq!(read, [(10, record)]);
    }

    #[test]
    fn no_series_of_inputs_panics(all in prop::collection::vec((any::<u32>(), inputs()), 0..30)) {
        let first = Record { session: 0, peer: "x".into(), at: Duration::ZERO, input: Input::New(Box::new(config(1, 2))), digest: 0 };
        let rest = all.into_iter().map(|(at, input)| Record { at: Duration::from_nanos(at.into()), input, ..first.clone() });
        let replayed = replay(written(&std::iter::once(first.clone()).chain(rest).collect::<Vec<_>>()));
        prop_assert_eq!(replayed.end, Ok(End::Whole));
    }
}

/// The checked-in seed of the fuzz target, which is also what keeps the form of the file from changing unnoticed.
#[test]
fn the_form_of_the_file_is_as_checked_in() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/record/life");
    let whole = Scene::life().recording();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &whole).unwrap();
    }
    let replayed = replay(std::fs::read(path).unwrap().into());
    assert_eq!((replayed.end, replayed.different), (Ok(End::Whole), vec![]));
    assert_eq!(std::fs::read(path).unwrap(), whole, "raise the version of the form, or UPDATE=1");
}
