//! What a reply means, by the shipped rules (`verdict`): whatever words a receiver uses, the code alone decides about the message, and
//! what is said about our address suppresses nobody. The first octet chooses provider, stage and code; the rest are the words.

use std::sync::LazyLock;

use weir::types::{Class, Reply, Scope, Stage, Verdict};
use weir::verdict::Rules;

use super::kit::{self, contains};

static RULES: LazyLock<Rules> = LazyLock::new(Rules::shipped);
const PROVIDERS: [&str; 6] = ["outlook", "microsoft365", "gmail", "yahoo", "mx.somewhere.test", ""];
const CODES: [u16; 12] = [250, 251, 354, 421, 450, 451, 452, 550, 551, 552, 554, 599];

pub fn check(mut bytes: &[u8]) {
    let provider = PROVIDERS[usize::from(kit::first(&mut bytes)) % PROVIDERS.len()];
    let stage = Stage::ALL[usize::from(kit::first(&mut bytes)) % Stage::ALL.len()];
    let code = CODES[usize::from(kit::first(&mut bytes)) % CODES.len()];
    let reply = Reply::new(code, bytes);
    let reading = RULES.read(provider, stage, &reply);

    let by_the_code = match code / 100 {
        2 => Verdict::Delivered,
        5 => Verdict::Bounce,
        _ => Verdict::Retry,
    };
    assert_eq!(reading.verdict, by_the_code, "{provider} {stage}: {reply}");
    assert_eq!(reading.class == Class::Delivered, reply.is_positive(), "{provider} {stage}: {reply}");
    if reading.suppress {
        assert!(reply.is_permanent() && reading.scope != Scope::Source && !reading.breaker, "{reading:?}");
    }
    if let Some(tag) = &reading.tag {
        let words = reply.bytes().to_ascii_uppercase();
        assert!(contains(&words, tag.as_bytes()), "the tag {tag} stands in the reply");
        assert!(tag.bytes().all(|b| b.is_ascii_graphic()), "{tag:?}");
    }
    assert_eq!(RULES.read(provider, stage, &reply), reading);
    let (explained, found) = RULES.explain(provider, Some(stage), &reply);
    assert_eq!((explained, found), (reading, stage));
    read_the_same_however_it_is_written(provider, stage, &reply);
}

/// Letter case, and CR at the ends of lines, are the receiver's taste.
fn read_the_same_however_it_is_written(provider: &str, stage: Stage, reply: &Reply) {
    let shouted = Reply::new(reply.code(), reply.bytes().to_ascii_uppercase());
    let whispered = Reply::new(reply.code(), reply.bytes().to_ascii_lowercase());
    let (loud, low) = (RULES.read(provider, stage, &shouted), RULES.read(provider, stage, &whispered));
    assert_eq!(
        (&loud.rule, loud.class, loud.suppress),
        (&low.rule, low.class, low.suppress),
        "{provider} {stage}: {reply}"
    );
}
