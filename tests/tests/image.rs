//! The container image as `make image` writes it: complete, reproducible, static, and with a true bill of materials.
//!
//! The development profile is built, which differs from the release's in nothing that is looked at here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn build(out: &Path) -> Result<String> {
    let mut command = Command::new(repository().join("scripts/image.sh"));
    run(command.env("IMAGE_PROFILE", "dev").env("IMAGE_OUT", out))
}

/// The image that all tests look at, built once.
fn image() -> Result<(&'static Path, Unpacked)> {
    static BUILT: LazyLock<Result<TempDir, String>> = LazyLock::new(|| {
        let out = tempfile::tempdir().map_err(|error| error.to_string())?;
        build(out.path()).map_err(|error| error.to_string())?;
        Ok(out)
    });
    let out = BUILT.as_ref().map_err(|error| anyhow!("{error}"))?.path();
    Ok((out, Unpacked::new(&out.join("plainroute.tar"))?))
}

/// An image with everything taken out of its archives.
struct Unpacked {
    layout: TempDir,
    root: TempDir,
    manifest: Value,
    config: Value,
}

impl Unpacked {
    fn new(archive: &Path) -> Result<Unpacked> {
        let (layout, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
        untar(archive, layout.path())?;
        let index = json(&layout.path().join("index.json"))?;
        let manifest = json(&blob(layout.path(), &index["manifests"][0])?)?;
        let config = json(&blob(layout.path(), &manifest["config"])?)?;
        untar(&blob(layout.path(), &manifest["layers"][0])?, root.path())?;
        Ok(Unpacked { layout, root, manifest, config })
    }

    fn binaries(&self) -> [PathBuf; 2] {
        ["plainroute", "plainroute-ipam"].map(|name| self.root.path().join("usr/bin").join(name))
    }

    fn bill(&self) -> Result<Value> {
        json(&self.root.path().join("usr/share/doc/plainroute/plainroute.cdx.json"))
    }
}

fn untar(archive: &Path, into: &Path) -> Result<()> {
    run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(into)).map(drop)
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn digest(path: &Path) -> Result<String> {
    let line = run(Command::new("sha256sum").arg(path))?;
    Ok(format!("sha256:{}", line.split_whitespace().next().context("sha256sum said nothing")?))
}

/// The file that a descriptor names, after looking whether it is as long as it says and has the digest that it says.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let named = descriptor["digest"].as_str().context("a descriptor has no digest")?;
    let path = layout.join("blobs").join(named.replace(':', "/"));
    let (found, size) = (digest(&path)?, fs::metadata(&path)?.len());
    ensure!(found == named, "{} has the digest {found}", path.display());
    ensure!(descriptor["size"] == size, "{}: {size} bytes, not {}", path.display(), descriptor["size"]);
    Ok(path)
}

/// What `grep` finds of a pattern in a file that is no text, each match once.
fn grep(pattern: &str, file: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new("grep").args(["-aoE", "-e", pattern]).arg(file).output()?;
    ensure!(output.status.code().is_some_and(|code| code < 2), "grep {pattern}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// `NAME-VERSION` of each crate whose source is named in the binary, as panics name it.
fn crates_in(binary: &Path) -> Result<BTreeSet<String>> {
    let paths = grep("/cargo/registry/src/[^/]+/[^/]+/", binary)?;
    Ok(paths.iter().filter_map(|path| path.split('/').nth(5)).map(str::to_owned).collect())
}

#[test]
fn the_image_is_complete_and_the_same_each_time() -> Result<()> {
    let (out, image) = image()?;
    let again = tempfile::tempdir()?;
    let said = build(again.path())?;
    let archives = [out, again.path()].map(|directory| digest(&directory.join("plainroute.tar")));
    let [one, other] = archives;
    assert_eq!(one?, other?, "two builds differ");

    let path = |name: &str| image.layout.path().join(name);
    assert_eq!(json(&path("oci-layout"))?["imageLayoutVersion"], "1.0.0");
    let index = json(&path("index.json"))?;
    let name = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(name, &format!("plainroute.dev/plainroute:{version}"));
    let digest_of_manifest = index["manifests"][0]["digest"].as_str().context("no digest")?;
    assert!(said.contains(digest_of_manifest), "the digest is not told: {said}");
    let layer = image.manifest["layers"][0]["digest"].as_str().context("no layer")?;
    let docker = json(&path("manifest.json"))?;
    assert_eq!(docker[0]["Layers"][0], format!("blobs/{}", layer.replace(':', "/")));
    assert_eq!(&docker[0]["RepoTags"][0], name);

    // What runtimes check after unpacking.
    let unpacked = tempfile::NamedTempFile::new()?;
    let layer = path("blobs").join(layer.replace(':', "/"));
    run(Command::new("sh").arg("-c").arg("gzip -dc \"$0\" >\"$1\"").arg(layer).arg(unpacked.path()))?;
    assert_eq!(image.config["rootfs"]["diff_ids"][0], digest(unpacked.path())?);

    let labels = image.config["config"]["Labels"].as_object().context("no labels")?;
    assert_eq!(labels["org.opencontainers.image.version"], version);
    for label in ["title", "description", "licenses", "revision", "created"] {
        assert!(labels.contains_key(&format!("org.opencontainers.image.{label}")), "no label {label}");
    }
    Ok(())
}

#[test]
fn it_holds_static_binaries_that_run_in_an_empty_root() -> Result<()> {
    let (_, image) = image()?;
    let files = run(Command::new("find").arg(image.root.path()).args(["-type", "f", "-printf", "%P %m\n"]))?;
    let files: BTreeSet<&str> = files.lines().collect();
    let documents = "usr/share/doc/plainroute";
    let expected = [
        "usr/bin/plainroute 755".to_owned(),
        "usr/bin/plainroute-ipam 755".to_owned(),
        format!("{documents}/LICENSE 644"),
        format!("{documents}/plainroute.cdx.json 644"),
    ];
    assert_eq!(files, expected.iter().map(String::as_str).collect());

    let entry = image.config["config"]["Entrypoint"][0].as_str().context("no entry point")?;
    let version = run(Command::new("chroot").arg(image.root.path()).args([entry, "--version"]))?;
    assert_eq!(version.trim(), format!("plainroute {}", env!("CARGO_PKG_VERSION")));
    let plugin = |argument: &str| {
        let mut command = Command::new("chroot");
        command.arg(image.root.path()).args(["/usr/bin/plainroute-ipam", argument]);
        command
    };
    let version = run(&mut plugin("--version"))?;
    assert_eq!(version.trim(), format!("plainroute-ipam {}", env!("CARGO_PKG_VERSION")));
    fs::create_dir(image.root.path().join("cni-bin"))?;
    // It reads itself by way of /proc, which containers have.
    let proc = image.root.path().join("proc");
    fs::create_dir(&proc)?;
    run(Command::new("mount").args(["-t", "proc", "proc"]).arg(&proc))?;
    let installed = run(plugin("install").arg("/cni-bin"));
    run(Command::new("umount").arg(&proc))?;
    installed?;
    let [_, ours] = image.binaries();
    assert_eq!(digest(&image.root.path().join("cni-bin/plainroute-ipam"))?, digest(&ours)?);

    // Nothing of the machine that built it, and nothing that only it has.
    let repository = repository().canonicalize()?;
    for binary in image.binaries() {
        for path in [repository.to_str().context("the repository's path")?, "/[.]cargo/registry/"] {
            assert_eq!(grep(path, &binary)?, BTreeSet::new(), "{} names {path}", binary.display());
        }
        assert!(!grep("/cargo/registry/", &binary)?.is_empty(), "paths are looked for in vain");
    }
    Ok(())
}

#[test]
fn the_bill_of_materials_names_what_is_in_the_binary_and_nothing_that_built_it() -> Result<()> {
    let (out, image) = image()?;
    let bill = image.bill()?;
    assert_eq!(bill, json(&out.join("plainroute.cdx.json"))?, "the one beside the image is another");
    let components = bill["components"].as_array().context("no components")?;
    let listed: BTreeSet<String> = components
        .iter()
        .map(|component| {
            let text = |field: &str| component[field].as_str().unwrap_or_default().to_owned();
            format!("{}-{}", text("name"), text("version"))
        })
        .collect();

    let mut linked = BTreeSet::new();
    for binary in image.binaries() {
        linked.extend(crates_in(&binary)?);
    }
    assert!(listed.iter().any(|name| name.starts_with("plainroute-ipam-")), "the plugin is not listed");
    assert!(linked.len() > 30, "only {} crates are seen in the binary: {linked:?}", linked.len());
    let missing: Vec<_> = linked.difference(&listed).collect();
    assert!(missing.is_empty(), "linked and not listed: {missing:?}");
    for tool in ["serde_derive-", "cc-", "insta-", "proptest-"] {
        assert!(!listed.iter().any(|name| name.starts_with(tool)), "{tool} is listed and not linked");
    }

    let lock = fs::read_to_string(repository().join("Cargo.lock"))?;
    for component in components {
        let (name, hash) = (&component["name"], &component["hashes"][0]["content"]);
        assert!(component["licenses"][0]["expression"].is_string(), "{name} has no licence");
        match hash.as_str() {
            Some(hash) => assert!(lock.contains(hash), "{name}: its checksum is not in Cargo.lock"),
            None => assert!(component["purl"].is_null(), "{name} comes from a registry, without a checksum"),
        }
    }
    Ok(())
}
