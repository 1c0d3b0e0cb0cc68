//! What a relay of many processes uses: its first one, all that descend from it, and those that have ended (proc(5)).

use std::collections::BTreeMap;
use std::time::Duration;

/// The unit of times in /proc/PID/stat: USER_HZ is 100 on every Linux that matters.
const TICK: Duration = Duration::from_millis(10);

/// All processes below one, and itself.
#[derive(Clone, Copy, Debug)]
pub struct Tree(pub u32);

/// What it has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    pub cpu: Duration,
    /// Handed to the disks.
    pub written: u64,
}

impl Tree {
    pub fn pids(self) -> Vec<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if let Some(parent) = field(pid, 1) {
                children.entry(u32::try_from(parent).unwrap_or(0)).or_default().push(pid);
            }
        }
        let (mut all, mut next) = (vec![self.0], 0);
        while let Some(pid) = all.get(next).copied() {
            all.extend(children.remove(&pid).unwrap_or_default());
            next += 1;
        }
        all
    }

    /// Those that have ended are counted where they were waited for.
    pub fn used(self) -> Used {
        let mut used = Used::default();
        for pid in self.pids() {
            // utime, stime, and of the children that were waited for cutime, cstime.
            let ticks: u64 = (11..15).filter_map(|at| field(pid, at)).sum();
            used.cpu += TICK * u32::try_from(ticks).unwrap_or(u32::MAX);
            used.written += line(pid, "io", "write_bytes:").unwrap_or(0);
        }
        used
    }

    /// Memory, what is shared being parted among those who share it, in bytes.
    pub fn memory(self) -> u64 {
        self.pids().into_iter().filter_map(|pid| line(pid, "smaps_rollup", "Pss:")).sum::<u64>() * 1024
    }
}

/// A field of /proc/PID/stat, counted from the state, which is 0.
fn field(pid: u32, at: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(at)?.parse().ok()
}

/// The number in a line of one of its files.
fn line(pid: u32, file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}
