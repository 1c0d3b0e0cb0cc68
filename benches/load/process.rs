//! What a process has used so far, as the kernel counts it (proc(5)).

use std::time::Duration;

/// The unit of times in /proc/PID/stat: USER_HZ is 100 on every Linux that matters.
const TICK: Duration = Duration::from_millis(10);

/// Processor time in user and system mode; `pid` as in /proc, also `self`.
pub fn cpu(pid: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks; behind it utime and stime are fields 12 and 13 (proc(5): 14 and 15).
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    TICK * fields.filter_map(|field| field.parse::<u32>().ok()).sum::<u32>()
}

/// The most memory it ever held, in bytes (VmHWM).
pub fn memory_peak(pid: &str) -> u64 {
    status(pid, "VmHWM:")
}

/// The memory it holds now, in bytes (VmRSS).
pub fn memory(pid: &str) -> u64 {
    status(pid, "VmRSS:")
}

fn status(pid: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
