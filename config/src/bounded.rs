//! Integers with bounds that the type states.
use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<T, const MIN: u32, const MAX: u32>(T);

/// A TCP port that can be connected to.
pub type Port = Bounded<u16, 1, 65535>;

impl<T: TryFrom<u32> + Copy, const MIN: u32, const MAX: u32> Bounded<T, MIN, MAX> {
    /// The value, where it lies within the bounds.
    pub fn new(value: u32) -> Option<Self> {
        if (MIN..=MAX).contains(&value) { T::try_from(value).ok().map(Bounded) } else { None }
    }

    /// The value.
    pub const fn get(self) -> T {
        self.0
    }

    /// A default that the source states and a test covers.
    pub(crate) fn literal(value: u32) -> Self {
        Self::new(value).expect("a literal default lies within its own bounds")
    }
}

impl<T: Default, const MAX: u32> Default for Bounded<T, 0, MAX> {
    fn default() -> Self {
        Bounded(T::default())
    }
}

impl<T: fmt::Display, const MIN: u32, const MAX: u32> fmt::Display for Bounded<T, MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Debug, const MIN: u32, const MAX: u32> fmt::Debug for Bounded<T, MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Serialize, const MIN: u32, const MAX: u32> Serialize for Bounded<T, MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: TryFrom<u32> + Copy, const MIN: u32, const MAX: u32> Deserialize<'de> for Bounded<T, MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T, const MIN: u32, const MAX: u32>(std::marker::PhantomData<T>);
        impl<T: TryFrom<u32> + Copy, const MIN: u32, const MAX: u32> de::Visitor<'_> for Visitor<T, MIN, MAX> {
            type Value = Bounded<T, MIN, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let bounded = u32::try_from(number).ok().and_then(Bounded::new);
                bounded.ok_or_else(|| E::custom(format!("must be from {MIN} to {MAX}, not {number}")))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom(format!("must be from {MIN} to {MAX}, not {number}"))),
                }
            }
        }
        deserializer.deserialize_u64(Visitor(std::marker::PhantomData))
    }
}

impl<T, const MIN: u32, const MAX: u32> JsonSchema for Bounded<T, MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Integer{MIN}To{MAX}"))
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "int64", "minimum": MIN, "maximum": MAX })
    }
}
