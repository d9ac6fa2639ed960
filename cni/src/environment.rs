//! What a container runtime says by the environment (CNI specification, section 2, "Parameters").
use std::ffi::OsString;

use crate::{
    error::{Error, code},
    protocol::{Attachment, Command, Pod},
};

/// Gives an environment variable.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A CNI command without what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// ADD
    Add,
    /// DEL
    Del,
    /// CHECK
    Check,
    /// GC
    Gc,
    /// STATUS
    Status,
    /// VERSION
    Version,
}

impl Verb {
    const ALL: [(&'static str, Verb); 6] = [
        ("ADD", Verb::Add),
        ("DEL", Verb::Del),
        ("CHECK", Verb::Check),
        ("GC", Verb::Gc),
        ("STATUS", Verb::Status),
        ("VERSION", Verb::Version),
    ];

    /// As `CNI_COMMAND` has it.
    pub fn text(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }

    /// What `CNI_COMMAND` says.
    pub fn read(variables: Variables<'_>) -> Result<Verb, Error> {
        let text = required(variables, "CNI_COMMAND")
            .map_err(|error| error.with("plainroute-ipam is a CNI plugin; container runtimes start it"))?;
        let known = Verb::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, verb)| *verb).ok_or_else(|| {
            invalid(format!("CNI_COMMAND: `{text}` is none of ADD, DEL, CHECK, GC, STATUS, VERSION"))
        })
    }
}

/// ADD, with what it is about.
pub fn add(variables: Variables<'_>) -> Result<Command, Error> {
    let arguments = optional(variables, "CNI_ARGS")?.unwrap_or_default();
    if let Some(odd) = pairs(&arguments).find(|pair| !pair.contains('=')) {
        return Err(invalid(format!("CNI_ARGS: `{odd}` is not KEY=VALUE")));
    }
    let pod = pod(&arguments).ok_or_else(|| {
        let missing = ["K8S_POD_NAMESPACE", "K8S_POD_NAME"];
        let missing = missing.into_iter().find(|key| value(&arguments, key).is_none()).unwrap_or_default();
        invalid(format!("CNI_ARGS: {missing} is missing"))
            .with("addresses go by the Pod's namespace; container runtimes of Kubernetes say it")
    })?;
    Ok(Command::Add { attachment: attachment(variables)?, netns: required(variables, "CNI_NETNS")?, pod })
}

/// CHECK, with what it is about.
pub fn check(variables: Variables<'_>) -> Result<Command, Error> {
    let pod = pod(&optional(variables, "CNI_ARGS")?.unwrap_or_default());
    Ok(Command::Check { attachment: attachment(variables)?, netns: required(variables, "CNI_NETNS")?, pod })
}

/// DEL, with what it is about. It makes do with little: whatever is wrong must not keep an address.
pub fn del(variables: Variables<'_>) -> Result<Command, Error> {
    let lenient = |name| optional(variables, name).unwrap_or_default();
    let pod = pod(&lenient("CNI_ARGS").unwrap_or_default());
    Ok(Command::Del { attachment: attachment(variables)?, netns: lenient("CNI_NETNS"), pod })
}

fn attachment(variables: Variables<'_>) -> Result<Attachment, Error> {
    let container_id = required(variables, "CNI_CONTAINERID")?;
    let ifname = required(variables, "CNI_IFNAME")?;
    is_name(&container_id).map_err(|why| invalid(format!("CNI_CONTAINERID: `{container_id}` {why}")))?;
    is_interface(&ifname).map_err(|why| invalid(format!("CNI_IFNAME: `{ifname}` {why}")))?;
    Ok(Attachment { container_id, ifname })
}

/// The specification's rule for the names of sandboxes and networks.
pub(crate) fn is_name(text: &str) -> Result<(), &'static str> {
    let first = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    let whole = first && rest;
    whole.then_some(()).ok_or("does not begin with a letter or digit and go on with those, `_`, `.` and `-`")
}

/// The kernel's rule for interfaces, which the specification repeats.
fn is_interface(text: &str) -> Result<(), &'static str> {
    let odd = |character: char| matches!(character, '/' | ':') || character.is_whitespace();
    match text {
        "." | ".." => Err("is no interface"),
        _ if text.len() > 15 => Err("has more than 15 octets"),
        _ if text.contains(odd) => Err("has `/`, `:` or white space in it"),
        _ => Ok(()),
    }
}

fn pod(arguments: &str) -> Option<Pod> {
    let text = |key| value(arguments, key).map(str::to_owned);
    Some(Pod { namespace: text("K8S_POD_NAMESPACE")?, name: text("K8S_POD_NAME")?, uid: text("K8S_POD_UID") })
}

fn pairs(arguments: &str) -> impl Iterator<Item = &str> {
    arguments.split(';').filter(|pair| !pair.is_empty())
}

/// An empty value is none.
fn value<'a>(arguments: &'a str, key: &str) -> Option<&'a str> {
    let of_key = pairs(arguments).filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
    of_key.map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn required(variables: Variables<'_>, name: &str) -> Result<String, Error> {
    optional(variables, name)?.ok_or_else(|| invalid(format!("{name} is not set")))
}

/// An empty variable is none.
fn optional(variables: Variables<'_>, name: &str) -> Result<Option<String>, Error> {
    let Some(text) = variables(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let text = text.into_string().map_err(|_| invalid(format!("{name} is not UTF-8")))?;
    Ok(Some(text))
}

fn invalid(message: String) -> Error {
    Error::new(code::INVALID_ENVIRONMENT, message)
}
