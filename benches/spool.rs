//! What the spool can take: 16 sessions store messages of 10 KiB, durable, and settle them.
//!
//! Prints messages a second, CPU a message, the slowest answers, and beside them what the disk alone can do: one write
//! of 10 KiB and one fdatasync, again and again. `cargo bench --bench spool`; `WEIR_BENCH_FOLDER` names another disk,
//! `WEIR_BENCH_SECONDS` another length.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[allow(dead_code, reason = "shared with the bench of the relay")]
mod load;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use load::{millis, process};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SESSIONS: usize = 16;
const SIZE: usize = 10 * 1024;

fn main() {
    let seconds = std::env::var("WEIR_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let parent = std::env::var_os("WEIR_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(parent).expect("a folder to write in");
    let length = Duration::from_secs(seconds);
    println!("bare disk:   {:>8.0} writes of 10 KiB with fdatasync a second", bare(folder.path(), length));
    let result = load::spool::measure(folder.path(), SESSIONS, SIZE, length);
    println!("spool:       {:>8.0} messages of 10 KiB stored and settled a second ({SESSIONS} sessions)", result.rate);
    println!("CPU:         {:>8.1} µs a message", result.cpu.as_secs_f64() * 1e6);
    let (median, slow) = (millis(&result.answers, 50), millis(&result.answers, 99));
    println!("answers:     {median:>8.1} ms at the median, {slow:.1} ms at 99 %");
    println!("log:         {:>8} MiB at its longest, database {} MiB", result.log_bytes >> 20, result.file_bytes >> 20);
    println!("memory peak: {:>8} MiB", process::memory_peak("self") >> 20);
}

fn bare(folder: &Path, length: Duration) -> f64 {
    let mut file = File::create(folder.join("bare")).expect("a file");
    let (start, mut writes) = (Instant::now(), 0.0);
    while start.elapsed() < length {
        file.write_all(&[b'x'; SIZE]).and_then(|()| file.sync_data()).expect("a write");
        writes += 1.0;
    }
    writes / start.elapsed().as_secs_f64()
}
