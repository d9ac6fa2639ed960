//! From what schemars makes of a type to a structural schema, the form that Kubernetes takes: no references, one type for
//! each value, nothing beside `properties` that says which fields there are.
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// How many entries a list of a spec has at most, and how many characters a text, where its type says nothing else. The
/// API server estimates the cost of rules by these.
const MOST_ITEMS: u64 = 64;
const MOST_CHARACTERS: u64 = 253;

/// What is taken over as it is.
const KEPT: [&str; 11] = [
    "default",
    "enum",
    "maximum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minimum",
    "minItems",
    "minLength",
    "pattern",
    "required",
];

/// The structural schema of `T`. What is written has defaults, and bounds on every list, map and text; what agents say
/// of it has neither.
pub(super) fn structural<T: JsonSchema>(is_spec: bool) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    node(&schema, is_spec)
}

fn node(schema: &Value, is_spec: bool) -> Value {
    if let Some(present) = present(schema) {
        return node(&present, is_spec);
    }
    let mut out = Map::new();
    let mut description = paragraphs(schema["description"].as_str().unwrap_or_default());
    if let Some(words) = words(schema) {
        out.insert("type".to_owned(), json!("string"));
        out.insert("enum".to_owned(), words.iter().map(|(word, _)| json!(word)).collect());
        for (word, meaning) in words {
            description.push_str(&format!("\n- `{word}`: {meaning}"));
        }
    }
    if !description.is_empty() {
        out.insert("description".to_owned(), json!(description.trim()));
    }
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        match (keyword.as_str(), value) {
            ("type", Value::String(_)) => drop(out.insert(keyword.clone(), value.clone())),
            // Of a value that may be null: in Kubernetes that is as good as absent.
            ("type", Value::Array(types)) => {
                drop(out.insert(keyword.clone(), types.iter().find(|one| **one != "null").cloned().into()));
            }
            ("format", Value::String(format)) => number_or_time(&mut out, format),
            ("default", _) if !is_spec || value.is_null() => {}
            ("properties", Value::Object(fields)) => {
                let fields = fields.iter().map(|(name, field)| (name.clone(), node(field, is_spec)));
                out.insert(keyword.clone(), Value::Object(fields.collect()));
            }
            ("items", items) => drop(out.insert(keyword.clone(), node(items, is_spec))),
            ("additionalProperties", Value::Object(_)) => {
                out.insert(keyword.clone(), node(value, is_spec));
            }
            _ if KEPT.contains(&keyword.as_str()) || keyword.starts_with("x-kubernetes-") => {
                out.insert(keyword.clone(), value.clone());
            }
            // Titles, and that other fields are unknown: the API server knows that from `properties`.
            _ => {}
        }
    }
    if is_spec {
        bound(&mut out);
    }
    Value::Object(out)
}

/// A value that may be null, as one that may be absent.
fn present(schema: &Value) -> Option<Value> {
    let mut present = schema["anyOf"].as_array()?.iter().find(|one| one["type"] != "null")?.clone();
    for (keyword, value) in schema.as_object()?.iter().filter(|(keyword, _)| *keyword != "anyOf") {
        present[keyword] = value.clone();
    }
    Some(present)
}

/// The words that an enum knows, each with its meaning.
fn words(schema: &Value) -> Option<Vec<(String, String)>> {
    let word = |one: &Value| {
        Some((one["const"].as_str()?.to_owned(), paragraphs(one["description"].as_str().unwrap_or_default())))
    };
    schema["oneOf"].as_array()?.iter().map(word).collect()
}

/// Kubernetes knows signed integers only, so the others get the bounds that their type has.
fn number_or_time(out: &mut Map<String, Value>, format: &str) {
    let (format, bounds) = match format {
        "uint8" => ("int32", Some(u64::from(u8::MAX))),
        "uint16" => ("int32", Some(u64::from(u16::MAX))),
        "uint32" => ("int64", Some(u64::from(u32::MAX))),
        "int32" | "int64" | "date-time" => (format, None),
        _ => return,
    };
    out.insert("format".to_owned(), json!(format));
    if let Some(most) = bounds {
        for (keyword, limit) in [("minimum", 0), ("maximum", most)] {
            out.entry(keyword).or_insert(json!(limit));
        }
    }
}

fn bound(out: &mut Map<String, Value>) {
    let limit = match out.get("type").and_then(Value::as_str) {
        Some("array") => ("maxItems", MOST_ITEMS),
        Some("string") if !out.contains_key("enum") => ("maxLength", MOST_CHARACTERS),
        Some("object") if out.contains_key("additionalProperties") => ("maxProperties", MOST_ITEMS),
        _ => return,
    };
    out.entry(limit.0).or_insert(json!(limit.1));
}

/// A doc comment without the line breaks of its source.
fn paragraphs(text: &str) -> String {
    let joined = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    joined.collect::<Vec<_>>().join("\n\n")
}

/// As YAML, keys in alphabetical order. Texts stand in double quotes as JSON has them, which every reader of YAML takes for
/// texts.
pub(super) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0, false);
    text
}

fn write(text: &mut String, value: &Value, depth: usize, in_list: bool) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (index, (name, field)) in fields.into_iter().enumerate() {
                // The first field of an entry stands beside its dash.
                let lead = if in_list && index == 0 { "" } else { indent.as_str() };
                text.push_str(&format!("{lead}{name}:"));
                match field {
                    Value::Object(inner) if !inner.is_empty() => {
                        text.push('\n');
                        write(text, field, depth + 1, false);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        text.push('\n');
                        write(text, field, depth, false);
                    }
                    scalar => text.push_str(&format!(" {}\n", self::scalar(scalar))),
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                match item {
                    Value::Object(inner) if !inner.is_empty() => {
                        text.push_str(&format!("{indent}- "));
                        write(text, item, depth + 1, true);
                    }
                    item => text.push_str(&format!("{indent}- {}\n", self::scalar(item))),
                }
            }
        }
        other => text.push_str(&format!("{indent}{}\n", scalar(other))),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text is one without quotes, to every version of YAML.
fn is_plain(text: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/' | '_');
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(letters)
        && !words.contains(&text.to_lowercase().as_str())
}
