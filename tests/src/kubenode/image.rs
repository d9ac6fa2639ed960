//! A container image made of files of this machine, as an OCI archive that containerd imports: no registry, no daemon.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::netns::checked;
use crate::scratch;

/// What an image holds.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    /// Where it goes, and which file of ours it is.
    files: Vec<(PathBuf, PathBuf)>,
    /// Where it goes, and where it points to.
    links: Vec<(PathBuf, PathBuf)>,
}

impl Image {
    /// An empty image. Kubernetes asks for it by `name`, with a tag, and takes what the node has.
    pub fn new(name: &str, entrypoint: &[&str]) -> Image {
        let entrypoint = entrypoint.iter().map(|word| (*word).to_owned()).collect();
        Image { name: name.to_owned(), entrypoint, files: Vec::new(), links: Vec::new() }
    }

    /// An image with a shell and the usual commands that does nothing until it is told to end; also what a Pod's
    /// sandbox runs.
    pub fn tools(name: &str) -> Image {
        const IDLE: &str = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done";
        let mut image = Image::new(name, &["/bin/sh", "-c", IDLE]).file("/bin/busybox", "/bin/busybox");
        for command in ["sh", "sleep", "cat", "ip", "wget"] {
            image.links.push((format!("/bin/{command}").into(), "busybox".into()));
        }
        image
    }

    /// Adds a file of this machine.
    pub fn file(mut self, at: impl Into<PathBuf>, from: impl Into<PathBuf>) -> Image {
        self.files.push((at.into(), from.into()));
        self
    }

    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let directory = scratch::directory("image")?;
        let (root, layout) = (directory.path().join("root"), directory.path().join("layout"));
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        self.lay_out(&root)?;
        let layer = directory.path().join("layer.tar");
        checked(
            Command::new("tar")
                .args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"])
                .arg("--file")
                .arg(&layer)
                .arg("--directory")
                .arg(&root)
                .arg("."),
        )?;
        let layer = store(&blobs, &layer)?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        });
        let config = store_json(&blobs, &config)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": typed(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [typed(layer, "application/vnd.oci.image.layer.v1.tar")],
        });
        let mut manifest =
            typed(store_json(&blobs, &manifest)?, "application/vnd.oci.image.manifest.v1+json");
        manifest["annotations"] = json!({ "io.containerd.image.name": self.name });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(layout.join("index.json"), index.to_string())?;
        fs::write(layout.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
        checked(
            Command::new("tar")
                .arg("--create")
                .arg("--file")
                .arg(archive)
                .arg("--directory")
                .arg(&layout)
                .arg("."),
        )?;
        Ok(())
    }

    fn lay_out(&self, root: &Path) -> Result<()> {
        let place = |at: &Path| -> Result<PathBuf> {
            let path = root.join(at.strip_prefix("/").unwrap_or(at));
            fs::create_dir_all(path.parent().context("a file has a directory")?)?;
            Ok(path)
        };
        for directory in ["tmp", "run", "var"] {
            fs::create_dir_all(root.join(directory))?;
        }
        for (at, from) in &self.files {
            fs::copy(from, place(at)?)
                .with_context(|| format!("{} for image {}", from.display(), self.name))?;
        }
        for (at, to) in &self.links {
            symlink(to, place(at)?)?;
        }
        Ok(())
    }
}

/// Moves a file among the blobs and gives its descriptor, without a media type.
fn store(blobs: &Path, file: &Path) -> Result<Value> {
    let said = String::from_utf8(checked(Command::new("sha256sum").arg(file))?.stdout)?;
    let digest = said.split_whitespace().next().unwrap_or_default();
    ensure!(digest.len() == 64, "sha256sum {} said: {said}", file.display());
    fs::rename(file, blobs.join(digest))?;
    Ok(json!({ "digest": format!("sha256:{digest}"), "size": fs::metadata(blobs.join(digest))?.len() }))
}

fn store_json(blobs: &Path, content: &Value) -> Result<Value> {
    let file = blobs.join("new");
    fs::write(&file, content.to_string())?;
    store(blobs, &file)
}

fn typed(mut descriptor: Value, media_type: &str) -> Value {
    descriptor["mediaType"] = json!(media_type);
    descriptor
}

/// In the words of OCI, which are Go's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
