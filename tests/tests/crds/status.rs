//! What agents write: NodeState, the status of the other kinds, and blocks.

use anyhow::{Context, Result, ensure};
use kube::api::{Patch, PatchParams};
use plainroute_config::{
    Advertised, Condition, ConditionStatus, DrainPhase, EgressHeld, IpBlock, Kind, Metadata, NodeState,
    NodeStateStatus, ObjectState, Parsed, SessionState, SourceState,
};
use serde_json::{Value, json};

use super::{cluster::Cluster, objects};

const TIME: &str = "2026-11-22T11:00:00Z";

fn state() -> Result<NodeState> {
    let condition = |r#type: &str| -> Result<Condition> {
        Ok(Condition {
            r#type: r#type.to_owned(),
            status: ConditionStatus::True,
            reason: "Established".to_owned(),
            message: "both sessions are".to_owned(),
            last_transition_time: TIME.parse()?,
            observed_generation: Some(1),
        })
    };
    let session = SessionState {
        peer: "leaf@fe80::1%eth0".to_owned(),
        bgp_peer: "leaf".to_owned(),
        address: Some("fe80::1".parse()?),
        asn: Parsed(plainroute_bgp::Asn::try_from(4_200_000_001)?),
        state: "Established".to_owned(),
        since: TIME.parse()?,
        last_error: Some("the hold timer expired".to_owned()),
        families: plainroute_bgp::AfiSafi::ALL.map(Parsed).to_vec(),
        prefixes_received: 2,
        prefixes_sent: u32::MAX,
        bfd: Some("Up".to_owned()),
    };
    let bare = SessionState {
        peer: "tor-a".to_owned(),
        bgp_peer: "tor-a".to_owned(),
        address: None,
        last_error: None,
        families: Vec::new(),
        bfd: None,
        ..session.clone()
    };
    let status = NodeStateStatus {
        agent_version: "0.1.0".to_owned(),
        sessions: vec![session, bare],
        advertised: Advertised { pods: 40, pod_ips: 41, prefixes: 42 },
        egress: vec![EgressHeld {
            address: "198.51.100.7".parse()?,
            egress: "ledger".to_owned(),
            rank: 1,
            advertised: true,
        }],
        refused_pods: 1,
        held: 7,
        drain: DrainPhase::Draining,
        snapshot_time: Some(TIME.parse()?),
        sources: vec![
            SourceState { name: "files".to_owned(), problem: None },
            SourceState { name: "kubernetes".to_owned(), problem: Some("cannot be reached".to_owned()) },
        ],
        objects: vec![ObjectState {
            kind: "Pod".to_owned(),
            name: "crm/leads-1".to_owned(),
            reason: "NotInPool".to_owned(),
            message: "10.20.9.9 lies in no pool".to_owned(),
        }],
        conditions: vec![condition("Ready")?, condition("SessionsEstablished")?],
    };
    Ok(NodeState { metadata: Metadata::named("node-a"), status })
}

/// Merges a status into the object's, by the subresource.
async fn write(cluster: &Cluster, kind: Kind, name: &str, status: &Value) -> Result<Value, kube::Error> {
    let patch = Patch::Merge(json!({ "status": status }));
    let object = cluster.objects(kind).patch_status(name, &PatchParams::default(), &patch).await?;
    serde_json::to_value(object).map_err(kube::Error::SerdeError)
}

pub(crate) async fn node_state(cluster: &Cluster) -> Result<()> {
    let state = state()?;
    let written = serde_json::to_value(&state)?;
    // The object itself takes no status with it.
    ensure!(cluster.apply(&written).await?.is_none(), "it is refused");
    let bare: NodeState =
        serde_json::from_value(serde_json::to_value(cluster.objects(Kind::NodeState).get("node-a").await?)?)?;
    ensure!(bare.status == NodeStateStatus::default(), "the status came with the object: {bare:?}");

    let read: NodeState =
        serde_json::from_value(write(cluster, Kind::NodeState, "node-a", &written["status"]).await?)?;
    ensure!(read.status == state.status, "written {:?}, read {:?}", state.status, read.status);
    ensure!(read.metadata.generation == Some(1), "a status is no new generation: {:?}", read.metadata);

    let bad = [
        (json!({ "conditions": [{ "type": "Ready" }] }), "lastTransitionTime"),
        (
            json!({ "conditions": [written["status"]["conditions"][0], written["status"]["conditions"][0]] }),
            "Duplicate value",
        ),
        (
            json!({ "sessions": [written["status"]["sessions"][0], written["status"]["sessions"][0]] }),
            "Duplicate value",
        ),
        (json!({ "drain": "Half" }), "Unsupported value"),
        (json!({ "snapshotTime": "yesterday" }), "must be of type date-time"),
    ];
    for (status, message) in bad {
        let error = write(cluster, Kind::NodeState, "node-a", &status).await.err().context("it is taken")?;
        ensure!(error.to_string().contains(message), "{status}: {error}");
    }
    Ok(())
}

/// Of every kind that users write: what they apply carries no status, and what agents write changes no generation.
pub(crate) async fn is_a_subresource(cluster: &Cluster) -> Result<()> {
    for kind in [Kind::BgpPeer, Kind::BgpAdvertisement, Kind::IpPool, Kind::Egress, Kind::IpBlock] {
        let mut object = objects::sound(kind);
        if kind == Kind::IpBlock {
            object = objects::changed(kind, "{ cidr: 10.20.0.64/28 }")?;
        } else {
            object["metadata"]["name"] = json!("with-status");
        }
        let name = object["metadata"]["name"].as_str().context("a name")?.to_owned();
        let condition = json!({
            "type": "Accepted", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": TIME,
            "observedGeneration": 1,
        });
        object["status"] = json!({ "observedGeneration": 1, "conditions": [condition] });
        ensure!(cluster.apply(&object).await?.is_none(), "{kind} is refused");
        let kept = serde_json::to_value(cluster.objects(kind).get(&name).await?)?;
        ensure!(kept["status"].is_null(), "{kind}: a user wrote {}", kept["status"]);
        let read = write(cluster, kind, &name, &object["status"]).await?;
        ensure!(read["status"] == object["status"], "{kind}: {}", read["status"]);
        ensure!(read["metadata"]["generation"] == 1, "{kind}: {}", read["metadata"]);
    }
    Ok(())
}

/// Agents watch their own blocks and what is asked of them, not all there are.
pub(crate) async fn blocks_by_field(cluster: &Cluster) -> Result<()> {
    let loan = "{ cidr: 10.20.17.5/32, within: 10.20.16.0/20, node: node-q, pool: crm, lender: 10-20-17-0-28, lenderNode: node-r }";
    for change in [loan, "{ cidr: 10.20.33.0/28, within: 10.20.32.0/20, node: node-r, pool: crm }"] {
        let said = cluster.apply(&objects::changed(Kind::IpBlock, change)?).await?;
        ensure!(said.is_none(), "{change}: {said:?}");
    }
    let fields = [
        ("spec.node=node-q", "10-20-17-5-32"),
        ("spec.lenderNode=node-r", "10-20-17-5-32"),
        ("spec.within=10.20.32.0/20", "10-20-33-0-28"),
        ("spec.pool=crm", "10-20-17-5-32 10-20-33-0-28"),
    ];
    for (field, wanted) in fields {
        let found =
            cluster.objects(Kind::IpBlock).list(&kube::api::ListParams::default().fields(field)).await?;
        let names: Vec<_> = found.items.iter().filter_map(|one| one.metadata.name.as_deref()).collect();
        ensure!(names.join(" ") == wanted, "{field} finds {names:?}");
    }
    Ok(())
}

pub(crate) async fn ip_block(cluster: &Cluster) -> Result<()> {
    let allocations = json!([{
        "ordinal": 15, "podUID": "u", "namespace": "erp", "name": "app-1", "containerID": "c", "since": TIME,
    }, {
        "ordinal": 3, "namespace": "erp", "name": "books-0", "statefulSet": "books", "since": TIME,
    }, {
        "ordinal": 4, "lentTo": "node-b", "loan": "v", "since": TIME,
    }]);
    let written = json!({ "cidr": "10.20.0.80/28", "allocations": allocations });
    let written = objects::with(Kind::IpBlock, &written);
    let said = cluster.apply(&written).await?;
    ensure!(said.is_none(), "it is refused: {said:?}");
    let read = serde_json::to_value(cluster.objects(Kind::IpBlock).get("10-20-0-80-28").await?)?;
    let (written, read): (IpBlock, IpBlock) =
        (serde_json::from_value(written)?, serde_json::from_value(read)?);
    ensure!(read.spec == written.spec, "written {written:?}, read {read:?}");
    Ok(())
}
