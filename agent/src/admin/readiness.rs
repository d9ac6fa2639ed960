//! Whether as many sessions are Established as readiness asks for. Pure.
use plainroute_config::ReadinessSessions;

use super::view::PeerView;

/// What is still waited for, in words. A range is no session; those who connect from within it are.
pub(super) fn missing(wanted: ReadinessSessions, peers: &[PeerView]) -> Option<String> {
    let sessions = || peers.iter().filter(|peer| peer.range.is_none());
    let down: Vec<&str> =
        sessions().filter(|peer| !peer.is_established()).map(|peer| peer.name.as_str()).collect();
    let missing = match wanted {
        ReadinessSessions::None => false,
        ReadinessSessions::Any => !down.is_empty() && down.len() == sessions().count(),
        ReadinessSessions::All => !down.is_empty(),
    };
    missing.then(|| format!("not Established: {}", down.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn peer(name: &str, state: &str) -> PeerView {
        let view = json!({
            "name": name, "address": "192.0.2.1", "localASN": 64512, "peerASN": 64600, "state": state,
            "since": "2026-01-01T00:00:00Z", "secondsInState": 1, "families": {}, "establishedCount": 0,
            "lostCount": 0, "updatesReceived": 0, "updatesSent": 0, "malformedUpdates": 0,
        });
        serde_json::from_value(view).expect("a peer")
    }

    fn range(name: &str) -> PeerView {
        let range = json!({ "cidr": "192.0.2.0/24", "peers": 0, "maxPeers": 9, "refused": 0 });
        PeerView { range: serde_json::from_value(range).expect("a range"), ..peer(name, "Listening") }
    }

    #[test]
    fn any_is_one_and_all_is_each() {
        use ReadinessSessions::{All, Any, None as Whatever};
        let (up, down, other) = (peer("a", "Established"), peer("b", "Connect"), peer("c", "Idle"));
        let cases = [
            (vec![], [None, None, None]),
            (vec![range("r")], [None, None, None]),
            (vec![up.clone(), range("r")], [None, None, None]),
            (vec![up, down.clone()], [None, None, Some("not Established: b")]),
            (vec![down, other], [None, Some("not Established: b, c"), Some("not Established: b, c")]),
        ];
        for (peers, expected) in cases {
            let found = [Whatever, Any, All].map(|wanted| missing(wanted, &peers));
            assert_eq!(found.each_ref().map(Option::as_deref), expected, "{peers:?}");
        }
    }
}
