//! Passwords from Secrets of a real API server: each asked for by its name alone, followed as it changes, and never
//! taken for gone while the server is away.
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use plainroute_agent::source::{
    kubernetes::{Pace, Settings},
    secrets::{Passwords, SecretName, Secrets},
};
use plainroute_speaker::Password;
use plainroute_tests::kubelab::{ApiServer, Options, User};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

const DEADLINE: Duration = Duration::from_secs(60);

fn name(secret: &str) -> SecretName {
    SecretName::Kubernetes { name: secret.to_owned(), key: "password".to_owned() }
}

/// Waits until what is known of `secret` is as it should be.
async fn until(
    known: &mut watch::Receiver<Arc<Passwords>>,
    secret: &str,
    holds: impl Fn(&Result<Password, String>) -> bool,
) -> Result<()> {
    let met = |known: &Arc<Passwords>| known.get(&name(secret)).is_some_and(&holds);
    let last = known.clone();
    match timeout(DEADLINE, known.wait_for(met)).await {
        Ok(found) => found.map(drop).context("the source ended"),
        Err(_) => bail!("never came for {secret}; known: {:?}", *last.borrow()),
    }
}

/// The agent may read Secrets of these names in its namespace, and no other.
async fn allow(api: &ApiServer, names: &[&str]) -> Result<()> {
    let rules = json!([{
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["list", "watch"],
    }]);
    let role = json!({ "metadata": { "name": "passwords" }, "rules": rules });
    api.create::<Role>(Api::namespaced(api.client(), "default"), role).await?;
    let binding = json!({
        "metadata": { "name": "passwords" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "passwords" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "agent" }],
    });
    api.create::<RoleBinding>(Api::namespaced(api.client(), "default"), binding).await
}

fn secret(name: &str, password: &str) -> Value {
    json!({ "metadata": { "name": name }, "stringData": { "password": password } })
}

#[tokio::test]
async fn a_password_follows_its_secret_and_outlives_an_outage() -> Result<()> {
    let users = vec![User { name: "agent".into(), groups: Vec::new() }];
    let mut api = ApiServer::start_with(Options { users, ..Options::default() }).await?;
    allow(&api, &["tor-a", "tor-b"]).await?;
    let secrets: Api<Secret> = Api::namespaced(api.client(), "default");
    api.create::<Secret>(secrets.clone(), secret("tor-a", "one")).await?;
    api.create::<Secret>(secrets.clone(), secret("other", "not for us")).await?;

    let wanted = BTreeSet::from(["tor-a", "tor-b", "other"].map(name));
    let (_wanted, wanted_in) = watch::channel(wanted);
    let (known_out, mut known) = watch::channel(Arc::default());
    let pace = Pace { watch_seconds: 5, ..Pace::default() };
    let kubeconfig = Some(api.kubeconfig_of("agent"));
    let node = "node-a".to_owned();
    let settings = Settings { kubeconfig, node, streaming_lists: true, custom_resources: false, pace };
    let source = tokio::spawn(Secrets::new(wanted_in, known_out, Some(settings)).run());

    let is = |text: &'static str| {
        move |known: &Result<Password, String>| {
            *known == Ok(Password::new(text.as_bytes()).expect("a password"))
        }
    };
    let says = |text: &'static str| {
        move |known: &Result<Password, String>| known.as_ref().is_err_and(|error| error.contains(text))
    };
    until(&mut known, "tor-a", is("one")).await?;
    until(&mut known, "tor-b", says("does not exist")).await?;
    // Negative control: what the role does not name is refused, and said.
    until(&mut known, "other", says("forbidden")).await?;

    let two = Patch::Merge(json!({ "stringData": { "password": "two" } }));
    secrets.patch("tor-a", &PatchParams::default(), &two).await?;
    until(&mut known, "tor-a", is("two")).await?;
    api.create::<Secret>(secrets.clone(), secret("tor-b", "three")).await?;
    until(&mut known, "tor-b", is("three")).await?;

    // While the server is away what is known stays; the server is back when a change arrives again.
    let stays = known.clone();
    api.kill().await?;
    let lost = timeout(Duration::from_secs(8), async {
        let mut stays = stays;
        stays
            .wait_for(|known| known[&name("tor-a")].is_err() || known[&name("tor-b")].is_err())
            .await
            .map(drop)
    })
    .await;
    ensure!(lost.is_err(), "an outage was taken for a deletion: {:?}", *known.borrow());
    api.restart().await?;
    let secrets: Api<Secret> = Api::namespaced(api.client(), "default");
    let four = Patch::Merge(json!({ "stringData": { "password": "four" } }));
    secrets.patch("tor-a", &PatchParams::default(), &four).await?;
    until(&mut known, "tor-a", is("four")).await?;

    // A positive deletion is one.
    secrets.delete("tor-b", &DeleteParams::default()).await?;
    until(&mut known, "tor-b", says("does not exist")).await?;
    source.abort();
    Ok(())
}

#[tokio::test]
async fn what_a_secret_said_outlives_a_restart_during_an_outage_in_memory_only() -> Result<()> {
    let mut api = ApiServer::start_with(Options::default()).await?;
    let secrets: Api<Secret> = Api::namespaced(api.client(), "default");
    api.create::<Secret>(secrets.clone(), secret("tor-a", "one")).await?;
    let settings = Settings {
        kubeconfig: Some(api.kubeconfig()),
        node: "node-a".to_owned(),
        streaming_lists: true,
        custom_resources: false,
        pace: Pace { watch_seconds: 5, ..Pace::default() },
    };
    let start = |directory: &Path| {
        let (_wanted, wanted_in) = watch::channel(BTreeSet::from([name("tor-a")]));
        let (known_out, known) = watch::channel(Arc::default());
        let source = Secrets::new(wanted_in, known_out, Some(settings.clone())).remembering_in(directory);
        (tokio::spawn(source.run()), known, _wanted)
    };
    let one = |known: &Result<Password, String>| *known == Ok(Password::new(b"one").expect("a password"));
    let memory = tempfile::tempdir_in("/dev/shm")?;
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    for directory in [&memory, &disk] {
        let (source, mut known, _wanted) = start(directory.path());
        until(&mut known, "tor-a", one).await?;
        source.abort();
    }

    api.kill().await?;
    let (source, mut known, _wanted) = start(memory.path());
    until(&mut known, "tor-a", one).await?;
    // Control: on a disk nothing was left.
    let (control, mut unknown, _wanted_too) = start(disk.path());
    until(&mut unknown, "tor-a", |known| known.as_ref().is_err_and(|error| error.contains("(Connect)")))
        .await?;
    ensure!(one(&known.borrow()[&name("tor-a")]), "{:?}", *known.borrow());

    // What the API server says goes before what was remembered.
    api.restart().await?;
    let secrets: Api<Secret> = Api::namespaced(api.client(), "default");
    secrets.delete("tor-a", &DeleteParams::default()).await?;
    until(&mut known, "tor-a", |known| known.as_ref().is_err_and(|error| error.contains("does not exist")))
        .await?;
    control.abort();
    source.abort();
    Ok(())
}
