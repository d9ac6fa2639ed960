//! How a session that is ended on purpose says whether our routes are to stay: nothing at all where it will be back, a
//! plain Cease where the peer decides, a Hard Reset (RFC 8538) where they must go although both sides keep routes over
//! a NOTIFICATION.
use anyhow::{Context, Result, ensure};
use plainroute_bgp::{
    AfiSafi, Asn, HoldTime,
    session::GracefulRestartConfig,
    wire::{Capability, GracefulRestart, GracefulRestartFamily, Role},
};
use plainroute_speaker::{PeerConfig, StopMode};

use crate::{
    peer::{RawPeer, attributes, encoded, update, valid},
    site::{Site, Sort, name},
};

/// What ends the session.
#[derive(Clone, Copy)]
enum End {
    Change(fn(&mut PeerConfig)),
    Remove,
    /// More prefixes than allowed come in.
    Flood,
    Stop(StopMode),
}

/// The Cease subcode that says why, if anything is said; and whether the routes must go.
type Told = Option<(u8, bool)>;

const ENDS: [(&str, End, Told); 12] = [
    ("blocked", End::Change(|config| config.blocked = Some("no secret".to_owned())), Some((6, true))),
    ("localASN", End::Change(|config| config.local_asn = Asn::new(65010).unwrap()), Some((6, true))),
    ("peerASN", End::Change(|config| config.peer_asn = Asn::new(65011).unwrap()), Some((6, true))),
    ("peerAddress", End::Change(|config| config.peer_address = [127, 0, 0, 9].into()), Some((6, true))),
    ("role", End::Change(|config| config.role = Some(Role::Customer)), Some((6, true))),
    ("holdTimeSeconds", End::Change(|config| config.hold_time = HoldTime::new(60).unwrap()), None),
    ("enhancedRefresh", End::Change(|config| config.enhanced_refresh = false), None),
    ("removed", End::Remove, Some((3, true))),
    ("too many prefixes", End::Flood, Some((1, true))),
    ("stop, withdrawing", End::Stop(StopMode::Withdraw), Some((2, true))),
    ("stop, hard", End::Stop(StopMode::HardReset), Some((2, true))),
    ("stop, to be back", End::Stop(StopMode::Retain), None),
];

/// The NOTIFICATION that must come: code, subcode, and what a Hard Reset wraps.
fn expected(told: Told, n_bit: bool) -> Option<(u8, u8, Option<[u8; 2]>)> {
    told.map(
        |(reason, routes_go)| {
            if routes_go && n_bit { (6, 9, Some([6, reason])) } else { (6, reason, None) }
        },
    )
}

async fn check(end: End, told: Told, n_bit: bool) -> Result<()> {
    let site = Site::new([(2, Sort::External)]).await;
    let graceful =
        Some(GracefulRestartConfig { restart_time: 60, notification: n_bit, long_lived_stale_time: 0 });
    let config = PeerConfig { graceful_restart: graceful, max_prefixes_in: Some(1), ..site.config(2) };
    site.apply([(name(2), config.clone())].into()).await?;
    let mut peer = RawPeer::connect(&site, 2).await?;
    let mut open = peer.open();
    open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
        restarting: false,
        notification: n_bit,
        restart_time: 60,
        families: AfiSafi::ALL
            .map(|family| GracefulRestartFamily { family, forwarding_preserved: true })
            .to_vec(),
    }));
    peer.handshake(&site, &encoded(&open)).await?;

    match end {
        End::Change(edit) => {
            let mut changed = config;
            edit(&mut changed);
            site.apply([(name(2), changed)].into()).await?;
        }
        End::Remove => {
            site.apply([].into()).await?;
        }
        End::Flood => {
            let two = [24, 192, 0, 2, 25, 192, 0, 2, 0];
            peer.send(&update(&[], &attributes(&valid(Sort::External)), &two)).await?;
        }
        End::Stop(mode) => {
            let speaker = site.speaker.clone();
            tokio::spawn(speaker.stop(mode));
        }
    }
    match expected(told, n_bit) {
        None => peer.silent_end().await,
        Some((code, subcode, wrapped)) => {
            let refusal = peer.refusal().await?;
            ensure!((refusal.code, refusal.subcode) == (code, subcode), "{refusal}");
            let inner = wrapped.is_none_or(|inner| refusal.data.starts_with(&inner));
            ensure!(inner, "a Hard Reset for another reason: {:?}", refusal.data);
            Ok(())
        }
    }
}

#[tokio::test]
async fn who_leaves_says_whether_the_routes_are_to_go_rfc_8538() {
    for (what, end, told) in ENDS {
        for n_bit in [true, false] {
            check(end, told, n_bit).await.with_context(|| format!("{what}, N bit {n_bit}")).unwrap();
        }
    }
}

/// Negative control: a farewell that says the opposite is found.
#[tokio::test]
async fn a_wrong_farewell_is_found() {
    let removed = check(End::Remove, Some((3, false)), true).await.expect_err("a Hard Reset");
    assert!(format!("{removed:#}").contains("Hard Reset"), "{removed:#}");
    let kept = End::Change(|config| config.hold_time = HoldTime::new(60).unwrap());
    let kept = check(kept, Some((6, true)), true).await.expect_err("nothing is said");
    assert!(format!("{kept:#}").contains("without a NOTIFICATION"), "{kept:#}");
}
