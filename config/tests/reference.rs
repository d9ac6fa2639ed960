//! docs/reference/config.md, made of the schemas and doc comments of the kinds and of the examples that
//! `good/contract.yaml` keeps true. `UPDATE=1 cargo test -p plainroute-config --test reference` writes it anew.
use std::{fmt::Write, fs, path::Path};

use plainroute_config::{
    AgentConfigSpec, BgpAdvertisementSpec, BgpAdvertisementStatus, BgpPeerSpec, BgpPeerStatus, EgressSpec,
    EgressStatus, IpBlockSpec, IpBlockStatus, IpPoolSpec, IpPoolStatus, Kind, LabelSelector, Metadata,
    Namespace, Node, NodeStateStatus, Pod, annotation,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

const EXAMPLES: &str = include_str!("good/contract.yaml");

const HEAD: &str = "\
<!-- Generated from the doc comments in config/src/kinds: change those, then run
     `UPDATE=1 cargo test -p plainroute-config --test reference`. -->

# Configuration

One YAML file, several, or a directory of them, given with `plainroute agent --config PATH`; documents are parted by
`---`. The same objects may come from the API server (`AgentConfig`, `source.kubernetes`). `plainroute config check
PATH` says whether the files are right, and where they are not.

A field that is not listed here is an error in our own kinds, and ignored in those of Kubernetes. Files are watched: a
valid change is applied without touching a session that it does not concern; an invalid one is refused whole, and what
is in force stays.

Every document has `apiVersion`, `kind` and `metadata.name`.
";

/// The annotations, on which objects they are read, and what they say.
const ANNOTATIONS: [(&str, &str, &str); 5] = [
    (
        annotation::IP_POOLS,
        "Namespace, Pod",
        "The IPPools that its Pods may have addresses of, parted by commas. It narrows what the pools' own selectors allow.",
    ),
    (annotation::IP, "Pod", "The Pod's fixed address. Nothing reads it in this version."),
    (
        annotation::HOST_INTERFACE,
        "Pod from a file",
        "The node's side of the Pod's link: the agent keeps the route to the Pod over it.",
    ),
    (annotation::ASN, "Node", "The node's AS number; it overrides `localASN` of every BGPPeer."),
    (annotation::ROUTER_ID, "Node", "The node's BGP Identifier, where the BGPPeer has no `routerID`."),
];

fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn reference() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n## Kinds\n\n");
    for kind in Kind::IN_FILES {
        let _ = writeln!(text, "- [{kind}](#{}) (`{}`)", kind.name().to_lowercase(), kind.api_version());
    }
    text.push_str("\nWritten by agents, in a cluster only:\n\n");
    for kind in Kind::WRITTEN_BY_AGENTS {
        let _ = writeln!(text, "- [{kind}](#{}) (`{}`)", kind.name().to_lowercase(), kind.api_version());
    }
    text.push_str("\nShared by them:\n\n");
    text.push_str("- [metadata](#metadata), [annotations](#annotations) and [selectors](#selectors)\n");
    for kind in Kind::IN_FILES.into_iter().chain(Kind::WRITTEN_BY_AGENTS) {
        self::kind(&mut text, kind);
    }
    section(&mut text, "metadata", &schema::<Metadata>(), "metadata", "");
    text.push_str("\n## annotations\n\n| annotation | on | meaning |\n|---|---|---|\n");
    for (name, on, meaning) in ANNOTATIONS {
        let _ = writeln!(text, "| `{name}` | {on} | {meaning} |");
    }
    section(&mut text, "selectors", &schema::<LabelSelector>(), "", "");
    text
}

fn kind(text: &mut String, kind: Kind) {
    let status = match kind {
        Kind::BgpPeer => Some(schema::<BgpPeerStatus>()),
        Kind::BgpAdvertisement => Some(schema::<BgpAdvertisementStatus>()),
        Kind::IpPool => Some(schema::<IpPoolStatus>()),
        Kind::Egress => Some(schema::<EgressStatus>()),
        Kind::IpBlock => Some(schema::<IpBlockStatus>()),
        Kind::AgentConfig | Kind::Pod | Kind::Namespace | Kind::Node | Kind::NodeState => None,
    };
    let (schema, path) = match kind {
        Kind::AgentConfig => (schema::<AgentConfigSpec>(), "spec"),
        Kind::BgpPeer => (schema::<BgpPeerSpec>(), "spec"),
        Kind::BgpAdvertisement => (schema::<BgpAdvertisementSpec>(), "spec"),
        Kind::IpPool => (schema::<IpPoolSpec>(), "spec"),
        Kind::Egress => (schema::<EgressSpec>(), "spec"),
        Kind::Pod => (schema::<Pod>(), ""),
        Kind::Namespace => (schema::<Namespace>(), ""),
        Kind::Node => (schema::<Node>(), ""),
        Kind::NodeState => (schema::<NodeStateStatus>(), "status"),
        Kind::IpBlock => (schema::<IpBlockSpec>(), "spec"),
    };
    if Kind::WRITTEN_BY_AGENTS.contains(&kind) {
        section(text, kind.name(), &schema, path, "");
    } else {
        section(text, kind.name(), &schema, path, &example(kind));
    }
    if let Some(status) = status {
        rows(text, &status, "status");
    }
}

/// The kind's example, as a block of YAML.
fn example(kind: Kind) -> String {
    let example = EXAMPLES.split("---\n").find(|example| example.contains(&format!("kind: {kind}\n")));
    let example = example.unwrap_or_else(|| panic!("contract.yaml has no {kind}"));
    let example = example.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    format!("\n```yaml\n{example}\n```\n")
}

fn section(text: &mut String, title: &str, schema: &Value, path: &str, example: &str) {
    let meaning = sentence(schema);
    let _ = write!(text, "\n## {title}\n\n{meaning}\n{example}");
    text.push_str("\n| field | type | default | meaning |\n|---|---|---|---|\n");
    rows(text, schema, path);
}

/// One row for each field, and below it those of its own fields.
fn rows(text: &mut String, schema: &Value, path: &str) {
    let fields = schema["properties"].as_object().expect("an object has fields");
    let order: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in fields {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let shape = shape(field);
        let is_selector = shape["properties"].get("matchLabels").is_some();
        let shared = is_selector || (name == "metadata" && path.is_empty());
        let r#type = if is_selector { "[selector](#selectors)".to_owned() } else { type_of(shape) };
        let r#type = if name == "metadata" && shared { "[metadata](#metadata)".to_owned() } else { r#type };
        let default = match &field["default"] {
            _ if order.contains(&name.as_str()) => "required".to_owned(),
            Value::Null | Value::Object(_) => String::new(),
            value => format!("`{value}`"),
        };
        let mut meaning = sentence(field);
        assert!(!meaning.is_empty(), "{at} has no doc comment");
        for (word, what) in words(shape) {
            let _ = write!(meaning, "<br>`{word}`: {what}");
        }
        let _ = writeln!(text, "| `{at}` | {type} | {default} | {meaning} |", r#type = r#type);
        if shared {
            continue;
        }
        if shape.get("properties").is_some() {
            rows(text, shape, &at);
        } else if shape["items"].get("properties").is_some() {
            rows(text, &shape["items"], &format!("{at}[]"));
        }
    }
}

/// The schema of the value, where it may be absent too.
fn shape(field: &Value) -> &Value {
    let present = field["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null"));
    present.unwrap_or(field)
}

fn type_of(schema: &Value) -> String {
    let article = |word: &&str| ["a", "an"].contains(word);
    let bare = |title: &str| title.split(' ').filter(|word| !article(word)).collect::<Vec<_>>().join(" ");
    let title = schema["title"].as_str().map(bare);
    let named = match &schema["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").expect("a type")
        }
        _ => "",
    };
    if !words(schema).is_empty() {
        return if named == "array" { "list of words" } else { "word" }.to_owned();
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(" or ");
    }
    match named {
        "array" => format!("list of {}", type_of(&schema["items"])),
        "object" if schema.get("additionalProperties").is_some_and(Value::is_object) => {
            "map of strings".to_owned()
        }
        // Of what may be a text as well, the limits are those of the number.
        "integer" | "" => {
            let most = match schema["format"].as_str() {
                Some("uint32") => Some(u64::from(u32::MAX)),
                Some("uint16") => Some(u64::from(u16::MAX)),
                Some("uint8") => Some(u64::from(u8::MAX)),
                _ => None,
            };
            let bounds = (schema["minimum"].as_u64(), schema["maximum"].as_u64().or(most));
            let title = title.unwrap_or_else(|| "integer".to_owned());
            match bounds {
                (Some(least), Some(most)) => format!("{title}, {least} to {most}"),
                _ => title,
            }
        }
        other => title.unwrap_or_else(|| other.to_owned()),
    }
}

/// The words that a field may say, each with its meaning.
fn words(schema: &Value) -> Vec<(&str, String)> {
    let schema = if schema["type"] == "array" { &schema["items"] } else { schema };
    let each = schema["oneOf"].as_array().into_iter().flatten();
    each.filter_map(|one| Some((one["const"].as_str()?, sentence(one)))).collect()
}

fn sentence(schema: &Value) -> String {
    let text =
        schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!text.contains("[`"), "Rust has no place in the reference: {text}");
    text.replace('|', "\\|")
}

#[test]
fn the_reference_says_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/config.md");
    let reference = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("docs/reference");
        fs::write(&path, &reference).expect("the reference is written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/reference/config.md is stale; run UPDATE=1 cargo test -p plainroute-config --test reference"
    );
}
