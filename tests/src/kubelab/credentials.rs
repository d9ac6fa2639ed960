//! Who the API server is and who may talk to it: a CA of its own, a serving certificate, the key of service
//! accounts, and one token for each user, as files that kube-apiserver and clients read.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::config::Kubeconfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

pub(super) const ADMINISTRATOR: &str = "administrator";
pub(super) const SERVER_CERTIFICATE: &str = "server.crt";
pub(super) const SERVER_KEY: &str = "server.key";
pub(super) const SERVICE_ACCOUNT_KEY: &str = "service-account.key";
pub(super) const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "service-account.pub";
pub(super) const TOKENS: &str = "tokens.csv";
pub(super) const CA_CERTIFICATE: &str = "ca.crt";

/// Somebody who can log in by a token; what they may do is RBAC's business.
#[derive(Debug, Clone)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

pub(super) struct Credentials {
    directory: PathBuf,
    users: Vec<(User, String)>,
}

impl Credentials {
    /// Writes everything into `directory`, with a kubeconfig that points to `server` for each user.
    pub(super) fn create(
        directory: &Path,
        server: SocketAddr,
        addresses: &[IpAddr],
        users: &[User],
    ) -> Result<Self> {
        write_certificates(directory, addresses)?;
        let service_accounts = KeyPair::generate()?;
        fs::write(directory.join(SERVICE_ACCOUNT_KEY), service_accounts.serialize_pem())?;
        fs::write(directory.join(SERVICE_ACCOUNT_PUBLIC_KEY), service_accounts.public_key_pem())?;

        let administrator = User { name: ADMINISTRATOR.into(), groups: vec!["system:masters".into()] };
        let users: Vec<_> = std::iter::once(&administrator)
            .chain(users)
            .map(|user| (user.clone(), format!("{:016x}", super::random())))
            .collect();
        let tokens = users
            .iter()
            .map(|(User { name, groups }, token)| format!("{token},{name},{name},\"{}\"\n", groups.join(",")))
            .collect::<String>();
        fs::write(directory.join(TOKENS), tokens)?;

        let this = Self { directory: directory.to_owned(), users };
        for (user, _) in &this.users {
            fs::write(this.kubeconfig_path(&user.name), this.kubeconfig_text(&user.name, server)?)?;
        }
        Ok(this)
    }

    pub(super) fn kubeconfig_path(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.kubeconfig"))
    }

    pub(super) fn kubeconfig(&self, user: &str, server: SocketAddr) -> Result<Kubeconfig> {
        Ok(Kubeconfig::from_yaml(&self.kubeconfig_text(user, server)?)?)
    }

    fn kubeconfig_text(&self, user: &str, server: SocketAddr) -> Result<String> {
        let (_, token) = self
            .users
            .iter()
            .find(|(known, _)| known.name == user)
            .with_context(|| format!("no user {user}"))?;
        Ok(serde_json::to_string_pretty(&serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "kubelab", "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority": self.directory.join(CA_CERTIFICATE),
            }}],
            "users": [{ "name": user, "user": { "token": token } }],
            "contexts": [{ "name": "kubelab", "context": { "cluster": "kubelab", "user": user } }],
            "current-context": "kubelab",
        }))?)
    }
}

fn write_certificates(directory: &Path, addresses: &[IpAddr]) -> Result<()> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "kubelab");
    let ca_key = KeyPair::generate()?;
    fs::write(directory.join(CA_CERTIFICATE), ca.self_signed(&ca_key)?.pem())?;

    let names = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
    let server_key = KeyPair::generate()?;
    let server = CertificateParams::new(names)?.signed_by(&server_key, &Issuer::new(ca, ca_key))?;
    fs::write(directory.join(SERVER_CERTIFICATE), server.pem())?;
    fs::write(directory.join(SERVER_KEY), server_key.serialize_pem())?;
    Ok(())
}
