//! The two inner loops of the client: stuffing dots, and reading replies.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir::outbound::reply::ReplyReader;
use weir::smtp::outgoing::DataEncoder;

fn content(size: usize) -> Vec<u8> {
    b"A line of some seventy characters as they are found in ordinary mail.\r\n"
        .iter()
        .copied()
        .cycle()
        .take(size)
        .collect()
}

fn stuffing(c: &mut Criterion) {
    let mut group = c.benchmark_group("dot-stuffing");
    for (name, size) in [("10 KiB", 10 << 10), ("1 MiB", 1 << 20)] {
        let content = content(size);
        let mut out = Vec::with_capacity(size + 64);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let mut encoder = DataEncoder::new();
                encoder.encode(black_box(&content), &mut out);
                encoder.finish(&mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn replies(c: &mut Criterion) {
    let flight = b"250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n250 2.6.0 Queued mail for delivery\r\n";
    let mut group = c.benchmark_group("replies");
    group.throughput(Throughput::Elements(3));
    group.bench_function("one flight", |b| {
        let mut reader = ReplyReader::new();
        b.iter(|| {
            let mut rest: &[u8] = black_box(flight);
            while !rest.is_empty() {
                let (taken, reply) = reader.read(rest);
                black_box(reply);
                rest = &rest[taken..];
            }
        });
    });
    group.finish();
}

criterion_group!(benches, stuffing, replies);
criterion_main!(benches);
