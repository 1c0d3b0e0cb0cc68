//! What comes back (`feedback/reading`): bounces, complaints, replies of programs, and whatever else is sent to a token's address.
//!
//! However it is built, it is read within limits; without a token that counts it changes nothing; with one it changes nothing for somebody
//! else; and a line end of another kind makes no other reading of a plain text.

use weir::feedback::judgement::{Judgement, Known, judge};
use weir::feedback::reading::{Kind, Reading, read};
use weir::feedback::token::{Purpose, has_form};
use weir::types::{Mailbox, Reply};

pub fn check(bytes: &[u8]) {
    let reading = read(bytes);
    let anna = Mailbox::parse("anna@kunde.example").expect("an address");
    assert!(matches!(judge(&reading, None), Judgement::Nothing(_)), "without a token nothing comes of it");
    for (purpose, addressed) in
        [(Purpose::Return, true), (Purpose::Return, false), (Purpose::Unsubscribe, true), (Purpose::Unsubscribe, false)]
    {
        holds(&reading, &judge(&reading, Some(Known { purpose, addressed, recipient: &anna })), purpose, addressed);
    }
    is_bounded(&reading);
    assert_eq!(read(bytes), reading, "the same octets are read the same");
}

fn holds(reading: &Reading, judgement: &Judgement<'_>, purpose: Purpose, addressed: bool) {
    match judgement {
        Judgement::Returned(status) => {
            assert!(matches!(reading.kind, Kind::Returned(_)));
            assert!(!(purpose == Purpose::Unsubscribe && addressed), "an address for wishes takes no bounce");
            let code = Reply::parse(&status.reply).map(|reply| reply.code());
            assert!(code.is_some_and(|code| (200..600).contains(&code)), "no reply: {:?}", status.reply);
            let addresses = status.named.iter().filter(|named| Mailbox::parse(named).is_ok());
            let can_be = |named: &&String| {
                let named = named.to_lowercase();
                named.starts_with("anna@")
                    || named.contains("kunde.example")
                    || named.contains("onmicrosoft.com")
                    || named.ends_with("@example")
            };
            assert!(
                addresses.clone().next().is_none() || addresses.clone().any(|named| can_be(&named)),
                "{:?}",
                status.named
            );
        }
        Judgement::Complained(complaint) => assert!(complaint.is_unwanted()),
        Judgement::Unsubscribed => {
            assert!(purpose == Purpose::Unsubscribe && addressed && reading.kind == Kind::Other);
        }
        Judgement::Nothing(why) => assert!(!why.is_empty()),
    }
}

fn is_bounded(reading: &Reading) {
    let tokens = reading.addressed.iter().chain(&reading.quoted);
    assert!(tokens.clone().count() <= 32 && tokens.clone().all(|token| has_form(token)));
    assert!(reading.quoted.iter().all(|token| !reading.addressed.contains(token)));
    match &reading.kind {
        Kind::Returned(statuses) => {
            assert!((1..=50).contains(&statuses.len()));
            for status in statuses {
                assert!(status.reply.chars().count() <= 1000 && status.named.len() <= 30, "{status:?}");
                assert!(!status.reply.contains(['\n', '\r']), "one line: {:?}", status.reply);
            }
        }
        Kind::Complaint(complaint) => assert!(complaint.what.len() <= 300 && complaint.by.len() <= 300),
        Kind::AutoReply | Kind::Other => {}
    }
}
