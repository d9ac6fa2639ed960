//! The shapes of answers, read from the source text of their types: names, words and meanings stand there once. That
//! they are read rightly is checked against what real values serialize to.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Shapes by the name of their type.
pub(crate) struct Shapes(BTreeMap<String, Shape>);

/// A struct, with fields; or an enum, with variants.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) meaning: String,
    pub(crate) fields: Vec<Field>,
    pub(crate) variants: Vec<Variant>,
    /// The key that holds the word, where variants are objects.
    pub(crate) tag: Option<String>,
    camel: bool,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) r#type: String,
    pub(crate) meaning: String,
    /// Absent where there is nothing to say.
    pub(crate) optional: bool,
}

#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) word: String,
    pub(crate) meaning: String,
    pub(crate) fields: Vec<Field>,
}

/// Doc comments and attributes that belong to the next line of code.
#[derive(Default)]
struct Above {
    meaning: String,
    attributes: String,
}

impl Shapes {
    /// Reads every struct with named fields, and every enum, of files that rustfmt has formatted.
    pub(crate) fn read(sources: &[&str]) -> Shapes {
        let mut shapes = BTreeMap::new();
        for source in sources {
            let mut open: Option<(String, Shape)> = None;
            let mut above = Above::default();
            for line in source.lines() {
                let code = line.trim();
                if let Some(text) = code.strip_prefix("///") {
                    above.meaning = format!("{} {}", above.meaning, text.trim()).trim().to_owned();
                    continue;
                }
                if code.starts_with("#[") {
                    above.attributes.push_str(code);
                    continue;
                }
                let above = std::mem::take(&mut above);
                match &mut open {
                    None => open = begin(code, above),
                    Some(_) if line == "}" => shapes.extend(open.take()),
                    Some((_, shape)) => shape.add(line, above),
                }
            }
        }
        Shapes(shapes)
    }

    pub(crate) fn shape(&self, name: &str) -> &Shape {
        self.0.get(name).unwrap_or_else(|| panic!("no type {name}"))
    }

    /// A type of Rust in a reader's words.
    pub(crate) fn say(&self, r#type: &str) -> String {
        let (outer, inner) = split(r#type);
        match outer {
            "Option" | "Parsed" => self.say(inner),
            "Vec" | "BTreeSet" => format!("list of {}", self.say(inner)),
            "BTreeMap" => format!("map of {}, by name", self.say(inner.trim_start_matches("String, "))),
            "String" | "Community" | "ExtendedCommunity" | "LargeCommunity" | "RouterId" => {
                "string".to_owned()
            }
            "IpAddr" => "IP address".to_owned(),
            "Cidr" => "CIDR".to_owned(),
            "SocketAddr" => "ADDRESS:PORT".to_owned(),
            "jiff::Timestamp" => "time".to_owned(),
            "bool" => "boolean".to_owned(),
            "u8" | "u16" | "u32" | "u64" | "usize" | "Asn" => "number".to_owned(),
            "BgpPeerSpec" => "[spec of a BGPPeer](config.md#bgppeer)".to_owned(),
            "IpRange" => "[range of an IPPool](config.md#ippool)".to_owned(),
            name => {
                self.shape(name);
                format!("[{name}](#{})", name.to_lowercase())
            }
        }
    }

    /// Checks that a value has the keys and words of its type; `seen` collects them.
    pub(crate) fn agree(&self, r#type: &str, value: &Value, seen: &mut BTreeSet<String>) {
        let (outer, inner) = split(r#type);
        match (outer, value) {
            ("Option", Value::Null) => {}
            ("Option" | "Parsed", value) => self.agree(inner, value, seen),
            ("Vec" | "BTreeSet", Value::Array(values)) => {
                values.iter().for_each(|value| self.agree(inner, value, seen));
            }
            ("BTreeMap", Value::Object(values)) => {
                let inner = inner.trim_start_matches("String, ");
                values.values().for_each(|value| self.agree(inner, value, seen));
            }
            (
                "String" | "Community" | "ExtendedCommunity" | "LargeCommunity" | "RouterId" | "IpAddr"
                | "Cidr" | "SocketAddr" | "jiff::Timestamp",
                Value::String(_),
            )
            | ("bool", Value::Bool(_))
            | ("u8" | "u16" | "u32" | "u64" | "usize" | "Asn", Value::Number(_))
            | ("BgpPeerSpec" | "IpRange", Value::Object(_)) => {}
            (name, value) => self.agree_shape(name, value, seen),
        }
    }

    fn agree_shape(&self, name: &str, value: &Value, seen: &mut BTreeSet<String>) {
        let shape = self.shape(name);
        if shape.variants.is_empty() {
            return self.agree_fields(name, &shape.fields, value, None, seen);
        }
        let word = match &shape.tag {
            Some(tag) => &value[tag],
            None => value,
        };
        let word = word.as_str().unwrap_or_else(|| panic!("{name}: {value}"));
        let variant = shape.variants.iter().find(|variant| variant.word == word);
        let variant = variant.unwrap_or_else(|| panic!("{name} has no {word}"));
        seen.insert(format!("{name}={word}"));
        if let Some(tag) = &shape.tag {
            self.agree_fields(name, &variant.fields, value, Some(tag), seen);
        }
    }

    fn agree_fields(
        &self,
        name: &str,
        fields: &[Field],
        value: &Value,
        tag: Option<&str>,
        seen: &mut BTreeSet<String>,
    ) {
        let object = value.as_object().unwrap_or_else(|| panic!("{name} is not {value}"));
        for field in fields {
            match object.get(&field.key) {
                Some(value) => self.agree(&field.r#type, value, seen),
                None => assert!(field.optional, "{name} has no {}: {value}", field.key),
            }
        }
        for key in object.keys().filter(|key| Some(key.as_str()) != tag) {
            seen.insert(format!("{name}.{key}"));
        }
    }
}

impl Shape {
    /// Everything that can be seen of it in answers: keys as `TYPE.KEY`, words as `TYPE=WORD`.
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        let in_variants = self.variants.iter().flat_map(|variant| &variant.fields);
        let keys = self.fields.iter().chain(in_variants).map(|field| format!("{name}.{}", field.key));
        let words = self.variants.iter().map(|variant| format!("{name}={}", variant.word));
        keys.chain(words).collect()
    }

    /// A line within the type: a field, a variant, or a field of the last variant.
    fn add(&mut self, line: &str, above: Above) {
        let is_enum = !line.contains(':') && line.starts_with("    ") && !line.starts_with("     ");
        let code = line.trim();
        match code.trim_end_matches(',').split_once(": ") {
            Some((name, r#type)) => {
                if above.attributes.contains("serde(skip)") {
                    return;
                }
                let name = name.rsplit(' ').next().expect("a name").trim_start_matches("r#");
                let r#type = r#type.replace("&'a ", "");
                let field = Field {
                    key: above.renamed().unwrap_or_else(|| camel(name)),
                    r#type,
                    optional: above.attributes.contains("skip_serializing_if"),
                    meaning: above.meaning,
                };
                match self.variants.last_mut() {
                    Some(variant) if line.starts_with("        ") => variant.fields.push(field),
                    _ => self.fields.push(field),
                }
            }
            None if is_enum && code != "}," => {
                let name = code.trim_end_matches([' ', '{', ',']);
                let lower = || format!("{}{}", name[..1].to_lowercase(), &name[1..]);
                let word =
                    above.renamed().unwrap_or_else(|| if self.camel { lower() } else { name.to_owned() });
                self.variants.push(Variant { word, meaning: above.meaning, fields: Vec::new() });
            }
            None => {}
        }
    }
}

impl Above {
    fn renamed(&self) -> Option<String> {
        let (_, rest) = self.attributes.split_once("rename = \"")?;
        rest.split('"').next().map(str::to_owned)
    }
}

/// The type that begins on this line.
fn begin(code: &str, above: Above) -> Option<(String, Shape)> {
    let code = code.trim_start_matches("pub ");
    let rest = code.strip_prefix("struct ").or_else(|| code.strip_prefix("enum "))?;
    let name = rest.strip_suffix(" {")?.split('<').next()?;
    let tag = above.attributes.split_once("tag = \"").and_then(|(_, rest)| rest.split('"').next());
    let camel = above.attributes.contains("rename_all = \"camelCase\"");
    let tag = tag.map(str::to_owned);
    Some((name.to_owned(), Shape { meaning: above.meaning, tag, camel, ..Shape::default() }))
}

/// `Vec<X>` as `Vec` and `X`.
fn split(r#type: &str) -> (&str, &str) {
    match r#type.split_once('<') {
        Some((outer, inner)) => (outer, inner.strip_suffix('>').unwrap_or(inner)),
        None => (r#type, ""),
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| format!("{text}{}{}", word[..1].to_uppercase(), &word[1..]))
}
