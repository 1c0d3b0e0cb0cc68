//! This host: clock, disk, descriptors, memory, what the kernel has for the sandbox, and where the data folder lies.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::finding::{Check, Finding};
use super::mount::{self, Lasting};
use crate::clock::Clock;
use crate::config::Config;
use crate::limits::{self, Connections};
use crate::memory::{Gauge, Judge, Level};
use crate::sandbox::{self, Sandbox};
use crate::types::ByteSize;
use crate::types::words::size;

/// Syncs that are measured, each of a block; and how long all may take.
const SYNCS: usize = 16;
const SYNC_BYTES: usize = 4096;
const SYNC_TIME: Duration = Duration::from_secs(3);
/// A commit of the spool takes two syncs; many messages share it. Over this a busy relay feels it.
const SYNC_SLOW_MILLIS: i64 = 50;
/// A clock that is so far off is wrong; Date fields and signatures show it.
const AHEAD_WARN_MILLIS: i64 = 30_000;
const AHEAD_FAIL_MILLIS: i64 = 300_000;
/// With less a relay works, and refuses mail when much comes at once.
const MEMORY_MIN: u64 = 96 << 20;
/// Inodes that large contents and the log need.
const INODES_MIN: u64 = 1000;

/// All that needs neither network nor DNS. Blocks: the disk is written to.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    vec![data_dir(&config.data_dir), disk(config), descriptors(config), memory(), walls(config.sandbox)]
}

/// What the clocks of receivers say: by how many milliseconds each is ahead of ours.
pub(super) fn clock(ahead: &[(String, i64)]) -> Finding {
    const SET: &str = "have the clock set over the network:\ntimedatectl set-ntp true";
    let mut sorted: Vec<&(String, i64)> = ahead.iter().collect();
    sorted.sort_by_key(|(_, millis)| *millis);
    let Some((host, millis)) = sorted.get(sorted.len() / 2).copied() else {
        return match Path::new("/run/systemd/timesync/synchronized").exists() {
            true => Finding::ok(Check::Clock, "this host", "set over the network (systemd-timesyncd)"),
            false => {
                let text = "no receiver told the time, so there is nothing to compare it with";
                Finding::warn(Check::Clock, "this host", text, format!("see with `timedatectl`, or {SET}"))
            }
        };
    };
    let (off, way) = (millis.abs(), if *millis > 0 { "behind" } else { "ahead of" });
    let text = format!("{} s {way} that of {host}", off / 1000);
    if off >= AHEAD_FAIL_MILLIS {
        Finding::fail(Check::Clock, "this host", text, SET)
    } else if off >= AHEAD_WARN_MILLIS {
        Finding::warn(Check::Clock, "this host", text, SET)
    } else {
        Finding::ok(Check::Clock, "this host", format!("agrees with that of {host}"))
    }
}

/// The folder, or the nearest one above that is there.
fn existing(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    absolute.ancestors().find_map(|folder| folder.canonicalize().ok()).unwrap_or_else(|| PathBuf::from("/"))
}

fn is_in_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    let is_set =
        std::env::var_os("WEIR_CONTAINER").is_some_and(|text| !text.is_empty() && text != "0" && text != "false");
    is_set || marks.iter().any(|mark| Path::new(mark).exists()) || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn data_dir(folder: &Path) -> Finding {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let in_container = is_in_container();
    let Some(mount) = mount::of(&existing(folder), &mountinfo) else {
        let text = "the system does not say where it lies";
        return Finding::warn(Check::DataDir, folder.display(), text, "see with:\nfindmnt --target .");
    };
    let (subject, at) = (folder.display(), format!("{} ({})", mount.point.display(), mount.kind));
    let inside = existing(folder);
    let volume =
        format!("mount a named volume or a folder of the host there:\ndocker run -v weir-data:{} …", inside.display());
    match mount.lasting(in_container) {
        Lasting::Yes => Finding::ok(Check::DataDir, subject, format!("on {at}")),
        Lasting::Memory => {
            let text = format!("on {at}, in memory: the queue is gone with the next restart");
            Finding::fail(Check::DataDir, subject, text, "put it on a disk:\ndata_dir = \"/var/lib/weir\"")
        }
        Lasting::Container => {
            let text = format!("on {at}, in the container itself: the queue is gone with the container");
            Finding::fail(Check::DataDir, subject, text, volume)
        }
        Lasting::Anonymous => {
            let text =
                format!("on {at}, a volume without a name: a new container gets another one, and an empty queue");
            Finding::warn(Check::DataDir, subject, text, volume)
        }
        Lasting::Network => {
            let text =
                format!("on {at}, a disk over the network: locks and syncs there may not hold what they promise");
            Finding::warn(Check::DataDir, subject, text, "put it on a disk of this host:\ndata_dir = \"/var/lib/weir\"")
        }
    }
}

fn disk(config: &Config) -> Finding {
    let folder = existing(&config.data_dir);
    let subject = folder.display();
    let least = config.limits.min_free_disk.0;
    let stat = match statvfs(&folder) {
        Ok(stat) => stat,
        Err(error) => {
            return Finding::fail(
                Check::Disk,
                subject,
                format!("cannot be asked: {error}"),
                "see that the folder is there",
            );
        }
    };
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let remedy =
            format!("see why (a faulty disk is mounted so), and then:\nmount -o remount,rw {}", folder.display());
        return Finding::fail(Check::Disk, subject, "can only be read", remedy);
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let room = format!("{} free", size(free));
    let remedy = |what: &str| format!("{what}, or put the data on a larger disk: key data_dir");
    if free <= least {
        let text = format!("{room}, less than limits.min_free_disk ({}): no mail is taken", ByteSize(least));
        return Finding::fail(Check::Disk, subject, text, remedy("free some"));
    }
    if stat.f_files > 0 && stat.f_favail < INODES_MIN {
        let text = format!("{room}, but only {} files can be made", stat.f_favail);
        return Finding::fail(Check::Disk, subject, text, remedy("remove files"));
    }
    let (median, slowest) = match syncs(&folder) {
        Ok(times) => times,
        Err(error) => {
            let text = format!("{room}; how long a sync takes cannot be measured: {error}");
            let again = "run it as the user the relay runs as:\nsudo -u weir weir doctor";
            return Finding::warn(Check::Disk, subject, text, again);
        }
    };
    let text = format!("{room}, a sync takes {median} ms ({slowest} ms at most)");
    if median > SYNC_SLOW_MILLIS {
        return Finding::warn(Check::Disk, subject, text, "put the data on a faster disk (SSD, NVMe): key data_dir");
    }
    if free / 2 <= least {
        return Finding::warn(
            Check::Disk,
            subject,
            text,
            remedy("it is soon less than limits.min_free_disk: free some"),
        );
    }
    Finding::ok(Check::Disk, subject, text)
}

/// How long it takes until a block is safe: the median and the most, in milliseconds. The file is gone afterwards.
fn syncs(folder: &Path) -> std::io::Result<(i64, i64)> {
    let path = folder.join(format!("doctor-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let measured = measure(file);
    fs::remove_file(&path)?;
    measured
}

fn measure(mut file: fs::File) -> std::io::Result<(i64, i64)> {
    let clock = Clock::system();
    let start = clock.now();
    let mut times = Vec::new();
    while times.len() < SYNCS && clock.now().since(start) < SYNC_TIME {
        let before = clock.now();
        file.write_all(&[0; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(clock.now().millis() - before.millis());
    }
    times.sort_unstable();
    Ok((times.get(times.len() / 2).copied().unwrap_or(0), times.last().copied().unwrap_or(0)))
}

/// What the relay may open if it runs, else what a process started as this one may.
fn descriptors(config: &Config) -> Finding {
    let (whose, descriptors) = match running(&config.data_dir).and_then(|pid| limit_of(pid).map(|n| (pid, n))) {
        Some((pid, descriptors)) => (format!("the running relay (process {pid})"), descriptors),
        None => ("a relay started here".to_string(), limits::raise_descriptors()),
    };
    let wanted = Connections { inbound: config.limits.connections, outbound: config.delivery.max_connections };
    match limits::share(descriptors, wanted).cut {
        None => Finding::ok(Check::Descriptors, whose, format!("may open {descriptors}, enough for all connections")),
        Some(cut) => {
            let remedy = "allow it more, in systemd's unit, in Docker, in a shell:\nLimitNOFILE=65536\n\
                          docker run --ulimit nofile=65536:65536 …\nulimit -n 65536";
            Finding::warn(Check::Descriptors, whose, cut, remedy)
        }
    }
}

/// The process that has the data folder, as its lock says; of another container or user it cannot be asked.
fn running(folder: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(folder.join("lock")).ok()?.trim().parse().ok()?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    command.trim().starts_with("weir").then_some(pid)
}

fn limit_of(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    Some(soft.parse().unwrap_or(u64::MAX))
}

fn memory() -> Finding {
    let Some(usage) = Gauge::new(Path::new("/")).read() else {
        let text = "the system does not say how much there is";
        return Finding::warn(Check::Memory, "this process", text, "see with:\nfree -h");
    };
    let text = format!("{} of {} used", size(usage.used_bytes), size(usage.limit_bytes));
    let more = format!("allow it more; {} are little for a queue that grows", size(usage.limit_bytes));
    match Judge::default().judge(&usage) {
        Level::Out => {
            Finding::fail(Check::Memory, usage.limit, text, "allow it more, or free some: mail is refused now")
        }
        Level::Short => Finding::warn(Check::Memory, usage.limit, text, "allow it more, or free some"),
        Level::Ample if usage.limit_bytes < MEMORY_MIN => Finding::warn(Check::Memory, usage.limit, text, more),
        Level::Ample => Finding::ok(Check::Memory, usage.limit, text),
    }
}

fn walls(mode: Sandbox) -> Finding {
    match (mode, sandbox::kernel()) {
        (Sandbox::Off, _) => {
            let text = "switched off in the configuration";
            Finding::warn(Check::Sandbox, "Landlock", text, "switch it on:\nsandbox = \"auto\"")
        }
        (_, Some(kernel)) => Finding::ok(Check::Sandbox, "Landlock", format!("the kernel has it ({kernel})")),
        (Sandbox::Require, None) => {
            let text =
                "the kernel has none, or a container's rules forbid it; with sandbox = \"require\" weir does not start";
            Finding::fail(Check::Sandbox, "Landlock", text, "take Linux 6.2 or later, or set:\nsandbox = \"auto\"")
        }
        (Sandbox::Auto, None) => {
            let text = "the kernel has none, or a container's rules forbid it: weir runs without";
            let remedy =
                "take Linux 6.2 or later with Landlock among the modules it starts:\ncat /sys/kernel/security/lsm";
            Finding::warn(Check::Sandbox, "Landlock", text, remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Status;

    #[test]
    fn a_clock_is_judged_by_the_one_in_the_middle() {
        let ahead = |millis: &[i64]| millis.iter().map(|m| (format!("mx{m}"), *m)).collect::<Vec<_>>();
        for (millis, status) in [
            (&[400, -900, 250][..], Status::Ok),
            (&[100, 45_000, 46_000], Status::Warn),
            (&[-400_000], Status::Fail),
            (&[100, 100, 9_000_000], Status::Ok),
        ] {
            assert_eq!(clock(&ahead(millis)).status, status, "{millis:?}");
        }
        assert!(clock(&ahead(&[45_000])).text.starts_with("45 s behind"), "theirs is ahead, so ours is behind");
    }

    #[test]
    fn a_sync_is_measured_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (median, slowest) = syncs(folder.path()).unwrap();
        assert!(0 <= median && median <= slowest);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(syncs(Path::new("/proc")).is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(existing(&folder.path().join("a/b")), real);
        let config = Config { data_dir: folder.path().join("a/b"), ..Config::default() };
        let checks: Vec<Check> = look(&config).iter().map(|finding| finding.check).collect();
        assert_eq!(checks, [Check::DataDir, Check::Disk, Check::Descriptors, Check::Memory, Check::Sandbox]);
        assert!(!folder.path().join("a").exists());
    }
}
