//! What comes in, what stays out, and what a restart of the peer leaves behind.
use std::{net::Ipv4Addr, sync::Arc};

use plainroute_bgp::{
    AfiSafi, Asn, Community, Prefix, RouterId,
    policy::{Accepted, ImportPolicy, ImportRule, PrefixRule, Relation},
    rib::{AdjRibIn, Applied, Change, Identity, PrefixLimit, RejectCounts},
    wire::{AsPath, AsPathSegment, Nlri, PathAttributes, Reach, Role, SegmentKind, Unreach, Update},
};

use super::peer::{prefix, v4, v6};

fn identity() -> Identity {
    Identity { asn: Asn::new(64512).unwrap(), router_id: RouterId::new(0x0a00_0001).unwrap() }
}

fn rib(max_prefixes: Option<u32>) -> AdjRibIn {
    AdjRibIn::new(identity(), max_prefixes)
}

fn accept(rules: &[(&str, u8, bool)]) -> ImportPolicy {
    let rule = |(cidr, le, install): &(&str, u8, bool)| {
        let prefixes = PrefixRule::new(prefix(cidr), None, Some(*le)).unwrap();
        ImportRule::accept(prefixes, Accepted { install: *install, local_pref: None })
    };
    ImportPolicy::new(rules.iter().map(rule).collect())
}

fn nlri(prefixes: &[Prefix]) -> Vec<Nlri> {
    prefixes.iter().map(|prefix| Nlri { prefix: *prefix, path_id: None }).collect()
}

fn announce_with(attributes: PathAttributes, prefixes: &[Prefix]) -> Update {
    let family = prefixes[0].family();
    let next_hop = if family == AfiSafi::Ipv4Unicast { v4(254) } else { v6(254) };
    Update {
        reach: vec![Reach { family, next_hop, nlri: nlri(prefixes) }],
        attributes: Arc::new(attributes),
        ..Update::default()
    }
}

fn path(asns: &[u32]) -> PathAttributes {
    let asns = asns.iter().map(|asn| Asn::new(*asn).unwrap()).collect();
    let segments = vec![AsPathSegment { kind: SegmentKind::Sequence, asns }];
    PathAttributes { as_path: AsPath { segments }, ..PathAttributes::default() }
}

fn announce(prefixes: &[&str]) -> Update {
    announce_with(path(&[64600]), &prefixes.iter().map(|text| prefix(text)).collect::<Vec<_>>())
}

fn withdraw(text: &str) -> Update {
    let prefix = prefix(text);
    Update { unreach: vec![Unreach { family: prefix.family(), nlri: nlri(&[prefix]) }], ..Update::default() }
}

fn gone(text: &str) -> Change {
    Change { nlri: prefix(text).into(), route: None }
}

fn prefixes(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| change.nlri.prefix.to_string()).collect()
}

#[test]
fn without_a_rule_nothing_comes_in_and_nothing_is_kept() {
    let mut rib = rib(None);
    let many: Vec<Prefix> =
        (0..10_000_u32).map(|number| Prefix::v4((number << 8).into(), 24).unwrap()).collect();
    let applied = rib.apply(&announce_with(path(&[64600]), &many), &ImportPolicy::DENY);
    assert_eq!(applied, Applied::default());
    assert!(rib.is_empty());
    assert_eq!(
        rib.rejected(AfiSafi::Ipv4Unicast),
        RejectCounts { policy: 10_000, ..RejectCounts::default() }
    );
}

#[test]
fn an_accepted_route_comes_changes_and_goes() {
    let mut rib = rib(None);
    let policy = accept(&[("0.0.0.0/0", 0, true)]);
    let applied = rib.apply(&announce(&["0.0.0.0/0", "10.0.0.0/8"]), &policy);
    assert_eq!(prefixes(&applied.changes), ["0.0.0.0/0"]);
    assert!(rib.find(prefix("0.0.0.0/0")).is_some_and(|received| received.install && !received.stale));
    assert_eq!(rib.apply(&announce(&["0.0.0.0/0"]), &policy).changes, [], "the same again is no change");
    let other = announce_with(path(&[64600, 64601]), &[prefix("0.0.0.0/0")]);
    assert_eq!(prefixes(&rib.apply(&other, &policy).changes), ["0.0.0.0/0"]);
    assert_eq!(rib.apply(&withdraw("0.0.0.0/0"), &policy).changes, [gone("0.0.0.0/0")]);
    assert_eq!(rib.apply(&withdraw("0.0.0.0/0"), &policy).changes, []);
}

#[test]
fn a_route_through_ourselves_is_a_loop_and_replaces_what_was_held() {
    let policy = accept(&[("0.0.0.0/0", 0, true)]);
    let own = Ipv4Addr::new(10, 0, 0, 1);
    let loops = [
        path(&[64600, 64512, 64600]),
        PathAttributes { originator_id: Some(own), ..path(&[]) },
        PathAttributes { cluster_list: vec![Ipv4Addr::LOCALHOST, own], ..path(&[]) },
    ];
    for attributes in loops {
        let mut rib = rib(None);
        rib.apply(&announce(&["0.0.0.0/0"]), &policy);
        let applied = rib.apply(&announce_with(attributes, &[prefix("0.0.0.0/0")]), &policy);
        assert_eq!(applied.changes, [gone("0.0.0.0/0")]);
        assert_eq!(rib.rejected(AfiSafi::Ipv4Unicast), RejectCounts { looped: 1, ..RejectCounts::default() });
    }
}

#[test]
fn our_own_as_is_no_loop_for_exactly_what_is_followed() {
    let followed = Arc::new([prefix("198.51.100.7/32")].into());
    let policy = accept(&[("0.0.0.0/0", 32, true)]).following(followed);
    let mut rib = rib(None);
    let own_as = path(&[64600, 64512]);
    let both = [prefix("198.51.100.7/32"), prefix("198.51.100.8/32")];
    let applied = rib.apply(&announce_with(own_as.clone(), &both), &policy);
    assert_eq!(prefixes(&applied.changes), ["198.51.100.7/32"]);
    assert!(rib.find(both[0]).is_some_and(|received| !received.install), "never for the kernel");
    assert_eq!(rib.rejected(AfiSafi::Ipv4Unicast), RejectCounts { looped: 1, ..RejectCounts::default() });
    // The other checks are as they were.
    let reflected = PathAttributes { originator_id: Some(Ipv4Addr::new(10, 0, 0, 1)), ..own_as };
    let applied = rib.apply(&announce_with(reflected, &both[..1]), &policy);
    assert_eq!(applied.changes, [gone("198.51.100.7/32")]);
}

#[test]
fn what_is_followed_no_longer_is_a_loop_again() {
    let rules = || accept(&[("0.0.0.0/0", 32, true)]);
    let mut rib = rib(None);
    let looped = announce_with(path(&[64600, 64512]), &[prefix("198.51.100.7/32")]);
    rib.apply(&looped, &rules().following(Arc::new([prefix("198.51.100.7/32")].into())));
    rib.apply(&announce(&["10.0.0.0/8"]), &rules());
    assert_eq!(rib.reapply(&rules()), [gone("198.51.100.7/32")]);
    assert_eq!(rib.count(AfiSafi::Ipv4Unicast), 1);
}

#[test]
fn the_limit_warns_once_at_80_percent_and_then_holds() {
    let mut rib = rib(Some(5));
    let policy = accept(&[("10.0.0.0/8", 32, false)]);
    assert_eq!(rib.apply(&announce(&["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32"]), &policy).limit, None);
    let near = rib.apply(&announce(&["10.0.0.4/32"]), &policy).limit;
    assert_eq!(near, Some(PrefixLimit::Near { count: 4, limit: 5 }));
    assert_eq!(rib.apply(&announce(&["10.0.0.5/32"]), &policy).limit, None, "told once");
    assert_eq!(rib.apply(&announce(&["10.0.0.5/32", "192.0.2.0/24"]), &policy).limit, None, "no new one");
    let beyond = rib.apply(&announce(&["10.0.0.6/32"]), &policy);
    assert_eq!(beyond, Applied { changes: vec![], limit: Some(PrefixLimit::Exceeded { limit: 5 }) });
    assert_eq!(rib.count(AfiSafi::Ipv4Unicast), 5);
    rib.apply(&withdraw("10.0.0.1/32"), &policy);
    rib.apply(&withdraw("10.0.0.2/32"), &policy);
    let again = rib.apply(&announce(&["10.0.0.1/32"]), &policy).limit;
    assert_eq!(again, Some(PrefixLimit::Near { count: 4, limit: 5 }));
}

#[test]
fn after_the_peer_s_restart_what_it_does_not_tell_again_goes() {
    let mut rib = rib(None);
    let policy = accept(&[("0.0.0.0/0", 32, true), ("::/0", 0, true)]);
    rib.apply(&announce(&["10.0.0.0/8", "11.0.0.0/8"]), &policy);
    rib.apply(&announce(&["::/0"]), &policy);
    let marked = rib.mark_stale(AfiSafi::Ipv4Unicast);
    assert!(marked.iter().all(|change| change.route.as_ref().is_some_and(|route| route.stale)));
    assert_eq!(prefixes(&marked), ["10.0.0.0/8", "11.0.0.0/8"]);
    let again = rib.apply(&announce(&["10.0.0.0/8"]), &policy).changes;
    assert!(again[0].route.as_ref().is_some_and(|route| !route.stale), "confirmed");
    assert_eq!(rib.stale(AfiSafi::Ipv4Unicast), 1);
    assert_eq!(rib.sweep_stale(AfiSafi::Ipv4Unicast), [gone("11.0.0.0/8")]);
    assert_eq!(rib.count(AfiSafi::Ipv6Unicast), 1, "the other family is not concerned");
}

#[test]
fn a_second_restart_drops_what_was_stale_already() {
    let mut rib = rib(None);
    let policy = accept(&[("0.0.0.0/0", 32, true)]);
    rib.apply(&announce(&["10.0.0.0/8", "11.0.0.0/8"]), &policy);
    rib.mark_stale(AfiSafi::Ipv4Unicast);
    rib.apply(&announce(&["10.0.0.0/8"]), &policy);
    let changes = rib.mark_stale(AfiSafi::Ipv4Unicast);
    assert_eq!(changes[0], gone("11.0.0.0/8"));
    assert_eq!(prefixes(&changes[1..]), ["10.0.0.0/8"]);
}

#[test]
fn a_new_policy_judges_what_is_held() {
    let mut rib = rib(None);
    rib.apply(&announce(&["0.0.0.0/0", "10.0.0.0/8"]), &accept(&[("0.0.0.0/0", 32, true)]));
    let changes = rib.reapply(&accept(&[("0.0.0.0/0", 0, false)]));
    assert_eq!(prefixes(&changes), ["0.0.0.0/0", "10.0.0.0/8"]);
    assert!(changes[0].route.as_ref().is_some_and(|route| !route.install));
    assert_eq!(changes[1].route, None);
    assert_eq!(rib.clear(AfiSafi::Ipv4Unicast), [gone("0.0.0.0/0")]);
}

#[test]
fn what_a_refresh_does_not_tell_again_goes_at_its_end_rfc_7313() {
    let mut rib = rib(None);
    let policy = accept(&[("10.0.0.0/8", 32, true), ("2001:db8::/32", 128, true)]);
    rib.apply(&announce(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]), &policy);
    rib.apply(&announce(&["2001:db8::/64"]), &policy);
    rib.begin_refresh(AfiSafi::Ipv4Unicast);
    rib.apply(&announce(&["10.0.0.0/24", "10.0.9.0/24"]), &policy);
    assert_eq!(rib.count(AfiSafi::Ipv4Unicast), 4, "nothing goes before the end");
    let gone = prefixes(&rib.end_refresh(AfiSafi::Ipv4Unicast));
    assert_eq!(gone, ["10.0.1.0/24", "10.0.2.0/24"]);
    assert_eq!(rib.count(AfiSafi::Ipv6Unicast), 1, "the other family is not concerned");
    // Section 4.2: an end without a beginning means nothing.
    assert_eq!(rib.end_refresh(AfiSafi::Ipv4Unicast), []);
}

#[test]
fn a_second_beginning_of_a_refresh_counts_alone_rfc_7313() {
    let mut rib = rib(None);
    let policy = accept(&[("10.0.0.0/8", 32, true)]);
    rib.apply(&announce(&["10.0.0.0/24"]), &policy);
    rib.begin_refresh(AfiSafi::Ipv4Unicast);
    rib.apply(&announce(&["10.0.0.0/24"]), &policy);
    rib.begin_refresh(AfiSafi::Ipv4Unicast);
    assert_eq!(rib.end_refresh(AfiSafi::Ipv4Unicast), [gone("10.0.0.0/24")]);
}

#[test]
fn several_paths_of_a_prefix_stand_beside_each_other_rfc_7911() {
    let mut rib = rib(None);
    let policy = accept(&[("10.0.0.0/8", 32, true)]);
    let with_id = |mut update: Update, id| {
        let reach = update.reach.iter_mut().flat_map(|reach| &mut reach.nlri);
        let unreach = update.unreach.iter_mut().flat_map(|unreach| &mut unreach.nlri);
        reach.chain(unreach).for_each(|nlri| nlri.path_id = Some(id));
        update
    };
    rib.apply(&with_id(announce(&["10.0.0.0/24"]), 7), &policy);
    rib.apply(&with_id(announce_with(path(&[64600, 9]), &[prefix("10.0.0.0/24")]), 8), &policy);
    assert_eq!(rib.count(AfiSafi::Ipv4Unicast), 2);
    assert!(rib.find(prefix("10.0.0.0/24")).is_some());
    rib.apply(&with_id(withdraw("10.0.0.0/24"), 7), &policy);
    let left: Vec<Nlri> = rib.iter().map(|(nlri, _)| nlri).collect();
    assert_eq!(left, [Nlri { prefix: prefix("10.0.0.0/24"), path_id: Some(8) }]);
}

#[test]
fn a_leaked_route_is_counted_and_stays_out_rfc_9234() {
    let asn = |number| Asn::new(number).unwrap();
    let policy = accept(&[("10.0.0.0/8", 32, true)]);
    let leak = PathAttributes { only_to_customer: Some(asn(9)), ..path(&[64600]) };
    let leak = announce_with(leak, &[prefix("10.0.0.0/24")]);
    for (role, held) in [(Some(Role::Provider), 0), (Some(Role::Customer), 1), (None, 1)] {
        let mut rib = rib(None);
        rib.set_relation(Some(Relation { local_asn: asn(64512), peer_asn: asn(64600), role }));
        rib.apply(&leak, &policy);
        assert_eq!(rib.count(AfiSafi::Ipv4Unicast), held, "{role:?}");
        assert_eq!(rib.rejected(AfiSafi::Ipv4Unicast).leaked, 1 - held as u64);
    }
}

/// RFC 4271 section 6.3, answered as RFC 7606 section 7.2 says.
#[test]
fn a_path_that_does_not_begin_with_the_peers_as_is_treated_as_withdrawn() {
    let policy = accept(&[("10.0.0.0/8", 32, true)]);
    let prefixes = [prefix("10.0.0.0/24")];
    let set = AsPathSegment { kind: SegmentKind::Set, asns: vec![Asn::new(64600).unwrap()] };
    let set = PathAttributes { as_path: AsPath { segments: vec![set] }, ..PathAttributes::default() };
    let mut rib = rib(None);
    assert_eq!(rib.set_first_as(Asn::new(64600)), []);
    rib.apply(&announce_with(path(&[64600, 9]), &prefixes), &policy);
    for (wrong, refused) in [(path(&[9, 64600]), 1), (path(&[]), 2), (set, 3)] {
        let applied = rib.apply(&announce_with(wrong, &prefixes), &policy);
        let changes = if refused == 1 { vec![gone("10.0.0.0/24")] } else { Vec::new() };
        assert_eq!(applied.changes, changes);
        let counts = RejectCounts { first_as: refused, ..RejectCounts::default() };
        assert_eq!(rib.rejected(AfiSafi::Ipv4Unicast), counts);
    }
    // From a route server, and within an AS, every path is right; until that is said otherwise.
    rib.set_first_as(None);
    rib.apply(&announce_with(path(&[9]), &prefixes), &policy);
    assert_eq!(rib.count(AfiSafi::Ipv4Unicast), 1);
    assert_eq!(rib.set_first_as(Asn::new(64600)), [gone("10.0.0.0/24")]);
}

#[test]
fn a_rules_local_preference_holds_as_long_as_the_rule() {
    let mut rib = rib(None);
    let relation = Relation { local_asn: identity().asn, peer_asn: Asn::new(64600).unwrap(), role: None };
    rib.set_relation(Some(relation));
    let rules = |local_pref| {
        let prefixes = |text| PrefixRule::new(prefix(text), None, Some(32)).unwrap();
        let plain = Accepted { install: true, local_pref: None };
        ImportPolicy::new(vec![
            ImportRule::accept(prefixes("10.1.0.0/16"), Accepted { local_pref, ..plain }),
            ImportRule::accept(prefixes("10.0.0.0/8"), plain),
        ])
    };
    let held = |rib: &AdjRibIn, text| rib.find(prefix(text)).unwrap().route.attributes.local_pref;
    let sent = PathAttributes { local_pref: Some(70), ..path(&[64600]) };
    let told = announce_with(sent, &[prefix("10.1.0.0/24"), prefix("10.2.0.0/24")]);
    rib.apply(&told, &rules(Some(300)));
    assert_eq!((held(&rib, "10.1.0.0/24"), held(&rib, "10.2.0.0/24")), (Some(300), Some(70)));
    assert_eq!(prefixes(&rib.reapply(&rules(Some(400)))), ["10.1.0.0/24"]);
    assert_eq!(held(&rib, "10.1.0.0/24"), Some(400));
    // What the peer sent is back without asking it.
    assert_eq!(prefixes(&rib.reapply(&rules(None))), ["10.1.0.0/24"]);
    assert_eq!(held(&rib, "10.1.0.0/24"), Some(70));
    assert_eq!(rib.reapply(&rules(None)), []);
    // A rule does not make a route attractive that is about to go away (RFC 8326).
    let leaving = PathAttributes { communities: vec![Community::GRACEFUL_SHUTDOWN], ..path(&[64600]) };
    rib.apply(&announce_with(leaving, &[prefix("10.1.0.0/24")]), &rules(Some(300)));
    assert_eq!(held(&rib, "10.1.0.0/24"), Some(0));
}
