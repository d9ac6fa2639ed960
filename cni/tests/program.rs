//! The program itself, as a runtime starts it, against a socket that answers as the test says.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use plainroute_cni::protocol::Request;
use proptest::prelude::*;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_plainroute-ipam");

fn start(verb: &str, socket: &Path) -> Output {
    let network = json!({ "cniVersion": "1.1.0", "name": "pods",
                          "ipam": { "type": "plainroute-ipam", "socket": socket, "timeoutSeconds": 1 } });
    let mut child = Command::new(PROGRAM)
        .env_clear()
        .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_NETNS", "/run/netns/c1"), ("CNI_ARGS", "K8S_POD_NAMESPACE=erp;K8S_POD_NAME=db-0")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(network.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn error(output: &Output) -> (u64, String) {
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    (document["code"].as_u64().unwrap(), text)
}

/// Answers one connection with these octets; gives what it was asked.
fn answer(listener: UnixListener, reply: Vec<u8>) -> thread::JoinHandle<Request> {
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = Vec::new();
        BufReader::new(&stream).read_until(b'\n', &mut line).unwrap();
        // The plugin may have read enough.
        let _ = stream.write_all(&reply);
        Request::decode(&line).unwrap()
    })
}

#[test]
fn one_line_there_and_one_back() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ipam.sock");
    let asked = answer(
        UnixListener::bind(&socket).unwrap(),
        b"{\"addresses\":[{\"address\":\"10.20.0.5\"}],\"later\":1}\n".to_vec(),
    );
    let output = start("ADD", &socket);
    assert!(output.status.success(), "{output:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.20.0.5/0");
    assert_eq!(asked.join().unwrap().network, "pods");
}

#[test]
fn without_an_agent_it_says_so_and_to_try_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ipam.sock");
    for verb in ["ADD", "DEL"] {
        let (code, said) = error(&start(verb, &socket));
        assert!(
            code == 11 && said.contains(socket.to_str().unwrap()) && said.contains("No such file"),
            "{said}"
        );
    }
    assert_eq!(error(&start("STATUS", &socket)).0, 50);
    // One that is dead has left its socket behind.
    drop(UnixListener::bind(&socket).unwrap());
    let (code, said) = error(&start("ADD", &socket));
    assert!(code == 11 && said.contains("refused"), "{said}");
}

#[test]
fn an_agent_that_does_not_answer_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ipam.sock");
    // It listens, and nobody takes the connection.
    let _listener = UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    let (code, said) = error(&start("ADD", &socket));
    assert!(code == 11 && said.contains("did not answer within 1s"), "{said}");
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_reply_that_ends_early_is_none() {
    for (reply, expected) in
        [(&b""[..], "without a word"), (b"{\"addresses\":[{\"address\":\"10.20.0.5\"}]}", "is cut off")]
    {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("ipam.sock");
        let asked = answer(UnixListener::bind(&socket).unwrap(), reply.to_vec());
        let (code, said) = error(&start("ADD", &socket));
        assert!(code == 11 && said.contains(expected), "{said}");
        asked.join().unwrap();
    }
}

#[test]
fn it_puts_itself_into_a_directory_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let there = directory.path().join("plainroute-ipam");
    fs::write(&there, "an older one").unwrap();
    fs::write(directory.path().join(".plainroute-ipam.new"), "what a killed one left").unwrap();
    let install = |into: &Path| Command::new(PROGRAM).arg("install").arg(into).output().unwrap();
    assert!(install(directory.path()).status.success());
    assert!(fs::read(&there).unwrap() == fs::read(PROGRAM).unwrap(), "not the same program");
    assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o755);
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["plainroute-ipam"]);
    // The one that runs is replaced too: that is what an upgrade does.
    let again = Command::new(&there).arg("install").arg(directory.path()).output().unwrap();
    assert!(again.status.success(), "{again:?}");
    let nowhere = install(&directory.path().join("nowhere"));
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    assert!(!nowhere.status.success() && said.contains("nowhere: No such file"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_in_a_reply_make_it_panic(mut reply in prop::collection::vec(any::<u8>(), 0..80)) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("ipam.sock");
        reply.push(b'\n');
        let asked = answer(UnixListener::bind(&socket).unwrap(), reply);
        let (code, _) = error(&start("ADD", &socket));
        prop_assert!(code == 6 || code == 11, "{code}");
        asked.join().unwrap();
    }
}
