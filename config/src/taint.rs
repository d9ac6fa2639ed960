//! Taints of Nodes, and how a user names those that mean something.
use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A taint of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; often empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub effect: String,
}

/// Names taints as kubectl does: `KEY`, `KEY=VALUE`, `KEY:EFFECT` or `KEY=VALUE:EFFECT`. What is left out may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintPattern {
    key: String,
    value: Option<String>,
    effect: Option<String>,
}

impl TaintPattern {
    /// Whether it names the taint.
    pub fn matches(&self, taint: &Taint) -> bool {
        self.key == taint.key
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
            && self.effect.as_ref().is_none_or(|effect| *effect == taint.effect)
    }
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

impl FromStr for TaintPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, effect) = match text.rsplit_once(':') {
            Some((rest, effect)) => (rest, Some(effect)),
            None => (text, None),
        };
        let (key, value) = match rest.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (rest, None),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(format!(
                "`{text}` is not a taint like KEY, KEY=VALUE, KEY:EFFECT or KEY=VALUE:EFFECT"
            ));
        }
        match effect {
            Some(effect) if !EFFECTS.contains(&effect) => {
                Err(format!("`{effect}` is no effect of a taint; there are {}", EFFECTS.join(", ")))
            }
            _ => Ok(TaintPattern {
                key: key.to_owned(),
                value: value.map(str::to_owned),
                effect: effect.map(str::to_owned),
            }),
        }
    }
}

impl fmt::Display for TaintPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        self.value.iter().try_for_each(|value| write!(f, "={value}"))?;
        self.effect.iter().try_for_each(|effect| write!(f, ":{effect}"))
    }
}

impl Serialize for TaintPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaintPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for TaintPattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TaintPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_what_it_says_and_leaves_the_rest_open() {
        let taint = Taint { key: "a/b".into(), value: "v".into(), effect: "NoSchedule".into() };
        for (pattern, matches) in [
            ("a/b", true),
            ("a/b=v", true),
            ("a/b:NoSchedule", true),
            ("a/b=v:NoSchedule", true),
            ("a/b=", false),
            ("a/b=w", false),
            ("a/b:NoExecute", false),
            ("a", false),
        ] {
            let read: TaintPattern = pattern.parse().unwrap();
            assert_eq!(read.matches(&taint), matches, "{pattern}");
            assert_eq!(read.to_string(), pattern);
        }
    }

    #[test]
    fn what_is_no_taint_is_refused_by_name() {
        for (text, says) in [
            ("", "is not a taint"),
            ("=v", "is not a taint"),
            ("a b", "is not a taint"),
            ("a:Never", "`Never` is no effect"),
        ] {
            let error = text.parse::<TaintPattern>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
