//! A YAML document as a tree in which every node knows where it stands.
//!
//! serde-saphyr parses the text; deserializing straight into the kinds would stop at the first error and know no
//! path. The tree is decoded as often as it takes to find all errors (see `decode`).
use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;

/// A place in a file, both from 1, and how many characters what stands there has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) length: u64,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    /// The items with their index, which stays the same when another item is taken out.
    List(Vec<(usize, Node)>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Node {
    /// The node below, by key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The text below a key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Where `path` leads, as far as it exists. A value that begins below its key is shown at the key, and so is a
    /// list: the parser places `[` at its first item.
    pub(super) fn locate(&self, path: &[Step]) -> Place {
        let (mut node, mut owner) = (self, self.place);
        for step in path {
            let below = match (step, &node.value) {
                (Step::Key(key), Value::Map(_)) => node.entry(key).map(|e| (&e.node, e.key_place)),
                (Step::Index(index), Value::List(items)) => {
                    items.iter().find(|(at, _)| at == index).map(|(_, item)| (item, item.place))
                }
                _ => None,
            };
            let Some((next, place)) = below else { return owner };
            (node, owner) = (next, place);
        }
        let own = node.place;
        let shown = own.line == owner.line && !matches!(node.value, Value::Null | Value::List(_));
        if shown { own } else { owner }
    }

    /// Where the key at the end of `path` stands.
    pub(super) fn locate_key(&self, path: &[Step]) -> Place {
        let [parents @ .., Step::Key(key)] = path else { return self.locate(path) };
        let entry = self.at(parents).and_then(|parent| parent.entry(key));
        entry.map_or_else(|| self.locate(parents), |entry| entry.key_place)
    }

    /// The node at `path`.
    pub(super) fn at(&self, path: &[Step]) -> Option<&Node> {
        path.iter().try_fold(self, |node, step| match (step, &node.value) {
            (Step::Key(key), _) => node.entry(key).map(|entry| &entry.node),
            (Step::Index(index), Value::List(items)) => {
                items.iter().find(|(at, _)| at == index).map(|(_, item)| item)
            }
            (Step::Index(_), _) => None,
        })
    }

    /// Takes out what stands at `path`; false where nothing does.
    pub(super) fn prune(&mut self, path: &[Step]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match (first, &mut self.value) {
            (Step::Key(key), Value::Map(entries)) => {
                let Some(index) = entries.iter().position(|entry| entry.key == *key) else { return false };
                if !rest.is_empty() {
                    return entries[index].node.prune(rest);
                }
                entries.remove(index);
                true
            }
            (Step::Index(index), Value::List(items)) => {
                let Some(index) = items.iter().position(|(at, _)| at == index) else { return false };
                if !rest.is_empty() {
                    return items[index].1.prune(rest);
                }
                items.remove(index);
                true
            }
            _ => false,
        }
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Place {
        Place { line: location.line(), column: location.column(), length: location.span().len() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let mut place = Place::from(spanned.defined);
        if matches!(spanned.value, Value::List(_) | Value::Map(_)) {
            place.length = 1;
        }
        Ok(Node { place, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> de::Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(u64::try_from(number).map_or(Value::Signed(number), Value::Unsigned))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(number))
    }

    // Beyond 64 bits nothing of ours fits, and the message need not be exact to the last digit.
    fn visit_i128<E>(self, number: i128) -> Result<Value, E> {
        Ok(Value::Float(number as f64))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Value, E> {
        Ok(Value::Float(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push((items.len(), item));
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = access.next_entry::<Spanned<String>, Node>()? {
            entries.push(Entry { key: key.value, key_place: key.defined.into(), node });
        }
        Ok(Value::Map(entries))
    }
}
