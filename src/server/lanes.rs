//! Lanes as operators see and order them, and as they are kept over a restart.

use std::time::Duration;

use tokio::time::timeout;

use super::control::RelayControl;
use crate::admin::record::{LaneRecord, LaneState, Ordered};
use crate::admin::{Answer, Failed};
use crate::dispatch::engine::{Memory, Order};
use crate::dispatch::status::{PausedDomain, Snapshot};
use crate::state::{Record, Store};
use crate::throttle::{self, EVERY_SOURCE, EVERYTHING, LaneName, LaneStatus};
use crate::types::{Reading, Reply, Stage};
use crate::verdict::Rules;

/// How long a command waits until what it ordered is on disk.
const WRITTEN_MAX: Duration = Duration::from_secs(5);

/// The store as dispatch knows it.
pub(super) struct LaneMemory(pub Store);

impl Memory for LaneMemory {
    fn save(&self, records: Vec<throttle::LaneRecord>) {
        let record = |record: throttle::LaneRecord| Record {
            provider: record.name.provider.to_string(),
            source: record.name.source.to_string(),
            state: record.state,
        };
        self.0.save(records.into_iter().map(record).collect());
    }
}

/// What the last run left, as the throttle takes it back.
pub(super) fn restored(records: Vec<Record>) -> Vec<throttle::LaneRecord> {
    let record = |record: Record| throttle::LaneRecord {
        name: LaneName { provider: record.provider.into(), source: record.source.into() },
        state: record.state,
    };
    records.into_iter().map(record).collect()
}

impl RelayControl {
    /// Pauses, resumes or forgets; answers when it would outlive a crash.
    pub(super) async fn order(&self, order: Order, answer: &Answer) -> Result<(), Failed> {
        let ordered = self.engine.order(order.clone()).await;
        let mut changes = ordered.map_err(|error| Failed::new(error.to_string()))?;
        if !matches!(timeout(WRITTEN_MAX, self.state.flush()).await, Ok(Ok(()))) {
            changes.push("but it cannot be written down now (see the log): it holds only until a restart".to_string());
        }
        let snapshot = self.snapshot().await?;
        let (provider, domain, waiting) = match order {
            Order::Provider { provider, .. } | Order::Forget { provider, .. } => {
                let waiting = waiting(&snapshot, &provider);
                (provider, None, waiting)
            }
            Order::Domain { domain, .. } => {
                let waiting = self.engine.waiting_for(domain.clone()).await.map_err(super::control::failed)?;
                (EVERYTHING.to_string(), Some(domain.to_string()), waiting as u64)
            }
            Order::All { .. } => (EVERYTHING.to_string(), None, waiting(&snapshot, EVERYTHING)),
        };
        Ok(answer.record(&Ordered { provider, domain, changes, waiting }).await?)
    }
}

/// The lanes of a snapshot, each with what its reason means; one at a time, for there may be very many.
pub(super) fn records<'a>(snapshot: &'a Snapshot, rules: &'a Rules) -> impl Iterator<Item = LaneRecord> + 'a {
    let lanes = snapshot.lanes.iter().map(|lane| record(snapshot, lane, rules));
    lanes.chain(snapshot.paused_domains.iter().map(of_paused_domain))
}

/// Those alone that mail for the provider may wait for.
pub(super) fn records_for(snapshot: &Snapshot, provider: Option<&str>, rules: &Rules) -> Vec<LaneRecord> {
    let is_meant = |lane: &&LaneStatus| Some(&*lane.provider) == provider || *lane.provider == *EVERYTHING;
    let lanes = snapshot.lanes.iter().filter(is_meant).map(|lane| record(snapshot, lane, rules));
    lanes.chain(snapshot.paused_domains.iter().map(of_paused_domain)).collect()
}

/// The pause of a recipient domain, as a line beside the lanes.
fn of_paused_domain(paused: &PausedDomain) -> LaneRecord {
    let PausedDomain { domain, since, provider, waiting } = paused;
    LaneRecord {
        provider: provider.as_deref().unwrap_or(EVERYTHING).to_string(),
        source: EVERY_SOURCE.to_string(),
        domain: Some(domain.to_string()),
        state: LaneState::Paused,
        connections: 0,
        connections_allowed: 0,
        ceiling: 0,
        rate: None,
        waiting: *waiting as u64,
        reason: Some(format!("mail to {domain} is paused by an operator since {since}: weir resume --domain {domain}")),
        until: None,
        rate_allowed: None,
        since: Some(*since),
        tag: None,
        cause: None,
        remedy: None,
        pace: None,
        empty_at: None,
    }
}

fn record(snapshot: &Snapshot, lane: &LaneStatus, rules: &Rules) -> LaneRecord {
    let provider = &lane.provider;
    let reason = lane.reason.clone().or_else(|| snapshot.waits_for.get(provider).map(ToString::to_string));
    let reading = reason.as_deref().and_then(|reason| reading(provider, reason, rules));
    let estimate = snapshot.estimates.get(provider);
    let words = |text: &dyn Fn(&Reading) -> String| reading.as_ref().map(text).filter(|text| !text.is_empty());
    LaneRecord {
        provider: provider.to_string(),
        source: lane.source.to_string(),
        domain: None,
        state: lane.state.parse().unwrap_or(LaneState::Open),
        connections: lane.connections as u64,
        connections_allowed: lane.connections_allowed as u64,
        ceiling: lane.ceiling as u64,
        rate: Some(lane.rate),
        rate_allowed: lane.rate_allowed,
        waiting: waiting(snapshot, provider),
        until: lane.until,
        since: lane.since,
        tag: reading.as_ref().and_then(|reading| reading.tag.clone()),
        cause: words(&|reading| reading.cause.to_string()),
        remedy: words(&|reading| reading.remedy.to_string()),
        pace: estimate.and_then(|estimate| estimate.pace),
        empty_at: estimate.and_then(|estimate| estimate.empty_at),
        reason,
    }
}

/// How the receiver's words in a reason are read: the reason is a reply, or a reply stands at its end (`…: 421 RP-001 …`).
fn reading(provider: &str, reason: &str, rules: &Rules) -> Option<Reading> {
    let quoted = reason.match_indices(": ").map(|(at, colon)| &reason[at + colon.len()..]);
    let reply = std::iter::once(reason).chain(quoted).find_map(refusal)?;
    Some(rules.read(provider, Stage::Rcpt, &reply))
}

fn refusal(text: &str) -> Option<Reply> {
    let is_code = text.len() > 3
        && matches!(text.as_bytes()[0], b'4' | b'5')
        && text.as_bytes()[..3].iter().all(u8::is_ascii_digit);
    Reply::parse(text).filter(|_| is_code)
}

fn waiting(snapshot: &Snapshot, provider: &str) -> u64 {
    if provider == EVERYTHING {
        return snapshot.waiting.values().map(|count| *count as u64).sum();
    }
    snapshot.waiting.get(&Some(provider.into())).map_or(0, |count| *count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receiver_said_is_explained_wherever_it_stands_in_the_reason() {
        let rules = Rules::shipped();
        let block = "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service \
                     provider since part of their network is on our block list (S3150).";
        let read = reading("outlook", block, &rules).unwrap();
        assert_eq!(read.tag.as_deref(), Some("S3150"));
        assert!(!read.remedy.is_empty());
        let slow =
            "at most 20 connections; it refused more: 421 RP-001 (BAY004) Unfortunately, some messages weren't sent.";
        assert_eq!(reading("outlook", slow, &rules).unwrap().tag.as_deref(), Some("RP-001"));
        for own in [
            "first contact: one message goes first",
            "by an operator since 2026-11-21: weir resume outlook",
            "",
            "5 of 500",
        ] {
            assert_eq!(reading("outlook", own, &rules), None, "{own}");
        }
    }

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let kept = Record { provider: "mx\n\"odd\"".into(), source: "a b".into(), state: "{\"n\":1}".into() };
        let restored = restored(vec![kept.clone()]);
        assert_eq!((&*restored[0].name.provider, &*restored[0].name.source), ("mx\n\"odd\"", "a b"));
        assert_eq!(restored[0].state, kept.state);
    }
}
