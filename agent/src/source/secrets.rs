//! The secrets of BGP sessions, TCP MD5 passwords and TCP-AO keys, by name: from files, and from Secrets of the agent's own namespace.
//!
//! Owner of what was last read. Input: the names that the plan asks for (`watch`). Output: their values (`watch`). A
//! file that cannot be read any more changes nothing, its last good value stays; a Secret that was positively
//! deleted is gone. What was never read is an error with a reason, and the session stays down: no password is ever
//! replaced by none. Cancelling [`Secrets::run`] stops watching, nothing else.
mod remembered;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    runtime::{WatchStreamExt as _, watcher},
};
use plainroute_speaker::Password;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{kubernetes, watch::Watch};
use remembered::Remembered;

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretName {
    /// The whole content of a file.
    File(PathBuf),
    /// A key of a Secret.
    Kubernetes {
        /// The Secret.
        name: String,
        /// The key in it.
        key: String,
    },
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretName::File(path) => write!(f, "file {}", path.display()),
            SecretName::Kubernetes { name, key } => write!(f, "Secret {name} key {key}"),
        }
    }
}

/// Why there is none of a name that was only just asked for.
pub(crate) const NOT_READ_YET: &str = "has not been read yet";

/// What is known of each name that was asked for: the password, or why there is none.
pub type Passwords = BTreeMap<SecretName, Result<Password, String>>;

/// The content of a Secret; `None` where it does not exist.
type Content = Option<BTreeMap<String, Vec<u8>>>;

/// Reads what is wanted and watches it.
pub struct Secrets {
    wanted: watch::Receiver<BTreeSet<SecretName>>,
    known: watch::Sender<Arc<Passwords>>,
    /// How the API server is reached, where there is one.
    kubernetes: Option<kubernetes::Settings>,
    files: Watch,
    /// By Secret: its content, or why it was never read.
    contents: BTreeMap<String, Result<Content, String>>,
    /// The Secrets that are watched.
    watching: JoinSet<()>,
    /// Where what they said outlives this process.
    remembered: Remembered,
    /// What they said to an earlier one, as long as the API server has not said anything else.
    before: remembered::Contents,
}

impl Secrets {
    /// Reads nothing yet.
    pub fn new(
        wanted: watch::Receiver<BTreeSet<SecretName>>,
        known: watch::Sender<Arc<Passwords>>,
        kubernetes: Option<kubernetes::Settings>,
    ) -> Secrets {
        let (contents, watching) = (BTreeMap::new(), JoinSet::new());
        let (remembered, before) = (Remembered::nowhere(), remembered::Contents::new());
        Secrets { wanted, known, kubernetes, files: Watch::new(), contents, watching, remembered, before }
    }

    /// Remembers what Secrets say in this directory, if it is in memory, and begins with what is remembered there.
    pub fn remembering_in(mut self, directory: &Path) -> Secrets {
        if self.kubernetes.is_some() {
            self.remembered = Remembered::new(directory);
            self.before = self.remembered.load();
        }
        self
    }

    /// Runs until nobody asks any more.
    pub async fn run(mut self) {
        // One slot: a Secret's news waits until the one before was taken.
        let (news, mut news_in) = mpsc::channel(1);
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.follow(&wanted, &news);
            self.publish(&wanted);
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { return },
                () = self.files.changed() => {}
                Some((name, content)) = news_in.recv() => self.note(name, content),
            }
        }
    }

    fn note(&mut self, name: String, content: Result<Content, String>) {
        let ignorance = content.is_err() && self.contents.get(&name).is_some_and(Result::is_ok);
        match &content {
            Ok(Some(_)) => {}
            Ok(None) => tracing::warn!(secret = %name, "the Secret does not exist"),
            Err(error) => tracing::warn!(secret = %name, %error, "the Secret cannot be read; trying again"),
        }
        if ignorance {
            return;
        }
        let said = content.is_ok();
        self.contents.insert(name, content);
        if said {
            let known = self
                .contents
                .iter()
                .filter_map(|(name, content)| Some((name.clone(), content.as_ref().ok()?.clone()?)));
            self.remembered.save(&known.collect());
        }
    }

    /// Watches the directories of the wanted files, and each wanted Secret by its name.
    fn follow(
        &mut self,
        wanted: &BTreeSet<SecretName>,
        news: &mpsc::Sender<(String, Result<Content, String>)>,
    ) {
        self.files.follow(wanted.iter().filter_map(|name| match name {
            SecretName::File(path) => path.parent().map(Path::to_owned),
            SecretName::Kubernetes { .. } => None,
        }));
        let Some(settings) = &self.kubernetes else { return };
        for name in wanted.iter().filter_map(secret) {
            if !self.contents.contains_key(name) {
                let before = self.before.remove(name).map(Some);
                self.contents.insert(name.to_owned(), before.ok_or_else(|| NOT_READ_YET.to_owned()));
                self.watching.spawn(watch_secret(settings.clone(), name.to_owned(), news.clone()));
            }
        }
    }

    fn publish(&mut self, wanted: &BTreeSet<SecretName>) {
        let before = Arc::clone(&self.known.borrow());
        let passwords: Passwords = wanted
            .iter()
            .map(|name| {
                let read = match name {
                    SecretName::File(path) => read_file(path),
                    SecretName::Kubernetes { name, key } => self.read_secret(name, key),
                };
                let last = before.get(name).and_then(|last| last.as_ref().ok());
                let password = match (read, last, name) {
                    (Err(error), Some(last), SecretName::File(_)) => {
                        tracing::warn!(%error, "the password cannot be read any more; the last one stays");
                        Ok(last.clone())
                    }
                    (read, _, _) => read.map_err(|error| format!("{name}: {error}")),
                };
                (name.clone(), password)
            })
            .collect();
        if *before != passwords {
            self.known.send_replace(Arc::new(passwords));
        }
    }

    fn read_secret(&self, name: &str, key: &str) -> Result<Password, String> {
        if self.kubernetes.is_none() {
            return Err("there is no API server to ask (spec.source.kubernetes); use a file".to_owned());
        }
        match self.contents.get(name) {
            None => Err(NOT_READ_YET.to_owned()),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(None)) => Err("the Secret does not exist".to_owned()),
            Some(Ok(Some(content))) => {
                let value = content.get(key).ok_or_else(|| "the Secret has no such key".to_owned())?;
                password(value)
            }
        }
    }
}

fn secret(name: &SecretName) -> Option<&str> {
    match name {
        SecretName::Kubernetes { name, .. } => Some(name),
        SecretName::File(_) => None,
    }
}

fn read_file(path: &Path) -> Result<Password, String> {
    password(&fs::read(path).map_err(|error| error.to_string())?)
}

/// One trailing line break is the editor's, not the password's.
fn password(octets: &[u8]) -> Result<Password, String> {
    let octets = octets.strip_suffix(b"\n").unwrap_or(octets);
    let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
    Password::new(octets).map_err(|error| error.to_string())
}

/// Watches one Secret, by its name alone: the agent needs no right to list others. Ends when nobody listens.
async fn watch_secret(
    settings: kubernetes::Settings,
    name: String,
    news: mpsc::Sender<(String, Result<Content, String>)>,
) {
    let (client, _) = loop {
        match kubernetes::connect(&settings).await {
            Ok(connected) => break connected,
            Err(error) => {
                if news.send((name.clone(), Err(error.to_string()))).await.is_err() {
                    return;
                }
                tokio::time::sleep(settings.pace.retry_max).await;
            }
        }
    };
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(settings.pace.watch_seconds);
    let api = Api::<Secret>::default_namespaced(client);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let (mut found, mut told) = (None, None);
    while let Some(event) = events.next().await {
        let content = match event {
            Ok(watcher::Event::Init) => {
                found = None;
                continue;
            }
            Ok(watcher::Event::InitApply(secret)) => {
                found = Some(content(secret));
                continue;
            }
            Ok(watcher::Event::InitDone) => Ok(found.take()),
            Ok(watcher::Event::Apply(secret)) => Ok(Some(content(secret))),
            Ok(watcher::Event::Delete(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        if told.as_ref() == Some(&content) {
            continue;
        }
        told = Some(content.clone());
        if news.send((name.clone(), content)).await.is_err() {
            return;
        }
    }
}

fn content(secret: Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn until<T: Clone>(known: &mut watch::Receiver<T>, what: &str, hold: impl FnMut(&T) -> bool) -> T {
        let found = tokio::time::timeout(Duration::from_secs(10), known.wait_for(hold)).await;
        found.unwrap_or_else(|_| panic!("{what}: not within 10 s")).expect("the source runs").clone()
    }

    #[tokio::test]
    async fn a_file_is_read_and_followed_and_its_last_good_value_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let name = SecretName::File(path.clone());
        let (wanted, wanted_in) = watch::channel(BTreeSet::from([name.clone()]));
        let (known, mut passwords) = watch::channel(Arc::default());
        let source = tokio::spawn(Secrets::new(wanted_in, known, None).run());
        let missing = until(&mut passwords, "the first look", |known| known.contains_key(&name)).await;
        assert!(missing[&name].as_ref().unwrap_err().contains("No such file"), "{missing:?}");

        fs::write(&path, "one\n").unwrap();
        let one = Password::new(b"one").unwrap();
        until(&mut passwords, "the password", |known| known[&name] == Ok(one.clone())).await;
        fs::write(&path, "two").unwrap();
        let two = Password::new(b"two").unwrap();
        until(&mut passwords, "its change", |known| known[&name] == Ok(two.clone())).await;

        // A second name is the proof that the file's removal was seen before.
        fs::remove_file(&path).unwrap();
        let other = SecretName::File(directory.path().join("other"));
        wanted.send_replace(BTreeSet::from([name.clone(), other.clone()]));
        let after = until(&mut passwords, "the other", |known| known.contains_key(&other)).await;
        assert_eq!(after[&name], Ok(two));
        source.abort();
    }

    #[tokio::test]
    async fn a_secret_without_an_api_server_says_what_to_do() {
        let name = SecretName::Kubernetes { name: "tor".to_owned(), key: "password".to_owned() };
        let (_wanted, wanted_in) = watch::channel(BTreeSet::from([name.clone()]));
        let (known, mut passwords) = watch::channel(Arc::default());
        let source = tokio::spawn(Secrets::new(wanted_in, known, None).run());
        let known = until(&mut passwords, "the answer", |known| known.contains_key(&name)).await;
        assert!(known[&name].as_ref().unwrap_err().contains("use a file"), "{known:?}");
        source.abort();
    }
}
