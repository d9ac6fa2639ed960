//! The control groups of one node: one in each hierarchy, made before its first process enters them and removed after its
//! last has left.
//!
//! They carry our process id in their name, so that those of a test that was killed are found and removed by the next.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::wait_until;
use crate::scratch::{is_stale, unique_name};

const TOP: &str = "/sys/fs/cgroup";
/// How long the processes of a node may take to be gone after SIGKILL.
const ENDED: Duration = Duration::from_secs(20);

/// The groups of a node. Dropping them removes them, once the processes in them have ended.
#[derive(Debug)]
pub(super) struct Cgroups {
    groups: Vec<PathBuf>,
}

impl Cgroups {
    pub(super) fn create(label: &str) -> Result<Cgroups> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let parents = parents(&own, Path::is_dir);
        for parent in &parents {
            sweep(parent);
        }
        let name = unique_name(label);
        let version_2 = parents == [Path::new(TOP)];
        let mut this = Cgroups { groups: Vec::new() };
        for parent in parents {
            let group = parent.join(&name);
            fs::create_dir(&group).with_context(|| format!("make the control group {}", group.display()))?;
            this.groups.push(group.clone());
            let prepared = if version_2 { delegate(&group) } else { inherit_cpuset(&parent, &group) };
            prepared.with_context(|| format!("prepare the control group {}", group.display()))?;
        }
        Ok(this)
    }

    /// Where they are.
    pub(super) fn groups(&self) -> &[PathBuf] {
        &self.groups
    }

    /// The processes of the node, by the ids that we see.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.groups.first().map(|group| processes(group)).unwrap_or_default()
    }

    /// The most memory that the node has had, in bytes, page cache included; none where the kernel does not count it.
    pub(super) fn peak_memory(&self) -> Option<u64> {
        let files = ["memory.max_usage_in_bytes", "memory.peak"];
        let mut texts = self.groups.iter().flat_map(|group| files.map(|file| group.join(file)));
        texts.find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let gone = wait_until("the control groups of a node to be removed", ENDED, || {
            self.groups.iter().try_for_each(|group| remove(group).map_err(|error| error.to_string()))
        });
        if let Err(error) = gone {
            eprintln!("control groups stay behind: {error:#}");
        }
    }
}

/// In which directories our groups are to be made. In version 1 below our own in each hierarchy, so that who limits and
/// counts us does so with them; in version 2 a group with processes cannot have any below it, so at the top.
fn parents(own: &str, is_there: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let hierarchies = own.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        (!name.is_empty()).then(|| Path::new(TOP).join(name).join(path.trim_start_matches('/')))
    });
    let version_1: Vec<PathBuf> = hierarchies.filter(|path| is_there(path)).collect();
    if version_1.is_empty() { vec![PathBuf::from(TOP)] } else { version_1 }
}

/// A new group of the cpuset hierarchy has no processors, and nobody may enter it.
fn inherit_cpuset(parent: &Path, group: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if group.join(file).exists() {
            fs::write(group.join(file), fs::read_to_string(parent.join(file))?)?;
        }
    }
    Ok(())
}

/// Lets the groups below this one have every controller that it has, and makes the leaf where processes may stand.
fn delegate(group: &Path) -> io::Result<()> {
    fs::create_dir(group.join("init"))?;
    let controllers = fs::read_to_string(group.join("cgroup.controllers"))?;
    let all: String = controllers.split_whitespace().map(|name| format!("+{name} ")).collect();
    fs::write(group.join("cgroup.subtree_control"), all)
}

/// The processes in a group and in those below it.
fn processes(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| line.parse().ok());
    own.chain(below(group).iter().flat_map(|group| processes(group))).collect()
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Removes a group and those below it; fails with `EBUSY` while processes are in one.
fn remove(group: &Path) -> io::Result<()> {
    below(group).iter().try_for_each(|group| remove(group))?;
    match fs::remove_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the groups whose maker is dead. Its processes died with it.
fn sweep(parent: &Path) {
    let stale = below(parent)
        .into_iter()
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_stale));
    for group in stale {
        if let Err(error) = remove(&group) {
            eprintln!("the control group {} of a killed test stays behind: {error}", group.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_below_our_own_in_version_1_and_at_the_top_in_version_2() {
        let all = |_: &Path| true;
        let mixed = parents("9:name=systemd:/a\n4:cpu,cpuacct:/b/c\n0::/\n", all);
        assert_eq!(mixed, ["systemd/a", "cpu,cpuacct/b/c"].map(|path| Path::new(TOP).join(path)));
        assert_eq!(parents("0::/user.slice/session\n", all), [Path::new(TOP)]);
        // Version 1 in the kernel's book, and mounted nowhere.
        assert_eq!(parents("4:memory:/b\n0::/\n", |_| false), [Path::new(TOP)]);
    }

    #[test]
    fn groups_go_with_their_value_and_those_of_the_dead_are_swept() {
        let groups = Cgroups::create("cgroup-test").unwrap();
        let paths = groups.groups().to_vec();
        assert!(!paths.is_empty() && paths.iter().all(|path| path.is_dir()));
        fs::create_dir(paths[0].join("below")).unwrap();

        let mut short_lived = std::process::Command::new("true").spawn().unwrap();
        let stale = paths[0].with_file_name(format!("prt-{}-0-stale", short_lived.id()));
        short_lived.wait().unwrap();
        fs::create_dir_all(stale.join("below")).unwrap();
        drop(Cgroups::create("cgroup-sweep").unwrap());
        assert!(!stale.exists(), "{}", stale.display());

        drop(groups);
        assert!(paths.iter().all(|path| !path.exists()), "{paths:?}");
    }
}
