//! config/crd holds what the types say. `UPDATE=1 cargo test -p plainroute-config --test crds` writes it anew.
use std::{collections::BTreeSet, fs, path::Path};

use plainroute_config::{Kind, crd};
use serde_json::Value;

#[test]
fn the_definitions_on_disk_are_those_of_the_types() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("crd");
    let wanted: Vec<_> = crd::definitions().iter().map(|one| (one.file_name(), one.yaml())).collect();
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(&directory).expect("config/crd");
        for entry in fs::read_dir(&directory).expect("config/crd") {
            fs::remove_file(entry.expect("an entry").path()).expect("an old definition is removed");
        }
        for (name, yaml) in &wanted {
            fs::write(directory.join(name), yaml).expect("a definition is written");
        }
    }
    let there =
        fs::read_dir(&directory).expect("config/crd").map(|entry| entry.expect("an entry").file_name());
    let there: BTreeSet<_> = there.map(|name| name.into_string().expect("a name")).collect();
    let names: BTreeSet<_> = wanted.iter().map(|(name, _)| name.clone()).collect();
    const STALE: &str = "config/crd is stale; run `make crds`";
    assert_eq!(there, names, "{STALE}");
    for (name, yaml) in &wanted {
        let written = fs::read_to_string(directory.join(name)).expect("a definition");
        assert!(written == *yaml, "{name}: {STALE}");
    }
}

#[test]
fn every_kind_of_the_cluster_has_its_definition() {
    let ours = Kind::IN_FILES.into_iter().chain(Kind::WRITTEN_BY_AGENTS);
    let ours = ours.filter(|kind| {
        // AgentConfig is for files only.
        kind.api_version() == plainroute_config::API_VERSION && *kind != Kind::AgentConfig
    });
    let defined: BTreeSet<_> = crd::definitions().iter().map(|one| one.kind).collect();
    assert_eq!(defined, ours.collect());
}

/// What is printed reads back as what was meant, by a parser that is not ours.
#[test]
fn the_yaml_says_what_the_object_says() {
    for definition in crd::definitions() {
        let read: Value = serde_saphyr::from_str(&definition.yaml()).expect("YAML");
        assert_eq!(read, definition.object(), "{}", definition.kind);
    }
}

/// A structural schema: each value has one type, and nothing that only JSON Schema knows is left.
#[test]
fn every_value_of_every_schema_has_a_type() {
    fn walk(path: &str, schema: &Value, found: &mut Vec<String>) {
        for forbidden in ["$ref", "$defs", "oneOf", "anyOf", "allOf", "not", "const", "title"] {
            if schema.get(forbidden).is_some() {
                found.push(format!("{path} has {forbidden}"));
            }
        }
        if !schema["type"].is_string() && schema["x-kubernetes-int-or-string"] != true {
            found.push(format!("{path} has no type"));
        }
        let format = schema["format"].as_str().unwrap_or("int64");
        if !["int32", "int64", "date-time"].contains(&format) {
            found.push(format!("{path} has the format {format}"));
        }
        let fields = schema["properties"].as_object().into_iter().flatten();
        let below = fields.map(|(name, field)| (format!("{path}.{name}"), field));
        let items = schema.get("items").map(|items| (format!("{path}[]"), items));
        let values = schema.get("additionalProperties").map(|values| (format!("{path}{{}}"), values));
        for (path, schema) in below.chain(items).chain(values) {
            walk(&path, schema, found);
        }
        if path.contains(".spec.") && schema.get("description").is_none() && !path.ends_with(['}', ']']) {
            found.push(format!("{path} has no description"));
        }
    }
    let mut found = Vec::new();
    for definition in crd::definitions() {
        let object = definition.object();
        walk(definition.plural, &object["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}
