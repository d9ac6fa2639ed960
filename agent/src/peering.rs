//! From a planned peer to what the speaker is told: the step at which a secret's name becomes its value.
use std::time::Duration;

use plainroute_bgp::{policy::AsPathFilter, session::GracefulRestartConfig};
use plainroute_config::{PeerTarget, Secret};
use plainroute_speaker::{ImportRule, Password, PeerConfig};

use crate::{
    plan::PeerPlan,
    source::secrets::{Passwords, SecretName},
};

/// The speaker's configuration of a peer; `None` where no session can be tried, for the reason in the plan.
pub(crate) fn peer_config(plan: &PeerPlan, passwords: &Passwords) -> Option<PeerConfig> {
    let (None, Some(router_id), PeerTarget::Address(address)) =
        (&plan.refused, plan.router_id, plan.spec.target())
    else {
        return None;
    };
    let spec = &plan.spec;
    let (password, blocked) = match password(plan, passwords) {
        Ok(password) => (password, None),
        Err(reason) => (None, Some(reason)),
    };
    let restart = &spec.graceful_restart;
    let seconds = |seconds: u16| Duration::from_secs(u64::from(seconds));
    Some(PeerConfig {
        interface: spec.scope().map(str::to_owned),
        peer_port: spec.peer_port.get(),
        local_address: spec.local_address.map(|address| *address),
        listen_port: spec.listen_port,
        passive: spec.passive,
        ebgp_multihop: spec.ebgp_multihop.get(),
        ttl_security: spec.ttl_security.map(|security| security.hops.get()),
        password,
        connect_retry: seconds(spec.timers.connect_retry_time_seconds.get()),
        hold_time: *spec.timers.hold_time_seconds,
        keepalive: spec.timers.keep_alive_time_seconds.map(|time| seconds(time.get())),
        // The N bit (RFC 8538) would make the peer keep a dead node's routes: only where BFD watches the path.
        graceful_restart: restart.enabled.then(|| GracefulRestartConfig {
            restart_time: restart.restart_time_seconds.get(),
            notification: false,
            long_lived_stale_time: restart.long_lived_stale_time_seconds.get(),
        }),
        families: spec.families(),
        max_prefixes_in: spec.max_prefixes.limit_in(),
        max_prefixes_out: spec.max_prefixes.limit_out(),
        import: spec.import.iter().map(import_rule).collect(),
        blocked,
        ..PeerConfig::new(*plan.local_asn, *spec.peer_asn, *router_id, address)
    })
}

fn import_rule(rule: &plainroute_config::ImportRule) -> ImportRule {
    let lengths = rule.lengths();
    ImportRule {
        prefix: rule.cidr.prefix(),
        ge: Some(*lengths.start()),
        le: Some(*lengths.end()),
        communities: rule.communities.iter().map(|community| **community).collect(),
        large_communities: rule.large_communities.iter().map(|community| **community).collect(),
        as_path: rule.as_path.map(AsPathFilter::from).unwrap_or_default(),
        action: rule.action.into(),
        local_pref: rule.local_preference,
        install: rule.install,
    }
}

/// Where the peer's password is, if there is to be one.
pub(crate) fn secret_name(plan: &PeerPlan) -> Option<SecretName> {
    plan.spec.secret().map(|secret| match secret {
        Secret::File(path) => SecretName::File(path.clone()),
        Secret::Ref(secret) => SecretName::Kubernetes { name: secret.name.clone(), key: secret.key.clone() },
    })
}

/// The password, if there is to be one. One that cannot be had keeps the session down: an unprotected session in
/// its place is what nobody asked for.
fn password(plan: &PeerPlan, passwords: &Passwords) -> Result<Option<Password>, String> {
    match secret_name(plan) {
        None => Ok(None),
        Some(name) => match passwords.get(&name) {
            Some(Ok(password)) => Ok(Some(password.clone())),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(format!("{name}: has not been read yet")),
        },
    }
}
