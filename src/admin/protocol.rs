//! What can be asked over the control socket.
//!
//! Both ends are the same program, but not always of the same version: a request that is not understood is answered with
//! an error that names it, never with a guess. Keys not known here are refused for the same reason.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::suppress::SuppressFilter;
use crate::types::reading::words;
use crate::types::{Class, Domain, Mailbox, NextHop, QueueId, Timestamp};

/// The socket's name in the data folder.
pub const SOCKET_NAME: &str = "control.sock";
/// A request on its line: some 16,000 queue ids.
pub const REQUEST_MAX: usize = 256 << 10;
/// A record on its line: a message with a thousand recipients of full length and a long reply.
pub const RECORD_MAX: usize = 1 << 20;
/// How the answer to a request begins that the relay does not know, or not with these keys: it is of another version.
pub const NOT_UNDERSTOOD: &str = "the relay does not understand this request";
/// The longest a request may ask to wait for an outcome.
pub const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(600);

/// One line from client to relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// One `StatusRecord::Relay`, then one `StatusRecord::Lane` for each lane.
    Status,
    /// `QueueRecord`s, oldest first.
    QueueList { filter: Filter },
    /// A `QueueDetail` for each delivery of the message; an error if it is not in the queue.
    QueueShow { id: QueueId },
    /// One `Acted`; with `progress` some before it, each with what is done and on disk so far.
    QueueAct {
        action: Action,
        filter: Filter,
        /// Left out where it is not asked for, so that a relay that does not know it understands the request.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        progress: bool,
    },
    /// The same: what was never attempted or only deferred goes to this hop from now on.
    QueueReroute {
        filter: Filter,
        to: NextHop,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        progress: bool,
    },
    /// One `Ordered`: nothing goes to the provider until it is resumed, also not after a restart.
    Pause { provider: String },
    /// One `Ordered`: one probe goes out now, then more; forced: slow start without a probe.
    Resume {
        provider: String,
        #[serde(default)]
        force: bool,
    },
    /// One `Ordered`: nothing goes to the recipient domain until it is resumed, also not after a restart.
    PauseDomain { domain: Domain },
    /// One `Ordered`: one message goes ahead; forced: all go.
    ResumeDomain {
        domain: Domain,
        #[serde(default)]
        force: bool,
    },
    /// One `Ordered`: nothing goes anywhere until that is lifted.
    PauseAll,
    /// One `Ordered`: lifts `PauseAll` and no other pause.
    ResumeAll {
        #[serde(default)]
        force: bool,
    },
    /// One `Ordered`: what was learned of the provider's limits is dropped, of one source or of all.
    Forget {
        provider: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
    },
    /// `SuppressRecord`s in the order of their addresses.
    SuppressList { filter: SuppressFilter },
    /// The entry of this address, or no record; one more for each sender domain that it is held back for alone.
    SuppressCheck { recipient: Mailbox },
    /// The entry as it now stands.
    SuppressAdd {
        recipient: Mailbox,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<Class>,
        /// For people: why, and who says so.
        reason: String,
        /// None: until it is removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<Timestamp>,
    },
    /// One `Removed` for each address.
    SuppressRemove { recipients: Vec<Mailbox> },
    /// Removes what the filter chooses, or only counts it: one `Changed`. A filter that chooses nothing is refused.
    SuppressSweep {
        filter: SuppressFilter,
        #[serde(default)]
        dry_run: bool,
    },
    /// A `WaveRecord` for each wave that waits for a decision, latest first.
    SuppressWaves,
    /// What stands provisionally in this wave holds as any other entry from now on: one `Changed`.
    SuppressConfirm { wave: String },
    /// Followed by `ImportEntry` lines and `{"end":true}`; `Imported`s, each with what is durable so far. In the order of
    /// their addresses the lines cost least.
    SuppressImport,
    /// One `RelayRecord`. `ready`: readiness is asked for, not only life.
    Health {
        #[serde(default)]
        ready: bool,
    },
    /// Takes one answer to our mail: a `FeedbackRecord`. `message`: its head in base64; `recipient`: where it was sent to.
    Feedback {
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recipient: Option<Mailbox>,
    },
    /// Waits for the first answer, or the end, of each recipient of a message: `OutcomeRecord`s. None after `wait_ms`, at
    /// most `OUTCOME_WAIT_MAX`.
    Outcome { id: QueueId, wait_ms: u64 },
}

impl Request {
    /// Reads one line. What serde passes over is refused here: keys beside `do` in a request that takes none.
    pub fn read(line: &[u8]) -> serde_json::Result<Request> {
        use serde::de::Error;
        let request: Request = serde_json::from_slice(line)?;
        let given: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)?;
        match given.keys().find(|key| *key != "do" && request.takes_nothing()) {
            Some(key) => Err(Error::custom(format!("unknown field `{key}`, this request takes none"))),
            None => Ok(request),
        }
    }

    fn takes_nothing(&self) -> bool {
        matches!(self, Request::Status | Request::PauseAll | Request::SuppressWaves | Request::SuppressImport)
    }
}

words! {
    /// What an operator does to messages.
    Action {
        /// Due now; lifts no pause, ceiling or breaker.
        Flush = "flush",
        /// Not tried until released.
        Hold = "hold",
        Release = "release",
        /// Given up; the sender gets the report.
        Bounce = "bounce",
        /// Given up without a word, but for the event.
        Remove = "remove",
    }
}

/// The last line of an answer, and of an import's lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Last {
    End { end: bool },
    Error { error: String },
}

impl Last {
    pub const END: Last = Last::End { end: true };

    /// Is this line the last one? A record never consists of `end` or `error` alone.
    pub fn of(line: &serde_json::Value) -> Option<Last> {
        let object = line.as_object().filter(|object| object.len() == 1)?;
        if object.get("end") == Some(&true.into()) {
            return Some(Last::END);
        }
        let error = object.get("error")?.as_str()?;
        Some(Last::Error { error: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id() -> QueueId {
        QueueId::from_key(3_765_000_000_000_000_000).unwrap()
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    #[test]
    fn every_request_reads_what_it_writes() {
        let filter =
            Filter { domain: crate::types::Domain::parse("outlook.com").ok(), limit: Some(5), ..Filter::default() };
        let requests = [
            Request::Status,
            Request::QueueList { filter: filter.clone() },
            Request::QueueShow { id: id() },
            Request::QueueAct {
                action: Action::Bounce,
                filter: Filter { ids: vec![id()], ..Filter::default() },
                progress: true,
            },
            Request::QueueReroute { filter: filter.clone(), to: "192.0.2.1:2525".parse().unwrap(), progress: false },
            Request::Pause { provider: "outlook".into() },
            Request::Resume { provider: "mx\u{2028}.\"example\"\n".into(), force: true },
            Request::PauseDomain { domain: Domain::parse("example.com").unwrap() },
            Request::ResumeDomain { domain: Domain::parse("example.com").unwrap(), force: true },
            Request::PauseAll,
            Request::ResumeAll { force: true },
            Request::Forget { provider: "outlook".into(), source: None },
            Request::Forget { provider: "outlook".into(), source: Some("b".into()) },
            Request::SuppressList {
                filter: SuppressFilter { tag: Some("S775".into()), expired: true, ..SuppressFilter::default() },
            },
            Request::SuppressSweep {
                filter: SuppressFilter { wave: Some("w1".into()), ..SuppressFilter::default() },
                dry_run: true,
            },
            Request::SuppressWaves,
            Request::SuppressConfirm { wave: "w1".into() },
            Request::SuppressCheck { recipient: mailbox("a@outlook.com") },
            Request::SuppressAdd {
                recipient: mailbox("a..b@docomo.ne.jp"),
                class: Some(Class::RecipientUnknown),
                reason: "asked by telephone".into(),
                expires: Some(Timestamp::from_secs(2_000_000_000)),
            },
            Request::SuppressRemove { recipients: vec![mailbox("a@outlook.com")] },
            Request::SuppressImport,
            Request::Health { ready: true },
            Request::Outcome { id: id(), wait_ms: 1000 },
            Request::Feedback { message: "QTogMQ==".into(), recipient: None },
            Request::Feedback { message: String::new(), recipient: Some(mailbox("r-x@fb.example.com")) },
        ];
        for request in requests {
            let line = serde_json::to_string(&request).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request, "{line}");
        }
    }

    #[test]
    fn requests_are_plain_to_write_by_hand() {
        let request =
            json!({"do": "queue-act", "action": "flush", "filter": {"provider": "outlook", "older_than": "2h"}});
        let read = serde_json::from_value(request).unwrap();
        let Request::QueueAct { action: Action::Flush, filter, progress: false } = read else {
            panic!("another request");
        };
        assert_eq!(filter.older_than.map(|span| span.0.as_secs()), Some(7200));
    }

    #[test]
    fn a_request_without_progress_is_the_one_that_relays_before_it_know() {
        let request = Request::QueueAct { action: Action::Flush, filter: Filter::default(), progress: false };
        assert_eq!(serde_json::to_value(request).unwrap(), json!({"do": "queue-act", "action": "flush", "filter": {}}));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for request in [
            json!({"do": "pause"}),
            json!({"do": "pause-domain", "domain": "not..a.domain"}),
            json!({"do": "forget"}),
            json!({"do": "queue-reroute", "filter": {}, "to": "nowhere"}),
            json!({"do": "queue-show", "id": "nonsense"}),
            json!({"do": "queue-list", "filter": {"colour": "red"}}),
            json!({"do": "suppress-check", "recipient": "nobody"}),
            json!({"id": "0123456789ABC"}),
            json!({"do": "status", "provider": "outlook"}),
            json!({"do": "pause-all", "provider": "outlook"}),
            json!({"do": "suppress-waves", "wave": 1}),
            json!({"do": "suppress-import", "force": true}),
            json!({"do": "resume-all", "provider": "outlook"}),
            json!({"do": "health", "provider": "outlook"}),
        ] {
            assert!(Request::read(request.to_string().as_bytes()).is_err(), "{request}");
        }
        assert_eq!(Request::read(br#"{"do": "pause-all"}"#).unwrap(), Request::PauseAll);
    }

    #[test]
    fn the_last_line_is_told_from_a_record() {
        assert_eq!(Last::of(&json!({"end": true})), Some(Last::END));
        assert_eq!(Last::of(&json!({"error": "no"})), Some(Last::Error { error: "no".into() }));
        for record in [json!({"end": false}), json!({"error": 1}), json!({"end": true, "id": 1}), json!({}), json!(1)] {
            assert_eq!(Last::of(&record), None, "{record}");
        }
        assert_eq!(serde_json::to_string(&Last::END).unwrap(), r#"{"end":true}"#);
    }
}
