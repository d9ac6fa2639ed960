//! Many routes at once, many events at once, and a task that may not do anything.
use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    time::Instant,
};

use plainroute_agent::fib::{FibConfig, FibError, RouteKey};

use crate::node::{Node, device, host, report};

fn address(number: u32) -> RouteKey {
    RouteKey::main(IpAddr::V4(Ipv4Addr::from_bits(0x0a64_0000 + number)).into())
}

#[test]
fn a_thousand_routes_at_once_and_one_more() {
    let mut node = Node::new("burst");
    let _pod = node.pod("pod0");
    node.start();
    let began = Instant::now();
    let installed = node.want_and_wait(|desired| {
        desired.routes.extend((0..1000).map(|number| (address(number), device("pod0"))));
        desired.complete = true;
    });
    println!("1,000 routes installed and reported in {:.1?}", began.elapsed());
    assert!(installed.routes.len() == 1000 && installed.routes.values().all(|status| status.delivers()));
    let shown = node.ip("-o -4 route show proto 188");
    assert_eq!(shown.lines().count(), 1000);

    let mut figures = Vec::new();
    for number in 1000..1020 {
        let began = Instant::now();
        let installed = node.want_and_wait(|desired| {
            desired.routes.insert(address(number), device("pod0"));
        });
        figures.push(began.elapsed());
        assert!(installed.delivers(&address(number)));
    }
    report("one more beside a thousand", &mut figures);

    // All gone at once, by somebody's hand, and back.
    let began = Instant::now();
    node.ip("route flush proto 188");
    node.wait("all to be put back", |installed| installed.counters.repairs >= 1020);
    println!("1,020 flushed routes put back in {:.1?}", began.elapsed());
    assert_eq!(node.ip("-o -4 route show proto 188").lines().count(), 1020);

    node.want_and_wait(|desired| desired.routes.clear());
    assert_eq!(node.ip("-o -4 route show proto 188"), "");
}

#[test]
fn lost_events_are_made_good_by_reading_everything() {
    // The smallest buffer that the kernel grants: one netlink event and a bit.
    let mut node = Node::new("overrun").with_monitor_buffer(1);
    let _pod = node.pod("pod0");
    node.start();
    node.want_and_wait(|desired| {
        desired.routes.insert(host("10.20.0.5"), device("pod0"));
    });
    let storm = |delete: &str| {
        let mut batch = tempfile::NamedTempFile::new().unwrap();
        for number in 0..2000u32 {
            writeln!(batch, "route add blackhole 10.200.{}.{}/32", number / 250, number % 250).unwrap();
        }
        writeln!(batch, "{delete}").unwrap();
        for number in 0..2000u32 {
            writeln!(batch, "route del blackhole 10.200.{}.{}/32", number / 250, number % 250).unwrap();
        }
        batch.flush().unwrap();
        node.ip(&format!("-batch {}", batch.path().display()));
    };
    let before = node.installed().counters;
    let began = Instant::now();
    storm("route del 10.20.0.5/32");
    node.wait("the repair", |installed| installed.counters.repairs > before.repairs);
    println!("put back in a storm of 4,000 events, {:.1?} after its start", began.elapsed());
    let after =
        node.wait("the overrun to be counted", |installed| installed.counters.overruns > before.overruns);
    assert!(after.delivers(&host("10.20.0.5")));
    assert_eq!(node.routes("10.20.0.5").len(), 1);
}

#[test]
fn our_own_changes_do_not_fill_the_buffer() {
    // Room for some fifty events.
    let mut node = Node::new("echo").with_monitor_buffer(32 << 10);
    let _pod = node.pod("pod0");
    node.start();
    node.want_and_wait(|desired| {
        desired.routes.insert(address(0), device("pod0"));
    });
    let before = node.installed().counters;
    node.want_and_wait(|desired| {
        desired.routes.extend((0..5000).map(|number| (address(number), device("pod0"))))
    });
    // Events of others are still heard; and when this one is, all before it were.
    node.ip(&format!("route del {}", address(7).prefix));
    let after = node.wait("the repair", |installed| installed.counters.repairs > before.repairs);
    assert_eq!(after.counters.overruns, before.overruns, "the echo of our own changes overran the buffer");
    // As many by somebody else do.
    node.ip("route flush proto 188");
    let after =
        node.wait("all to be put back", |installed| installed.counters.repairs > before.repairs + 5000);
    assert!(after.counters.overruns > before.overruns, "{:?}", after.counters);
}

#[test]
fn without_the_right_the_error_names_the_capability() {
    // The right is dropped by becoming another program, so this test runs itself.
    let node = Node::new("cap");
    let myself = std::env::current_exe().unwrap();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", node.ns.path().display()));
    command.args(["setpriv", "--bounding-set", "-net_admin", "--"]).arg(myself);
    let inner = "storm::refused_for_want_of_a_capability";
    let output = command.args(["--exact", inner, "--ignored", "--nocapture"]).output().unwrap();
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[test]
#[ignore = "run by `without_the_right_the_error_names_the_capability`, which takes the right away"]
fn refused_for_want_of_a_capability() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (desired, installed) = (tokio::sync::watch::Sender::default(), tokio::sync::watch::Sender::default());
    let run =
        plainroute_agent::fib::run(FibConfig::default(), desired.subscribe(), installed, Default::default());
    let ended = runtime.block_on(async { tokio::time::timeout(crate::node::DEADLINE, run).await });
    let error = ended.expect("it ends at once").expect_err("it is refused");
    assert!(matches!(error, FibError::Permission), "{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}
