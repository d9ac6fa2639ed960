//! The peers: what others run, each from a configuration that is written here and kept in docs/benchmarks.md.
//!
//! All wait for the tool to connect. The feeder teaches them, the readers hear everything, the observer hears of the
//! marker alone. What a router needs to be at its best is said in its configuration.
mod bird;
mod frr;
mod gobgp;
mod openbgpd;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use plainroute_tests::netns::{Daemon, Netns};
use tempfile::TempDir;

use crate::usage::Usage;
use crate::wire::{Family, Numbering};

/// What a router is to do with the feeder's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Take in, and tell the readers that connect.
    Hold,
    /// The same, and learn of changes: from the kernel, or by its API.
    Change,
    /// The same, into the kernel.
    Install,
    /// The same, and watch the feeder by BFD.
    Watch,
    /// Connect to the first reader, and tell it 250 routes of the configuration.
    Start,
    /// Refuse all but the marker.
    Discard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
}

/// A router of some version.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    /// What `--peers` calls it.
    pub(crate) id: &'static str,
    pub(crate) kind: Kind,
    /// Where its files are, if not in this machine's own tree.
    root: Option<PathBuf>,
    binary: &'static str,
    /// Name and version, as it says itself.
    pub(crate) label: String,
}

/// The name for `--peers`, what it is, whether it is of the newer Debian, its main binary.
const PRODUCTS: [(&str, Kind, bool, &str); 8] = [
    ("bird", Kind::Bird, false, "/usr/sbin/bird"),
    ("bird2", Kind::Bird, true, "/opt/bird2/usr/sbin/bird"),
    ("bird3", Kind::Bird, true, "/usr/sbin/bird"),
    ("frr", Kind::Frr, false, "/usr/lib/frr/bgpd"),
    ("frr10", Kind::Frr, true, "/usr/lib/frr/bgpd"),
    ("gobgp", Kind::Gobgp, false, "/usr/bin/gobgpd"),
    ("gobgp36", Kind::Gobgp, true, "/usr/bin/gobgpd"),
    ("openbgpd", Kind::Openbgpd, false, "/usr/sbin/bgpd"),
];

impl Product {
    /// The peers that are wanted and can be started here.
    pub(crate) fn select(wanted: &[String], newer: Option<&Path>) -> Result<Vec<Product>> {
        let known = |name: &str| {
            matches!(name, "all" | "none" | "debian") || PRODUCTS.iter().any(|product| product.0 == name)
        };
        if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
            let names: Vec<&str> = PRODUCTS.iter().map(|product| product.0).collect();
            anyhow::bail!("no peer is called {unknown}; there are all, none, debian, {}", names.join(", "));
        }
        let is_wanted = |id: &str, new: bool| {
            wanted.iter().any(|name| name == id || name == "all" || (name == "debian" && !new))
        };
        let mut products = Vec::new();
        for (id, kind, new, binary) in PRODUCTS {
            let root = if new { newer } else { Some(Path::new("/")) };
            let Some(root) = root.filter(|_| is_wanted(id, new)) else { continue };
            if !root.join(&binary[1..]).exists() {
                eprintln!("bench: {id} is not installed: left out");
                continue;
            }
            let root = new.then(|| root.to_owned());
            let mut product = Product { id, kind, root, binary, label: String::new() };
            product.label = product.version()?;
            products.push(product);
        }
        Ok(products)
    }

    fn version(&self) -> Result<String> {
        let flag = if self.kind == Kind::Openbgpd { "-V" } else { "--version" };
        let argv = self.argv(self.binary, &[flag]);
        let output = Command::new(&argv[0]).args(&argv[1..]).output().with_context(|| argv.join(" "))?;
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let number = text
            .split_whitespace()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
            .with_context(|| format!("{} tells no version: {text}", self.id))?;
        Ok(format!("{} {number}", self.name()))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Bird => "BIRD",
            Kind::Frr => "FRR",
            Kind::Gobgp => "GoBGP",
            Kind::Openbgpd => "OpenBGPD",
        }
    }

    /// A command line, with the way into the router's tree.
    fn argv(&self, binary: &str, arguments: &[&str]) -> Vec<String> {
        let mut argv = Vec::new();
        if let Some(root) = &self.root {
            argv.extend(["chroot".to_owned(), root.display().to_string()]);
        }
        argv.push(binary.to_owned());
        argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        argv
    }

    /// Its configuration for a task.
    pub(crate) fn config(&self, family: Family, task: Task) -> String {
        match self.kind {
            Kind::Bird => bird::config(family, task),
            Kind::Frr => frr::config(family, task),
            Kind::Gobgp => gobgp::config(family, task),
            Kind::Openbgpd => openbgpd::config(family, task),
        }
    }

    /// Starts it; that it takes sessions is for who connects to find out.
    pub(crate) fn start(&self, netns: &Netns, family: Family, task: Task) -> Result<Router> {
        let directory = Directory::new(self)?;
        let config = self.config(family, task);
        let daemons = match self.kind {
            Kind::Bird => bird::start(self, netns, &directory, &config),
            Kind::Frr => frr::start(self, netns, &directory, &config, task),
            Kind::Gobgp => gobgp::start(self, netns, &directory, &config),
            Kind::Openbgpd => openbgpd::start(self, netns, &directory, &config),
        }?;
        Ok(Router { daemons, directory })
    }
}

/// A router's configuration, sockets and logs.
struct Directory {
    held: TempDir,
    /// The path as the router sees it.
    inside: String,
    root: PathBuf,
}

impl Directory {
    fn new(product: &Product) -> Result<Directory> {
        let root = product.root.clone().unwrap_or_else(|| PathBuf::from("/"));
        let held = tempfile::Builder::new().prefix("plainroute-bench-").tempdir_in(root.join("tmp"))?;
        let inside = format!("/{}", held.path().strip_prefix(&root)?.display());
        Ok(Directory { held, inside, root })
    }

    /// A file's path as the router sees it.
    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.inside)
    }

    /// A file's path as we see it.
    fn path(&self, name: &str) -> PathBuf {
        self.held.path().join(name)
    }

    /// Writes a file that its owner alone may read.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.path(name), text)?;
        Ok(fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600))?)
    }

    /// Gives all that is in there to a user of the router's tree.
    fn give_to(&self, user: &str) -> Result<()> {
        let users = fs::read_to_string(self.root.join("etc/passwd"))?;
        let line = users.lines().find_map(|line| line.strip_prefix(&format!("{user}:")));
        let mut ids = line.with_context(|| format!("no user {user}"))?.split(':').skip(1).map(str::parse);
        let (uid, gid) = (ids.next().context("a uid")??, ids.next().context("a gid")??);
        chown(self.held.path(), Some(uid), Some(gid))?;
        for entry in fs::read_dir(self.held.path())?.flatten() {
            chown(entry.path(), Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

/// A running router; it ends with its value.
pub(crate) struct Router {
    daemons: Vec<Daemon>,
    directory: Directory,
}

impl Router {
    /// What all of its processes have used.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for daemon in &self.daemons {
            let one = Usage::of_group(daemon.pid())?;
            sum.cpu += one.cpu;
            sum.resident += one.resident;
            sum.peak += one.peak;
            sum.switches += one.switches;
        }
        Ok(sum)
    }

    /// A file of its directory, as we see it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path(name)
    }

    /// What it has logged last, for an error.
    pub(crate) fn log(&self) -> String {
        self.daemons.iter().map(|daemon| plainroute_tests::netns::tail(&daemon.log(), 5)).collect()
    }
}

/// The routes of [`Task::Start`].
fn own_routes() -> impl Iterator<Item = std::net::Ipv4Addr> {
    (0..250).map(|number| Numbering::Hosts4.v4(number))
}

fn spawn(netns: &Netns, directory: &Directory, argv: &[String], log: &str) -> Result<Daemon> {
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    netns.spawn(&argv, &directory.path(log))
}
