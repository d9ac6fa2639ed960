//! The CustomResourceDefinitions of our kinds, made of the Rust types: what `plainroute crds` prints and config/crd holds.
//!
//! The types give the schemas, the admission rules and the descriptions; this module adds what only Kubernetes has: names,
//! columns, the status subresource.
mod schema;

use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use crate::{
    API_VERSION, BgpAdvertisementSpec, BgpAdvertisementStatus, BgpPeerSpec, BgpPeerStatus, EgressSpec,
    EgressStatus, IpBlockSpec, IpBlockStatus, IpPoolSpec, IpPoolStatus, Kind, NodeStateStatus, Spec, Status,
};

/// One of our kinds, as an API server is told of it.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The kind.
    pub kind: Kind,
    /// The kind in lower case and the plural: its name in URLs.
    pub plural: &'static str,
    short: &'static [&'static str],
    columns: Vec<Column>,
    /// Fields that lists and watches may select by.
    selectable: &'static [&'static str],
    description: String,
    spec: Option<Value>,
    status: Value,
}

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    r#type: &'static str,
    path: &'static str,
    /// Shown with `-o wide` only.
    wide: bool,
    description: &'static str,
}

const fn column(
    name: &'static str,
    r#type: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column { name, r#type, path, wide: false, description }
}

const fn wide(
    name: &'static str,
    r#type: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column { name, r#type, path, wide: true, description }
}

const ACCEPTED: Column = column(
    "Accepted",
    "string",
    ".status.conditions[?(@.type==\"Accepted\")].status",
    "Whether the agents act on it",
);
const READY: Column =
    column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status", "Whether it is in order");
const AGE: Column = column("Age", "date", ".metadata.creationTimestamp", "Since when it is there");

/// All definitions, in the order in which they are printed.
pub fn definitions() -> Vec<Definition> {
    vec![
        of_user::<BgpPeerSpec, BgpPeerStatus>(
            "bgppeers",
            &["bgpp"],
            vec![
                column("Peer AS", "string", ".spec.peerASN", "The router's AS number"),
                column("Address", "string", ".spec.peerAddress", "The router's address"),
                wide("Interface", "string", ".spec.interface", "The interface behind which it is"),
                wide("Range", "string", ".spec.listenRange.cidr", "From where such routers connect"),
                column("Nodes", "integer", ".status.nodes", "How many nodes it is for"),
                column("Established", "integer", ".status.established", "On how many of them it is up"),
                ACCEPTED,
                AGE,
            ],
        ),
        of_user::<BgpAdvertisementSpec, BgpAdvertisementStatus>(
            "bgpadvertisements",
            &["bgpadv"],
            vec![
                column("Types", "string", ".spec.types", "The kinds of address that are advertised"),
                ACCEPTED,
                AGE,
            ],
        ),
        of_user::<IpPoolSpec, IpPoolStatus>(
            "ippools",
            &["ipp"],
            vec![
                column("Usage", "string", ".spec.usage", "What the addresses are for"),
                column("Allocation", "string", ".spec.allocation", "Who gives them out"),
                column("Addresses", "integer", ".status.addresses", "How many there are"),
                wide("Ranges", "string", ".spec.ipRanges", "The addresses"),
                ACCEPTED,
                AGE,
            ],
        ),
        of_user::<EgressSpec, EgressStatus>(
            "egresses",
            &["egr"],
            vec![
                column("Addresses", "string", ".spec.egressIPs", "The source addresses"),
                column("Pool", "string", ".spec.egressPool", "The IPPool that they come from"),
                column("Mode", "string", ".spec.mode", "Who holds them"),
                ACCEPTED,
                AGE,
            ],
        ),
        Definition {
            selectable: &[".spec.node", ".spec.pool", ".spec.lenderNode", ".spec.within"],
            ..of_user::<IpBlockSpec, IpBlockStatus>(
                "ipblocks",
                &["ipb"],
                vec![
                    column("CIDR", "string", ".spec.cidr", "Its addresses"),
                    column("Node", "string", ".spec.node", "The node that owns it"),
                    column("Pool", "string", ".spec.pool", "The IPPool that it is of"),
                    column("Allocated", "integer", ".status.allocated", "How many addresses are held"),
                    wide("Lender", "string", ".spec.lender", "The block that it is borrowed of"),
                    wide("Epoch", "integer", ".spec.epoch", "Greater than that of a fenced owner before"),
                    AGE,
                ],
            )
        },
        Definition {
            description: "What the agent of one node says of itself. The agent alone writes it.".to_owned(),
            ..definition::<NodeStateStatus>(
                "nodestates",
                &["nst"],
                vec![
                    READY,
                    column("Pods", "integer", ".status.advertised.pods", "Pods with an advertised address"),
                    column("Prefixes", "integer", ".status.advertised.prefixes", "Prefixes advertised"),
                    column("Refused", "integer", ".status.refusedPods", "Pods with a refused address"),
                    column("Held", "integer", ".status.held", "Deletions held back"),
                    column("Drain", "string", ".status.drain", "How far the node is drained"),
                    wide("Version", "string", ".status.agentVersion", "The version of the agent"),
                    wide(
                        "Snapshot",
                        "date",
                        ".status.snapshotTime",
                        "The snapshot in force without the API server",
                    ),
                    AGE,
                ],
            )
        },
    ]
}

fn of_user<S: Spec + JsonSchema, T: Status + JsonSchema>(
    plural: &'static str,
    short: &'static [&'static str],
    columns: Vec<Column>,
) -> Definition {
    let spec = schema::structural::<S>(true);
    let description = spec["description"].as_str().unwrap_or_default().to_owned();
    Definition { description, spec: Some(spec), ..definition::<T>(plural, short, columns) }
}

fn definition<T: Status + JsonSchema>(
    plural: &'static str,
    short: &'static [&'static str],
    columns: Vec<Column>,
) -> Definition {
    let status = schema::structural::<T>(false);
    let description = String::new();
    Definition { kind: T::KIND, plural, short, columns, selectable: &[], description, spec: None, status }
}

impl Definition {
    /// The name of the definition's file: group and plural.
    pub fn file_name(&self) -> String {
        format!("{}_{}.yaml", group(), self.plural)
    }

    /// The CustomResourceDefinition.
    pub fn object(&self) -> Value {
        let singular = self.kind.name().to_lowercase();
        let mut object = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{}", self.plural, group()),
                "labels": { "app.kubernetes.io/name": "plainroute" },
            },
            "spec": {
                "group": group(),
                "names": {
                    "kind": self.kind.name(),
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": singular,
                    "shortNames": self.short,
                    "categories": ["plainroute"],
                },
                "scope": "Cluster",
                "versions": [{
                    "name": version(),
                    "served": true,
                    "storage": true,
                    "subresources": { "status": {} },
                    "additionalPrinterColumns": self.columns.iter().map(Column::object).collect::<Vec<_>>(),
                    "schema": { "openAPIV3Schema": self.root() },
                }],
            },
        });
        if !self.selectable.is_empty() {
            let fields = self.selectable.iter().map(|path| json!({ "jsonPath": path }));
            object["spec"]["versions"][0]["selectableFields"] = fields.collect();
        }
        object
    }

    fn root(&self) -> Value {
        let mut properties = Map::new();
        for field in ["apiVersion", "kind"] {
            properties.insert(field.to_owned(), json!({ "type": "string" }));
        }
        properties.insert("metadata".to_owned(), json!({ "type": "object" }));
        properties.extend(self.spec.clone().map(|spec| ("spec".to_owned(), spec)));
        properties.insert("status".to_owned(), self.status.clone());
        let mut root = json!({ "type": "object", "description": self.description, "properties": properties });
        if self.spec.is_some() {
            root["required"] = json!(["spec"]);
        }
        if self.kind == Kind::IpBlock {
            root["x-kubernetes-validations"] = json!(crate::admission::IP_BLOCK_NAME);
        }
        root
    }

    /// The CustomResourceDefinition as one YAML document.
    pub fn yaml(&self) -> String {
        format!("---\n{}", schema::yaml(&self.object()))
    }
}

impl Column {
    fn object(&self) -> Value {
        let mut column = json!({
            "name": self.name,
            "type": self.r#type,
            "jsonPath": self.path,
            "description": self.description,
        });
        if self.wide {
            column["priority"] = json!(1);
        }
        column
    }
}

/// All definitions as a stream of YAML documents.
pub fn yaml() -> String {
    definitions().iter().map(Definition::yaml).collect()
}

fn group() -> &'static str {
    API_VERSION.split_once('/').map_or(API_VERSION, |(group, _)| group)
}

fn version() -> &'static str {
    API_VERSION.split_once('/').map_or("", |(_, version)| version)
}
