//! How an envelope and a delivery stand in their rows, and back.
//!
//! What operators look for (sender, client, user, Message-ID, domain, recipients, provider) has a column of its own;
//! only the rare rest is JSON. A recipient without parameters is a plain string, so that most rows read
//! `["a@example.com"]`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::SpoolError;
use crate::types::{
    BodyType, Delivery, DeliveryId, DeliveryState, Domain, Envelope, NextHop, Origin, Priority, QueueId, Recipient,
    Requests, Ret, ReversePath, Timestamp,
};

/// The columns of `message` in the order `envelope` reads them.
pub(super) const ENVELOPE: &str = "m.id, m.received, m.sender, m.size, m.report, m.in_file, m.client, m.user, m.message_id, m.expire, m.parameters, m.class";
/// Where the columns of `delivery` begin when they stand behind those of `message`.
pub(super) const DELIVERY_START: usize = 12;
/// The columns of `delivery` in the order `delivery` reads them.
pub(super) const DELIVERY: &str = "d.message, d.part, d.domain, d.recipients, d.state, d.attempts, d.next_attempt, d.delay_reported, d.refusal, d.provider, d.failed, d.next_hop, d.own";

/// The parameters of MAIL that few messages have.
#[derive(Serialize, Deserialize, Default, PartialEq)]
struct Parameters<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<Ret>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    envid: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_undeclared")]
    body_type: BodyType,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    smtputf8: bool,
    #[serde(flatten)]
    requests: Requests,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_undeclared(body_type: &BodyType) -> bool {
    *body_type == BodyType::Undeclared
}

#[derive(Serialize)]
#[serde(untagged)]
enum RecipientOut<'a> {
    Plain(&'a str),
    Full(&'a Recipient),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RecipientIn {
    Plain(crate::types::Mailbox),
    Full(Recipient),
}

pub(super) fn insert_message(connection: &Connection, envelope: &Envelope, in_file: bool) -> rusqlite::Result<()> {
    let parameters = Parameters {
        ret: envelope.ret,
        envid: envelope.envid.as_deref().map(Cow::Borrowed),
        body_type: envelope.body_type,
        smtputf8: envelope.smtputf8,
        requests: envelope.requests.clone(),
    };
    let parameters = if parameters == Parameters::default() { None } else { Some(json(&parameters)?) };
    let client = envelope.client.map(|address| address.to_string());
    let expire = envelope.expire.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "INSERT INTO message (id, received, sender, size, report, in_file, client, user, message_id, expire, parameters, class) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            envelope.id.key(),
            envelope.received.millis(),
            envelope.sender.as_str(),
            i64::try_from(envelope.size_bytes).unwrap_or(i64::MAX),
            envelope.origin == Origin::Report,
            in_file,
            client,
            envelope.user,
            envelope.message_id,
            expire,
            parameters,
            (envelope.class != Priority::Normal).then(|| envelope.class.as_str()),
        ])
        .map(drop)
}

pub(super) fn insert_delivery(connection: &Connection, delivery: &Delivery) -> rusqlite::Result<()> {
    let refusal = delivery.refusal.as_ref();
    connection
        .prepare_cached(
            "INSERT INTO delivery (message, part, domain, recipients, state, attempts, next_attempt, delay_reported, \
             provider, source, refusal, failed, next_hop, own) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            delivery.id.message.key(),
            delivery.id.part,
            delivery.domain.as_str(),
            recipients(&delivery.recipients)?,
            state_text(delivery.state),
            delivery.attempts,
            delivery.next_attempt.map(Timestamp::millis),
            delivery.delay_reported,
            refusal.map(|r| r.provider.as_str()),
            refusal.map(|r| r.source.as_str()),
            refusal.map(json).transpose()?,
            failed(delivery)?,
            delivery.next_hop.as_ref().map(ToString::to_string),
            delivery.own.as_deref().map(json).transpose()?,
        ])
        .map(drop)
}

fn failed(delivery: &Delivery) -> rusqlite::Result<Option<String>> {
    if delivery.failed.is_empty() { Ok(None) } else { json(&delivery.failed).map(Some) }
}

/// Returns false if the delivery is gone. What its copy has of its own never changes.
pub(super) fn update_delivery(connection: &Connection, delivery: &Delivery) -> rusqlite::Result<bool> {
    let refusal = delivery.refusal.as_ref();
    connection
        .prepare_cached(
            "UPDATE delivery SET domain = ?3, recipients = ?4, state = ?5, attempts = ?6, next_attempt = ?7, \
             delay_reported = ?8, provider = ?9, source = ?10, refusal = ?11, failed = ?12, next_hop = ?13 WHERE message = ?1 AND part = ?2",
        )?
        .execute(params![
            delivery.id.message.key(),
            delivery.id.part,
            delivery.domain.as_str(),
            recipients(&delivery.recipients)?,
            state_text(delivery.state),
            delivery.attempts,
            delivery.next_attempt.map(Timestamp::millis),
            delivery.delay_reported,
            refusal.map(|r| r.provider.as_str()),
            refusal.map(|r| r.source.as_str()),
            refusal.map(json).transpose()?,
            failed(delivery)?,
            delivery.next_hop.as_ref().map(ToString::to_string),
        ])
        .map(|rows| rows > 0)
}

/// The envelope, and whether its content lies in a file.
pub(super) fn envelope(row: &Row<'_>) -> Result<(Envelope, bool), SpoolError> {
    let id = queue_id(row.get(0)?)?;
    let fault =
        |what: &str, error: &dyn std::fmt::Display| SpoolError::Failed(format!("message {id}: {what}: {error}"));
    let parameters: Parameters<'_> = match row.get_ref(10)? {
        ValueRef::Text(text) => serde_json::from_slice(text).map_err(|e| fault("its parameters cannot be read", &e))?,
        _ => Parameters::default(),
    };
    let client: Option<String> = row.get(6)?;
    let envelope = Envelope {
        id,
        received: Timestamp::from_millis(row.get(1)?),
        sender: ReversePath::parse(text(row, 2)?).map_err(|e| fault("its sender cannot be read", &e))?,
        ret: parameters.ret,
        envid: parameters.envid.map(Cow::into_owned),
        body_type: parameters.body_type,
        smtputf8: parameters.smtputf8,
        size_bytes: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
        message_id: row.get(8)?,
        client: client.and_then(|address| address.parse().ok()),
        user: row.get(7)?,
        requests: parameters.requests,
        expire: expire(row, 9)?,
        class: class(row, 11)?,
        origin: if row.get(4)? { Origin::Report } else { Origin::Client },
    };
    Ok((envelope, row.get(5)?))
}

/// Reads the columns `DELIVERY` from column `start` on.
pub(super) fn delivery(row: &Row<'_>, start: usize) -> Result<Delivery, SpoolError> {
    let id = delivery_id(row, start)?;
    let fault =
        |what: &str, error: &dyn std::fmt::Display| SpoolError::Failed(format!("delivery {id}: {what}: {error}"));
    let recipients: Vec<RecipientIn> =
        serde_json::from_str(text(row, start + 3)?).map_err(|e| fault("its recipients cannot be read", &e))?;
    let refusal = match row.get_ref(start + 8)? {
        ValueRef::Text(text) => {
            Some(serde_json::from_slice(text).map_err(|e| fault("its refusal cannot be read", &e))?)
        }
        _ => None,
    };
    let failed = match row.get_ref(start + 10)? {
        ValueRef::Text(text) => {
            serde_json::from_slice(text).map_err(|e| fault("its refused recipients cannot be read", &e))?
        }
        _ => Vec::new(),
    };
    Ok(Delivery {
        id,
        domain: Domain::parse(text(row, start + 2)?).map_err(|e| fault("its domain cannot be read", &e))?,
        recipients: recipients.into_iter().map(RecipientIn::whole).collect(),
        state: state(text(row, start + 4)?),
        attempts: row.get(start + 5)?,
        next_attempt: row.get::<_, Option<i64>>(start + 6)?.map(Timestamp::from_millis),
        delay_reported: row.get(start + 7)?,
        refusal,
        failed,
        next_hop: next_hop(row, start + 11)?,
        own: match row.get_ref(start + 12)? {
            ValueRef::Text(text) => Some(
                serde_json::from_slice(text).map_err(|e| fault("what its copy has of its own cannot be read", &e))?,
            ),
            _ => None,
        },
    })
}

impl RecipientIn {
    fn whole(self) -> Recipient {
        match self {
            RecipientIn::Plain(address) => Recipient { address, orcpt: None, notify: Default::default() },
            RecipientIn::Full(recipient) => recipient,
        }
    }
}

/// The addresses in a `recipients` column, without the cost of reading them as addresses.
pub(super) fn addresses(column: &str) -> Result<Vec<Box<str>>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Address {
        Plain(Box<str>),
        Full { address: Box<str> },
    }
    // Nearly every row is one plain address: `["a@example.com"]`.
    if let Some(inner) = column.strip_prefix("[\"").and_then(|rest| rest.strip_suffix("\"]"))
        && !inner.contains(['"', '\\'])
    {
        return Ok(vec![inner.into()]);
    }
    let all: Vec<Address> = serde_json::from_str(column)?;
    Ok(all
        .into_iter()
        .map(|a| match a {
            Address::Plain(text) | Address::Full { address: text } => text,
        })
        .collect())
}

pub(super) fn queue_id(key: i64) -> Result<QueueId, SpoolError> {
    QueueId::from_key(key)
        .ok_or_else(|| SpoolError::Failed(format!("the spool holds the key {key}, which is no queue id")))
}

pub(super) fn delivery_id(row: &Row<'_>, start: usize) -> Result<DeliveryId, SpoolError> {
    Ok(DeliveryId { message: queue_id(row.get(start)?)?, part: row.get(start + 1)? })
}

pub(super) fn expire(row: &Row<'_>, column: usize) -> Result<Option<Duration>, SpoolError> {
    let millis: Option<i64> = row.get(column)?;
    Ok(millis.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))))
}

/// When the sender of message `id` wants to hear that it is late; `column`: the parameters of MAIL.
pub(super) fn late_at(row: &Row<'_>, column: usize, id: QueueId) -> Result<Option<Timestamp>, SpoolError> {
    let ValueRef::Text(text) = row.get_ref(column)? else { return Ok(None) };
    let requests: Requests = serde_json::from_slice(text)
        .map_err(|e| SpoolError::Failed(format!("message {id}: its parameters cannot be read: {e}")))?;
    Ok(requests.notifies_at(id.received()))
}

/// A word that nobody knows is no reason to lose a message: it is normal then.
pub(super) fn class(row: &Row<'_>, column: usize) -> Result<Priority, SpoolError> {
    let word =
        row.get_ref(column)?.as_str_or_null().map_err(|e| SpoolError::Failed(format!("column {column}: {e}")))?;
    Ok(word.and_then(|word| word.parse().ok()).unwrap_or_default())
}

/// One that cannot be read is left out: the mail goes by its domain then.
pub(super) fn next_hop(row: &Row<'_>, column: usize) -> Result<Option<NextHop>, SpoolError> {
    let text =
        row.get_ref(column)?.as_str_or_null().map_err(|e| SpoolError::Failed(format!("column {column}: {e}")))?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// The text of a column, in place.
pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, SpoolError> {
    row.get_ref(column)?
        .as_str()
        .map_err(|e| SpoolError::Failed(format!("column {column} of the spool is no text: {e}")))
}

pub(super) fn state(text: &str) -> DeliveryState {
    // Whatever an operator may have written: only the word `waiting` sends mail.
    if text == "waiting" { DeliveryState::Waiting } else { DeliveryState::Held }
}

fn state_text(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Waiting => "waiting",
        DeliveryState::Held => "held",
    }
}

fn recipients(recipients: &[Recipient]) -> rusqlite::Result<String> {
    let out: Vec<RecipientOut<'_>> = recipients
        .iter()
        .map(|recipient| match recipient {
            Recipient { address, orcpt: None, notify } if notify.is_default() => RecipientOut::Plain(address.as_str()),
            full => RecipientOut::Full(full),
        })
        .collect();
    json(&out)
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// The envelope shared, as everything after the spool wants it.
pub(super) fn shared_envelope(row: &Row<'_>) -> Result<(Arc<Envelope>, bool), SpoolError> {
    envelope(row).map(|(envelope, in_file)| (Arc::new(envelope), in_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_parameters() {
        for (column, expected) in [
            (r#"["a@example.com"]"#, vec!["a@example.com"]),
            (r#"["a@example.com","b@example.com"]"#, vec!["a@example.com", "b@example.com"]),
            (r#"["\"a b\"@example.com"]"#, vec!["\"a b\"@example.com"]),
            (
                r#"[{"address":"c@example.com","orcpt":"rfc822;x"},"d@example.com"]"#,
                vec!["c@example.com", "d@example.com"],
            ),
            ("[]", vec![]),
        ] {
            let found: Vec<String> = addresses(column).unwrap().into_iter().map(String::from).collect();
            assert_eq!(found, expected, "{column}");
        }
        assert!(addresses("[").is_err());
    }
}
