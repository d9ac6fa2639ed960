//! The API server and the loader judge alike: whole files, every odd form of each value, and ranges at random.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use plainroute_config::Kind;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::{cluster::Cluster, loader, objects};

/// Bad files of which single objects are only the agent's to refuse, and how many.
const BY_THE_AGENT: [(&str, usize); 1] = [("pool.yaml", 1)];

/// How texts that mean, or nearly mean, an address, a prefix, a number or a name are written.
const ADDRESSES: [&str; 34] = [
    "192.0.2.1",
    "192.0.2.01",
    "192.0.2",
    "192.0.2.1 ",
    "192.0.2.256",
    "192.0.2.1.1",
    "0.0.0.0",
    "255.255.255.255",
    "127.0.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "3221225985",
    "0xc0000201",
    "2001:db8::1",
    "2001:DB8::1",
    "2001:db8::192.0.2.1",
    "2001:db8:0:0:0:0:0:1",
    "2001:db8::0001",
    "2001:db8::00001",
    "2001:db8:::1",
    "1:2:3:4:5:6:7:8:9",
    "::",
    "::1",
    "::ffff:192.0.2.1",
    "::ffff:c000:201",
    "::192.0.2.1",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::1%",
    "fe80::1%a b",
    "2001:db8::1%eth0",
    "ff02::1",
    "[2001:db8::1]",
    "",
];
const PREFIXES: [&str; 24] = [
    "192.0.2.0/24",
    "192.0.2.1/24",
    "192.0.2.1/32",
    "192.0.2.0/33",
    "192.0.2.0/-1",
    "192.0.2.0/+24",
    "192.0.2.0/024",
    "192.0.2.0/",
    "192.0.2.0/24/24",
    "192.0.2/24",
    "192.0.2.0/255.255.255.0",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8::/129",
    "2001:DB8::/32",
    "2001:db8::1/128",
    "2001:db8::1/127",
    "::/0",
    "::ffff:192.0.2.0/120",
    "fe80::/10",
    "fe80::1%eth0/64",
    "192.0.2.0 /24",
    "/24",
    "ff00::/8",
];
const COMMUNITIES: [&str; 30] = [
    "0:0",
    "64512:100",
    "65535:65535",
    "65536:1",
    "1:65536",
    "+1:1",
    "-1:1",
    "1:1:1",
    "01:1",
    "1",
    ":",
    "1:",
    "no-export",
    "NO-EXPORT",
    "no-such",
    "1:2:3",
    "4294967295:4294967295:4294967295",
    "4294967296:1:1",
    "1:2:3:4",
    "rt:1:1",
    "rt:65535:4294967295",
    "rt:65536:65535",
    "rt:65536:65536",
    "rt:1L:65536",
    "ro:192.0.2.1:65535",
    "rt:192.0.2.1:65536",
    "rt:192.0.2.256:1",
    "rt:4294967296:1",
    "xx:1:1",
    "",
];
const NAMES: [&str; 14] = [
    "eth0",
    "eth0.100",
    "a/b",
    "a b",
    "a:b",
    ".",
    "..",
    "...",
    "",
    "fifteen-letters",
    "sixteen--letters",
    "eth0\t",
    "é",
    "a\u{a0}b",
];
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "64512",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "'0'",
    "'64512'",
    "'4294967295'",
    "'4294967296'",
    "'1.5'",
    "'0.0'",
    "'0.1'",
    "'65535.65535'",
    "'65536.0'",
    "'1.2.3'",
    "'+1'",
    "''",
];

/// Where such a text may stand: `@` is its place.
const PLACES: [(&[&str], Kind, &[&str]); 5] = [
    (&ADDRESSES, Kind::Egress, &["egressIPs: ['@']"]),
    (&ADDRESSES, Kind::BgpPeer, &["peerAddress: '@'", "localAddress: '@'", "routerID: '@'"]),
    (
        &PREFIXES,
        Kind::IpPool,
        &[
            "{ ipRanges: [{ cidr: '@' }] }",
            "{ ipRanges: [{ cidr: 0.0.0.0/0 }, { cidr: '::/0' }], excluded: ['@'] }",
        ],
    ),
    (
        &PREFIXES,
        Kind::BgpPeer,
        &["{ peerAddress: null, listenPort: 179, listenRange: { cidr: '@' } }", "import: [{ cidr: '@' }]"],
    ),
    (
        &COMMUNITIES,
        Kind::BgpAdvertisement,
        &[
            "attributes: { communities: ['@'] }",
            "attributes: { largeCommunities: ['@'] }",
            "attributes: { extendedCommunities: ['@'] }",
        ],
    ),
];

/// Says where the two differ about the object.
async fn compare(cluster: &Cluster, object: &Value, what: &str) -> Result<Option<String>> {
    let (theirs, ours) = (cluster.judge(object).await?, loader::judge(object));
    Ok((theirs.is_some() != ours.is_some())
        .then(|| format!("{what}: the API server says {theirs:?}, the loader {ours:?}")))
}

fn yaml_files(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// The samples, the loader's own good files and the manifests of every lab are taken by both, the samples for good; and what
/// the API server keeps means to the agent what the file means.
pub(crate) async fn good_files(cluster: &Cluster) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let samples = root.join("config/samples");
    let mut directories = vec![samples.clone(), root.join("config/tests/good")];
    for lab in fs::read_dir(root.join("labs"))? {
        let manifests = lab?.path().join("manifests");
        directories.extend(manifests.is_dir().then_some(manifests));
    }
    let mut kinds = std::collections::BTreeSet::new();
    for file in
        directories.iter().map(|directory| yaml_files(directory)).collect::<Result<Vec<_>>>()?.concat()
    {
        let text = fs::read_to_string(&file)?;
        for mut object in loader::documents(&text).with_context(|| file.display().to_string())? {
            let what = format!("{}, {}", file.display(), object["metadata"]["name"]);
            // To a file null is absent.
            object["spec"]
                .as_object_mut()
                .into_iter()
                .for_each(|spec| spec.retain(|_, value| !value.is_null()));
            let kind = object["kind"].as_str().and_then(Kind::from_name).context("a kind")?;
            if kind == Kind::NodeState {
                object.as_object_mut().into_iter().for_each(|fields| drop(fields.remove("spec")));
            } else if let Some(said) = loader::judge(&object) {
                anyhow::bail!("{what}: the loader says {said}");
            }
            let is_sample = file.starts_with(&samples);
            let said = if is_sample { cluster.apply(&object).await? } else { cluster.judge(&object).await? };
            ensure!(said.is_none(), "{what}: the API server says {said:?}");
            if kind != Kind::NodeState {
                // The defaults of the schema are those of the types, and the agent reads what comes of them.
                let kept = loader::meaning(&cluster.kept(&object).await?).with_context(|| what.clone())?;
                let meant = loader::meaning(&object).with_context(|| what.clone())?;
                ensure!(kept == meant, "{what}: meant {meant}, kept {kept}");
            }
            kinds.extend(is_sample.then_some(kind));
        }
    }
    let defined = plainroute_config::crd::definitions().iter().map(|definition| definition.kind).collect();
    ensure!(kinds == defined, "samples are there of {kinds:?} only");
    Ok(())
}

/// What the loader refuses of its own bad files, the API server refuses, object by object.
pub(crate) async fn bad_files(cluster: &Cluster) -> Result<()> {
    let mut refused = 0;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/tests/bad");
    for file in yaml_files(&directory)? {
        // Some are no YAML, or no text.
        let Some(objects) = fs::read_to_string(&file).ok().and_then(|text| loader::documents(&text)) else {
            continue;
        };
        let mut differences = Vec::new();
        for object in objects.iter().filter(|object| object["kind"] != Kind::NodeState.name()) {
            let what = format!("{}, {}", file.display(), object["metadata"]["name"]);
            differences.extend(compare(cluster, object, &what).await?);
            refused += usize::from(loader::judge(object).is_some());
        }
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let known = BY_THE_AGENT.iter().find(|(file, _)| *file == name).map_or(0, |(_, count)| *count);
        ensure!(differences.len() == known, "{}", differences.join("\n"));
    }
    ensure!(refused > 15, "only {refused} bad objects were found");
    Ok(())
}

/// Every form in every place: what one takes, the other takes.
pub(crate) async fn forms(cluster: &Cluster) -> Result<()> {
    let mut cases: Vec<(Kind, String)> = Vec::new();
    for (texts, kind, places) in PLACES {
        for (text, place) in texts.iter().flat_map(|text| places.iter().map(move |place| (text, place))) {
            cases.push((kind, place.replace('@', text)));
        }
    }
    for name in NAMES {
        cases.push((Kind::BgpPeer, json!({ "peerAddress": null, "interface": name }).to_string()));
    }
    for number in NUMBERS {
        cases.push((Kind::BgpPeer, format!("peerASN: {number}")));
        cases.push((
            Kind::BgpPeer,
            format!("{{ import: [{{ cidr: 10.0.0.0/8, asPath: {{ contains: {number} }} }}] }}"),
        ));
        cases.push((Kind::BgpPeer, format!("timers: {{ holdTimeSeconds: {number} }}")));
        cases.push((Kind::BgpPeer, format!("maxPrefixes: {{ in: {number} }}")));
        cases.push((Kind::BgpPeer, format!("listenPort: {number}")));
    }
    let (mut differences, mut taken) = (Vec::new(), 0);
    for (kind, change) in &cases {
        let object = objects::changed(*kind, change)?;
        differences.extend(compare(cluster, &object, change).await?);
        taken += usize::from(loader::judge(&object).is_none());
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    ensure!(
        (50..cases.len() - 50).contains(&taken),
        "{taken} of {} are taken: that tells little",
        cases.len()
    );
    Ok(())
}

/// Two addresses that share some bits, as a range: both know which is the lower.
pub(crate) async fn ranges(cluster: &Cluster) -> Result<()> {
    let pair =
        (any::<u128>(), any::<u128>(), 0_u32..=128, any::<bool>()).prop_map(|(first, other, shared, v4)| {
            let mask = u128::MAX.checked_shr(shared).unwrap_or(0);
            let last = (first & !mask) | (other & mask);
            if v4 {
                let narrow = |bits: u128| std::net::Ipv4Addr::from_bits((bits >> 96) as u32).to_string();
                return (narrow(first), narrow(last));
            }
            (
                std::net::Ipv6Addr::from_bits(first).to_string(),
                std::net::Ipv6Addr::from_bits(last).to_string(),
            )
        });
    let mut runner = TestRunner::deterministic();
    let (mut differences, mut ordered) = (Vec::new(), 0);
    const CASES: usize = 200;
    for _ in 0..CASES {
        let (start, end) = pair.new_tree(&mut runner).map_err(anyhow::Error::msg)?.current();
        let object = objects::with(Kind::IpPool, &json!({ "ipRanges": [{ "start": start, "end": end }] }));
        differences.extend(compare(cluster, &object, &format!("{start} to {end}")).await?);
        ordered += usize::from(loader::judge(&object).is_none());
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    ensure!(
        (CASES / 4..CASES * 3 / 4).contains(&ordered),
        "{ordered} of {CASES} were in order: that tells little"
    );
    Ok(())
}
