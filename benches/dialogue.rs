//! What the server does for each message before anything is stored: reading commands, judging them, finding the end of the
//! content, and passing its header. No socket, no disk: the numbers are the cost of the protocol alone.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir::smtp::command::{Command, ForwardPath};
use weir::smtp::header::Header;
use weir::smtp::incoming::{Decoder, Piece};
use weir::smtp::offers::Offers;
use weir::smtp::replies;
use weir::smtp::session::{Action, Session, Settings};
use weir::smtp::trace::Trace;
use weir::types::{QueueId, Recipient, Timestamp};

const LINES: [&[u8]; 7] = [
    b"EHLO app.example.com",
    b"MAIL FROM:<bounces+anna=hotmail.com@news.example.com> SIZE=10240 BODY=8BITMIME RET=HDRS ENVID=QQ314159",
    b"RCPT TO:<anna@hotmail.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;anna@hotmail.com",
    b"DATA",
    b"RSET",
    b"NOOP",
    b"QUIT",
];

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("commands");
    group.throughput(Throughput::Elements(LINES.len() as u64));
    group.bench_function("read seven", |b| {
        b.iter(|| {
            for line in LINES {
                let _ = black_box(Command::parse(black_box(line)));
            }
        });
    });
    group.finish();
}

/// Greeting to QUIT, one message of a few lines, with everything admitted and stored.
fn dialogue(c: &mut Criterion) {
    let settings =
        Arc::new(Settings { hostname: "relay.example.com".to_string(), message_size: 35 << 20, recipients: 1000 });
    c.bench_function("a small dialogue", |b| {
        let mut out = Vec::with_capacity(4096);
        b.iter(|| {
            out.clear();
            play(black_box(settings.clone()), &mut out);
            black_box(out.len())
        });
    });
}

fn play(settings: Arc<Settings>, out: &mut Vec<u8>) {
    let mut session = Session::new(settings, Offers::default(), true);
    session.greet(out);
    for line in [LINES[0], LINES[1], LINES[2], LINES[3], LINES[6]] {
        match session.command(line, out) {
            Action::Admit(mail) => {
                session.begin(*mail, None, out);
            }
            Action::AdmitRecipient(rcpt) => {
                if let ForwardPath::Mailbox(mailbox) = rcpt.path {
                    session.add(Recipient { address: mailbox, notify: rcpt.notify, orcpt: rcpt.orcpt }, out);
                }
            }
            Action::Receive => {
                let mut input: &[u8] = b"Subject: hello\r\n\r\nA few words.\r\n.\r\n";
                let mut decoder = Decoder::new();
                while let Some(piece) = decoder.next(&mut input) {
                    black_box(&piece);
                }
                black_box(session.take_transaction());
                session.end(&replies::QUEUED.with("0MJ8Q2Z3G5Y1A"), out);
            }
            _ => {}
        }
    }
}

fn wire_content(size: usize) -> Vec<u8> {
    let line = b"A line of some seventy characters as they are found in ordinary mail.\r\n";
    let mut content: Vec<u8> = line.iter().copied().cycle().take(size / line.len() * line.len()).collect();
    content.extend_from_slice(b".\r\n");
    content
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("end of data");
    for (name, size) in [("10 KiB", 10 << 10), ("1 MiB", 1 << 20)] {
        let content = wire_content(size);
        group.throughput(Throughput::Bytes(content.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut decoder = Decoder::new();
                // As it comes off a socket.
                for block in black_box(&content).chunks(16 << 10) {
                    let mut input = block;
                    while let Some(piece) = decoder.next(&mut input) {
                        black_box(&piece);
                        if matches!(piece, Piece::End) {
                            break;
                        }
                    }
                }
            });
        });
    }
    group.finish();
}

fn header(c: &mut Criterion) {
    let fields = "Received: from a.example.com ([192.0.2.1]) by b.example.com with ESMTP id 1;\r\n\tSat, 21 Nov 2026 20:33:40 +0000\r\n\
                  From: Shop <shop@example.com>\r\nTo: anna@hotmail.com\r\nSubject: Your order\r\n\
                  Date: Sat, 21 Nov 2026 20:33:40 +0000\r\nMessage-ID: <x@example.com>\r\nMIME-Version: 1.0\r\n\
                  Content-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n";
    let mut group = c.benchmark_group("header");
    group.throughput(Throughput::Bytes(fields.len() as u64));
    group.bench_function("eight fields", |b| {
        let trace = Trace {
            private: false,
            tls: None,
            helo: "app.example.com",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            hostname: "relay.example.com",
            protocol: "ESMTP",
            id: QueueId::from_key(1 << 60).unwrap(),
            priority: None,
            now: Timestamp::from_secs(1_795_293_220),
        };
        b.iter_batched_ref(
            || Vec::with_capacity(4096),
            |out| {
                let mut header = Header::new(&trace);
                let rest = header.pass(black_box(fields.as_bytes()), out);
                black_box(rest.len());
                header.finish(out);
                black_box(header.facts().received)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, commands, dialogue, decoding, header);
criterion_main!(benches);
