use super::*;

fn desired() -> NatDesired {
    NatDesired {
        mark_mask: 0xff00,
        addresses: ["198.51.100.7".parse().unwrap()].into(),
        ..NatDesired::default()
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_name() {
    let source = |slot| NatSource {
        egress: "erp".into(),
        address: "2001:db8::7".parse().unwrap(),
        local: Fate::Away { slot },
        transit: Fate::Here,
    };
    let with = |prefix: &str, slot| {
        let sources = BTreeMap::from([(prefix.parse().unwrap(), source(slot))]);
        NatDesired { classes: vec![NatClass { sources, ..NatClass::default() }], ..desired() }
    };
    for (desired, words) in [
        (NatDesired { mark_mask: 0, ..desired() }, "mark mask 0x0"),
        (NatDesired { mark_mask: 0xf0f, ..desired() }, "mark mask 0xf0f"),
        (NatDesired { mark_mask: 0x7f, ..desired() }, "at least eight bits"),
        (
            NatDesired { uplinks: ["sixteen-letters-".to_owned()].into(), ..desired() },
            "uplink `sixteen-letters-`",
        ),
        (with("10.0.0.1/32", 1), "egress erp: 2001:db8::7 cannot be the source of 10.0.0.1/32"),
        (with("fd00::1/128", 0), "egress erp: there is no gateway slot 0"),
        (with("fd00::1/128", 254), "egress erp: there is no gateway slot 254"),
    ] {
        let error = compile(&desired).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(compile(&desired()).is_ok() && compile(&with("fd00::1/128", 253)).is_ok());
}

#[test]
fn one_more_host_changes_elements_and_nothing_else() {
    let source = |address: &str| NatSource {
        egress: "erp".into(),
        address: address.parse().unwrap(),
        local: Fate::Here,
        transit: Fate::Here,
    };
    let to = BTreeSet::from(["0.0.0.0/0".parse().unwrap()]);
    let sources = BTreeMap::from([("10.20.0.5/32".parse().unwrap(), source("198.51.100.7"))]);
    let mut wanted =
        NatDesired { classes: vec![NatClass { to, sources, ..NatClass::default() }], ..desired() };
    let before = compile(&wanted).unwrap();
    wanted.classes[0].sources.insert("10.20.0.6/32".parse().unwrap(), source("198.51.100.7"));
    let now = compile(&wanted).unwrap();
    assert_eq!(before.chains, now.chains);
    assert_eq!(before.counters, now.counters);
    let changed: Vec<_> = now.sets.iter().filter(|(name, set)| before.sets.get(*name) != Some(set)).collect();
    let sizes: Vec<_> = changed.iter().map(|(name, set)| (&name[..5], set.elements.len())).collect();
    assert_eq!(sizes, [("snat4", 2), ("sourc", 2)]);
}
