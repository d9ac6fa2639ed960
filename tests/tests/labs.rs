//! Each lab's expect.yaml, and the runner itself: that it cleans up, and that its checks can fail.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use plainroute_tests::lab::run::{Report, Silent, run};
use plainroute_tests::lab::{Expectations, Lab, Lifetime};
use plainroute_tests::netns::wait_until;

const RUNNER: &str = env!("CARGO_BIN_EXE_plainroute-lab");
const DEADLINE: Duration = Duration::from_secs(20);

fn labs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("labs")
}

/// Labs that hold BFD's 300 ms to their word run alone: five agents and three routers that start at once take the processors for
/// longer than that.
static PROCESSORS: RwLock<()> = RwLock::new(());

/// The same, with nothing else of this suite beside it.
fn holds_alone(name: &str) {
    let _alone = PROCESSORS.write().unwrap_or_else(PoisonError::into_inner);
    check(name);
}

/// Everything that the lab's file claims must be so.
fn holds(name: &str) {
    let _beside = PROCESSORS.read().unwrap_or_else(PoisonError::into_inner);
    check(name);
}

fn check(name: &str) {
    let dir = labs().join(name);
    let expectations = Expectations::read(&dir).unwrap();
    let lab = Lab::up(&dir, Path::new(RUNNER), &Lifetime::Bound).unwrap();
    let report = run(&lab, &expectations, &mut Silent);
    if let Some(failed) = report.steps.iter().find(|step| !step.holds) {
        panic!(
            "lab {name}, step {} `{}`: {}",
            report.steps.len(),
            failed.claim,
            failed.failure.as_deref().unwrap_or("")
        );
    }
    assert_eq!(report.steps.len(), expectations.steps.len());
}

#[test]
fn single_tor_is_as_it_claims() {
    holds("single-tor");
}

#[test]
fn unnumbered_is_as_it_claims() {
    holds("unnumbered");
}

#[test]
fn dual_tor_is_as_it_claims() {
    holds_alone("dual-tor");
}

#[test]
fn namespace_pools_is_as_it_claims() {
    holds("namespace-pools");
}

#[test]
fn egress_is_as_it_claims() {
    holds_alone("egress");
}

#[test]
fn every_lab_has_its_test_here_and_a_readme() {
    let mut names: Vec<String> = fs::read_dir(labs())
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["dual-tor", "egress", "namespace-pools", "single-tor", "unnumbered"],
        "a lab without a test above"
    );
    for name in names {
        for file in ["topology.clab.yml", "expect.yaml", "README.md"] {
            assert!(labs().join(&name).join(file).exists(), "labs/{name} has no {file}");
        }
    }
}

/// Two hosts on a cable; nothing of ours runs.
fn two_hosts(name: &str, steps: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let topology = format!(
        "name: {name}
topology:
  defaults: {{ network-mode: none, image: 'nicolaka/netshoot:v0.13' }}
  nodes:
    a: {{ kind: linux, exec: [ip address add 10.0.0.1/24 dev eth1], sysctls: {{ net.ipv4.ip_forward: 1 }} }}
    b: {{ kind: linux, cmd: sleep 1000, exec: [ip address add 10.0.0.2/24 dev eth1], binds: ['greeting:/lab/greeting:ro'] }}
    rack: {{ kind: bridge }}
  links:
    - endpoints: ['a:eth1', 'b:eth1']
    - endpoints: ['a:eth2', 'rack:port1']
"
    );
    fs::write(dir.path().join("topology.clab.yml"), topology).unwrap();
    fs::write(dir.path().join("greeting"), "hello\n").unwrap();
    fs::write(dir.path().join("expect.yaml"), format!("steps:\n{steps}")).unwrap();
    dir
}

fn outcome(steps: &str) -> Report {
    let dir = two_hosts("two-hosts", steps);
    let lab = Lab::up(dir.path(), Path::new(RUNNER), &Lifetime::Bound).unwrap();
    run(&lab, &Expectations::read(dir.path()).unwrap(), &mut Silent)
}

#[test]
fn what_the_topology_says_is_what_a_node_sees() {
    let report = outcome(
        "
  - claim: the cable carries
    expect:
      - ping: { from: a, to: 10.0.0.2 }
      - source: { from: a, at: b, to: 10.0.0.2, is: 10.0.0.1 }
      - noPing: { from: a, to: 10.0.0.3 }
  - claim: names, sysctls, files and bridges are there, and the host's settings cannot be changed
    expect:
      - output: { node: a, run: 'hostname; sysctl net.ipv4.ip_forward', contains: [a, ip_forward = 1] }
      - output: { node: b, run: 'cat /lab/greeting; hostname; sysctl net.ipv4.ip_forward', contains: [hello, ip_forward = 0] }
      - output: { node: b, run: 'touch /lab/greeting', contains: [Read-only], exit: 1 }
      - output: { node: b, run: 'echo x >> /etc/passwd', contains: [Read-only], exit: 2 }
      - output: { node: b, run: 'ps -o args=', contains: [sleep 1000], lacks: [deps/labs] }
      - output: { node: host, run: 'ip -o link show master rack', contains: [port1] }
  - claim: a cut cable is noticed, and mended
    do:
      - linkDown: { node: b, interface: eth1 }
    probe: []
    expect:
      - noPing: { from: a, to: 10.0.0.2 }
  - claim: a command that is killed can be started again
    do:
      - linkUp: { node: b, interface: eth1 }
      - kill: { node: b, signal: KILL }
      - start: { node: b }
    expect:
      - output: { node: b, run: 'ps -o args=', contains: [sleep 1000] }
      - kernel: { node: b, prefix: 10.0.0.0/24, by: [eth1], protocol: 2 }
      - noKernel: { node: b, prefix: 10.9.0.0/24 }
",
    );
    assert!(report.holds(), "{report:#?}");
}

#[test]
fn a_false_claim_fails_and_says_what_was_expected_and_seen() {
    for (expect, expected, seen) in [
        ("ping: { from: a, to: 10.0.0.3 }", "a reaches 10.0.0.3", "no answer"),
        ("noPing: { from: a, to: 10.0.0.2 }", "a does not reach 10.0.0.2", "an answer"),
        ("source: { from: a, at: b, to: 10.0.0.2, is: 10.0.0.9 }", "b sees a as 10.0.0.9", "10.0.0.1"),
        ("kernel: { node: a, prefix: 10.0.0.0/24, by: [eth7] }", "10.0.0.0/24 by eth7", "eth1"),
        ("noKernel: { node: a, prefix: 10.0.0.0/24 }", "no route to 10.0.0.0/24", "eth1"),
        ("output: { node: a, run: echo one, contains: [two] }", "`echo one`", "no `two` in: one"),
        ("bgp: { node: a, neighbor: 10.0.0.2 }", "session with 10.0.0.2", "no router runs on node a"),
    ] {
        let report =
            outcome(&format!("  - claim: x\n    withinMilliseconds: 100\n    expect:\n      - {expect}\n"));
        let failure = report.steps[0].failure.as_deref().unwrap_or_else(|| panic!("{expect} holds"));
        assert!(failure.contains("within 100ms"), "{failure}");
        assert!(failure.contains(expected) && failure.contains(seen), "{expect}: {failure}");
    }
}

#[test]
fn a_probe_counts_what_is_lost() {
    let step = |bound: &str| {
        format!(
            "
  - claim: x
    do:
      - run: {{ node: b, run: ip address del 10.0.0.2/24 dev eth1 && sleep 0.3 && ip address add 10.0.0.2/24 dev eth1 }}
    probe:
      - {{ from: a, at: b, to: 10.0.0.2, {bound} }}
    expect:
      - ping: {{ from: a, to: 10.0.0.2 }}
"
        )
    };
    let report = outcome(&step("lostAtLeast: 10"));
    assert!(report.holds(), "{report:#?}");
    assert!(report.steps[0].probes[0].longest_gap_milliseconds >= 300, "{report:#?}");
    let report = outcome(&step("lostAtMost: 0"));
    assert!(report.steps[0].failure.as_deref().unwrap().contains("at most 0 packets lost"), "{report:#?}");
}

#[test]
fn what_must_stay_is_watched_to_the_end() {
    let report = outcome(
        "
  - claim: x
    do:
      - run: { node: a, run: '(sleep 0.3; ip link set eth1 down) >/dev/null 2>&1 &' }
    expect:
      - kernel: { node: a, prefix: 10.0.0.0/24, by: [eth1] }
    staysMilliseconds: 2000
",
    );
    assert!(report.steps[0].failure.as_deref().unwrap().contains("expected for 2s more"), "{report:#?}");
}

#[test]
fn a_lab_left_running_is_found_by_another_process_and_ended() {
    let name = format!("left-{}", std::process::id());
    let dir = two_hosts(&name, "  - claim: x\n    expect: [{ ping: { from: a, to: 10.0.0.2 } }]\n");
    let runner = |words: &[&str]| {
        let output = Command::new(RUNNER).args(words).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let path = dir.path().to_str().unwrap();
    assert_eq!(runner(&["up", path]).0, Some(0));
    let (code, said) = runner(&["up", path]);
    assert!(code == Some(2) && said.contains("is up already"), "{said}");
    let (code, said) = runner(&["exec", &name, "b", "cat", "/lab/greeting"]);
    assert!(code == Some(0) && said == "hello\n", "{said}");
    let pids: Vec<i32> = Lab::find(&name).unwrap().nodes().map(|node| node.pid()).collect();
    assert_eq!(runner(&["down", &name]).0, Some(0));
    for pid in pids {
        await_end(pid);
    }
    let (code, said) = runner(&["exec", &name, "b", "true"]);
    assert!(code == Some(2) && said.contains("is not up"), "{said}");
}

#[test]
fn a_runner_that_is_killed_leaves_no_node_behind() {
    // Waits for what never comes, so that there is time to kill it.
    let dir = two_hosts(
        "killed",
        "  - claim: x\n    withinMilliseconds: 60000\n    expect: [{ ping: { from: a, to: 10.9.9.9 } }]\n",
    );
    let mut runner = Command::new(RUNNER);
    runner
        .args(["test", dir.path().to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut runner = runner.spawn().unwrap();
    let state = PathBuf::from(format!("/run/plainroute-lab/killed.{}.0", runner.id()));
    // The nodes are the runner's grandchildren: their root directory is theirs alone.
    let first =
        wait_until("the nodes to start", DEADLINE, || node_of(&state, "a").ok_or("no such process")).unwrap();
    let other =
        wait_until("the nodes to start", DEADLINE, || node_of(&state, "b").ok_or("no such process")).unwrap();
    runner.kill().unwrap();
    runner.wait().unwrap();
    await_end(first);
    await_end(other);
    fs::remove_dir_all(state).unwrap();
}

/// The process that was started with this node's root as an argument and is the first of its pid namespace.
fn node_of(state: &Path, name: &str) -> Option<i32> {
    let root = state.join(format!("{name}.root"));
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let arguments = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let mut words = arguments.split('\0');
        (words.next() == Some("sh") && words.any(|word| Path::new(word) == root)).then_some(())?;
        entry.file_name().to_str()?.parse().ok()
    })
}

fn await_end(pid: i32) {
    wait_until(&format!("the end of process {pid}"), DEADLINE, || {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => Err(stat),
            _ => Ok(()),
        }
    })
    .unwrap();
}
