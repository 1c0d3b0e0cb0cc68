//! What the control socket answers: the records behind `--json`.
//!
//! The keys are a promise to scripts: those of `queue list`, `status` and `suppress list` are fixed, more may stand beside
//! them. What does not apply is null, never left out, so that a script can ask for any key of any record. Where a time
//! stands it is RFC 3339 in UTC.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::reading::words;
use crate::types::{Class, Delivery, DeliveryState, Envelope, EventKind, QueueId, Refusal, Timestamp, Verdict};

words! {
    /// How a delivery stands. `Active`: it is being tried now, which the running relay alone knows.
    QueueState { Waiting = "waiting", Active = "active", Held = "held" }
}

impl From<DeliveryState> for QueueState {
    fn from(state: DeliveryState) -> QueueState {
        match state {
            DeliveryState::Waiting => QueueState::Waiting,
            DeliveryState::Held => QueueState::Held,
        }
    }
}

/// One delivery in `queue list`: the recipients of one message in one domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueRecord {
    pub id: QueueId,
    /// Empty for a report.
    pub sender: String,
    pub recipients: Vec<String>,
    pub domain: String,
    /// Null until a route is known.
    pub provider: Option<String>,
    pub source: Option<String>,
    pub state: QueueState,
    pub attempts: u32,
    /// Null: due now.
    pub next_attempt: Option<Timestamp>,
    /// It is due and nothing is sent to there: the state of the lane, or of the domain. `next_attempt` is when that ends at the
    /// earliest; null then: an operator ends it.
    #[serde(default)]
    pub stopped: Option<LaneState>,
    /// The last thing that kept it from its end; null before the first try.
    pub reason: Option<String>,
    pub received: Timestamp,
    pub size_bytes: u64,
}

impl QueueRecord {
    /// From what the spool holds. Provider and source are those of the last refusal; who knows better sets them.
    pub fn of(envelope: &Envelope, delivery: &Delivery) -> QueueRecord {
        let refusal = delivery.refusal.as_ref();
        QueueRecord {
            id: envelope.id,
            sender: envelope.sender.as_str().to_string(),
            recipients: delivery.recipients.iter().map(|r| r.address.as_str().to_string()).collect(),
            domain: delivery.domain.to_string(),
            provider: refusal.map(|r| r.provider.clone()).filter(|name| !name.is_empty()),
            source: refusal.map(|r| r.source.clone()).filter(|name| !name.is_empty()),
            state: delivery.state.into(),
            attempts: delivery.attempts,
            next_attempt: delivery.next_attempt,
            stopped: None,
            reason: refusal.map(|r| r.reply.clone()),
            received: envelope.received,
            size_bytes: envelope.size_bytes,
        }
    }
}

/// One delivery in `queue show`: the record and everything that says why it waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueDetail {
    #[serde(flatten)]
    pub record: QueueRecord,
    pub message_id: Option<String>,
    /// The host that handed the message in.
    pub client: Option<IpAddr>,
    pub user: Option<String>,
    /// When it is given up.
    pub expires: Option<Timestamp>,
    /// The last reply, where it came from, and the rule that read it.
    pub last: Option<Refusal>,
    /// The lane it waits for, as `status` shows it.
    pub lane: Option<LaneRecord>,
    /// What it waits for just now, in words; null where no relay runs.
    pub waits_for: Option<String>,
    /// Deliveries that go before it, and when its turn is about, as far as that can be told.
    #[serde(default)]
    pub ahead: Option<u64>,
    #[serde(default)]
    pub turn_at: Option<Timestamp>,
    /// Why the last reply was given, what weir does about it, and what a person can do; null where no rule read it.
    #[serde(default)]
    pub cause: Option<String>,
    #[serde(default)]
    pub does: Option<String>,
    #[serde(default)]
    pub remedy: Option<String>,
}

impl QueueDetail {
    /// As `QueueRecord::of`; `expires` and `lane` are the caller's to set.
    pub fn of(envelope: &Envelope, delivery: &Delivery) -> QueueDetail {
        QueueDetail {
            record: QueueRecord::of(envelope, delivery),
            message_id: envelope.message_id.clone(),
            client: envelope.client,
            user: envelope.user.clone(),
            expires: None,
            last: delivery.refusal.clone(),
            lane: None,
            waits_for: None,
            ahead: None,
            turn_at: None,
            cause: None,
            does: None,
            remedy: None,
        }
    }
}

/// What came of one answer to our mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackRecord {
    /// `returned`, `complained`, `unsubscribed`, or `feedback`: it changes nothing.
    pub event: String,
    /// The message it speaks of, where a token says so.
    pub id: Option<QueueId>,
    pub sender: Option<String>,
    pub recipient: Option<String>,
    /// The recipient came onto the suppression list with it.
    pub suppressed: bool,
    /// For a person.
    pub text: String,
}

/// What a command did to the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    pub messages: u64,
    pub recipients: u64,
    /// What the operator should know beyond the count: `outlook is paused until …: flush lifts no pause`.
    pub note: Option<String>,
}

words! {
    /// How a lane stands.
    LaneState {
        /// Sends, and has no reason to be slower.
        Open = "open",
        /// Sends, and feels its way up.
        Growing = "growing",
        /// Waits because the receiver asked for it.
        Paused = "paused",
        /// One message is out to see whether the pause is over.
        Probing = "probing",
        /// The receiver blocks us: nothing but a rare probe goes out.
        Blocked = "blocked",
        /// Stopped by a person or by our own configuration.
        Stopped = "stopped",
    }
}

/// One lane in `status`: a source address of ours at a provider; or a pause that stands where there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneRecord {
    /// `*`: everything is paused, or the provider of the paused domain is not known.
    pub provider: String,
    /// `*`: whichever of our addresses is used.
    pub source: String,
    /// An operator has paused mail to this domain; null: the record is about all mail of the lane.
    #[serde(default)]
    pub domain: Option<String>,
    pub state: LaneState,
    /// Open now.
    pub connections: u64,
    pub connections_allowed: u64,
    /// Of the provider, over all its lanes.
    pub ceiling: u64,
    /// Recipients a minute; null: no limit is known.
    pub rate: Option<f64>,
    /// Deliveries that wait for this lane.
    pub waiting: u64,
    /// Why it is not simply open.
    pub reason: Option<String>,
    /// When that ends, or the next probe goes out.
    pub until: Option<Timestamp>,
    /// Recipients a minute that are allowed by what was learned; null: as many as the connections carry.
    #[serde(default)]
    pub rate_allowed: Option<f64>,
    /// Since when nothing goes; null: it goes.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// The receiver's own label in the reason: `RP-001`, `S3150`.
    #[serde(default)]
    pub tag: Option<String>,
    /// What the reason means, for a person.
    #[serde(default)]
    pub cause: Option<String>,
    /// What a person should do about it.
    #[serde(default)]
    pub remedy: Option<String>,
    /// Recipients a minute that the provider is expected to take, all its lanes together; null: not known yet.
    #[serde(default)]
    pub pace: Option<f64>,
    /// When all that waits for the provider will be gone at that pace.
    #[serde(default)]
    pub empty_at: Option<Timestamp>,
}

/// What an operator's order did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// `*`: it was about a domain, or everything.
    pub provider: String,
    #[serde(default)]
    pub domain: Option<String>,
    /// In words, one for each lane that changed; none: it stood like that before.
    pub changes: Vec<String>,
    /// Deliveries that wait for the provider, for the domain, or at all.
    pub waiting: u64,
}

/// The relay as a whole, in `status` and `health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayRecord {
    pub version: String,
    pub hostname: Option<String>,
    pub since: Timestamp,
    pub data_dir: String,
    /// `127.0.0.1:2525`
    pub listeners: Vec<String>,
    /// Messages in the queue.
    pub messages: u64,
    /// Deliveries of them, by state.
    pub waiting: u64,
    pub active: u64,
    pub held: u64,
    pub oldest: Option<Timestamp>,
    /// The backlog of the last run is still being read; the counts grow until it is done.
    pub reading_backlog: bool,
    /// Null: the spool takes and keeps messages. Otherwise what is wrong with it.
    pub spool_fault: Option<String>,
    pub disk_free_bytes: u64,
    /// Deliveries whose provider is not known yet, as after a restart.
    #[serde(default)]
    pub unrouted: u64,
    /// `limits.min_free_disk`: below it no message is taken.
    pub disk_min_bytes: u64,
    /// Connections of clients that are open, and `limits.connections`.
    #[serde(default)]
    pub clients: u64,
    #[serde(default)]
    pub clients_allowed: u64,
    /// Sessions of clients that a fault of ours has ended since the start: each is in the log.
    #[serde(default)]
    pub panics: u64,
    /// At which addresses receivers say that they see us.
    #[serde(default)]
    pub seen: Vec<SeenRecord>,
    /// Takes messages and delivers them.
    pub ready: bool,
    /// Why not, and what to do; also what is wrong without making it unready.
    pub problems: Vec<String>,
}

/// The address at which the world sees one of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// The address it is sent from; null: the one that the system chooses.
    pub local: Option<IpAddr>,
    pub address: IpAddr,
    pub since: Timestamp,
    /// So many receiving hosts name it.
    pub hosts: u64,
    /// What other hosts name.
    pub others: Vec<IpAddr>,
    /// It was this one before.
    pub before: Option<IpAddr>,
}

/// One record of an answer to `Status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub enum StatusRecord {
    Relay(RelayRecord),
    Lane(LaneRecord),
}

/// What a receiver said to one recipient of a message, and how it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    pub id: QueueId,
    pub recipient: String,
    pub event: EventKind,
    pub reply: Option<String>,
    pub class: Option<Class>,
    pub rule: Option<String>,
    pub verdict: Option<Verdict>,
    pub provider: Option<String>,
    pub source: Option<String>,
    pub mx: Option<String>,
    pub tls: Option<String>,
    /// For people: why, and what to do.
    pub cause: Option<String>,
    pub remedy: Option<String>,
    /// Where it was deferred.
    pub next_attempt: Option<Timestamp>,
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::admin::SuppressRecord;
    use crate::types::{BodyType, DeliveryId, Domain, Mailbox, Notify, Origin, Priority, Recipient, ReversePath};

    pub(crate) fn envelope() -> Envelope {
        let received = Timestamp::from_millis(1_795_293_220_042);
        Envelope {
            id: crate::types::QueueIds::new(0, 1).next(received),
            received,
            sender: ReversePath::parse("news@example.com").unwrap(),
            ret: None,
            envid: None,
            body_type: BodyType::Undeclared,
            smtputf8: false,
            size_bytes: 12_345,
            message_id: Some("<1@example.com>".into()),
            client: Some("127.0.0.1".parse().unwrap()),
            user: Some("app".into()),
            requests: Default::default(),
            expire: None,
            class: Priority::Normal,
            origin: Origin::Client,
        }
    }

    pub(crate) fn delivery() -> Delivery {
        let recipient =
            Recipient { address: Mailbox::parse("bob@outlook.com").unwrap(), orcpt: None, notify: Notify::default() };
        Delivery {
            id: DeliveryId { message: envelope().id, part: 0 },
            domain: Domain::parse("outlook.com").unwrap(),
            recipients: vec![recipient],
            state: DeliveryState::Waiting,
            attempts: 2,
            next_attempt: Some(Timestamp::from_millis(1_795_294_000_000)),
            delay_reported: false,
            refusal: Some(Refusal {
                at: Timestamp::from_millis(1_795_293_700_000),
                reply: "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited".into(),
                class: Class::RateLimit,
                rule: "outlook-4.7.650".into(),
                provider: "outlook".into(),
                source: "default".into(),
                mx: Some("outlook-com.olc.protection.outlook.com".into()),
            }),
            failed: Vec::new(),
            next_hop: None,
            own: None,
        }
    }

    pub(crate) fn lane() -> LaneRecord {
        LaneRecord {
            provider: "outlook".into(),
            source: "default".into(),
            domain: None,
            state: LaneState::Paused,
            connections: 3,
            connections_allowed: 20,
            ceiling: 500,
            rate: Some(38.0),
            waiting: 12_400,
            reason: Some("451 4.7.650 slow down".into()),
            until: Some(Timestamp::from_millis(1_795_294_000_000)),
            since: Some(Timestamp::from_millis(1_795_293_400_000)),
            tag: None,
            cause: Some("the receiver takes less from this address just now".into()),
            remedy: Some("nothing: weir goes on by itself".into()),
            pace: Some(38.0),
            empty_at: Some(Timestamp::from_millis(1_795_313_578_000)),
            rate_allowed: None,
        }
    }

    pub(crate) fn suppressed() -> SuppressRecord {
        SuppressRecord {
            recipient: "gone@outlook.com".into(),
            class: Some(Class::RecipientUnknown),
            reply: Some("550 5.5.0 Requested action not taken: mailbox unavailable".into()),
            source: "reply".into(),
            first: Some(Timestamp::from_secs(1_795_000_000)),
            last: Some(Timestamp::from_secs(1_795_100_000)),
            hits: 2,
            expires: None,
            terms: 2,
            sender_domain: None,
            tag: Some("S775".into()),
            provider: Some("outlook".into()),
            rule: Some("unknown-user".into()),
            wave: None,
        }
    }

    fn has_keys(record: &impl Serialize, keys: &str) -> Value {
        let value = serde_json::to_value(record).unwrap();
        for key in keys.split_whitespace() {
            assert!(value.get(key).is_some(), "`{key}` is missing in {value}");
        }
        value
    }

    #[test]
    fn the_promised_keys_are_there_even_when_nothing_is_known() {
        let untried = Delivery { refusal: None, next_attempt: None, ..delivery() };
        let keys = "id sender recipients domain provider source state attempts next_attempt reason";
        let value = has_keys(&QueueRecord::of(&envelope(), &untried), keys);
        assert_eq!((&value["state"], &value["reason"]), (&json!("waiting"), &Value::Null));
        has_keys(&QueueDetail::of(&envelope(), &delivery()), keys);

        let idle = LaneRecord { rate: None, reason: None, until: None, ..lane() };
        has_keys(&idle, "provider source state connections connections_allowed ceiling rate waiting reason until");
        has_keys(&suppressed(), "recipient class reply source first last hits expires");
    }

    #[test]
    fn a_record_is_read_back_as_it_was() {
        let detail = QueueDetail { lane: Some(lane()), ..QueueDetail::of(&envelope(), &delivery()) };
        let text = serde_json::to_string(&detail).unwrap();
        assert_eq!(serde_json::from_str::<QueueDetail>(&text).unwrap(), detail);
        let status = StatusRecord::Lane(lane());
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<StatusRecord>(&text).unwrap(), status);
    }

    #[test]
    fn the_list_says_what_the_receiver_said() {
        let record = QueueRecord::of(&envelope(), &delivery());
        assert_eq!(record.provider.as_deref(), Some("outlook"));
        assert!(record.reason.unwrap().starts_with("451 4.7.650"));
    }
}
