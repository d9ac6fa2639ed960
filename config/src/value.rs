//! Scalars of a manifest that cannot hold an invalid value.
//!
//! The value types of `plainroute-bgp` know nothing of serde; [`Parsed`] carries them through it. Every error names
//! the text that was given and what is wrong with it, because the loader shows it below the field's position.
use std::{borrow::Cow, fmt, net::IpAddr, ops::Deref, str::FromStr};

use ipnetwork::IpNetwork;
use plainroute_bgp::{
    AfiSafi, Asn, Community, ExtendedCommunity, HoldTime, LargeCommunity, Prefix, RouterId,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::admission::{self, text};

/// A value of another crate, as it is written in a manifest.
///
/// Use it like a reference: `*peer.spec.local_asn` is the [`Asn`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parsed<T>(pub T);

/// How a foreign type is written in a manifest.
pub trait Written: Sized {
    /// What a reader of the manifest calls it, with its article: "an AS number".
    const WHAT: &'static str;
    /// From a string.
    fn from_text(text: &str) -> Result<Self, String>;
    /// From a number, where it may be written so.
    fn from_number(number: u64) -> Result<Self, String> {
        Err(format!("`{number}` is not {}", Self::WHAT))
    }
    /// As it is written.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    /// The schema of what is written.
    fn schema() -> Schema;
}

macro_rules! written_as_text {
    ($type:ty, $what:literal, $schema:expr, $parse:expr) => {
        impl Written for $type {
            const WHAT: &'static str = $what;
            fn from_text(text: &str) -> Result<Self, String> {
                #[allow(clippy::redundant_closure_call)]
                ($parse)(text)
            }
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
            fn schema() -> Schema {
                $schema
            }
        }
    };
}

fn parse<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    // Rust reads `+5` as a number; nobody else does.
    if text.contains('+') {
        return Err(format!("`{text}` has a `+` where only digits may stand"));
    }
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// An IPv4 address written as an IPv6 one is not the same to everyone who compares addresses. A Pod may have one, which then
/// lies in no pool.
pub(crate) fn refuse_mapped(address: IpAddr) -> Result<(), String> {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => Err(format!("{v6} is an IPv4 address written as IPv6; write {v4}")),
            None => Ok(()),
        },
        IpAddr::V4(_) => Ok(()),
    }
}

written_as_text!(Community, "a community", text(32, &admission::COMMUNITY), parse);
written_as_text!(ExtendedCommunity, "an extended community", text(32, &admission::EXTENDED_COMMUNITY), parse);
written_as_text!(LargeCommunity, "a large community", text(40, &admission::LARGE_COMMUNITY), parse);
written_as_text!(RouterId, "a router ID", text(15, &admission::ROUTER_ID), parse);
written_as_text!(
    AfiSafi,
    "a family",
    json_schema!({ "type": "string", "enum": ["ipv4-unicast", "ipv6-unicast"] }),
    parse
);
written_as_text!(IpAddr, "an IP address", text(45, &admission::ADDRESS), |text: &str| {
    text.parse().map_err(|_| format!("`{text}` is not an IP address"))
});

impl Written for Asn {
    const WHAT: &'static str = "an AS number";
    fn from_text(text: &str) -> Result<Self, String> {
        parse(text)
    }
    fn from_number(number: u64) -> Result<Self, String> {
        parse(&number.to_string())
    }
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.number())
    }
    fn schema() -> Schema {
        // A text where it has a point: 64086.59904. The limits are about numbers, the pattern about texts.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": u32::MAX,
            "maxLength": 16,
            "pattern": admission::ASN_PATTERN,
        })
    }
}

impl Written for HoldTime {
    const WHAT: &'static str = "a hold time in seconds";
    fn from_text(text: &str) -> Result<Self, String> {
        Err(format!("`{text}` is not a hold time in seconds (a number)"))
    }
    fn from_number(number: u64) -> Result<Self, String> {
        let seconds =
            u16::try_from(number).map_err(|_| format!("a hold time is at most 65535, not {number}"))?;
        HoldTime::try_from(seconds).map_err(|error| error.to_string())
    }
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.seconds())
    }
    fn schema() -> Schema {
        json_schema!({
            "type": "integer",
            "format": "int32",
            "minimum": 0,
            "maximum": u16::MAX,
            "x-kubernetes-validations": admission::HOLD_TIME,
        })
    }
}

impl<T> Deref for Parsed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for Parsed<T> {
    fn from(value: T) -> Self {
        Parsed(value)
    }
}

impl<T: fmt::Display> fmt::Display for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Parsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Written> Serialize for Parsed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

impl<'de, T: Written> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<T: Written> de::Visitor<'_> for Visitor<T> {
            type Value = Parsed<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WHAT)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::from_text(text).map(Parsed).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                T::from_number(number).map(Parsed).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::custom(format!("`{number}` is not {}", T::WHAT))),
                }
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

impl<T: Written> JsonSchema for Parsed<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed(T::WHAT)
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = T::schema();
        schema.insert("title".to_owned(), T::WHAT.into());
        schema
    }
}

/// A prefix as an operator writes it: ADDRESS/LENGTH without host bits.
///
/// A CIDR with host bits set is more often a slip than a wish, so it is refused, and the error says the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(Prefix);

impl Cidr {
    /// The prefix.
    pub const fn prefix(self) -> Prefix {
        self.0
    }
}

impl From<Prefix> for Cidr {
    fn from(prefix: Prefix) -> Cidr {
        Cidr(prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not a CIDR (ADDRESS/LENGTH)");
        if !text.contains('/') {
            return Err(match text.parse::<IpAddr>() {
                Ok(address) => format!("`{text}` is an address, not a CIDR; write {}", Prefix::host(address)),
                Err(_) => form(),
            });
        }
        let network: IpNetwork = text.parse().map_err(|_| form())?;
        // `ipnetwork` also reads a netmask, and a length with a sign or zeros before it.
        if text.split_once('/').is_none_or(|(_, length)| length != network.prefix().to_string()) {
            return Err(form());
        }
        refuse_mapped(network.ip())?;
        if network.ip() != network.network() {
            let masked = format!("{}/{}", network.network(), network.prefix());
            return Err(format!("`{text}` has host bits set; the network is {masked}"));
        }
        Prefix::new(network.network(), network.prefix()).map(Cidr).map_err(|error| error.to_string())
    }
}

/// An address or a CIDR: what may be excluded from a pool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressOrCidr(Prefix);

impl AddressOrCidr {
    /// The prefix; /32 or /128 where it was an address.
    pub const fn prefix(self) -> Prefix {
        self.0
    }
}

impl FromStr for AddressOrCidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return text.parse().map(|Cidr(prefix)| AddressOrCidr(prefix));
        }
        let address: IpAddr =
            text.parse().map_err(|_| format!("`{text}` is neither an IP address nor a CIDR"))?;
        refuse_mapped(address)?;
        Ok(AddressOrCidr(Prefix::host(address)))
    }
}

impl fmt::Display for AddressOrCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_host() { self.0.address().fmt(f) } else { self.0.fmt(f) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A kernel route table, by number or by one of the names that every system has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteTable(u32);

impl RouteTable {
    /// The table of ordinary routes.
    pub const MAIN: RouteTable = RouteTable(254);
    const NAMED: [(RouteTable, &'static str); 2] = [(RouteTable(253), "default"), (RouteTable::MAIN, "main")];

    /// The table of that number. Zero means "unspecified" to the kernel and 255 is its own, `local`.
    pub const fn new(number: u32) -> Option<RouteTable> {
        match number {
            0 | 255 => None,
            _ => Some(RouteTable(number)),
        }
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl FromStr for RouteTable {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = RouteTable::NAMED.iter().find(|(_, name)| *name == text).map(|(table, _)| *table);
        named.or_else(|| text.parse().ok().and_then(RouteTable::new)).ok_or_else(|| {
            format!("`{text}` is not a route table of ours (main, default, or a number except 0 and 255)")
        })
    }
}

impl fmt::Display for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match RouteTable::NAMED.iter().find(|(table, _)| table == self) {
            Some((_, name)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for RouteTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = RouteTable;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a route table (a name or a number)")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<RouteTable, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RouteTable, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<RouteTable, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for RouteTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match RouteTable::NAMED.iter().find(|(table, _)| table == self) {
            Some((_, name)) => serializer.serialize_str(name),
            None => serializer.serialize_u32(self.0),
        }
    }
}

impl JsonSchema for RouteTable {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("RouteTable")
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "title": "a route table" })
    }
}

/// Eight neighbouring bits of the packet mark, written like `0x00ff0000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkMask(u32);

impl MarkMask {
    /// Bits that nobody else is known to use by default.
    pub const DEFAULT: MarkMask = MarkMask(0x00ff_0000);

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for MarkMask {
    type Err = String;

    fn from_str(text: &str) -> Result<MarkMask, String> {
        let digits = text.strip_prefix("0x").unwrap_or_default();
        let bits =
            u32::from_str_radix(digits, 16).map_err(|_| format!("`{text}` is not a mask like 0x00ff0000"))?;
        match bits.count_ones() == 8 && bits >> bits.trailing_zeros() == 0xff {
            true => Ok(MarkMask(bits)),
            false => Err(format!("`{text}` is not eight neighbouring bits, like 0x00ff0000")),
        }
    }
}

impl fmt::Display for MarkMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

written_as_text!(
    MarkMask,
    "a mask of eight bits",
    json_schema!({ "type": "string", "pattern": "^0x[0-9a-fA-F]{1,8}$" }),
    parse
);

macro_rules! text_serde {
    ($($type:ident: $format:literal, $rules:expr);*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = text(49, &$rules);
                schema.insert("title".to_owned(), $format.into());
                schema
            }
        }
    )*};
}
text_serde!(Cidr: "a CIDR", admission::CIDR; AddressOrCidr: "an IP address or a CIDR", admission::ADDRESS_OR_CIDR);

impl fmt::Debug for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
