//! The command line, run as a person runs it: what it prints and how it exits, against files, against no agent, and
//! against a small server that answers in an agent's place.
mod answers;
mod common;

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use plainroute_agent::{admin::view::PoolsCheck, ledger::Who, plan::Plan};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How a command ended.
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Outcome {
    #[track_caller]
    fn expect(self, code: i32) -> Outcome {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    fn yaml(&self) -> Value {
        serde_saphyr::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A command without a word of the environment, so that nobody's settings count.
fn plainroute(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plainroute"));
    command.env_clear().current_dir(root()).args(arguments).stdin(Stdio::null());
    command
}

fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().expect("plainroute runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Outcome {
        code: output.status.code().expect("an exit code"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn run(arguments: &[&str]) -> Outcome {
    outcome(&mut plainroute(arguments))
}

fn run_with_input(arguments: &[&str], input: &str) -> Outcome {
    let mut command = plainroute(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("plainroute runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("an exit code");
    Outcome { code, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The repository: commands run there, so that messages name files without the way to them.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn help_and_version_are_answers() {
    let help = run(&["--help"]).expect(0);
    for command in ["agent", "peers", "routes", "pods", "pools", "explain", "plan", "check", "config"] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command} is not in {}", help.stdout);
    }
    assert_eq!(help.stderr, "");
    assert_eq!(run(&["routes", "-h"]).expect(0).stderr, "");
    assert_eq!(run(&["--version"]).expect(0).stdout, format!("plainroute {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_meant() {
    let wrong: [&[&str]; 17] = [
        &[],
        &["nonsense"],
        &["p"],
        &["peers", "-o", "xml"],
        &["peers", "surplus"],
        &["peers", "--socket"],
        &["routes", "everything"],
        &["routes", "advertised", "--peer"],
        &["explain"],
        &["plan", "--node", "node-a"],
        &["config"],
        &["config", "check"],
        &["config", "check", "labs", "-o", "short"],
        &["completions"],
        &["completions", "basic"],
        &["agent"],
        &["agent", "--config", "labs", "--log-format", "poem"],
    ];
    for arguments in wrong {
        let outcome = run(arguments);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{arguments:?}: {}", outcome.stderr);
        let hint = ["Usage: plainroute", "try '--help'"].iter().any(|hint| outcome.stderr.contains(hint));
        assert!(hint, "{arguments:?}: {}", outcome.stderr);
    }
}

#[test]
fn right_files_are_valid_wherever_they_come_from() {
    let directory = run(&["config", "check", "labs/single-tor/manifests"]).expect(0);
    assert!(directory.stdout.starts_with("valid: 1 AgentConfig, "), "{}", directory.stdout);
    assert_eq!(directory.stderr, "");
    let file = run(&["config", "check", "config/tests/good/contract.yaml"]).expect(0);
    assert_eq!(
        file.stdout,
        "valid: 1 AgentConfig, 1 BGPPeer, 1 BGPAdvertisement, 1 IPPool, 1 IPBlock, 1 Egress, 1 Pod, 1 Namespace, 1 Node\n"
    );
    let contract = std::fs::read_to_string(root().join("config/tests/good/contract.yaml")).expect("a file");
    assert_eq!(run_with_input(&["config", "check", "-"], &contract).expect(0).stdout, file.stdout);
    let json = run(&["config", "check", "config/tests/good/contract.yaml", "-o", "json"]).expect(0).json();
    assert_eq!(json, json!({ "valid": true, "objects": 9, "errors": [] }));
}

#[test]
fn wrong_files_are_refused_with_the_place_of_every_error() {
    let bad = root().join("config/tests/bad");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(bad).expect("bad files").map(|entry| entry.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    assert!(files.len() > 10);
    for file in files {
        let path = file.to_str().expect("UTF-8");
        let text = run(&["config", "check", path]).expect(1);
        assert!(text.stderr.starts_with(&format!("{path}:")), "{path}: {}", text.stderr);
        assert_eq!(text.stdout, "");
        let json = run(&["config", "check", path, "-o", "json"]).expect(1).json();
        assert_eq!((&json["valid"], &json["objects"]), (&json!(false), &json!(0)));
        let errors = json["errors"].as_array().expect("a list");
        assert!(!errors.is_empty());
        for error in errors {
            assert_eq!(error["file"], path);
            assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
            assert!(text.stderr.contains(error["message"].as_str().expect("a message")), "{error}");
        }
    }
}

const WRONG_PEER: &str = "\
apiVersion: plainroute.dev/v1alpha1
kind: BGPPeer
metadata: { name: tor-a }
spec: { localASN: 64512, peerASN: 0, peerAddress: 172.16.0.254 }
";

#[test]
fn an_error_is_told_with_line_column_field_and_caret() {
    let text = run_with_input(&["config", "check", "-"], WRONG_PEER).expect(1);
    insta::assert_snapshot!(text.stderr, @r"
    <stdin>:4:35: spec.peerASN: AS number 0 is reserved (RFC 7607)
      |
    4 | spec: { localASN: 64512, peerASN: 0, peerAddress: 172.16.0.254 }
      |                                   ^
    ");
    let json = run_with_input(&["config", "check", "-", "-o", "json"], WRONG_PEER).expect(1);
    let error = &json.json()["errors"][0];
    assert_eq!((&error["file"], &error["field"]), (&json!("<stdin>"), &json!("spec.peerASN")));
    assert_eq!((&error["line"], &error["column"]), (&json!(4), &json!(35)));
    let yaml = run_with_input(&["config", "check", "-", "-o", "yaml"], WRONG_PEER).expect(1);
    assert_eq!(yaml.yaml(), json.json());
}

#[test]
fn a_file_that_is_not_there_is_refused_by_its_name() {
    let outcome = run(&["config", "check", "labs/none.yaml"]).expect(1);
    assert!(outcome.stderr.starts_with("labs/none.yaml: "), "{}", outcome.stderr);
}

#[test]
fn files_are_planned_without_an_agent() {
    let of = |node: &str, output: &str| {
        run(&["plan", "--config", "labs/single-tor/manifests", "--node", node, "-o", output]).expect(0)
    };
    let json = of("node-a", "json").json();
    assert_eq!(of("node-a", "yaml").yaml(), json);
    assert_eq!(of("node-a", "table").yaml(), json);
    let plan: Plan = serde_json::from_value(json).expect("a plan");
    let prefixes =
        |plan: &Plan| plan.advertisements().map(|route| route.prefix.to_string()).collect::<BTreeSet<_>>();
    assert!(prefixes(&plan).contains("10.20.0.10/32"), "{:?}", prefixes(&plan));
    let other: Plan = serde_json::from_value(of("node-b", "json").json()).expect("a plan");
    assert!(prefixes(&plan).is_disjoint(&prefixes(&other)) && !prefixes(&other).is_empty());
    // The node that the agent itself would take.
    let mut command = plainroute(&["plan", "--config", "labs/single-tor/manifests", "-o", "json"]);
    assert_eq!(outcome(command.env("NODE_NAME", "node-b")).expect(0).json()["node"], "node-b");
}

#[test]
fn wrong_files_are_not_planned() {
    let outcome = run_with_input(&["plan", "--config", "-"], WRONG_PEER).expect(1);
    assert!(outcome.stderr.starts_with("<stdin>:4:35: spec.peerASN"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
}

/// The recording with which the fuzz target of its reader begins: two sessions, from begin to end.
fn recording() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../bgp/proto/fuzz/corpus/record/life"))
        .expect("a recording")
}

fn replay(octets: &[u8], arguments: &[&str]) -> Outcome {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("recording");
    fs::write(&file, octets).expect("written");
    run(&[&["replay", file.to_str().expect("UTF-8")], arguments].concat())
}

#[test]
fn a_recording_is_told_message_by_message() {
    let whole = replay(&recording(), &["--peer", "spine"]).expect(0);
    insta::with_settings!({ snapshot_path => "snapshots/cli", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("replay", whole.stdout);
    });
    let lines = replay(&recording(), &["-o", "json"]).expect(0).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (verdict, lines) = lines.split_last().expect("lines");
    assert!(
        verdict["records"].as_u64().is_some_and(|records| records > 20) && verdict["cut"].is_null(),
        "{verdict}"
    );
    let updates = lines.iter().filter(|line| line["message"] == "UPDATE" && line["what"] == "received");
    assert_eq!(updates.count(), 2);
    let of = |peer: &str| lines.iter().filter(|line| line["peer"] == peer).count();
    assert_eq!((of("spine") + of("leaf"), of("spine")), (lines.len(), whole.stdout.lines().count() - 1));
}

#[test]
fn what_is_wrong_with_a_recording_is_said_with_its_place() {
    let whole = recording();
    let cut = replay(&whole[..whole.len() - 9], &[]).expect(0).stdout;
    let end =
        format!("the file was cut short at octet {}, and is as recorded up to there\n", whole.len() - 9);
    assert!(cut.ends_with(&end), "{cut}");
    let mut flipped = whole.clone();
    flipped[40] ^= 1;
    let flipped = replay(&flipped, &[]).expect(1).stdout;
    assert_eq!(
        flipped,
        "0 records replayed; the record at octet 10 is corrupt; what is behind it was not replayed\n"
    );
    for (octets, said) in
        [(&b"apiVersion: v1"[..], "not a recording of sessions"), (b"PLRTREC\n\0\x02", "version 2")]
    {
        let outcome = replay(octets, &[]).expect(2);
        assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    }
    assert!(replay(b"", &[]).expect(0).stdout.contains("cut short at octet 0"));
    let error = replay(&whole, &["--peer", "nobody"]).expect(2).stderr;
    assert!(error.contains("no session with a peer nobody"), "{error}");
    assert!(run(&["replay", "/nowhere/recording"]).expect(2).stderr.contains("/nowhere/recording"));
}

/// The negative control: a file that is sound, of a session that did something else.
#[test]
fn a_session_that_did_something_else_is_told_with_offset_time_and_peer() {
    use plainroute_bgp::record::{Input, Reader, write_end, write_header};
    let mut reader = Reader::new(recording().into()).expect("a header");
    let mut out = bytes::BytesMut::new();
    write_header(&mut out);
    let mut place = 0;
    while let Ok((_, mut record)) = reader.poll().expect("sound") {
        if place == 0 && matches!(record.input, Input::Octets(..)) {
            record.digest ^= 1;
            place = out.len();
        }
        record.encode(&mut out);
    }
    write_end(&mut out);
    let different = replay(&out, &[]).expect(1).stdout;
    let said = format!(
        "what came of the record at octet {place} (0.000000 s, peer spine) is not what was recorded\n"
    );
    assert!(different.ends_with(&said), "{different}");
    let json = replay(&out, &["-o", "json"]).expect(1).stdout;
    let verdict: Value = serde_json::from_str(json.lines().last().expect("a line")).expect("JSON");
    assert_eq!(verdict["different"], said.trim_end());
}

#[test]
fn each_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).expect(0).stdout;
        for word in ["plainroute", "explain", "advertised"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let script = run(&["completions", "bash"]).stdout;
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash");
    bash.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("it reads");
    assert!(bash.wait().expect("it ends").success());
}

#[test]
fn the_definitions_are_printed_as_they_are_on_disk() {
    let printed = run(&["crds"]).expect(0).stdout;
    let documents: Vec<&str> =
        printed.split_inclusive("---\n").filter(|document| document.len() > 4).collect();
    assert_eq!(documents.len(), 6, "one for each kind of the cluster");
    for file in std::fs::read_dir("../config/crd").expect("config/crd") {
        let file = file.expect("an entry").path();
        let written = std::fs::read_to_string(&file).expect("a definition");
        assert!(printed.contains(&written), "{} is not printed", file.display());
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error_and_a_full_disk_is_one() {
    let written_to = |stdout: Stdio, arguments: &[&str]| {
        let mut command = plainroute(arguments);
        let output = command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("plainroute runs");
        let output = output.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let arguments: [&[&str]; 3] = [
        &["completions", "zsh"],
        &["config", "check", "labs/single-tor/manifests"],
        &["plan", "--config", "labs/single-tor/manifests", "--node", "node-a", "-o", "json"],
    ];
    for arguments in arguments {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        assert_eq!(written_to(writer.into(), arguments), (Some(0), String::new()), "{arguments:?}");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let (code, stderr) = written_to(full.into(), arguments);
        assert!(code == Some(2) && stderr.starts_with("plainroute: standard output: "), "{stderr}");
    }
}

/// Every command that asks, and what it asks for.
const ASKING: [(&[&str], &str); 17] = [
    (&["peers"], "/v1/peers"),
    (&["routes"], "/v1/routes/advertised"),
    (&["routes", "advertised", "--peer", "tor a&b"], "/v1/routes/advertised?peer=tor%20a%26b"),
    (&["routes", "received", "--peer", "tor-a"], "/v1/routes/received?peer=tor-a"),
    (&["routes", "kernel"], "/v1/routes/kernel"),
    (&["pods"], "/v1/pods"),
    (&["pools"], "/v1/pools"),
    (&["pools", "check"], "/v1/pools/check"),
    (&["explain", "2001:db8::1"], "/v1/explain?subject=2001:db8::1"),
    (&["explain", "erp/orders"], "/v1/explain?subject=erp/orders"),
    (&["plan"], "/v1/plan"),
    (&["check"], "/v1/check"),
    (&["who", "2001:db8::1"], "/v1/who?address=2001:db8::1"),
    (
        &["who", "10.20.0.10", "--at", "2026-11-22T12:00:00+02:00"],
        "/v1/who?address=10.20.0.10&at=2026-11-22T10:00:00Z",
    ),
    (&["ledger", "export"], "/v1/ledger?after=0"),
    (
        &["ledger", "export", "--since", "2026-11-22T10:00:00Z"],
        "/v1/ledger?after=0&since=2026-11-22T10:00:00Z",
    ),
    (&["ledger", "verify"], "/v1/ledger/verify"),
];

#[test]
fn without_an_agent_every_question_exits_with_2_and_names_the_socket() {
    let folder = TempDir::new().expect("a directory");
    let (absent, left, file) =
        (folder.path().join("absent"), folder.path().join("left"), folder.path().join("file"));
    drop(UnixListener::bind(&left).expect("a socket"));
    std::fs::write(&file, "").expect("a file");
    for (arguments, _) in ASKING {
        for (socket, word) in [(&absent, "does not exist"), (&left, "has ended"), (&file, "has ended")] {
            let path = socket.to_str().expect("UTF-8");
            let outcome = run(&[arguments, &["--socket", path]].concat()).expect(2);
            assert!(outcome.stderr.contains(path) && outcome.stderr.contains(word), "{}", outcome.stderr);
            assert_eq!(outcome.stdout, "");
        }
    }
    // By default, and by the environment.
    let outcome = run(&["peers"]).expect(2);
    assert!(outcome.stderr.contains("/run/plainroute/agent.sock"), "{}", outcome.stderr);
    let outcome = self::outcome(plainroute(&["peers"]).env("PLAINROUTE_SOCKET", &absent)).expect(2);
    assert!(outcome.stderr.contains(absent.to_str().expect("UTF-8")), "{}", outcome.stderr);
}

/// What stands in an agent's place does with a connection.
enum Conduct {
    /// Answers with a status line and a body, and closes.
    Answers(&'static str, String),
    /// Says this and closes.
    Says(&'static str),
    /// Says nothing, and waits for the other to go.
    Hangs,
}

/// A server in an agent's place. Its thread ends with the test's process.
struct FakeAgent {
    folder: TempDir,
    asked: mpsc::Receiver<String>,
}

impl FakeAgent {
    fn new(conduct: Conduct) -> FakeAgent {
        let folder = TempDir::new().expect("a directory");
        let listener = UnixListener::bind(folder.path().join("agent.sock")).expect("a socket");
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let path = serve(stream.expect("a connection"), &conduct);
                if sender.send(path).is_err() {
                    return;
                }
            }
        });
        FakeAgent { folder, asked }
    }

    fn answering(answer: &impl Serialize) -> FakeAgent {
        FakeAgent::new(Conduct::Answers("200 OK", serde_json::to_string(answer).expect("JSON")))
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let socket = self.folder.path().join("agent.sock");
        run(&[arguments, &["--socket", socket.to_str().expect("UTF-8")]].concat())
    }

    /// The path that was asked for by the last command.
    fn asked(&self) -> String {
        self.asked.recv_timeout(Duration::from_secs(10)).expect("a question")
    }
}

fn serve(mut stream: UnixStream, conduct: &Conduct) -> String {
    let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
    let head: Vec<String> =
        lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    match conduct {
        Conduct::Answers(status, body) => {
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            // Who has seen enough may be gone.
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
        Conduct::Says(text) => {
            let _ = stream.write_all(text.as_bytes());
        }
        Conduct::Hangs => drop(lines.next()),
    }
    let request = head.first().cloned().unwrap_or_default();
    request.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// What a command prints in each form for people, and that the forms for programs carry the whole answer.
#[track_caller]
fn shows(name: &str, arguments: &[&str], answer: &impl Serialize, code: i32) {
    let agent = FakeAgent::answering(answer);
    let of = |output: &str| agent.run(&[arguments, &["-o", output]].concat()).expect(code);
    let whole = serde_json::to_value(answer).expect("JSON");
    assert_eq!(of("json").json(), whole, "{name}");
    assert_eq!(of("yaml").yaml(), whole, "{name}");
    let (table, wide) = (of("table").stdout, of("wide").stdout);
    let text = if wide == table { table } else { format!("{table}\n{wide}") };
    insta::with_settings!({ snapshot_path => "snapshots/cli", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn answers_are_shown_whole() {
    shows("peers", &["peers"], &answers::peers(), 1);
    shows("routes-advertised", &["routes"], &answers::advertised(), 0);
    shows("routes-received", &["routes", "received"], &answers::received(), 0);
    shows("routes-kernel", &["routes", "kernel"], &answers::kernel(), 1);
    shows("pods", &["pods"], &answers::pods(), 0);
    shows("explain", &["explain", "erp/orders"], &answers::explanation(), 1);
    shows("check", &["check"], &answers::sick(), 1);
    shows("ledger-verify", &["ledger", "verify"], &answers::damaged_ledger(), 1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/dual-stack");
    let plan = common::plan_of(&folder);
    shows("pools", &["pools"], &plan.pools, 0);
    shows("plan", &["plan"], &plan, 0);
}

#[test]
fn where_there_is_nothing_a_sentence_says_so() {
    let agent = FakeAgent::answering(&json!([]));
    for (arguments, code, sentence) in [
        (["peers", "-o"].as_slice(), 1, "no BGPPeer serves this node\n"),
        (&["routes", "-o"], 0, "nothing is advertised\n"),
        (&["routes", "received", "-o"], 0, "nothing was received that the import rules accept\n"),
        (&["routes", "kernel", "-o"], 0, "the agent keeps no route in the kernel\n"),
        (&["pods", "-o"], 0, "no Pod is known\n"),
        (&["pools", "-o"], 0, "no IPPool is known\n"),
    ] {
        assert_eq!(agent.run(&[arguments, &["table"]].concat()).expect(code).stdout, sentence);
        assert_eq!(agent.run(&[arguments, &["json"]].concat()).expect(code).json(), json!([]));
    }
}

#[test]
fn each_command_asks_for_its_own() {
    for (arguments, path) in ASKING {
        let agent = FakeAgent::answering(&json!(null));
        agent.run(arguments);
        assert_eq!(agent.asked(), path, "{arguments:?}");
    }
}

#[test]
fn who_held_an_address_is_shown_and_that_nobody_is_known_is_said_as_it_is() {
    let run =
        |answer: &Who, output: &str| FakeAgent::answering(answer).run(&["who", "10.20.0.10", "-o", output]);
    let held = answers::who();
    let table = run(&held, "table").expect(0).stdout;
    let expected = "\
        NAMESPACE  POD       NODE    SINCE                 UNTIL                 POOL\n\
        erp        orders-0  node-a  2026-11-20T08:00:00Z  2026-11-21T09:30:00Z  erp\n\
        erp        orders-1  node-a  -                     -                     erp\n\
        erp        orders-0  node-b  2026-11-20T08:00:00Z  2026-11-21T09:30:00Z  erp\n";
    assert_eq!(table, expected);
    assert!(run(&held, "wide").expect(0).stdout.contains("6c1f  Ledger\n"));
    assert_eq!(run(&held, "json").expect(0).json(), value(&held));
    assert_eq!(run(&held, "yaml").expect(0).yaml(), value(&held));
    // Where this node knows nobody, the blocks of the cluster are told, and whose ledger knows of the past.
    let elsewhere = Who { holders: Vec::new(), ..held };
    let said = run(&elsewhere, "table").expect(1).stdout;
    for line in [
        "the IPBlocks of the cluster could not be asked: the API server is away\n",
        "now: IPBlock 10-20-0-0-28 of node node-b (IPPool erp): lent to node node-c (IPBlock of UID 77) since 2026-11-20T08:00:00Z\n",
        "on node-b `plainroute who 10.20.0.10 --at 2026-11-21T00:00:00Z`",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let nobody = Who { blocks: Vec::new(), blocks_unknown: None, ..elsewhere };
    assert_eq!(run(&nobody, "json").expect(1).json(), value(&nobody));
    let earlier = Some("2026-09-30T23:59:59Z".parse().expect("a time"));
    for (answer, expected) in [
        (Who { at: None, ..nobody.clone() }, "no Pod of node node-a holds 10.20.0.10\n"),
        (nobody.clone(), "no Pod of node node-a held 10.20.0.10 at 2026-11-21T00:00:00Z\n"),
        (
            Who { at: earlier, ..nobody.clone() },
            "who held 10.20.0.10 at 2026-09-30T23:59:59Z is not known: the ledger of node node-a begins at 2026-10-01T00:00:00Z\n",
        ),
        (
            Who { at: earlier, known_since: None, ..nobody },
            "who held 10.20.0.10 at 2026-09-30T23:59:59Z is not known: the ledger of node node-a is empty\n",
        ),
    ] {
        assert_eq!(run(&answer, "table").expect(1).stdout, expected);
    }
    for wrong in [&["who", "10.20.0"][..], &["who", "10.20.0.10", "--at", "yesterday"]] {
        let outcome = self::run(wrong).expect(2);
        assert!(outcome.stderr.contains(wrong[wrong.len() - 1]), "{}", outcome.stderr);
    }
}

#[test]
fn what_the_records_do_not_agree_in_is_told_side_by_side() {
    let checked = answers::pools_check();
    let run = |answer: &PoolsCheck, words: &[&str]| FakeAgent::answering(answer).run(words);
    let said = run(&checked, &["pools", "check"]).expect(1).stdout;
    assert!(said.contains("10.20.0.1\n  journal  held by Pod erp/app (UID 6c1f, sandbox c1)\n"), "{said}");
    assert_eq!(said.matches("  => mended\n").count(), 1, "{said}");
    assert_eq!(said.matches("  => it is freed\n").count(), 3, "{said}");
    assert_eq!(said.matches("`--repair` mends it now").count(), 1, "{said}");
    assert!(said.contains("not compared: the IPBlocks of this node could not be read"), "{said}");
    let said = run(&checked, &["pools", "check", "--repair"]).expect(1).stdout;
    assert!(said.contains("  not mended yet\n"), "{said}");
    let well = PoolsCheck { disagreements: Vec::new(), unknown: Vec::new(), mended: Vec::new(), ..checked };
    let said = run(&well, &["pools", "check"]).expect(0).stdout;
    assert_eq!(said, "journal, IPBlocks, sandboxes and Pods of node node-a agree\n");
    assert_eq!(run(&well, &["pools", "check", "-o", "json"]).expect(0).json(), value(&well));
}

#[test]
fn a_command_may_be_shortened() {
    let agent = FakeAgent::answering(&answers::sound());
    assert!(agent.run(&["ch"]).expect(0).stdout.contains("nothing is wrong"));
}

fn value(answer: &impl Serialize) -> Value {
    serde_json::to_value(answer).expect("JSON")
}

#[test]
fn what_is_asked_about_decides_on_0_or_1() {
    let code = |arguments: &[&str], answer: Value| FakeAgent::answering(&answer).run(arguments).code;
    let mut explained = answers::explanation();
    assert_eq!(code(&["peers"], value(&vec![answers::established()])), 0);
    assert_eq!(code(&["peers"], value(&answers::peers())), 1);
    assert_eq!(code(&["routes", "kernel"], value(&answers::kernel()[..1].to_vec())), 0);
    assert_eq!(code(&["routes", "kernel"], value(&answers::kernel())), 1);
    // What the rules refuse is their work; what is planned and not delivered is an illness.
    assert_eq!(code(&["pods"], value(&answers::pods())), 0);
    assert_eq!(code(&["pods"], value(&vec![answers::undelivered()])), 1);
    // Of a Pod all addresses count; of an address, that somebody's is advertised.
    assert_eq!(code(&["explain", "erp/orders"], value(&explained)), 1);
    assert_eq!(code(&["explain", "10.20.0.10"], value(&explained)), 0);
    explained.addresses.remove(0);
    assert_eq!(code(&["explain", "10.20.0.10"], value(&explained)), 1);
    explained.addresses.clear();
    assert_eq!(code(&["explain", "erp/orders"], value(&explained)), 1);
    assert_eq!(code(&["check"], value(&answers::sound())), 0);
    assert_eq!(code(&["check"], value(&answers::sick())), 1);
    let awaiting = plainroute_agent::admin::view::Health { ready: false, ..answers::sound() };
    assert_eq!(code(&["check"], value(&awaiting)), 1);
}

#[test]
fn what_does_not_exist_is_wrong_usage_in_the_agents_own_words() {
    let message = "no peer tor-x on this node; its peers are: tor-a, tor-b";
    let agent = FakeAgent::new(Conduct::Answers("404 Not Found", message.to_owned()));
    let outcome = agent.run(&["routes", "--peer", "tor-x"]).expect(2);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr), ("", format!("plainroute: {message}\n")));
    // An answer of another kind is none, so no agent is asked for it.
    let outcome = agent.run(&["routes", "kernel", "--peer", "tor-a"]).expect(2);
    assert!(outcome.stderr.contains("--peer"), "{}", outcome.stderr);
}

#[test]
fn an_agent_that_hangs_is_waited_for_in_vain_but_not_for_ever() {
    let agent = FakeAgent::new(Conduct::Hangs);
    let begun = Instant::now();
    let outcome = agent.run(&["peers", "--patience", "0.2"]).expect(2);
    assert!(outcome.stderr.contains("did not answer within 200ms"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("agent.sock"), "{}", outcome.stderr);
    // Well below the default of 10 seconds, which would mean that the option does nothing.
    assert!((200..9_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[test]
fn an_answer_that_is_none_exits_with_2_and_names_the_socket() {
    let nonsense = [
        Conduct::Says("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        Conduct::Says(""),
        Conduct::Says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n[{"),
        Conduct::Answers("200 OK", "[{\"name\": 1}]".to_owned()),
        Conduct::Answers("200 OK", "<html>".to_owned()),
        Conduct::Answers("200 OK", String::new()),
        Conduct::Answers("500 Internal Server Error", String::new()),
    ];
    for (index, conduct) in nonsense.into_iter().enumerate() {
        let outcome = FakeAgent::new(conduct).run(&["peers"]).expect(2);
        assert!(outcome.stderr.contains("agent.sock"), "{index}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{index}");
    }
}
