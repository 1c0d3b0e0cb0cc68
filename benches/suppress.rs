//! What the suppression list can do at size: an import, other writes during it, look-ups, memory.
//!
//! `cargo bench --bench suppress -- 10000000` (default one million entries). Addresses come in no order, as a file has them, and go
//! through the same sorting as in `weir suppress import`, here in the same process. `WEIR_BENCH_FOLDER` names another disk.
//! Wanted at ten million: look-up under 50 µs at the median, more than 50,000 entries a second, another entry within
//! 100 ms, less than 32 MiB more memory in the process that writes.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[allow(dead_code, reason = "shared with the bench of the relay")]
mod load;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use load::process;
use tokio_util::sync::CancellationToken;
use weir::clock::Clock;
use weir::suppress::{Entry, Hit, List, PIECE, Sorted, Sorter, Source};
use weir::types::{Class, Mailbox, QueueId, Timestamp};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOOK_UPS: usize = 20_000;
const REPLY: &str = "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).";

fn main() {
    let count = std::env::args().filter_map(|text| text.parse::<u64>().ok()).next_back().unwrap_or(1_000_000);
    let parent = std::env::var_os("WEIR_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(parent).expect("a folder to write in");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(folder.path(), count));
}

async fn measure(folder: &Path, count: u64) {
    let clock = Clock::system();
    let start = Instant::now();
    let sorted = sort(folder, count, clock.now());
    let sorting = start.elapsed();
    println!("entries:       {count:>10}");
    println!("sorted:        {:>10.0} a second", count as f64 / sorting.as_secs_f64());

    let (list, writer) = List::open(&folder.join("suppression.sqlite"), clock.clone()).expect("a list");
    let written = tokio::join!(writer.run(CancellationToken::new()), work(list, sorted, count, clock)).1;
    let Written { writing, waits, grown, looks } = written;
    println!("written:       {:>10.0} a second", count as f64 / writing.as_secs_f64());
    println!("import:        {:>10.0} a second, sorting and writing", count as f64 / (sorting + writing).as_secs_f64());
    println!(
        "another entry: {:>10.1} ms at the median of {}, {:.1} ms at 99 %, {:.1} ms at most",
        ms(&waits, 50),
        waits.len(),
        ms(&waits, 99),
        ms(&waits, 100)
    );
    println!("memory:        {:>10.1} MiB more than before it at the most", grown as f64 / f64::from(1 << 20));
    println!(
        "look-up:       {:>10.1} µs at the median, {:.1} µs at 99 %",
        ms(&looks, 50) * 1000.0,
        ms(&looks, 99) * 1000.0
    );
    let size = std::fs::metadata(folder.join("suppression.sqlite")).map_or(0, |file| file.len());
    println!("on disk:       {:>10} MiB", size >> 20);
}

struct Written {
    writing: Duration,
    waits: Vec<Duration>,
    grown: u64,
    looks: Vec<Duration>,
}

async fn work(list: List, mut sorted: Sorted, count: u64, clock: Clock) -> Written {
    let (before, start) = (memory(), Instant::now());
    let done = CancellationToken::new();
    let import = async {
        let mut import = list.import();
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            while piece.len() < PIECE
                && let Some(entry) = sorted.next_entry().expect("an entry")
            {
                piece.push(entry);
            }
            if piece.is_empty() {
                break;
            }
            import.merge(piece).await.expect("a commit");
        }
        import.end().await.expect("a commit");
        done.cancel();
        start.elapsed()
    };
    let others = async {
        let (mut waits, mut grown, mut n) = (Vec::new(), 0, 0);
        while !done.is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            n += 1;
            let began = Instant::now();
            list.note_refusal(hit(n, clock.now())).await.expect("a commit");
            waits.push(began.elapsed());
            grown = grown.max(memory().saturating_sub(before));
        }
        waits.sort_unstable();
        (waits, grown)
    };
    let (writing, (waits, grown)) = tokio::join!(import, others);
    Written { writing, waits, grown, looks: look_up(&list, count) }
}

/// Addresses that are there and addresses that are not, in no order.
fn look_up(list: &List, count: u64) -> Vec<Duration> {
    let mut looks = Vec::with_capacity(LOOK_UPS);
    for round in 0..2 {
        looks.clear();
        for n in 0..LOOK_UPS as u64 {
            let address = Mailbox::parse(&address(n * 37 % count, round)).expect("an address");
            let began = Instant::now();
            let found = list.check(&address, None).expect("an answer");
            looks.push(began.elapsed());
            assert_eq!(found.is_some(), round == 1, "{address}");
        }
    }
    looks.sort_unstable();
    looks
}

fn sort(folder: &Path, count: u64, now: Timestamp) -> Sorted {
    let mut sorter = Sorter::new(folder);
    for n in 0..count {
        let mailbox = Mailbox::parse(&address(n, 1)).expect("an address");
        let entry = Entry::new(&mailbox, Class::RecipientUnknown, REPLY, Source::Import, now);
        sorter.push(&entry).expect("a place to sort");
    }
    sorter.sorted().expect("sorted entries")
}

/// Scattered, and the same for the same number; those of salt 0 are on no list.
fn address(n: u64, salt: u64) -> String {
    let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23).wrapping_mul(0xD134_2543_DE82_EF95);
    format!("{mixed:016x}.{salt}@domain{}.example", n % 5000)
}

fn hit(n: i64, at: Timestamp) -> Hit {
    Hit {
        mailbox: Mailbox::parse(&format!("other{n}@between.example")).expect("an address"),
        class: Class::RecipientUnknown,
        reply: REPLY.to_string(),
        rule: "unknown-user".into(),
        tag: None,
        provider: "outlook".into(),
        source: Source::Bounce,
        sender_domain: None,
        message: QueueId::from_key(n).expect("an id"),
        wave: None,
        at,
    }
}

fn memory() -> u64 {
    process::memory("self")
}

fn ms(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, Duration::as_secs_f64) * 1000.0
}
