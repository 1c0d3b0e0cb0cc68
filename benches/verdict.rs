//! How long reading a reply takes: it must stay under 2 µs, since every reply of every recipient is read.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use weir::types::{Reply, Stage};
use weir::verdict::Rules;

const REPLIES: [(&str, &str, Stage, &str); 5] = [
    (
        "accepted",
        "outlook",
        Stage::Data,
        "250 2.6.0 <1@example.com> [InternalId=1, Hostname=x] Queued mail for delivery",
    ),
    (
        "rate limited",
        "outlook",
        Stage::Mail,
        "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For e-mail delivery information, see https://aka.ms/postmaster (S775) [Name=Protocol Filter Agent][AGT=PFA][MxId=11BD5B61254CB1FC] [AMS0EPF0000019C.eurprd05.prod.outlook.com 2026-05-14T15:49:33.598Z 08DEADB0994CCD76]",
    ),
    (
        "blocked",
        "outlook",
        Stage::Mail,
        "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150). You can also refer your provider to http://mail.live.com/mail/troubleshooting.aspx#errors. [BL6PEPF00022571.namprd02.prod.outlook.com 2024-08-25T23:54:32.568Z 08DCC4CC8ECEBA56]",
    ),
    (
        "unknown user",
        "microsoft365",
        Stage::Rcpt,
        "550 5.4.1 Recipient address rejected: Access denied. For more information see https://aka.ms/EXOSmtpErrors [XXX.namprd05.prod.outlook.com 2026-03-13T18:10:42.797Z XXX]",
    ),
    (
        "no rule's words",
        "outlook",
        Stage::Data,
        "554 The quick brown fox jumps over the lazy dog, and nothing in this text is anything that a rule looks for",
    ),
];

fn read(c: &mut Criterion) {
    let rules = Rules::shipped();
    let mut group = c.benchmark_group("verdict/read");
    for (name, provider, stage, text) in REPLIES {
        let reply = Reply::parse(text).expect("a reply");
        group.bench_function(name, |b| b.iter(|| rules.read(provider, stage, black_box(&reply))));
    }
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
