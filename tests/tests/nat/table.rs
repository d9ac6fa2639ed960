//! The table as `nft` shows it: made, changed by difference, adopted, put right and removed.
use plainroute_agent::nat::{Fate, NatClass, NatDesired, NatSource};
use plainroute_tests::netns::{Netns, wait_until};

use crate::node::{DEADLINE, Node, everywhere, source};

fn small(desired: &mut NatDesired) {
    desired.inside = ["10.0.0.0/8", "fd00::/8"].map(|prefix| prefix.parse().unwrap()).into();
    desired.pods = ["10.20.0.0/16", "fd00:20::/64"].map(|prefix| prefix.parse().unwrap()).into();
    desired.uplinks = ["eth0".to_owned(), "bond0.100".to_owned()].into();
    desired.addresses = ["198.51.100.7", "2001:db8::7"].map(|address| address.parse().unwrap()).into();
    let mut class = everywhere();
    class.except = ["203.0.113.128/25".parse().unwrap()].into();
    class.sources = [
        ("10.20.0.5/32", source("erp", "198.51.100.7", Fate::Here)),
        ("fd00:20::5/128", source("erp", "2001:db8::7", Fate::Here)),
        (
            "10.20.1.0/24",
            NatSource { local: Fate::Away { slot: 3 }, ..source("crm", "198.51.100.8", Fate::Drop) },
        ),
        ("10.20.1.128/25", source("legacy", "198.51.100.9", Fate::Leave)),
        ("10.20.2.0/24", source("erp", "198.51.100.7", Fate::Here)),
        ("fd00:20::/65", source("erp", "2001:db8::7", Fate::Here)),
    ]
    .map(|(prefix, source)| (prefix.parse().unwrap(), source))
    .into();
    let far = NatClass { to: ["203.0.113.128/25".parse().unwrap()].into(), ..class.clone() };
    desired.classes = vec![class, NatClass { except: Default::default(), ..far }];
}

/// What `nft` shows for the very same table when it was made from text: then every byte says to the kernel and to `nft` what
/// is meant.
#[test]
fn the_table_is_the_one_that_nft_makes_from_text() {
    let mut node = Node::new("table");
    node.start();
    node.want_and_wait(small);
    let ours = node.table();
    let other = Netns::new("text").unwrap();
    other.run(&["nft", include_str!("table.nft")]).unwrap();
    let text = other.exec("nft list table inet plainroute").unwrap();
    assert_eq!(ours, text, "ours is:\n{ours}");
}

#[test]
fn where_no_egress_is_desired_there_is_no_table() {
    let mut node = Node::new("none");
    node.start();
    let installed = node.want_and_wait(|_| {});
    assert!(installed.synced && installed.error.is_none(), "{installed:?}");
    assert_eq!(node.nft("list tables"), "");
    node.want_and_wait(small);
    assert_eq!(node.nft("list tables"), "table inet plainroute\n");
    node.nft("add table ip somebody");
    let installed =
        node.want_and_wait(|desired| *desired = NatDesired { generation: 7, ..NatDesired::default() });
    assert!(installed.addresses.is_empty());
    assert_eq!(node.nft("list tables"), "table ip somebody\n");
    node.want_and_wait(small);
    assert_eq!(node.nft("list tables"), "table ip somebody\ntable inet plainroute\n");
}

#[test]
fn a_restarted_task_adopts_its_table_and_knows_nothing_before_it_is_told() {
    let mut node = Node::new("adopt");
    node.start();
    node.want_and_wait(small);
    // Handles are given once: what keeps its own was not made again.
    let handles = |node: &Node| -> Vec<String> {
        let table = node.nft("-a list table inet plainroute");
        let kept = |line: &&str| line.contains("{ # handle");
        table.lines().filter(kept).map(str::to_owned).collect()
    };
    let (table, before) = (node.table(), handles(&node));
    assert!(before.iter().any(|line| line.contains("counter out/erp")), "{before:?}");
    node.stop();
    node.start();
    // Nothing is desired yet, which is not the desire for nothing.
    node.nft("add table ip somebody");
    assert_eq!(node.table(), table);
    let installed = node.want_and_wait(small);
    assert_eq!((node.table(), handles(&node), installed.repairs), (table, before.clone(), 0));

    // While it was gone, something else came to be desired.
    node.stop();
    node.start();
    node.want_and_wait(|desired| {
        small(desired);
        desired.classes[0]
            .sources
            .insert("10.20.0.6/32".parse().unwrap(), source("hr", "198.51.100.7", Fate::Drop));
    });
    let table = node.table();
    assert!(table.contains("10.20.0.6 : goto egress-") && table.contains("counter dropped/hr"), "{table}");
    let after = handles(&node);
    assert!(before.iter().all(|line| after.contains(line)), "{before:?}\n{after:?}");
}

#[test]
fn what_somebody_does_to_the_table_is_put_right() {
    let mut node = Node::new("repair");
    node.start();
    node.want_and_wait(small);
    let table = node.table();
    let sources = set(&table, "map sources4-");
    for (nth, change) in [
        "flush ruleset".to_owned(),
        "delete table inet plainroute".to_owned(),
        "flush chain inet plainroute check".to_owned(),
        "add rule inet plainroute classify counter".to_owned(),
        format!("flush map inet plainroute {sources}"),
        "add element inet plainroute addresses4 { 192.0.2.1 }".to_owned(),
        "add chain inet plainroute backdoor".to_owned(),
        "add set inet plainroute more { type inet_service; flags timeout; }".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        node.ns.run(&["nft", change]).unwrap();
        wait_until(change, DEADLINE, || {
            let now = node.table();
            if now == table { Ok(()) } else { Err(now) }
        })
        .unwrap();
        node.wait("the repair to be counted", |installed| installed.repairs > nth as u64);
    }
}

#[test]
fn a_table_of_that_name_and_another_form_is_replaced() {
    let mut node = Node::new("misshapen");
    let foreign = "table inet plainroute {
        set uplinks { type ipv4_addr; }
        chain target { counter; }
        map other { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump target } }
        chain check {
            type filter hook input priority 0; policy accept;
            ip saddr @uplinks drop
            ip saddr vmap @other
        }
    }";
    node.ns.run(&["nft", foreign]).unwrap();
    node.start();
    let installed = node.want_and_wait(small);
    assert_eq!(installed.error, None);
    wait_until("the rest of it to go", DEADLINE, || {
        let now = node.table();
        if now.contains("target") || now.contains("map other") { Err(now) } else { Ok(()) }
    })
    .unwrap();
    // The table's comment is given when it is made.
    let rest = |table: String| {
        table.lines().filter(|line| !line.contains("comment \"made")).collect::<Vec<_>>().join("\n")
    };
    let made = rest(node.table());
    node.stop();
    node.nft("delete table inet plainroute");
    node.start();
    node.want_and_wait(small);
    assert_eq!(rest(node.table()), made);
}

#[test]
fn a_refused_table_is_told_and_the_old_one_stays() {
    let mut node = Node::new("refused");
    node.start();
    node.want_and_wait(small);
    let table = node.table();
    node.want(|desired| desired.mark_mask = 0);
    let installed = node.wait("the error", |installed| installed.error.is_some());
    assert_eq!(
        installed.error.as_deref(),
        Some("mark mask 0x0: it takes at least eight bits, one beside the other")
    );
    assert_eq!((installed.generation, node.table()), (1, table));
    let installed = node.want_and_wait(|_| {});
    assert_eq!(installed.error, None);

    // The kernel itself refuses: a table that a living process owns is nobody else's.
    let mut node = Node::new("owned");
    let dir = tempfile::tempdir().unwrap();
    let owner = node.ns.spawn(
        &["sh", "-c", "{ echo 'add table inet plainroute { flags owner; }'; exec sleep 1000; } | nft -i"],
        &dir.path().join("log"),
    );
    let mut owner = owner.unwrap();
    wait_until("the owner's table", DEADLINE, || match node.nft("list tables").contains("plainroute") {
        true => Ok(()),
        false => Err(owner.log()),
    })
    .unwrap();
    node.start();
    node.want(small);
    let installed = node.wait("the error", |installed| installed.error.is_some());
    let error = installed.error.as_deref().unwrap();
    assert!(error.contains("the kernel refuses") && error.contains("EPERM"), "{error}");
    owner.kill();
    let installed = node.wait("the table", |installed| installed.error.is_none());
    assert_eq!(installed.addresses.len(), 2);
}

/// The whole name of a set or map.
fn set<'a>(table: &'a str, beginning: &str) -> &'a str {
    let line = table.lines().find(|line| line.trim().starts_with(beginning)).unwrap();
    line.split_whitespace().nth(1).unwrap()
}
