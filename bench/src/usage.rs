//! What processes cost: processor time, memory and wake-ups, as /proc tells them.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What a program has used so far; of several processes, the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Seconds on a processor, in user and kernel mode.
    pub(crate) cpu: f64,
    /// Octets resident now.
    pub(crate) resident: u64,
    /// Octets resident at most.
    pub(crate) peak: u64,
    /// Context switches, of its own will and not.
    pub(crate) switches: u64,
}

impl Usage {
    /// Of all processes in a process group, without the shells that only watch over them.
    pub(crate) fn of_group(group: u32) -> Result<Usage> {
        let mut sum = Usage::default();
        for process in members(group)? {
            let one = Usage::of(process).with_context(|| format!("process {process}"))?;
            sum.cpu += one.cpu;
            sum.resident += one.resident;
            sum.peak += one.peak;
            sum.switches += one.switches;
        }
        Ok(sum)
    }

    fn of(process: u32) -> Result<Usage> {
        let directory = format!("/proc/{process}");
        let status = fs::read_to_string(format!("{directory}/status"))?;
        let mut switches = 0;
        let mut on_processor = 0;
        for task in fs::read_dir(format!("{directory}/task"))?.flatten() {
            // A thread may end while it is looked at.
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let status = read("status");
            switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
            switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
            on_processor +=
                read("schedstat").split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Usage {
            cpu: on_processor as f64 / 1e9,
            resident: field(&status, "VmRSS:").unwrap_or(0) << 10,
            peak: field(&status, "VmHWM:").unwrap_or(0) << 10,
            switches,
        })
    }
}

/// The number after a name at the begin of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn members(group: u32) -> Result<Vec<u32>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name may hold anything, also parentheses.
        let Some((before, after)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = after.split(' ').collect();
        if fields.get(2) == Some(&group.to_string().as_str()) && !before.ends_with("(sh") && fields[0] != "Z"
        {
            members.push(process);
        }
    }
    Ok(members)
}

/// How many processors there are, and how busy they were in the last minute.
pub(crate) fn load() -> (usize, f64) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    (processors, load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_group_is_counted_whole_and_a_busy_process_has_used_time() {
        // `head` reads and `wc` counts, both in the group that the shell leads; the shell itself does not count.
        let mut child = Command::new("sh")
            .args(["-c", "head -c 200000000 /dev/zero | wc -c >&2; read line"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let group = child.id();
        let mut most = Usage::default();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while most.cpu == 0.0 || most.peak == 0 {
            most = Usage::of_group(group).unwrap_or(most);
            assert!(std::time::Instant::now() < deadline, "{most:?}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn fields_are_read_by_their_whole_name() {
        let status = "VmHWM:\t    1234 kB\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(status, "VmHWM:"), Some(1234));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(5));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(status, "VmRSS:"), None);
    }
}
