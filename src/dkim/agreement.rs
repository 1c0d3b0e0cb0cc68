//! What an operator hears of a key and its record in the DNS: `weir dkim check` and `weir doctor` say the same.

use serde::Serialize;

use super::record::{self, Agreement};
use super::signers::Signer;
use crate::types::Status;

/// What the DNS said when it was asked for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Records(Vec<String>),
    /// NXDOMAIN.
    NoName,
    /// The name is there, and no TXT record.
    NoRecord,
    /// Nobody could tell; why.
    Unknown(String),
}

/// One key beside the DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    pub status: Status,
    /// One word: `agrees`, `weak`, `differs`, `no-name`, `no-record`, `no-key`, `revoked`, `faulty` or `unknown`.
    pub result: &'static str,
    pub text: String,
    /// What mends it: a sentence, and below it the record.
    pub remedy: Option<String>,
}

/// Compares the key of `signer` with the answer at its name.
pub fn judge(signer: &Signer, answer: &Answer) -> Told {
    let name = signer.name();
    let line = record::zone_line(&name, &record::text(&signer.key));
    let publish = format!("publish it, and wait until the name servers have it:\n{line}");
    let replace = format!("put this in its place:\n{line}");
    let told = |status, result, text: String, remedy: String| Told { status, result, text, remedy: Some(remedy) };
    let fail = |result, text: String, remedy: String| told(Status::Fail, result, text, remedy);
    let records = match answer {
        Answer::Records(records) => records,
        Answer::NoName => {
            return fail(
                "no-name",
                format!("mail is signed with the key {name}, and there is no such name (NXDOMAIN)"),
                publish,
            );
        }
        Answer::NoRecord => {
            return fail(
                "no-record",
                format!("mail is signed with the key {name}, and no TXT record stands there"),
                publish,
            );
        }
        Answer::Unknown(why) => {
            let remedy = "run it again when the name servers of the domain answer; receivers that cannot ask either put mail off".to_string();
            return told(Status::Warn, "unknown", format!("{name}: {why}"), remedy);
        }
    };
    match record::compare(records, &signer.key) {
        Agreement::Agrees(what) => Told {
            status: Status::Ok,
            result: "agrees",
            text: format!("{name}: {what}, the key that signs"),
            remedy: None,
        },
        Agreement::Weak(what) => {
            let remedy =
                format!("make a longer key under another selector (weir dkim keygen), or take t=y out:\n{line}");
            told(Status::Warn, "weak", format!("{name}: {what}"), remedy)
        }
        Agreement::Differs(what) => {
            let text =
                format!("{name}: another key stands there ({what}) than the one that signs: every signature fails");
            let remedy = format!("let key_file be the key that belongs to the record, or {replace}");
            fail("differs", text, remedy)
        }
        Agreement::Missing => fail("no-key", format!("{name}: the TXT records there hold no key (no p=)"), publish),
        Agreement::Revoked => {
            let text = format!("{name}: the key was revoked (p= is empty), and mail is still signed with it");
            fail(
                "revoked",
                text,
                "sign with another key: weir dkim keygen with a new selector, then its [[dkim]]".to_string(),
            )
        }
        Agreement::Bad(what) => fail("faulty", format!("{name}: {what}"), replace),
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::{Key, Kind};
    use super::*;
    use crate::types::Domain;

    #[test]
    fn each_answer_is_told_apart_with_what_to_do() {
        let signer = |key| Signer {
            domain: Domain::parse("example.com").unwrap(),
            selector: "s".into(),
            key,
            skip_signed: false,
        };
        let (ours, other) = (Key::generate(Kind::Ed25519).unwrap().0, Key::generate(Kind::Ed25519).unwrap().0);
        let (own, others) = (record::text(&ours), record::text(&other));
        let signer = signer(ours);
        for (answer, status, result) in [
            (Answer::Records(vec![own.clone()]), Status::Ok, "agrees"),
            (Answer::Records(vec![format!("{own}; t=y")]), Status::Warn, "weak"),
            (Answer::Records(vec![others]), Status::Fail, "differs"),
            (Answer::Records(vec!["v=DKIM1; p=".into()]), Status::Fail, "revoked"),
            (Answer::Records(vec!["hello".into()]), Status::Fail, "no-key"),
            (Answer::Records(vec!["v=DKIM1; k=ed25519; p=AAAA".into()]), Status::Fail, "faulty"),
            (Answer::NoName, Status::Fail, "no-name"),
            (Answer::NoRecord, Status::Fail, "no-record"),
            (Answer::Unknown("SERVFAIL".into()), Status::Warn, "unknown"),
        ] {
            let told = judge(&signer, &answer);
            assert_eq!((told.status, told.result), (status, result));
            assert_eq!(told.remedy.is_none(), status == Status::Ok, "{told:?}");
            assert!(told.text.contains("s._domainkey.example.com"), "{told:?}");
            let mends = ["differs", "no-key", "faulty", "no-name", "no-record"].contains(&result);
            assert!(!mends || told.remedy.unwrap().ends_with(&format!("IN TXT \"{own}\"")));
        }
    }
}
