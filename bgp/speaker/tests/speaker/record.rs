//! What a running speaker records replays as the same.
use std::{path::Path, time::Instant};

use plainroute_bgp::{
    record::{Corrupt, End, Input, Record, Replay, Step, write_end, write_header},
    session::{Event, State},
};
use plainroute_speaker::{PeerConfig, Recorder, SpeakerConfig, StopMode};

use crate::network::{Node, prefix, within_deadline};

fn recorded(path: &Path) -> SpeakerConfig {
    SpeakerConfig { restarting: true, recorder: Some(Recorder::create(path).unwrap()), ..Default::default() }
}

type States = Vec<(String, State)>;

/// All steps, how the recording ends, and the states of the sessions then.
fn replay(octets: Vec<u8>) -> (Vec<Step>, Result<End, Corrupt>, States) {
    let mut replay = Replay::new(octets.into(), Instant::now()).unwrap();
    let mut steps = Vec::new();
    let end = loop {
        match replay.poll() {
            Ok(Ok(step)) => steps.push(step),
            Ok(Err(end)) => break Ok(end),
            Err(corrupt) => break Err(corrupt),
        }
    };
    let states = replay.sessions().map(|(peer, session)| (peer.to_owned(), session.state())).collect();
    (steps, end, states)
}

#[tokio::test]
async fn what_two_speakers_recorded_replays_as_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| directory.path().join(name));
    let (a, b) = (Node::with(1, recorded(&paths[0])), Node::with(2, recorded(&paths[1])));
    b.peers([(&a, b.waits_for(&a))]).await;
    a.peers([(&b, a.towards(&b))]).await;
    a.established(&b).await;
    a.tell(&b, &["10.1.0.0/28", "10.2.0.0/28"]).await;
    a.speaker.initial_sync_done();
    b.speaker.initial_sync_done();
    b.learned_prefixes(&["10.1.0.0/28", "10.2.0.0/28"]).await;
    // Another import: b asks for the routes again.
    b.peers([(&a, PeerConfig { import: Vec::new(), ..b.waits_for(&a) })]).await;
    b.learned_prefixes(&[]).await;
    // A change that ends the session, and a peer that is removed and comes back.
    let slower = PeerConfig { hold_time: plainroute_bgp::HoldTime::new(30).unwrap(), ..a.towards(&b) };
    a.peers([(&b, slower.clone())]).await;
    a.status(&b, |status| {
        status.state == State::Established
            && status
                .negotiated
                .as_ref()
                .is_some_and(|negotiated| negotiated.local_open.hold_time.seconds() == 30)
    })
    .await;
    a.peers([]).await;
    b.status(&a, |status| status.state != State::Established).await;
    a.peers([(&b, slower)]).await;
    a.established(&b).await;
    b.established(&a).await;
    within_deadline(a.speaker.clone().stop(StopMode::Withdraw)).await;
    within_deadline(b.speaker.clone().stop(StopMode::Retain)).await;

    for (path, peer, sessions) in [(&paths[0], "node-2", 2), (&paths[1], "node-1", 1)] {
        let (steps, end, states) = replay(std::fs::read(path).unwrap());
        assert_eq!(end, Ok(End::Whole));
        let different: Vec<&Step> = steps.iter().filter(|step| !step.same).collect();
        assert!(different.is_empty(), "{different:#?}");
        assert_eq!(states, vec![(peer.to_owned(), State::Idle); sessions]);
        let established = steps.iter().flat_map(|step| &step.events);
        assert!(established.filter(|event| matches!(event, Event::Established(..))).count() >= 3);
        let restarts = steps.iter().filter(|step| step.input == Input::RestartComplete).count();
        assert_eq!(restarts, if peer == "node-2" { 2 } else { 1 }, "once a session, not at each turn");
    }
    let (steps, ..) = replay(std::fs::read(&paths[1]).unwrap());
    let announced = steps.iter().flat_map(|step| &step.events).filter_map(|event| match event {
        Event::Update(update, _) => {
            Some(update.reach.iter().flat_map(|reach| &reach.nlri).map(|nlri| nlri.prefix))
        }
        _ => None,
    });
    let announced: Vec<_> = announced.flatten().collect();
    assert!(announced.contains(&prefix("10.1.0.0/28")), "{announced:?}");
}

/// The negative control: with time passing where none did, the session does something else.
#[tokio::test]
async fn a_time_that_was_altered_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("b");
    let (a, b) = (Node::new(1), Node::with(2, recorded(&path)));
    b.peers([(&a, b.waits_for(&a))]).await;
    a.peers([(&b, a.towards(&b))]).await;
    b.established(&a).await;
    within_deadline(b.speaker.clone().stop(StopMode::Retain)).await;
    let octets = std::fs::read(&path).unwrap();
    let mut reader = plainroute_bgp::record::Reader::new(octets.into()).unwrap();
    let mut records = Vec::new();
    while let Ok((_, record)) = reader.poll().unwrap() {
        records.push(record);
    }
    let written = |records: &[Record]| {
        let mut out = bytes::BytesMut::new();
        write_header(&mut out);
        records.iter().for_each(|record| record.encode(&mut out));
        write_end(&mut out);
        out.to_vec()
    };
    assert!(replay(written(&records)).0.iter().all(|step| step.same));
    // Nothing comes of the second of two stops, so its digest is that of nothing.
    let stop = records.iter().position(|record| matches!(record.input, Input::Stop(_))).unwrap();
    let nothing = records.last().unwrap().clone();
    let late =
        Record { at: nothing.at + std::time::Duration::from_secs(60), input: Input::Timeout, ..nothing };
    records.insert(stop, late);
    let (steps, ..) = replay(written(&records));
    assert_eq!(steps.iter().position(|step| !step.same), Some(stop), "the hold timer ran out");
}
