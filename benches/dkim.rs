//! What DKIM costs a message: the watching and hashing that goes with the reading, and one signature by each kind of key.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir::dkim::key::{Key, Kind};
use weir::dkim::{Signer, Signers};
use weir::types::Domain;

const HEADER: &str = "Received: from app (app [127.0.0.1]) by relay.example.com; Sat, 21 Nov 2026 20:33:40 +0000\r\n\
    Date: Sat, 21 Nov 2026 20:33:40 +0000\r\nMessage-ID: <1.2@example.com>\r\nFrom: The Shop <shop@news.example.com>\r\n\
    To: somebody@outlook.com\r\nSubject: =?utf-8?q?Your_order_of_today?=\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/alternative; boundary=\"b\"\r\nList-Unsubscribe: <https://example.com/u/1>\r\n\
    List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n";

fn content(size: usize) -> Vec<u8> {
    let line = b"A line of some seventy characters as they are found in ordinary mail.\r\n";
    HEADER.bytes().chain(line.iter().copied().cycle()).take(size).collect()
}

fn signers(kinds: &[Kind]) -> Arc<Signers> {
    let signer = |kind: &Kind| Signer {
        domain: Domain::parse("example.com").unwrap(),
        selector: kind.as_str().to_string(),
        key: Key::generate(*kind).unwrap().0,
        skip_signed: false,
    };
    Arc::new(Signers::new(kinds.iter().map(signer).collect()))
}

fn signing(c: &mut Criterion) {
    let rsa = signers(&[Kind::Rsa]);
    let mut group = c.benchmark_group("dkim while it comes in");
    for (name, size) in [("10 KiB", 10 << 10), ("1 MiB", 1 << 20)] {
        let content = content(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| b.iter(|| black_box(rsa.prepare(black_box(&content), 0).is_ok())));
    }
    group.finish();
    let content = content(10 << 10);
    let mut group = c.benchmark_group("dkim of 10 KiB with its signature");
    for (name, kinds) in
        [("rsa-2048", &[Kind::Rsa][..]), ("ed25519", &[Kind::Ed25519]), ("both", &[Kind::Rsa, Kind::Ed25519])]
    {
        let signers = signers(kinds);
        group.bench_function(name, |b| {
            b.iter(|| black_box(signers.prepare(black_box(&content), 0).ok().and_then(|ready| ready.sign().ok())));
        });
    }
    group.finish();
}

criterion_group!(benches, signing);
criterion_main!(benches);
