//! One run of the plugin: from what the runtime gives to what it gets. The connection to the agent comes in as a function, so
//! nothing here does I/O.
use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use serde_json::json;

use crate::{
    environment::{self, Variables, Verb},
    error::{Error, code},
    network::{Gateways, Network},
    protocol::{Command, Reply, Request},
    result,
    version::Version,
};

/// Asks the agent on that socket, within that time.
pub type Ask<'a> = &'a dyn Fn(&Path, &Request, Duration) -> Result<Reply, Error>;

/// What the runtime gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// On standard output: a result, nothing, or an error.
    pub output: String,
    /// Whether what was asked is done; the exit code says so too.
    pub done: bool,
}

/// Does what the environment and the network configuration ask for.
pub fn run(variables: Variables<'_>, input: &[u8], ask: Ask<'_>) -> Outcome {
    match answer(variables, input, ask) {
        Ok(output) => Outcome { output, done: true },
        Err(error) => {
            let version = Network::version_of(input).unwrap_or(Version::NEWEST);
            Outcome { output: error.json(version), done: false }
        }
    }
}

fn answer(variables: Variables<'_>, input: &[u8], ask: Ask<'_>) -> Result<String, Error> {
    let verb = Verb::read(variables)?;
    if verb == Verb::Version {
        let spoken = Version::ALL.map(Version::text);
        let version = Network::version_of(input).unwrap_or(Version::NEWEST);
        return Ok(json!({ "cniVersion": version.text(), "supportedVersions": spoken }).to_string());
    }
    let network = Network::read(input)?;
    has(network.version, verb)?;
    // Whatever became of the configuration must not keep an address.
    if !matches!(verb, Verb::Del | Verb::Gc) {
        network.check_fields()?;
    }
    let command = match verb {
        Verb::Add => environment::add(variables)?,
        Verb::Del => environment::del(variables)?,
        Verb::Check => environment::check(variables)?,
        Verb::Gc => Command::Gc { valid_attachments: network.valid_attachments()? },
        Verb::Status | Verb::Version => Command::Status,
    };
    // Before anything is allocated: a result that cannot be told would be a leak.
    let gateways = match verb {
        Verb::Add | Verb::Status => network.gateways()?,
        Verb::Check | Verb::Del | Verb::Gc | Verb::Version => Gateways::default(),
    };
    let previous = if verb == Verb::Check { network.previous_addresses()? } else { BTreeSet::new() };
    let request = Request::new(network.name.clone(), command);
    let reply = ask(&network.socket()?, &request, network.patience()?);
    let addresses = match reply {
        Ok(Reply::Addresses(addresses)) => addresses,
        Ok(Reply::Refused(failure)) => return Err(failure.into()),
        Err(error) if verb == Verb::Status => {
            let code = code::NOT_AVAILABLE;
            return Err(Error { code, ..error });
        }
        Err(error) => return Err(error),
    };
    match verb {
        Verb::Add => {
            result::document(network.version, &addresses, &gateways).map(|result| result.to_string())
        }
        Verb::Check => compare(&request.command, &addresses, &previous).map(|()| String::new()),
        Verb::Del | Verb::Gc | Verb::Status | Verb::Version => Ok(String::new()),
    }
}

/// A runtime that asks for what its version does not have has taken something for something else.
fn has(version: Version, verb: Verb) -> Result<(), Error> {
    let since = match verb {
        Verb::Add | Verb::Del | Verb::Version => Version::V0_3_0,
        Verb::Check => Version::V0_4_0,
        Verb::Gc | Verb::Status => Version::V1_1_0,
    };
    if version >= since {
        return Ok(());
    }
    let (verb, version, since) = (verb.text(), version.text(), since.text());
    let message = format!("network configuration: cniVersion: {version} has no {verb}; it came with {since}");
    Err(Error::new(code::INCOMPATIBLE_VERSION, message))
}

/// What the interface has must be what the agent holds for it: no less, and no more.
fn compare(command: &Command, held: &[IpAddr], previous: &BTreeSet<IpAddr>) -> Result<(), Error> {
    let held: BTreeSet<IpAddr> = held.iter().copied().collect();
    if !held.is_empty() && held == *previous {
        return Ok(());
    }
    let whose = match command {
        Command::Check { attachment, .. } => attachment.to_string(),
        Command::Add { .. } | Command::Del { .. } | Command::Gc { .. } | Command::Status => String::new(),
    };
    let list = |addresses: &BTreeSet<IpAddr>| match addresses.is_empty() {
        true => "nothing".to_owned(),
        false => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let message = format!("{whose}: prevResult has {}, the agent holds {}", list(previous), list(&held));
    Err(Error::new(code::DIFFERENT_ADDRESSES, message))
}
