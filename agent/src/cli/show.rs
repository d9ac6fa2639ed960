//! The commands that ask the agent. Each tells whether what it shows is healthy.
use std::{net::IpAddr, time::Duration};

use anyhow::bail;
use hyper::Method;

use super::{
    Asked, Drain, Explain, Held, Output, Release, Routes, Which, client,
    output::{Rows, ago, or_dash, print, print_rows, print_value},
};
use crate::{
    admin::view::{
        AuthenticationView, DrainView, Explanation, Health, HeldView, KernelRouteView, NegotiatedView,
        PeerView, PodView, RangeView, RouteView, StationView,
    },
    bfd::protocol::BfdView,
    drain::DrainState,
    plan::{Delivery, Plan, PoolPlan},
};

pub(super) fn peers(asked: &Asked) -> anyhow::Result<bool> {
    let peers: Vec<PeerView> = client::ask(asked, "/v1/peers")?;
    print_rows(&peers, asked.output, "no BGPPeer serves this node")?;
    Ok(!peers.is_empty() && peers.iter().all(PeerView::is_well))
}

pub(super) fn routes(routes: &Routes) -> anyhow::Result<bool> {
    let asked = &routes.asked;
    let peer = routes.peer.as_ref().map(|peer| format!("?peer={}", encode(peer))).unwrap_or_default();
    match routes.which {
        Which::Advertised => {
            let views: Vec<RouteView> = client::ask(asked, &format!("/v1/routes/advertised{peer}"))?;
            print_rows(&views, asked.output, "nothing is advertised")?;
            Ok(true)
        }
        Which::Received => {
            let views: Vec<RouteView> = client::ask(asked, &format!("/v1/routes/received{peer}"))?;
            print_rows(&views, asked.output, "nothing was received that the import rules accept")?;
            Ok(true)
        }
        Which::Kernel if routes.peer.is_some() => {
            bail!(
                "--peer narrows the routes advertised to a peer or received from it, not those of the kernel"
            )
        }
        Which::Kernel => {
            let views: Vec<KernelRouteView> = client::ask(asked, "/v1/routes/kernel")?;
            print_rows(&views, asked.output, "the agent keeps no route in the kernel")?;
            Ok(views.iter().all(|view| view.installed))
        }
    }
}

pub(super) fn pods(asked: &Asked) -> anyhow::Result<bool> {
    let pods: Vec<PodView> = client::ask(asked, "/v1/pods")?;
    print_rows(&pods, asked.output, "no Pod is known")?;
    // What is planned and not delivered is an illness; what the rules refuse is their work.
    Ok(pods.iter().all(|pod| pod.reason.as_deref() != Some("NotDelivered")))
}

pub(super) fn pools(asked: &Asked) -> anyhow::Result<bool> {
    let pools: Vec<PoolPlan> = client::ask(asked, "/v1/pools")?;
    print_rows(&pools, asked.output, "no IPPool is known")?;
    Ok(true)
}

pub(super) fn plan(asked: &Asked) -> anyhow::Result<bool> {
    let plan: Plan = client::ask(asked, "/v1/plan")?;
    print_plan(&plan, asked.output)?;
    Ok(true)
}

/// A plan has no table of its own: what it says of Pods is `pods`, the rest is best read as YAML.
pub(super) fn print_plan(plan: &Plan, output: Output) -> anyhow::Result<()> {
    let output = if output == Output::Json { Output::Json } else { Output::Yaml };
    print_value(plan, output)
}

pub(super) fn explain(explain: &Explain) -> anyhow::Result<bool> {
    let asked = &explain.asked;
    let path = format!("/v1/explain?subject={}", encode(&explain.subject));
    let explanation: Explanation = client::ask(asked, &path)?;
    match asked.output {
        Output::Json | Output::Yaml => print_value(&explanation, asked.output)?,
        Output::Table | Output::Wide => print(&explanation_text(&explanation))?,
    }
    let mut addresses = explanation.addresses.iter();
    // An address may be told of other Pods too, which do not hold it; a Pod wants all of its own.
    let is_address = explain.subject.parse::<IpAddr>().is_ok();
    Ok(match addresses.len() {
        0 => false,
        _ if is_address => addresses.any(|address| address.advertised),
        _ => addresses.all(|address| address.advertised),
    })
}

fn explanation_text(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    for address in &explanation.addresses {
        line(format!("{}  {}", address.pod, or_dash(address.address)));
        for step in &address.steps {
            line(format!("  {}  {}", if step.ok { "ok" } else { "NO" }, step.text));
        }
        let reason = address.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let verdict = if address.advertised { "advertised" } else { "not advertised" };
        line(format!("  => {verdict}{reason}"));
        for step in &address.way_out {
            line(format!("  {}  way out: {}", if step.ok { "ok" } else { "NO" }, step.text));
        }
    }
    explanation.notes.iter().cloned().for_each(line);
    text
}

pub(super) fn check(asked: &Asked) -> anyhow::Result<bool> {
    let health: Health = client::ask(asked, "/v1/check")?;
    match asked.output {
        Output::Json | Output::Yaml => print_value(&health, asked.output)?,
        Output::Table | Output::Wide => {
            let ready = if health.ready { "in sync" } else { "not in sync yet" };
            let mut text = format!("node {}, version {}: {ready}\n", health.node, health.version);
            text.extend(health.problems.iter().map(|problem| format!("  {problem}\n")));
            if health.problems.is_empty() {
                text.push_str("  nothing is wrong\n");
            }
            text.extend(health.stations.iter().filter(|station| station.connected).map(|station| {
                let StationView { address, messages_sent, overflows, .. } = station;
                format!("  monitoring station {address}: connected, {messages_sent} messages, {overflows} overflows\n")
            }));
            text.extend(health.notes.iter().map(|note| format!("  note: {note}\n")));
            print(&text)?;
        }
    }
    Ok(health.ready && health.problems.is_empty())
}

pub(super) fn held(held: &Held) -> anyhow::Result<bool> {
    let asked = &held.asked;
    let views: Vec<HeldView> = match (&held.confirm[..], held.confirm_all) {
        ([], false) => client::ask(asked, "/v1/held")?,
        ([], true) => client::tell(asked, Method::DELETE, "/v1/held")?,
        (objects, _) => {
            let objects = encode(&objects.join(","));
            client::tell(asked, Method::DELETE, &format!("/v1/held?objects={objects}"))?
        }
    };
    print_rows(&views, asked.output, "no deletion is held")?;
    Ok(views.is_empty())
}

pub(super) fn release(release: &Release) -> anyhow::Result<bool> {
    let path = format!("/v1/addresses/{}?confirm={}", encode(&release.address.to_string()), release.confirm);
    let released: IpAddr = client::tell(&release.asked, Method::DELETE, &path)?;
    match release.asked.output {
        Output::Json | Output::Yaml => print_value(&released, release.asked.output)?,
        Output::Table | Output::Wide => print(&format!("{released} is free\n"))?,
    }
    Ok(true)
}

/// Asks for it, then waits until it is done, so that a script can go on to work on the node.
pub(super) fn drain(drain: &Drain) -> anyhow::Result<bool> {
    let asked = &drain.asked;
    let mut view: DrainView = if drain.undo {
        client::tell(asked, Method::DELETE, "/v1/drain")?
    } else {
        client::tell(asked, Method::POST, &format!("/v1/drain?waitSeconds={}", drain.wait))?
    };
    if let (Some(seconds), Output::Table | Output::Wide) = (view.withdraws_in_seconds, asked.output) {
        print(&format!(
            "{} routes are marked as about to go (GRACEFUL_SHUTDOWN); they are withdrawn in {seconds} s\n",
            view.advertised
        ))?;
    }
    while view.state == DrainState::Draining && !drain.undo {
        std::thread::sleep(Duration::from_millis(100));
        view = client::ask(asked, "/v1/drain")?;
    }
    match (asked.output, view.state) {
        (Output::Json | Output::Yaml, _) => print_value(&view, asked.output)?,
        (_, DrainState::Active) => print(&format!("active: {} routes are advertised\n", view.advertised))?,
        (_, DrainState::Draining | DrainState::Drained) if drain.undo => {
            print(
                "still drained: the Node asks for it (its annotation or taint, see spec.drain of the AgentConfig)\n",
            )?;
        }
        (_, DrainState::Draining | DrainState::Drained) => print("drained: nothing is advertised\n")?,
    }
    Ok(if drain.undo { view.state == DrainState::Active } else { view.advertised == 0 })
}

/// Percent-encodes what could end or split a query; names and addresses mostly pass as they are.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl Rows for HeldView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["OBJECT", "HELD FOR", "WHY"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        let seconds = jiff::Timestamp::now().duration_since(self.since).as_secs();
        vec![self.object.clone(), ago(u64::try_from(seconds).unwrap_or_default()), self.message.clone()]
    }
}

impl Rows for PeerView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles =
            vec!["NAME", "ADDRESS", "AS", "STATE", "FOR", "ADVERTISED", "ACCEPTED", "LAST ERROR"];
        if wide {
            titles.splice(
                7..7,
                [
                    "FOUND BY",
                    "LOCAL AS",
                    "ROUTER ID",
                    "HOLD",
                    "LOST",
                    "UPDATES IN/OUT",
                    "SIGNED",
                    "MD5 FAILURES",
                    "TCP-AO FAILURES",
                    "NEGOTIATED",
                    "BFD",
                ],
            );
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let advertised: usize = self.families.values().map(|family| family.advertised).sum();
        let originated: usize = self.families.values().map(|family| family.originated).sum();
        let accepted: usize = self.families.values().map(|family| family.accepted).sum();
        let not_advertised = self.families.values().find_map(|family| family.not_advertised.clone());
        // What went wrong before a session came up is history; the wide form tells it all the same.
        let past = self.last_error.clone().filter(|_| wide || !self.is_established());
        let error = self.blocked.clone().or(not_advertised).or(past);
        if let Some(range) = self.range.as_ref().filter(|_| self.blocked.is_none()) {
            return range_cells(self, range, wide);
        }
        let mut cells = vec![
            self.name.clone(),
            or_dash(self.place()),
            self.peer_asn.to_string(),
            self.state.clone(),
            ago(self.seconds_in_state),
            format!("{advertised}/{originated}"),
            accepted.to_string(),
            or_dash(error),
        ];
        if wide {
            cells.splice(
                7..7,
                [
                    or_dash(self.found_by),
                    self.local_asn.to_string(),
                    or_dash(self.peer_router_id.as_ref()),
                    or_dash(self.hold_time_seconds),
                    self.lost_count.to_string(),
                    format!("{}/{}", self.updates_received, self.updates_sent),
                    signed(&self.authentication),
                    or_dash(self.md5_failures.map(|md5| md5.not_found + md5.unexpected + md5.failure)),
                    or_dash(self.tcp_ao_failures.map(|ao| ao.required + ao.bad + ao.key_not_found)),
                    or_dash(self.negotiated.as_ref().map(NegotiatedView::words)),
                    or_dash(self.bfd.as_ref().map(BfdView::words)),
                ],
            );
        }
        cells
    }
}

/// A range has no session: in place of an error stands how many peers there are.
fn range_cells(peer: &PeerView, range: &RangeView, wide: bool) -> Vec<String> {
    let mut room = format!("{} of {} peers", range.peers, range.max_peers);
    if range.refused > 0 {
        room += &format!(", {} connections refused", range.refused);
    }
    let mut cells = vec![String::from("-"); PeerView::titles(wide).len()];
    let (asn, last) = (peer.peer_asn.to_string(), cells.len() - 1);
    let told =
        [peer.name.clone(), or_dash(peer.place()), asn, peer.state.clone(), ago(peer.seconds_in_state)];
    cells[..told.len()].clone_from_slice(&told);
    cells[last] = room;
    cells
}

/// How a session is signed, with the IDs of TCP-AO: the current key's, the next one's, and those of old keys.
fn signed(authentication: &AuthenticationView) -> String {
    let AuthenticationView { method, current_key_id, next_key_id, retiring_keys } = authentication;
    let mut text = method.clone();
    if let (Some(current), Some(next)) = (current_key_id, next_key_id) {
        text += &format!(" {current}/{next}");
    }
    if !retiring_keys.is_empty() {
        text += &format!(" (retiring {})", retiring_keys.join(" "));
    }
    text
}

impl Rows for RouteView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["PREFIX", "PEER", "NEXT HOP", "AS PATH", "COMMUNITIES", "POD"];
        if wide {
            titles.splice(
                5..5,
                ["EXTENDED COMMUNITIES", "LARGE COMMUNITIES", "MED", "LOCAL PREF", "INSTALL", "STALE"],
            );
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let list = |items: &[String]| or_dash((!items.is_empty()).then(|| items.join(" ")));
        let mut cells = vec![
            self.prefix.clone(),
            self.peer.clone(),
            self.next_hop.clone(),
            or_dash((!self.as_path.is_empty()).then_some(&self.as_path)),
            list(&self.communities),
            or_dash(self.pod.as_ref()),
        ];
        if wide {
            cells.splice(
                5..5,
                [
                    list(&self.extended_communities),
                    list(&self.large_communities),
                    or_dash(self.med),
                    or_dash(self.local_preference),
                    or_dash(self.install),
                    or_dash(self.stale),
                ],
            );
        }
        cells
    }
}

impl Rows for KernelRouteView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["PREFIX", "TABLE", "TARGET", "OWNER", "STATUS"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        let table =
            if self.table == crate::fib::TABLE_MAIN { "main".to_owned() } else { self.table.to_string() };
        vec![
            self.prefix.clone(),
            table,
            self.target.clone(),
            or_dash(self.owner.as_ref()),
            self.status.clone(),
        ]
    }
}

impl Rows for PodView {
    fn titles(wide: bool) -> Vec<&'static str> {
        let mut titles = vec!["NAMESPACE", "POD", "ADDRESS", "POOL", "ADVERTISED", "PEERS", "REASON"];
        if wide {
            titles.splice(6..6, ["DELIVERED", "BY"]);
            titles.push("MESSAGE");
        }
        titles
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let yes_no = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
        let mut cells = vec![
            self.namespace.clone(),
            self.pod.clone(),
            or_dash(self.address),
            or_dash(self.pool.as_ref()),
            yes_no(self.advertised),
            or_dash((!self.peers.is_empty()).then(|| self.peers.join(","))),
            or_dash(self.reason.as_ref()),
        ];
        if wide {
            let by = self.delivery.as_ref().map(|delivery| match delivery {
                Delivery::Interface { interface, .. } => format!("dev {interface}"),
                Delivery::Foreign => "another's route".to_owned(),
            });
            cells.splice(6..6, [yes_no(self.delivered), or_dash(by)]);
            cells.push(or_dash(self.message.as_ref()));
        }
        cells
    }
}

impl Rows for PoolPlan {
    fn titles(_: bool) -> Vec<&'static str> {
        vec![
            "NAME",
            "RANGES",
            "USAGE",
            "ALLOCATION",
            "THIS NODE",
            "USED HERE",
            "BLOCKS HERE",
            "FREE HERE",
            "NAMESPACES",
        ]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        let range = |range: &plainroute_config::IpRange| match range.cidr() {
            Some(cidr) => cidr.to_string(),
            None => format!("{}-{}", range.first(), range.last()),
        };
        let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        vec![
            self.name.clone(),
            self.ip_ranges.iter().map(range).collect::<Vec<_>>().join(","),
            format!("{:?}", self.usage),
            format!("{:?}", self.allocation),
            if self.serves_node { "yes" } else { "no" }.to_owned(),
            self.used_here.to_string(),
            or_dash(self.blocks_here.map(|blocks| blocks.to_string())),
            or_dash(self.free_here.map(|free| free.to_string())),
            or_dash((!namespaces.is_empty()).then(|| namespaces.join(","))),
        ]
    }
}
