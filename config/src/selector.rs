//! The label selector of Kubernetes: what `matchLabels` and `matchExpressions` mean, and nothing more.
use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Selects objects by their labels. All terms must hold; the empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    /// Each label must be there with this very value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// Each expression must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One term of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "WrittenRequirement", into = "WrittenRequirement")]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for it.
    pub operator: Operator,
}

/// What a [`Requirement`] asks of its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there and its value is one of these.
    In(BTreeSet<String>),
    /// The label is absent or its value is none of these.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether the selector holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it selects everything because it says nothing.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let label = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => label.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => label.is_none_or(|value| !values.contains(value)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = crate::admission::REQUIREMENT))]
struct WrittenRequirement {
    /// The label's key.
    key: String,
    /// What must hold for the label.
    operator: WrittenOperator,
    /// The values of `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
enum WrittenOperator {
    /// The label is there and its value is one of `values`.
    In,
    /// The label is absent or its value is none of `values`.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl TryFrom<WrittenRequirement> for Requirement {
    type Error = &'static str;
    fn try_from(written: WrittenRequirement) -> Result<Self, Self::Error> {
        use WrittenOperator::{DoesNotExist, Exists, In, NotIn};
        let values: BTreeSet<_> = written.values.into_iter().collect();
        let operator = match (written.operator, values.is_empty()) {
            (In, false) => Operator::In(values),
            (NotIn, false) => Operator::NotIn(values),
            (Exists, true) => Operator::Exists,
            (DoesNotExist, true) => Operator::DoesNotExist,
            (In | NotIn, true) => return Err("operators In and NotIn need `values`"),
            (Exists | DoesNotExist, false) => {
                return Err("operators Exists and DoesNotExist take no `values`");
            }
        };
        Ok(Requirement { key: written.key, operator })
    }
}

impl From<Requirement> for WrittenRequirement {
    fn from(requirement: Requirement) -> Self {
        let (operator, values) = match requirement.operator {
            Operator::In(values) => (WrittenOperator::In, values),
            Operator::NotIn(values) => (WrittenOperator::NotIn, values),
            Operator::Exists => (WrittenOperator::Exists, BTreeSet::new()),
            Operator::DoesNotExist => (WrittenOperator::DoesNotExist, BTreeSet::new()),
        };
        WrittenRequirement { key: requirement.key, operator, values: values.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_empty_selector_matches_everything() {
        assert!(selector("{}").matches(&labels(&[])) && selector("{}").matches(&labels(&[("a", "b")])));
    }

    #[test]
    fn every_term_must_hold() {
        let both =
            selector(r#"{"matchLabels":{"a":"1"},"matchExpressions":[{"key":"b","operator":"Exists"}]}"#);
        assert!(both.matches(&labels(&[("a", "1"), ("b", "")])));
        assert!(!both.matches(&labels(&[("a", "1")])) && !both.matches(&labels(&[("b", "")])));
    }

    #[test]
    fn operators_mean_what_kubernetes_means() {
        let holds = |operator: &str, values: &str, labels: &Labels| {
            let term = format!(
                r#"{{"matchExpressions":[{{"key":"a","operator":"{operator}","values":{values}}}]}}"#
            );
            selector(&term).matches(labels)
        };
        let (absent, one, two) = (labels(&[]), labels(&[("a", "1")]), labels(&[("a", "2")]));
        let table = |operator, values| [&absent, &one, &two].map(|labels| holds(operator, values, labels));
        assert_eq!(table("In", r#"["1"]"#), [false, true, false]);
        assert_eq!(table("NotIn", r#"["1"]"#), [true, false, true]);
        assert_eq!(table("Exists", "[]"), [false, true, true]);
        assert_eq!(table("DoesNotExist", "[]"), [true, false, false]);
    }

    #[test]
    fn an_operator_without_its_values_cannot_be_built() {
        for term in [
            r#"{"key":"a","operator":"In"}"#,
            r#"{"key":"a","operator":"Exists","values":["1"]}"#,
            r#"{"key":"a","operator":"in","values":["1"]}"#,
        ] {
            assert!(serde_json::from_str::<Requirement>(term).is_err(), "{term}");
        }
    }
}
