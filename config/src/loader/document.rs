//! One document: which kind it is, and everything that is wrong with it.
use serde::Deserialize;

use super::{
    decode::{Decoder, Fault, Finding, choices, decode, steps},
    tree::{Entry, Node, Step, Value},
};
use crate::{
    Kind, Object, Spec, Violations,
    kinds::{IpBlockSpec, Resource},
    value::Cidr,
};

/// What ObjectMeta knows, whether we read it or not; a cluster's own output has all of it.
const METADATA: [&str; 15] = [
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "generation",
    "deletionTimestamp",
    "creationTimestamp",
    "resourceVersion",
    "managedFields",
    "ownerReferences",
    "finalizers",
    "generateName",
    "selfLink",
    "deletionGracePeriodSeconds",
];

/// The object that the document describes.
pub(super) fn object(root: &Node) -> Result<Object, Vec<Finding>> {
    let kind = kind(root)?;
    let mut findings = metadata(root, kind);
    let decoded = match kind {
        Kind::AgentConfig => resource(root).map(Object::AgentConfig),
        Kind::BgpPeer => resource(root).map(|peer| Object::BgpPeer(Box::new(peer))),
        Kind::BgpAdvertisement => resource(root).map(Object::BgpAdvertisement),
        Kind::IpPool => resource(root).map(Object::IpPool),
        Kind::IpBlock => resource(&with_within(root)).map(|block| Object::IpBlock(Box::new(block))),
        Kind::Egress => resource(root).map(Object::Egress),
        Kind::Pod => plain(root).map(Object::Pod),
        Kind::Namespace => plain(root).map(Object::Namespace),
        Kind::Node => plain(root).map(Object::Node),
        Kind::NodeState => return Err(vec![written_by_agents(root, kind)]),
    };
    match decoded {
        Ok(object) if findings.is_empty() => Ok(object),
        Ok(_) => Err(findings),
        Err(more) => {
            findings.extend(more);
            Err(findings)
        }
    }
}

/// The block with its `within`, which the API server lists by and a person need not write: it follows from `cidr`.
fn with_within(root: &Node) -> Node {
    let mut root = root.clone();
    let Value::Map(entries) = &mut root.value else { return root };
    let spec = entries.iter_mut().find(|entry| entry.key == "spec").map(|entry| &mut entry.node);
    let Some(spec) = spec.filter(|spec| spec.entry("within").is_none()) else { return root };
    let cidr = spec.text("cidr").and_then(|text| text.parse::<Cidr>().ok());
    // What is wrong with a `cidr` is to be said alone.
    let within =
        cidr.map_or("0.0.0.0/20".to_owned(), |cidr| IpBlockSpec::within_of(cidr.prefix()).to_string());
    let place = spec.place;
    if let Value::Map(fields) = &mut spec.value {
        let node = Node { place, value: Value::Text(within) };
        fields.push(Entry { key: "within".to_owned(), key_place: place, node });
    }
    root
}

fn written_by_agents(root: &Node, kind: Kind) -> Finding {
    let message = format!("{kind} is written by agents, in a cluster only: it cannot stand in a file");
    Finding { place: root.locate(&[Step::Key("kind".to_owned())]), field: "kind".to_owned(), message }
}

fn plain<T: for<'de> Deserialize<'de>>(root: &Node) -> Result<T, Vec<Finding>> {
    decode(root, |decoder: Decoder<'_>| T::deserialize(decoder))
}

fn resource<S>(root: &Node) -> Result<Resource<S>, Vec<Finding>>
where
    S: Spec + for<'de> Deserialize<'de>,
{
    let parse =
        |decoder: Decoder<'_>| -> Result<(Resource<S>, Violations), Fault> { Resource::unchecked(decoder) };
    let (resource, broken) = decode(root, parse)?;
    if broken.is_empty() {
        return Ok(resource);
    }
    let finding = |violation: crate::Violation| Finding {
        place: root.locate(&steps(&violation.field)),
        field: violation.field,
        message: violation.message,
    };
    Err(broken.into_iter().map(finding).collect())
}

/// Reads `kind` and `apiVersion`, on which everything else depends.
fn kind(root: &Node) -> Result<Kind, Vec<Finding>> {
    let fail = |field: &str, message: String| {
        let path = if field.is_empty() { vec![] } else { vec![Step::Key(field.to_owned())] };
        Err(vec![Finding { place: root.locate(&path), field: field.to_owned(), message }])
    };
    if !matches!(root.value, Value::Map(_)) {
        return fail("", "a document must be a mapping with apiVersion, kind, metadata and spec".to_owned());
    }
    let names = Kind::IN_FILES.map(Kind::name);
    let Some(name) = root.text("kind") else {
        return fail("kind", format!("is missing; known: {}", names.join(", ")));
    };
    let Some(kind) = Kind::from_name(name) else {
        return fail("kind", format!("`{name}` is no kind of ours; {}", choices(name, &names)));
    };
    match root.text("apiVersion") {
        Some(version) if version == kind.api_version() => Ok(kind),
        Some(version) => {
            let wanted = kind.api_version();
            fail("apiVersion", format!("`{version}` is not the apiVersion of {kind}; it is {wanted}"))
        }
        None => fail("apiVersion", format!("is missing; that of {kind} is {}", kind.api_version())),
    }
}

/// What the metadata's types do not say.
fn metadata(root: &Node, kind: Kind) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(entry) = root.entry("metadata") else { return findings };
    let Value::Map(entries) = &entry.node.value else { return findings };
    let ours = kind.api_version() == crate::API_VERSION;
    let cluster_scoped = kind != Kind::Pod;
    for entry in entries {
        let mut find = |message: String| {
            let place = if entry.key == "name" { entry.node.place } else { entry.key_place };
            findings.push(Finding { place, field: format!("metadata.{}", entry.key), message });
        };
        match (entry.key.as_str(), &entry.node.value) {
            ("name", Value::Text(name)) => {
                if let Some(problem) = name_problem(name) {
                    find(problem);
                }
            }
            ("namespace", Value::Text(namespace)) if cluster_scoped && !namespace.is_empty() => {
                find(format!("a {kind} belongs to no namespace"));
            }
            (key, _) if ours && !METADATA.contains(&key) => {
                find(format!("is unknown here; {}", choices(key, &METADATA)));
            }
            _ => {}
        }
    }
    findings
}

/// Why Kubernetes would not take the name: it takes DNS subdomains (RFC 1123).
fn name_problem(name: &str) -> Option<String> {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.starts_with(edge) && label.ends_with(edge) && label.chars().all(|c| edge(c) || c == '-')
    };
    match name.len() {
        0 => Some("is empty".to_owned()),
        1..=253 if name.split('.').all(label) => None,
        1..=253 => Some(format!(
            "`{name}` is no name for Kubernetes: lower-case letters, digits, `-` and `.`, a letter or digit at both ends"
        )),
        length => Some(format!("has {length} characters; a name has at most 253")),
    }
}
