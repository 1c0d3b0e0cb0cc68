//! How much memory there is, and when it is short: the limit that would kill us first, and what counts against it.
//!
//! Three kinds of limits are looked at, and the one that is nearest counts: the control groups this process is in, each of them
//! up to the top (version 2: `memory.max` and `memory.high`; version 1: `memory.limit_in_bytes`); the process's own
//! limits (`ulimit -v`, `ulimit -d`); the memory of the machine.
//!
//! Rules that always hold:
//! - of a control group the working set counts, `max(current - inactive_file, anon)`: `memory.current` holds the page cache as
//!   well, which the kernel gives back by itself, and a relay writes files all day;
//! - of the machine only our own memory counts: whoever else fills it is no reason to refuse mail;
//! - a state is left at a lower mark than it is entered, so that it does not flicker;
//! - what cannot be read is no limit. A reading costs a few small files of the kernel; nothing here runs by itself.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Percent of the limit from which contents go to the disk at once, and below which they do so no more.
const SHORT_FROM: u64 = 75;
const SHORT_UNTIL: u64 = 70;
/// What must be left: a tenth of the limit, but no more than this, which is more than all that the relay keeps in memory.
const RESERVE_MAX: u64 = 64 << 20;
const RESERVE_PART: u64 = 10;
/// Folders of control groups that are looked at, from ours up to the top; no system nests them as deeply.
const GROUPS_MAX: usize = 32;

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Ample,
    /// Less should be kept than usual.
    Short,
    /// Nothing new should be begun.
    Out,
}

/// What counts against the nearest limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub used_bytes: u64,
    pub limit_bytes: u64,
    /// Whose limit it is, for people.
    pub limit: String,
}

/// Resident memory of this process; none where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Turns usage into a level, with its marks apart for coming and going.
#[derive(Debug, Default)]
pub struct Judge(Level);

impl Judge {
    pub fn judge(&mut self, usage: &Usage) -> Level {
        let Usage { used_bytes: used, limit_bytes: limit, .. } = *usage;
        let left = limit.saturating_sub(used);
        let reserve = (limit / RESERVE_PART).min(RESERVE_MAX);
        let percent = |share: u64| u64::try_from(u128::from(limit) * u128::from(share) / 100).unwrap_or(u64::MAX);
        let is_out = left < if self.0 == Level::Out { reserve / 2 * 3 } else { reserve };
        let is_short = used >= percent(if self.0 == Level::Ample { SHORT_FROM } else { SHORT_UNTIL });
        self.0 = match (is_out, is_short) {
            (true, _) => Level::Out,
            (false, true) => Level::Short,
            (false, false) => Level::Ample,
        };
        self.0
    }
}

/// Reads the kernel's files. Below `/` in the program, below another folder in tests.
#[derive(Clone, Debug)]
pub struct Gauge {
    root: PathBuf,
}

impl Gauge {
    pub fn new(root: &Path) -> Gauge {
        Gauge { root: root.to_owned() }
    }

    /// What counts against the limit that is nearest; none where nothing can be read.
    pub fn read(&self) -> Option<Usage> {
        let nearer = |a: &Usage, b: &Usage| {
            // a.used / a.limit against b.used / b.limit, without losing a digit.
            let product = |x: u64, y: u64| u128::from(x) * u128::from(y);
            product(a.used_bytes, b.limit_bytes).cmp(&product(b.used_bytes, a.limit_bytes))
        };
        self.groups().into_iter().chain(self.own_limits()).filter(|usage| usage.limit_bytes > 0).max_by(nearer)
    }

    /// The control groups that have a limit.
    fn groups(&self) -> Vec<Usage> {
        let (own, mounts) = (self.text("proc/self/cgroup"), self.text("proc/self/mountinfo"));
        let mut found = Vec::new();
        for line in own.lines() {
            // `0::/path` of version 2, `4:memory:/path` of version 1.
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let version = match controllers {
                "" => Version::Two,
                _ if controllers.split(',').any(|name| name == "memory") => Version::One,
                _ => continue,
            };
            for mount in mounts.lines().filter_map(|line| Mount::parse(line, version)) {
                let folders = mount.folders(path);
                found.extend(folders.iter().filter_map(|folder| self.group(version, folder)));
            }
        }
        found
    }

    fn group(&self, version: Version, folder: &Path) -> Option<Usage> {
        let number = |name: &str| self.text(folder.join(name)).trim().parse::<u64>().ok();
        let stat = self.text(folder.join("memory.stat"));
        let counted = |name: &str| number_behind(&stat, name).unwrap_or(0);
        let (limit_bytes, current, inactive, anonymous) = match version {
            Version::Two => (
                // "max" is no number, and no limit.
                [number("memory.max"), number("memory.high")].into_iter().flatten().min()?,
                number("memory.current")?,
                counted("inactive_file"),
                counted("anon"),
            ),
            Version::One => (
                number("memory.limit_in_bytes")?,
                number("memory.usage_in_bytes")?,
                counted("total_inactive_file"),
                counted("total_rss"),
            ),
        };
        let used_bytes = current.saturating_sub(inactive).max(anonymous);
        let limit = format!("the control group {}", Path::new("/").join(folder).display());
        Some(Usage { used_bytes, limit_bytes, limit })
    }

    /// The limits of the process, and the memory of the machine.
    fn own_limits(&self) -> Vec<Usage> {
        let (status, limits) = (self.text("proc/self/status"), self.text("proc/self/limits"));
        let kib = |text: &str, name: &str| number_behind(text, name).map(|kib| kib.saturating_mul(1024));
        // A line of /proc/self/limits: the name, the soft limit, the hard limit, the unit.
        let limit = |name: &str| {
            let soft = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?;
            soft.parse::<u64>().ok()
        };
        let of = |used: Option<u64>, limit: Option<u64>, whose: &str| {
            Some(Usage { used_bytes: used?, limit_bytes: limit?, limit: whose.to_string() })
        };
        let resident = kib(&status, "RssAnon:").map(|anon| anon + kib(&status, "RssShmem:").unwrap_or(0));
        let machine = kib(&self.text("proc/meminfo"), "MemTotal:");
        let all = [
            of(kib(&status, "VmSize:"), limit("Max address space"), "the process's address space (ulimit -v)"),
            of(kib(&status, "VmData:"), limit("Max data size"), "the process's data (ulimit -d)"),
            of(resident, machine, "the machine"),
        ];
        all.into_iter().flatten().collect()
    }

    /// Empty if it cannot be read.
    fn text(&self, name: impl AsRef<Path>) -> String {
        fs::read_to_string(self.root.join(name)).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where control groups can be seen: `root` of their tree stands at `at`.
struct Mount {
    root: PathBuf,
    /// Without the leading slash.
    at: PathBuf,
}

impl Mount {
    /// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): number, parent, device, root, mount point, options, any
    /// number of tags, a dash, type, source, options of the file system.
    fn parse(line: &str, wanted: Version) -> Option<Mount> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, at) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1)?);
        let fits = match wanted {
            Version::Two => kind == "cgroup2",
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        };
        let relative = |path: &str| PathBuf::from(path.trim_start_matches('/'));
        fits.then(|| Mount { root: PathBuf::from(root), at: relative(at) })
    }

    /// The folder of the group `path`, and those above it. A container often sees its own group as the top, under a path that
    /// it cannot see.
    fn folders(&self, path: &str) -> Vec<PathBuf> {
        let path = Path::new(path);
        let below = path.strip_prefix(&self.root).unwrap_or(Path::new(""));
        // What lies outside of our view begins with `..`.
        let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        let own = if is_plain { self.at.join(below) } else { self.at.clone() };
        own.ancestors().take_while(|folder| folder.starts_with(&self.at)).take(GROUPS_MAX).map(PathBuf::from).collect()
    }
}

/// The number behind a name at the beginning of a line.
fn number_behind(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    // Not `anon_thp 5` for `anon`.
    let value = lines.find(|rest| rest.starts_with(char::is_whitespace))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const V2: &str = "29 1 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "33 30 0:30 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";

    /// A system as the kernel shows it.
    struct System(tempfile::TempDir);

    impl System {
        fn new(cgroup: &str, mounts: &str) -> System {
            let system = System(tempfile::tempdir().unwrap());
            system.set("proc/self/cgroup", cgroup);
            system.set("proc/self/mountinfo", mounts);
            system
        }

        fn set(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn v2(&self, group: &str, max: &str, current_mib: u64, inactive_mib: u64, anon_mib: u64) {
            let folder = format!("sys/fs/cgroup{group}");
            let stat = format!("anon {}\nfile 7\ninactive_file {}\n", anon_mib * MIB, inactive_mib * MIB);
            self.set(&format!("{folder}/memory.max"), &format!("{max}\n"));
            self.set(&format!("{folder}/memory.current"), &format!("{}\n", current_mib * MIB));
            self.set(&format!("{folder}/memory.stat"), &stat);
        }

        /// MiB in use and allowed.
        fn read(&self) -> Option<(u64, u64)> {
            Gauge::new(self.0.path()).read().map(|usage| (usage.used_bytes / MIB, usage.limit_bytes / MIB))
        }
    }

    #[test]
    fn the_page_cache_counts_only_where_the_kernel_cannot_drop_it() {
        for (current, inactive, anon, used) in [(200, 150, 40, 50), (200, 0, 40, 200), (100, 90, 60, 60)] {
            let system = System::new("0::/weir.service\n", V2);
            system.v2("/weir.service", &(256 * MIB).to_string(), current, inactive, anon);
            assert_eq!(system.read(), Some((used, 256)));
        }
    }

    #[test]
    fn the_nearest_limit_of_all_groups_above_counts() {
        let system = System::new("0::/a/b\n", V2);
        system.v2("/a/b", "max", 90, 0, 90);
        assert_eq!(system.read(), None);
        system.v2("/a", &(100 * MIB).to_string(), 95, 0, 95);
        system.v2("", &(1000 * MIB).to_string(), 500, 0, 500);
        assert_eq!(system.read(), Some((95, 100)));
        system.set("sys/fs/cgroup/a/b/memory.high", &(92 * MIB).to_string());
        assert_eq!(system.read(), Some((90, 92)));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        for (cgroup, mounts) in [
            // With a namespace of its own, and without.
            ("0::/\n", V2.to_string()),
            ("0::/../../elsewhere\n", V2.to_string()),
            ("0::/docker/abc\n", V2.replace(" / /sys", " /docker/abc /sys")),
            ("0::/docker/abc\n", V2.to_string()),
        ] {
            let system = System::new(cgroup, &mounts);
            system.v2("", &(64 * MIB).to_string(), 30, 0, 20);
            assert_eq!(system.read(), Some((30, 64)), "{cgroup}");
        }
    }

    #[test]
    fn the_first_version_is_read_as_well() {
        let system = System::new("9:cpu,cpuacct:/x\n4:memory:/pod/relay\n0::/\n", V1);
        let folder = "sys/fs/cgroup/memory/pod/relay";
        system.set(&format!("{folder}/memory.limit_in_bytes"), &format!("{}\n", 128 * MIB));
        system.set(&format!("{folder}/memory.usage_in_bytes"), &format!("{}\n", 120 * MIB));
        system.set(
            &format!("{folder}/memory.stat"),
            &format!("rss 1\ntotal_rss {}\ntotal_inactive_file {}\n", MIB, 60 * MIB),
        );
        assert_eq!(system.read(), Some((60, 128)));
    }

    #[test]
    fn without_groups_the_limits_of_the_process_and_the_machine_count() {
        let system = System::new("", "");
        system.set("proc/meminfo", "MemTotal:       1048576 kB\nMemFree: 5 kB\n");
        system.set(
            "proc/self/status",
            "VmSize:\t  204800 kB\nRssAnon:\t 51200 kB\nRssShmem:\t 1024 kB\nVmData:\t 81920 kB\n",
        );
        assert_eq!(system.read(), Some((51, 1024)));
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max data size             unlimited            unlimited            bytes\n\
                      Max address space         268435456            unlimited            bytes\n";
        system.set("proc/self/limits", limits);
        assert_eq!(system.read(), Some((200, 256)));
        system.set("proc/self/limits", &limits.replacen("unlimited ", "83886080  ", 1));
        assert_eq!(system.read(), Some((80, 80)));
    }

    #[test]
    fn where_nothing_can_be_read_there_is_no_limit() {
        assert_eq!(Gauge::new(Path::new("/nowhere")).read(), None);
        let system = System::new("nonsense\n0::/x\n:\n", "29 1\n - cgroup2\n");
        system.set("proc/meminfo", "MemTotal: many\n");
        assert_eq!(system.read(), None);
    }

    #[test]
    fn this_system_can_be_read() {
        let usage = Gauge::new(Path::new("/")).read().unwrap();
        assert!(usage.used_bytes > 0 && usage.limit_bytes > usage.used_bytes, "{usage:?}");
    }

    fn usage(used_mib: u64, limit_mib: u64) -> Usage {
        Usage { used_bytes: used_mib * MIB, limit_bytes: limit_mib * MIB, limit: String::new() }
    }

    #[test]
    fn a_level_is_left_lower_than_it_is_entered() {
        let mut judge = Judge::default();
        let levels = [
            (740, Level::Ample),
            (750, Level::Short),
            (710, Level::Short),
            (699, Level::Ample),
            (936, Level::Short),
            (937, Level::Out),
            (910, Level::Out),
            (903, Level::Short),
            (1001, Level::Out),
            (500, Level::Ample),
        ];
        for (used, level) in levels {
            assert_eq!(judge.judge(&usage(used, 1000)), level, "{used}");
        }
        // A small limit keeps a tenth of it.
        assert_eq!(Judge::default().judge(&usage(57, 64)), Level::Short);
        assert_eq!(Judge::default().judge(&usage(58, 64)), Level::Out);
    }

    proptest! {
        #[test]
        fn more_memory_in_use_is_never_a_better_level(limit in any::<u64>(), a in any::<u64>(), b in any::<u64>()) {
            let level = |used_bytes| Judge::default().judge(&Usage { used_bytes, limit_bytes: limit, limit: String::new() });
            prop_assert!(level(a.min(b)) <= level(a.max(b)));
        }
    }
}
