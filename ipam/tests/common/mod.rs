//! Nodes over one API server that answers at once, for tests of what happens without trouble.
#![allow(dead_code, reason = "each test file takes what it needs")]
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use plainroute_blocks::{
    Add, Answer, Attachment, BlockObject, Input, Ipam, Now, Observation, Output, Record, Refusal, Request,
    Settings, Ticket, World,
};
use plainroute_config::{IpPool, Labels};

/// The API server.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) objects: BTreeMap<String, BlockObject>,
    next: u64,
    /// Whether it can be reached.
    pub(crate) away: bool,
    /// The requests that changed something.
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    /// The nodes that are fenced indeed.
    pub(crate) fenced: BTreeSet<String>,
}

impl Server {
    pub(crate) fn answer(&mut self, request: Request) -> Answer {
        if self.away {
            return Answer::Failed("connection refused".to_owned());
        }
        match &request {
            Request::Create { .. }
            | Request::Update { .. }
            | Request::Delete { .. }
            | Request::DeleteOfFenced { .. } => self.writes += 1,
            Request::Get { .. } | Request::OfNode(_) | Request::OfPool(_) | Request::Within(_) => {
                self.reads += 1
            }
        }
        let list = |keep: &dyn Fn(&BlockObject) -> bool| {
            Answer::Objects(self.objects.values().filter(|object| keep(object)).cloned().collect())
        };
        let found = |name: &String, uid: &String, version: &String| match self.objects.get(name) {
            None => Err(Answer::Missing),
            Some(object) if object.uid != *uid || object.version != *version => Err(Answer::Conflict),
            Some(object) => Ok(object.clone()),
        };
        self.next += 1;
        let version = self.next.to_string();
        match request {
            Request::OfNode(node) => list(&|object| object.spec.node == node),
            Request::OfPool(pool) => list(&|object| object.spec.pool == pool),
            Request::Within(prefix) => list(&|object| object.spec.within.prefix() == prefix),
            Request::Get { name } => self
                .objects
                .get(&name)
                .cloned()
                .map_or(Answer::Missing, |object| Answer::Object(Box::new(object))),
            Request::Create { name, .. } if self.objects.contains_key(&name) => Answer::Exists,
            Request::Create { name, spec } => {
                self.put(BlockObject { name, uid: format!("uid-{version}"), version, spec })
            }
            Request::Update { name, uid, version: old, spec } => match found(&name, &uid, &old) {
                Ok(object) => self.put(BlockObject { version, spec, ..object }),
                Err(answer) => answer,
            },
            Request::DeleteOfFenced { node, .. } if !self.fenced.contains(&node) => Answer::Conflict,
            Request::Delete { name, uid, version } | Request::DeleteOfFenced { name, uid, version, .. } => {
                match found(&name, &uid, &version) {
                    Ok(_) => {
                        self.objects.remove(&name);
                        Answer::Deleted
                    }
                    Err(answer) => answer,
                }
            }
        }
    }

    /// The block is deleted and made anew by another node, which knows nothing of it.
    pub(crate) fn hand_over(&mut self, name: &str, node: &str) {
        let object = self.objects.get_mut(name).expect("the block");
        object.uid = format!("{}-anew", object.uid);
        (object.spec.node, object.spec.epoch) = (node.to_owned(), object.spec.epoch + 1);
        object.spec.allocations.clear();
    }

    fn put(&mut self, object: BlockObject) -> Answer {
        self.objects.insert(object.name.clone(), object.clone());
        Answer::Object(Box::new(object))
    }
}

/// Some nodes, their journals, and the time.
pub(crate) struct Cluster {
    pub(crate) server: Server,
    pub(crate) nodes: Vec<Ipam>,
    pub(crate) journals: Vec<Vec<Record>>,
    pub(crate) time: Duration,
    pub(crate) replies: BTreeMap<Ticket, Result<Vec<IpAddr>, Refusal>>,
    pub(crate) appended: usize,
    pub(crate) world: World,
    next: u64,
}

pub(crate) fn pool(name: &str, spec: &str) -> IpPool {
    let json = format!(
        r#"{{"apiVersion":"plainroute.dev/v1alpha1","kind":"IPPool","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
    );
    serde_json::from_str(&json).expect("a pool")
}

fn settings(node: usize) -> Settings {
    Settings { node: format!("node-{node}"), boot: "boot".to_owned(), has_server: true }
}

impl Cluster {
    pub(crate) fn new(nodes: usize, pools: Vec<IpPool>) -> Cluster {
        let named = |name: &str| Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]);
        let namespaces = ["erp", "crm"].map(|name| (name.to_owned(), (named(name), None)));
        let world = World { pools, namespaces: namespaces.into(), node_labels: Labels::new() };
        let recovered = (0..nodes).map(|node| Ipam::recover(settings(node), &[]).expect("no journal"));
        let (nodes, journals): (Vec<_>, Vec<_>) = recovered.unzip();
        let mut cluster = Cluster {
            server: Server::default(),
            nodes,
            journals,
            time: Duration::ZERO,
            replies: BTreeMap::new(),
            appended: 0,
            world: world.clone(),
            next: 0,
        };
        for node in 0..cluster.nodes.len() {
            cluster.feed(node, Input::World(world.clone()));
        }
        cluster
    }

    pub(crate) fn now(&self) -> Now {
        let start: Timestamp = "2026-11-22T11:00:00Z".parse().expect("a time");
        Now { wall: start + SignedDuration::try_from(self.time).expect("a span"), uptime: self.time }
    }

    /// Gives a node an input, and carries all out that comes of it.
    pub(crate) fn feed(&mut self, node: usize, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.now();
            for output in self.nodes[node].handle(now, input) {
                match output {
                    Output::Append(record) => {
                        self.journals[node].push(record);
                        self.appended += 1;
                    }
                    Output::Ask(call, request) => {
                        inputs.push_back(Input::Answer(call, self.server.answer(request)))
                    }
                    Output::Reply(ticket, result) => drop(self.replies.insert(ticket, result)),
                    Output::Event { .. } | Output::Ledger(_) => {}
                }
            }
        }
    }

    /// Lets time pass, with timers and watches.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.time + span;
        while self.time < end {
            let due = self.nodes.iter().filter_map(Ipam::poll_timeout).min().unwrap_or(end);
            self.time = due
                .clamp(self.time + Duration::from_millis(10), self.time + Duration::from_millis(500))
                .min(end);
            for node in 0..self.nodes.len() {
                self.feed(node, Input::Timeout);
                self.watch(node);
            }
        }
    }

    fn watch(&mut self, node: usize) {
        if self.server.away {
            return;
        }
        let name = format!("node-{node}");
        let all = self.server.objects.values();
        let owned = all.clone().filter(|object| object.spec.node == name).cloned().collect();
        let asked = all.filter(|object| object.spec.lender_node.as_ref() == Some(&name)).cloned().collect();
        self.feed(node, Input::Owned(owned));
        self.feed(node, Input::Asked(asked));
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Asks, and lets time pass until there is an answer.
    pub(crate) fn ask(
        &mut self,
        node: usize,
        input: impl FnOnce(Ticket) -> Input,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let ticket = self.ticket();
        self.feed(node, input(ticket));
        for _ in 0..60 {
            if let Some(reply) = self.replies.remove(&ticket) {
                return reply;
            }
            self.pass(Duration::from_millis(500));
        }
        panic!("no answer within 30 s");
    }

    pub(crate) fn add(&mut self, node: usize, add: Add) -> Result<Vec<IpAddr>, Refusal> {
        self.ask(node, |ticket| Input::Add(ticket, add))
    }

    pub(crate) fn del(&mut self, node: usize, container: &str) {
        let reply = self.ask(node, |ticket| Input::Del(ticket, attachment(container)));
        assert_eq!(reply, Ok(Vec::new()));
    }

    /// Shows a node what runs on it.
    pub(crate) fn look(&mut self, node: usize, containers: &[&str], sets: &[(&str, &str)]) {
        let sandboxes = containers.iter().map(|container| (attachment(container), Vec::new())).collect();
        let set = |(namespace, name): &(&str, &str)| ((*namespace).to_owned(), (*name).to_owned());
        let stateful_sets: BTreeSet<_> = sets.iter().map(set).collect();
        self.feed(node, Input::Observed(Observation { sandboxes, stateful_sets: Some(stateful_sets) }));
    }

    /// A node is fenced, and one hears of it.
    pub(crate) fn fence(&mut self, hears: usize, node: &str) {
        self.server.fenced.insert(node.to_owned());
        self.feed(hears, Input::Fenced(self.server.fenced.clone()));
    }

    /// Shows a node a sandbox with its addresses, and nothing else.
    pub(crate) fn look_at(&mut self, node: usize, container: &str, held: &[IpAddr]) {
        let sandboxes = BTreeMap::from([(attachment(container), held.to_vec())]);
        self.feed(node, Input::Observed(Observation { sandboxes, stateful_sets: None }));
    }

    /// The agent of a node starts with an empty disk, though its sandboxes run on.
    pub(crate) fn lose_journal(&mut self, node: usize) {
        let (ipam, first) = Ipam::recover(settings(node), &[]).expect("no journal");
        (self.nodes[node], self.journals[node]) = (ipam, first);
        self.feed(node, Input::World(self.world.clone()));
    }

    /// The agent of a node starts again from its journal.
    pub(crate) fn restart(&mut self, node: usize) {
        let (ipam, first) = Ipam::recover(settings(node), &self.journals[node]).expect("its own journal");
        assert_eq!(first, []);
        self.nodes[node] = ipam;
        // The pools are heard of some time after the start.
        self.feed(node, Input::Timeout);
        self.feed(node, Input::World(self.world.clone()));
    }
}

pub(crate) fn attachment(container: &str) -> Attachment {
    Attachment { container_id: container.to_owned(), interface: "eth0".to_owned() }
}

pub(crate) fn pod(namespace: &str, container: &str) -> Add {
    Add {
        attachment: attachment(container),
        namespace: namespace.to_owned(),
        name: format!("pod-of-{container}"),
        pod_uid: format!("uid-of-{container}"),
        fixed: Vec::new(),
        pools: None,
        stateful_set: None,
        patience: Duration::from_secs(10),
    }
}

pub(crate) fn addresses(texts: &[&str]) -> Result<Vec<IpAddr>, Refusal> {
    Ok(texts.iter().map(|text| text.parse().expect("an address")).collect())
}
