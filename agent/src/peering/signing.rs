//! How a peer's session is signed: the step at which the names of secrets become their values.
//!
//! A secret that cannot be had keeps the session down, since an unsigned one in its place is what nobody asked for. A
//! session that stands with TCP-AO goes on with the keys that it has while a new one's secret is still to come: to bring
//! a key in is no reason to lose the session.
use std::collections::BTreeSet;

use plainroute_config::{Secret, TcpAo};
use plainroute_speaker::{Password, PeerConfig, TcpAoAlgorithm, TcpAoKey, TcpAoKeys};

use crate::{
    plan::PeerPlan,
    source::secrets::{NOT_READ_YET, Passwords, SecretName},
};

/// How a session is to be signed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Signing {
    pub(super) password: Option<Password>,
    pub(super) tcp_ao: Option<TcpAoKeys>,
    /// Why the session must stay down.
    pub(super) blocked: Option<String>,
    /// What the session goes on without.
    pub(super) lacks: Option<String>,
}

/// The names of all secrets that the peer needs.
pub(crate) fn secret_names(plan: &PeerPlan) -> BTreeSet<SecretName> {
    let keys = plan.spec.tcp_ao.iter().flat_map(|tcp_ao| &tcp_ao.keys).filter_map(|key| key.secret());
    plan.spec.secret().into_iter().chain(keys).map(name).collect()
}

/// What is known of the peer's secrets, with regard to what is in force.
pub(super) fn signing(plan: &PeerPlan, passwords: &Passwords, in_force: Option<&PeerConfig>) -> Signing {
    if let Some(tcp_ao) = &plan.spec.tcp_ao {
        let in_force = in_force.filter(|config| config.blocked.is_none());
        return keys(tcp_ao, passwords, in_force.and_then(|config| config.tcp_ao.as_ref()));
    }
    match plan.spec.secret().map(|secret| value(secret, passwords)) {
        None => Signing::default(),
        Some(Ok(password)) => Signing { password: Some(password), ..Signing::default() },
        Some(Err(reason)) => Signing { blocked: Some(reason), ..Signing::default() },
    }
}

fn keys(tcp_ao: &TcpAo, passwords: &Passwords, in_force: Option<&TcpAoKeys>) -> Signing {
    let (mut known, mut missing, mut lost) = (Vec::new(), Vec::new(), false);
    for key in &tcp_ao.keys {
        let ids = (key.send_id, key.receive_id);
        // The rules of the configuration see to it that each key has a secret.
        let secret = key.secret().map_or(Err("has no secret".to_owned()), |secret| value(secret, passwords));
        match secret {
            Ok(secret) => known.push(TcpAoKey {
                send_id: key.send_id,
                receive_id: key.receive_id,
                algorithm: algorithm(key.algorithm),
                secret,
            }),
            Err(reason) => {
                missing.push(format!("tcpAO key {}/{}: {reason}", ids.0, ids.1));
                lost |= in_force
                    .is_some_and(|keys| keys.iter().any(|held| (held.send_id, held.receive_id) == ids));
            }
        }
    }
    let reason = (!missing.is_empty()).then(|| missing.join("; "));
    let known = match TcpAoKeys::new(known) {
        Ok(known) if reason.is_none() => return Signing { tcp_ao: Some(known), ..Signing::default() },
        Ok(known) => Some(known),
        // None is known, or the rules of the configuration would have refused them.
        Err(_) => None,
    };
    let goes_on = match (in_force, known) {
        (None, _) => None,
        (Some(old), Some(known)) if old.iter().any(|key| known.iter().any(|other| other == key)) => {
            Some(known)
        }
        // Only what was in force is left, unless that is just what cannot be had any more.
        (Some(old), Some(_) | None) => (!lost).then(|| old.clone()),
    };
    match goes_on {
        Some(keys) => {
            // What is being read this moment is no news.
            let lacks = reason.filter(|_| missing.iter().any(|text| !text.ends_with(NOT_READ_YET)));
            Signing { tcp_ao: Some(keys), lacks, ..Signing::default() }
        }
        None => Signing { blocked: reason, ..Signing::default() },
    }
}

fn value(secret: Secret<'_>, passwords: &Passwords) -> Result<Password, String> {
    let name = name(secret);
    passwords.get(&name).cloned().unwrap_or_else(|| Err(format!("{name}: {NOT_READ_YET}")))
}

fn name(secret: Secret<'_>) -> SecretName {
    match secret {
        Secret::File(path) => SecretName::File(path.clone()),
        Secret::Ref(secret) => SecretName::Kubernetes { name: secret.name.clone(), key: secret.key.clone() },
    }
}

fn algorithm(algorithm: plainroute_config::TcpAoAlgorithm) -> TcpAoAlgorithm {
    match algorithm {
        plainroute_config::TcpAoAlgorithm::HmacSha1 => TcpAoAlgorithm::HmacSha1,
        plainroute_config::TcpAoAlgorithm::CmacAes128 => TcpAoAlgorithm::CmacAes128,
        plainroute_config::TcpAoAlgorithm::HmacSha256 => TcpAoAlgorithm::HmacSha256,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{super::tests::planned, *};

    const NEW: &str = "{ sendID: 3, receiveID: 4, algorithm: cmac(aes128), file: /new }";
    const OLD: &str = "{ sendID: 1, receiveID: 2, algorithm: hmac(sha1), file: /old }";

    fn plan(keys: &[&str]) -> PeerPlan {
        planned("192.0.2.1", &format!("  tcpAO: {{ keys: [{}] }}\n", keys.join(", ")))
    }

    fn known(secrets: &[(&str, Result<&str, &str>)]) -> Passwords {
        let secret = |(path, value): &(&str, Result<&str, &str>)| {
            let value = value.map(|text| Password::new(text.as_bytes()).unwrap()).map_err(str::to_owned);
            (SecretName::File(PathBuf::from(path)), value)
        };
        secrets.iter().map(secret).collect()
    }

    fn send_ids(keys: &Option<TcpAoKeys>) -> Vec<u8> {
        keys.iter().flat_map(TcpAoKeys::iter).map(|key| key.send_id).collect()
    }

    /// What is in force when these keys are, with their secrets known.
    fn in_force(keys: &[&str]) -> PeerConfig {
        let secrets = known(&[("/old", Ok("old")), ("/new", Ok("new"))]);
        super::super::peer_config(&plan(keys), &secrets, &std::sync::Arc::default(), None).unwrap().0
    }

    #[test]
    fn a_missing_secret_keeps_a_session_down_by_its_name() {
        let plan = plan(&[NEW, OLD]);
        let secrets = known(&[("/old", Ok("old")), ("/new", Err("file /new: No such file"))]);
        let Signing { password, tcp_ao, blocked, lacks } = signing(&plan, &secrets, None);
        assert_eq!((password, tcp_ao, lacks), (None, None, None));
        assert_eq!(blocked.as_deref(), Some("tcpAO key 3/4: file /new: No such file"));
        let blocked = signing(&plan, &Passwords::default(), None).blocked.unwrap();
        assert!(blocked.contains("1/2") && blocked.contains("3/4") && blocked.contains("/old"), "{blocked}");
        // It was down before, too, for whatever reason.
        let before = PeerConfig { blocked: Some("down".to_owned()), ..in_force(&[OLD]) };
        assert!(signing(&plan, &secrets, Some(&before)).blocked.is_some());
        let names = secret_names(&plan);
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn all_known_are_told_in_their_order() {
        let secrets = known(&[("/old", Ok("old")), ("/new", Ok("new"))]);
        let signing = signing(&plan(&[NEW, OLD]), &secrets, None);
        assert_eq!((send_ids(&signing.tcp_ao), signing.blocked, signing.lacks), (vec![3, 1], None, None));
        let keys = signing.tcp_ao.unwrap();
        let key = keys.iter().next().unwrap();
        let secret = Password::new(b"new").unwrap();
        assert_eq!((key.receive_id, key.algorithm, &key.secret), (4, TcpAoAlgorithm::CmacAes128, &secret));
    }

    #[test]
    fn a_session_goes_on_with_the_keys_it_has_while_a_new_one_is_to_come() {
        let before = in_force(&[OLD]);
        // Not read yet: no news. Cannot be read: said, and gone on all the same.
        let unread = known(&[("/old", Ok("old"))]);
        let missing = known(&[("/old", Ok("old")), ("/new", Err("gone"))]);
        for (secrets, told) in [(&unread, None), (&missing, Some("tcpAO key 3/4: gone"))] {
            for keys in [&[NEW, OLD][..], &[NEW]] {
                let Signing { tcp_ao, blocked, lacks, .. } = signing(&plan(keys), secrets, Some(&before));
                assert_eq!((send_ids(&tcp_ao), blocked), (vec![1], None));
                assert_eq!(lacks.as_deref(), told);
            }
        }
        // What is taken out of the list goes, as long as one is left that is known.
        let before = in_force(&[OLD, NEW]);
        let third = "{ sendID: 5, receiveID: 6, algorithm: hmac(sha1), file: /third }";
        let secrets = known(&[("/old", Ok("old")), ("/new", Ok("new"))]);
        let Signing { tcp_ao, blocked, .. } = signing(&plan(&[third, NEW]), &secrets, Some(&before));
        assert_eq!((send_ids(&tcp_ao), blocked), (vec![3], None));
    }

    #[test]
    fn the_only_keys_own_secret_that_is_gone_takes_the_session_down() {
        let before = in_force(&[OLD]);
        let secrets = known(&[("/old", Err("the Secret does not exist"))]);
        let Signing { tcp_ao, blocked, .. } = signing(&plan(&[OLD]), &secrets, Some(&before));
        assert_eq!((tcp_ao, blocked.as_deref()), (None, Some("tcpAO key 1/2: the Secret does not exist")));
    }
}
