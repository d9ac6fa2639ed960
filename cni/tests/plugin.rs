//! What a runtime sees of the plugin: every command, every error, and that nothing makes it say something that is no CNI.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;

use plainroute_cni::environment::Verb;
use plainroute_cni::error::{Error, code};
use plainroute_cni::plugin::{Outcome, run};
use plainroute_cni::protocol::{Attachment, Command, Failure, Pod, Reply, Request};
use plainroute_cni::version::Version;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A runtime's call, to be bent by each test.
#[derive(Clone)]
struct Call {
    variables: BTreeMap<&'static str, OsString>,
    network: Value,
    reply: Result<Reply, Error>,
    asked: RefCell<Option<(String, Request)>>,
}

impl Call {
    fn new(command: &str) -> Call {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/run/netns/c1"),
            ("CNI_PATH", "/opt/cni/bin"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=erp;K8S_POD_NAME=db-0;K8S_POD_UID=u1"),
        ];
        let network = json!({ "cniVersion": "1.1.0", "name": "pods", "type": "ptp", "ipam": { "type": "plainroute-ipam" } });
        Call {
            variables: variables.map(|(name, value)| (name, value.into())).into(),
            network,
            reply: Ok(Reply::Addresses(vec!["10.20.0.5".parse().unwrap()])),
            asked: RefCell::default(),
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Call {
        self.variables.insert(name, value.into());
        self
    }

    fn network(mut self, change: impl FnOnce(&mut Value)) -> Call {
        change(&mut self.network);
        self
    }

    fn reply(mut self, addresses: &[&str]) -> Call {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.reply = Ok(Reply::Addresses(addresses));
        self
    }

    fn run_with(&self, input: &[u8]) -> Outcome {
        run(&|name| self.variables.get(name).cloned(), input, &|socket, request, _| {
            self.asked.replace(Some((socket.display().to_string(), request.clone())));
            self.reply.clone()
        })
    }

    fn run(&self) -> Outcome {
        self.run_with(self.network.to_string().as_bytes())
    }

    fn done(&self) -> String {
        let outcome = self.run();
        assert!(outcome.done, "{}", outcome.output);
        outcome.output
    }

    /// The code and the whole text of the error that it ends with; nothing was asked of the agent.
    fn refused(&self) -> (u64, String) {
        let error = self.failed();
        assert_eq!(self.asked.take(), None, "the agent was asked: {error:?}");
        error
    }

    fn failed(&self) -> (u64, String) {
        let outcome = self.run();
        assert!(!outcome.done, "{}", outcome.output);
        let error: Value = serde_json::from_str(&outcome.output).unwrap();
        (error["code"].as_u64().unwrap(), outcome.output)
    }

    fn command(&self) -> Command {
        self.asked.borrow().clone().expect("the agent was asked").1.command
    }
}

fn attachment() -> Attachment {
    Attachment { container_id: "c1".into(), ifname: "eth0".into() }
}

#[test]
fn add_asks_for_the_pod_and_tells_its_addresses() {
    let call = Call::new("ADD").reply(&["10.20.0.5", "fd00:20::5"]);
    let result: Value = serde_json::from_str(&call.done()).unwrap();
    assert_eq!(result["ips"][0], json!({ "address": "10.20.0.5/0", "gateway": "169.254.1.1" }));
    assert_eq!(result["ips"][1], json!({ "address": "fd00:20::5/128", "gateway": "fe80::1" }));
    let pod = Pod { namespace: "erp".into(), name: "db-0".into(), uid: Some("u1".into()) };
    let expected = Command::Add { attachment: attachment(), netns: "/run/netns/c1".into(), pod };
    let (socket, request) = call.asked.take().unwrap();
    assert_eq!((socket.as_str(), request), ("/run/plainroute/ipam.sock", Request::new("pods", expected)));
}

#[test]
fn the_configuration_says_where_the_agent_is_and_by_which_gateway() {
    let call = Call::new("ADD").network(|network| {
        network["ipam"]["socket"] = "/srv/ipam.sock".into();
        network["ipam"]["gateway"] = json!(["fd00:20::1", "10.20.0.1"]);
        network["ipam"]["timeoutSeconds"] = 5.into();
    });
    let call = call.reply(&["10.20.0.5", "fd00:20::5"]);
    let result: Value = serde_json::from_str(&call.done()).unwrap();
    assert_eq!(result["ips"][0], json!({ "address": "10.20.0.5/29", "gateway": "10.20.0.1" }));
    assert_eq!(result["ips"][1], json!({ "address": "fd00:20::5/125", "gateway": "fd00:20::1" }));
    assert_eq!(result["routes"][0], json!({ "dst": "0.0.0.0/0", "gw": "10.20.0.1" }));
    assert_eq!(call.asked.take().unwrap().0, "/srv/ipam.sock");
}

/// Whatever is missing or odd beside the sandbox and the interface, the address is given back.
#[test]
fn del_makes_do_with_little() {
    let call = Call::new("DEL").with("CNI_ARGS", "odd").with("CNI_NETNS", "").network(|network| {
        network["ipam"]["gatway"] = "10.20.0.1".into();
    });
    assert_eq!(call.done(), "");
    assert_eq!(call.command(), Command::Del { attachment: attachment(), netns: None, pod: None });
}

#[test]
fn check_wants_what_the_agent_holds_and_nothing_else() {
    let previous = |addresses: &[&str]| {
        let ips: Vec<Value> = addresses.iter().map(|address| json!({ "address": address })).collect();
        Call::new("CHECK").network(|network| network["prevResult"] = json!({ "ips": ips }))
    };
    let both = ["fd00:20::5/128", "10.20.0.5/0"];
    assert_eq!(previous(&both).reply(&["10.20.0.5", "fd00:20::5"]).done(), "");
    for (had, held) in [
        (&both[..], &["10.20.0.5"][..]),
        (&both[..1], &["10.20.0.5", "fd00:20::5"]),
        (&both[1..], &["10.20.0.6"]),
        (&both[1..], &[]),
        (&[], &[]),
    ] {
        let (code, said) = previous(had).reply(held).failed();
        assert_eq!(code, u64::from(code::DIFFERENT_ADDRESSES), "{had:?} {held:?}: {said}");
        assert!(said.contains("eth0 of sandbox c1: prevResult has "), "{said}");
    }
    let (code, said) = Call::new("CHECK").refused();
    assert!(code == 7 && said.contains("prevResult is missing"), "{said}");
    let (code, said) = previous(&["10.20.0/24"]).refused();
    assert!(code == 7 && said.contains("prevResult.ips[0].address `10.20.0/24`"), "{said}");
}

#[test]
fn gc_hands_on_the_attachments_and_never_takes_silence_for_none() {
    let field = "cni.dev/valid-attachments";
    let call = |value: Value| Call::new("GC").network(|network| network[field] = value);
    let one = call(json!([{ "containerID": "c1", "ifname": "eth0" }]));
    assert_eq!(one.done(), "");
    assert_eq!(one.command(), Command::Gc { valid_attachments: vec![attachment()] });
    let none = call(Value::Null);
    assert_eq!(none.done(), "");
    assert_eq!(none.command(), Command::Gc { valid_attachments: Vec::new() });
    for (call, expected) in [(Call::new("GC"), "is missing"), (call(json!(["c1"])), "is not a list")] {
        let (code, said) = call.refused();
        assert!(code == 7 && said.contains(field) && said.contains(expected), "{said}");
    }
}

#[test]
fn status_tells_whether_an_add_could_be_served() {
    assert_eq!(Call::new("STATUS").reply(&[]).done(), "");
    let mut away = Call::new("STATUS");
    away.reply = Err(Error::new(code::TRY_AGAIN, "nobody there"));
    assert_eq!(away.failed().0, 50);
    let mut refused = Call::new("STATUS");
    refused.reply = Ok(Reply::Refused(Failure { code: 51, message: "no plan".into(), details: "x".into() }));
    let (code, said) = refused.failed();
    assert!(code == 51 && said.contains("no plan") && said.contains("\"details\":\"x\""), "{said}");
}

#[test]
fn version_needs_nothing_and_names_all() {
    let call = Call { variables: [("CNI_COMMAND", "VERSION".into())].into(), ..Call::new("VERSION") };
    for (input, version) in [(&b""[..], "1.1.0"), (br#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
        let outcome = call.run_with(input);
        let expected = json!({ "cniVersion": version, "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] });
        assert_eq!((outcome.done, serde_json::from_str::<Value>(&outcome.output).unwrap()), (true, expected));
    }
}

#[test]
fn a_command_that_its_version_does_not_have_is_refused() {
    for (verb, since) in [("ADD", 0), ("DEL", 0), ("CHECK", 2), ("GC", 4), ("STATUS", 4)] {
        for (place, version) in Version::ALL.into_iter().enumerate() {
            let call = Call::new(verb).network(|network| {
                network["cniVersion"] = version.text().into();
                network["prevResult"] = json!({ "ips": [{ "address": "10.20.0.5/0" }] });
                network["cni.dev/valid-attachments"] = json!([]);
            });
            let outcome = call.run();
            assert_eq!(outcome.done, place >= since, "{verb} {}: {}", version.text(), outcome.output);
            if !outcome.done {
                let (code, said) = call.refused();
                assert!(code == 1 && said.contains(version.text()), "{said}");
            }
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let add = || Call::new("ADD");
    let without = |name: &str| {
        let mut call = add();
        call.variables.remove(name).expect("a variable that is there");
        call
    };
    let ipam = |field: &str, value: Value| add().network(|network| network["ipam"][field] = value);
    let top = |field: &str, value: Value| add().network(|network| network[field] = value);
    let mut not_utf8 = add();
    not_utf8.variables.insert("CNI_NETNS", OsString::from_vec(vec![b'/', 0xff]));
    let cases = [
        (4, "CNI_COMMAND is not set", without("CNI_COMMAND")),
        (4, "CNI_COMMAND: `MOVE`", Call::new("MOVE")),
        (4, "CNI_CONTAINERID is not set", without("CNI_CONTAINERID")),
        (4, "CNI_CONTAINERID: `-c`", add().with("CNI_CONTAINERID", "-c")),
        (4, "CNI_IFNAME is not set", without("CNI_IFNAME")),
        (4, "CNI_IFNAME: `eth 0`", add().with("CNI_IFNAME", "eth 0")),
        (4, "more than 15", add().with("CNI_IFNAME", "sixteen-octets-x")),
        (4, "CNI_NETNS is not set", without("CNI_NETNS")),
        (4, "CNI_NETNS is not UTF-8", not_utf8),
        (4, "K8S_POD_NAMESPACE is missing", without("CNI_ARGS")),
        (4, "K8S_POD_NAME is missing", add().with("CNI_ARGS", "K8S_POD_NAMESPACE=erp;K8S_POD_NAME=")),
        (4, "CNI_ARGS: `odd` is not", add().with("CNI_ARGS", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;odd")),
        (1, "cniVersion is missing", top("cniVersion", Value::Null)),
        (1, "cniVersion: 2.0.0", top("cniVersion", "2.0.0".into())),
        (7, "cniVersion 1 is not a text", top("cniVersion", 1.into())),
        (7, "name is missing", top("name", Value::Null)),
        (7, "name `/x`", top("name", "/x".into())),
        (
            7,
            "ipam is missing",
            add().network(|network| drop(network.as_object_mut().unwrap().remove("ipam"))),
        ),
        (7, "ipam is no object", top("ipam", "plainroute-ipam".into())),
        (7, "ipam.gatway is not known", ipam("gatway", "10.20.0.1".into())),
        (7, "ipam.socket `ipam.sock` is not", ipam("socket", "ipam.sock".into())),
        (7, "ipam.socket 1 is not a text", ipam("socket", 1.into())),
        (7, "ipam.timeoutSeconds 0", ipam("timeoutSeconds", 0.into())),
        (7, "ipam.timeoutSeconds \\\"5\\\"", ipam("timeoutSeconds", "5".into())),
        (7, "ipam.gateway \\\"10.20.0.1/24\\\"", ipam("gateway", "10.20.0.1/24".into())),
        (7, "ipam.gateway \\\"::\\\"", ipam("gateway", "::".into())),
        (7, "two addresses of a family", ipam("gateway", json!(["10.20.0.1", "10.20.0.2"]))),
    ];
    for (code, expected, call) in cases {
        let (found, said) = call.refused();
        assert_eq!(found, code, "{expected}: {said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let outcome = add().run_with(b"{\"cniVersion\": ");
    assert!(!outcome.done && outcome.output.contains("\"code\":6"), "{}", outcome.output);
}

/// What a runtime can make of anything: a result, nothing, or an error of the specification.
fn assert_is_cni(verb: &str, outcome: &Outcome) {
    if outcome.done && outcome.output.is_empty() {
        assert!(!matches!(verb, "ADD" | "VERSION"), "{verb} is done without a word");
        return;
    }
    let document: Value = serde_json::from_str(&outcome.output).expect("JSON");
    let version = document["cniVersion"].as_str().expect("a version");
    assert!(Version::named(version).is_some(), "{version}");
    if !outcome.done {
        assert!(document["code"].as_u64().is_some_and(|code| code > 0), "{document}");
        assert!(document["msg"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
    } else if verb == "ADD" {
        assert!(!document["ips"].as_array().expect("addresses").is_empty());
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[0-9a-f:./]{0,12}".prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let keys = "type|socket|gateway|timeoutSeconds|ips|address|containerID|ifname|[a-z]{0,3}";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn any_verb() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])
}

proptest! {
    #[test]
    fn no_bytes_on_standard_input_make_it_panic(verb in any_verb(), input in prop::collection::vec(any::<u8>(), 0..64)) {
        assert_is_cni(verb, &Call::new(verb).run_with(&input));
    }

    /// Configurations that are nearly right get further in.
    #[test]
    fn no_configuration_makes_it_panic(
        verb in any_verb(),
        field in prop::sample::select(
            vec!["cniVersion", "name", "ipam", "prevResult", "cni.dev/valid-attachments", "other"]),
        value in any_json(),
    ) {
        let call = Call::new(verb).network(|network| {
            network["prevResult"] = json!({ "ips": [{ "address": "10.20.0.5/0" }] });
            network[field] = value;
        });
        assert_is_cni(verb, &call.run());
    }

    #[test]
    fn no_environment_makes_it_panic(
        verb in any_verb(),
        name in prop::sample::select(vec!["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"]),
        value in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let mut call = Call::new(verb);
        call.variables.insert(name, OsString::from_vec(value.clone()));
        let outcome = call.run();
        // What it takes for the command is what was said.
        let said = String::from_utf8(value).unwrap_or_default();
        let read = Verb::read(&|name| call.variables.get(name).cloned()).map(Verb::text);
        assert_is_cni(read.unwrap_or(if name == "CNI_COMMAND" { &said } else { verb }), &outcome);
    }

    #[test]
    fn no_reply_makes_it_panic(verb in any_verb(), addresses in prop::collection::vec(any::<IpAddr>(), 0..4), code in any::<u32>()) {
        let mut call = Call::new(verb);
        call.reply = Ok(Reply::Addresses(addresses));
        assert_is_cni(verb, &call.run());
        let code = code.max(1);
        call.reply = Ok(Reply::Refused(Failure { code, message: "no".into(), details: String::new() }));
        assert_is_cni(verb, &call.run());
    }
}
