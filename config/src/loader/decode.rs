//! From a tree to a kind, with every error and its path.
//!
//! serde stops at the first error. So the tree is decoded, the node at fault is taken out, and it is decoded again,
//! until nothing is wrong with what is left. What is missing only because we took it out is not an error.
use std::fmt::{self, Display};

use serde::{
    Deserializer,
    de::{
        self, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor,
        value::BorrowedStrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::tree::{Entry, Node, Place, Step, Value};

/// More errors in one document say nothing that these do not.
const MOST_FAULTS: usize = 50;

/// What is wrong at one place of a tree.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// From the root of the document; steps are pushed from the inside out.
    path: Vec<Step>,
    problem: Problem,
}

#[derive(Clone, Debug)]
enum Problem {
    /// The field is not there.
    Missing(&'static str),
    /// The key, not its value, is wrong.
    Key(String),
    /// Null where a value is expected: as good as absent.
    Null,
    /// The value is wrong.
    Value(String),
}

/// A fault that is to be told.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) place: Place,
    pub(super) field: String,
    pub(super) message: String,
}

/// Decodes `root`; all faults where there are any.
pub(super) fn decode<T>(
    root: &Node,
    decode: impl Fn(Decoder<'_>) -> Result<T, Fault>,
) -> Result<T, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut taken_out: Vec<Vec<Step>> = Vec::new();
    let mut pruned: Option<Node> = None;
    loop {
        let fault = match decode(Decoder { node: pruned.as_ref().unwrap_or(root) }) {
            Ok(value) if findings.is_empty() => return Ok(value),
            Ok(_) => return Err(findings),
            Err(fault) => fault,
        };
        let path: Vec<Step> = fault.path.into_iter().rev().collect();
        match fault.problem {
            Problem::Null => {}
            Problem::Key(message) => {
                findings.push(Finding { place: root.locate_key(&path), field: written(&path), message });
            }
            // What is wrong with a whole of which a part was taken out may be wrong for that reason only.
            Problem::Value(_) if taken_out.iter().any(|taken| taken.starts_with(&path)) => {}
            Problem::Value(message) => {
                findings.push(Finding { place: root.locate(&path), field: written(&path), message });
            }
            Problem::Missing(field) => {
                let mut full = path.clone();
                full.push(Step::Key(field.to_owned()));
                // A field that we took out has been told already; one that is null has not.
                let null = root.at(&full).is_some_and(|node| matches!(node.value, Value::Null));
                if null || !taken_out.contains(&full) {
                    let (place, field) = (root.locate(&full), written(&full));
                    findings.push(Finding { place, field, message: "is missing".to_owned() });
                }
                // What holds the gap cannot be decoded any more, so it goes as a whole.
            }
        }
        if findings.len() >= MOST_FAULTS || !pruned.get_or_insert_with(|| root.clone()).prune(&path) {
            return Err(findings);
        }
        taken_out.push(path);
    }
}

/// The path as an operator reads it: `spec.import[0].cidr`.
pub(super) fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) if key.contains(|c: char| !c.is_alphanumeric() && c != '_' && c != '-') => {
                text.push_str(&format!("[{key:?}]"));
            }
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
        }
    }
    text
}

/// The steps of a path that a rule names.
pub(super) fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in field.split('.') {
        let mut pieces = part.split('[');
        steps.extend(pieces.next().filter(|key| !key.is_empty()).map(|key| Step::Key(key.to_owned())));
        steps.extend(pieces.filter_map(|piece| piece.trim_end_matches(']').parse().ok()).map(Step::Index));
    }
    steps
}

impl Fault {
    fn of(problem: Problem) -> Fault {
        Fault { path: Vec::new(), problem }
    }

    fn below(mut self, step: Step) -> Fault {
        self.path.push(step);
        self
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Missing(field) => write!(f, "{field} is missing"),
            Problem::Key(message) | Problem::Value(message) => f.write_str(message),
            Problem::Null => f.write_str("is null"),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Fault::of(Problem::Value(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        if unexpected == Unexpected::Unit {
            return Fault::of(Problem::Null);
        }
        let expected = plain_words(&expected.to_string());
        let scalar =
            matches!(unexpected, Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_))
                || matches!(unexpected, Unexpected::Float(_));
        let hint = if scalar && expected == "text" { "; put it in quotes" } else { "" };
        Fault::custom(format!("must be {expected}, not {}{hint}", Found(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Fault::custom(format!("must be {}, not {}", plain_words(&expected.to_string()), Found(unexpected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Fault::custom(format!("`{variant}` is unknown here; {}", choices(variant, expected)))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Fault::of(Problem::Key(format!("is unknown here; {}", choices(field, expected))))
    }

    fn missing_field(field: &'static str) -> Self {
        Fault::of(Problem::Missing(field))
    }
}

/// What serde expects, in words for someone who writes YAML and no Rust.
fn plain_words(expected: &str) -> String {
    match expected {
        "a string" | "string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "i64" | "u64" => "a whole number".to_owned(),
        "path string" => "a path".to_owned(),
        _ if expected.starts_with("struct ") => "a mapping".to_owned(),
        _ if expected.starts_with("enum ") => "text".to_owned(),
        _ => expected.to_owned(),
    }
}

struct Found<'a>(Unexpected<'a>);

impl Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(value) => write!(f, "{value}"),
            Unexpected::Unsigned(number) => write!(f, "the number {number}"),
            Unexpected::Signed(number) => write!(f, "the number {number}"),
            Unexpected::Float(number) => write!(f, "the number {number}"),
            Unexpected::Str(text) => write!(f, "the text `{text}`"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a mapping"),
            other => other.fmt(f),
        }
    }
}

/// What may stand there: the likeliest where one is close, else all.
pub(super) fn choices(given: &str, expected: &[&str]) -> String {
    let near = expected.iter().map(|word| (distance(given, word), *word)).min();
    match near {
        Some((distance, word)) if distance <= 2 && distance < word.chars().count() => {
            format!("did you mean `{word}`?")
        }
        Some(_) => format!("known: {}", expected.join(", ")),
        None => "nothing is known here".to_owned(),
    }
}

/// How many letters differ (Levenshtein), upper and lower case being the same.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// serde's view of a node.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'de> {
    node: &'de Node,
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(number) => visitor.visit_i64(*number),
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), current: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            // None of our enums carries data, so whatever else stands there is of the wrong type.
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier
    }
}

struct Items<'de>(std::slice::Iter<'de, (usize, Node)>);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.0.next() else { return Ok(None) };
        seed.deserialize(Decoder { node }).map(Some).map_err(|fault| fault.below(Step::Index(*index)))
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.rest.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key = BorrowedStrDeserializer::new(&entry.key);
        seed.deserialize(key).map(Some).map_err(|fault: Fault| fault.below(Step::Key(entry.key.clone())))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let entry =
            self.current.take().ok_or_else(|| <Fault as de::Error>::custom("a value without its key"))?;
        let decoder = Decoder { node: &entry.node };
        seed.deserialize(decoder).map_err(|fault| fault.below(Step::Key(entry.key.clone())))
    }
}
