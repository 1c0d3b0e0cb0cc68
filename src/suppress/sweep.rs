//! The slow walk through the list that takes out what nobody needs to know any more.
//!
//! It also sets right what was put down by a clock that was ahead. Nothing else depends on it: what has expired is no hit whether it is swept or not. An entry that ran out is remembered for a
//! year, so that the next refusal is known as the second; the run-out entry of an undecided wave leaves its count at once.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::decision::COUNT_KEEP;
use super::operation::Operation;
use super::{Entry, Filter, List, ListError, PIECE, Place};
use crate::types::Timestamp;

/// How long the first time is remembered after its end.
pub const REMEMBER: Duration = Duration::from_secs(365 * 86_400);
/// Between two steps: ten million entries take some hours, and half a percent of a processor.
const STEP_EVERY: Duration = Duration::from_secs(1);
/// Between two walks.
const WALK_EVERY: Duration = Duration::from_secs(86_400);

impl List {
    /// Walks until `stop`.
    pub async fn keep_tidy(self, stop: CancellationToken) {
        let mut after = None;
        loop {
            let pause = match self.tidy_step(after.as_ref()).await {
                Ok(Some(next)) => {
                    after = Some(next);
                    STEP_EVERY
                }
                Ok(None) => {
                    after = None;
                    WALK_EVERY
                }
                Err(error) => {
                    tracing::warn!(%error, "old entries stay for now");
                    WALK_EVERY
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One step; returns where the next begins, none at the end.
    pub(super) async fn tidy_step(&self, after: Option<&Place>) -> Result<Option<Place>, ListError> {
        let now = self.0.clock.now();
        let page = self.list(&Filter { expired: true, ..Filter::default() }, after, PIECE)?;
        let old = page.entries.iter().filter(|entry| is_old(entry, now));
        let ahead = page.entries.iter().filter(|entry| entry.last > now);
        let mut operations: Vec<Operation> = old.map(|entry| Operation::Tidy { place: entry.place(), now }).collect();
        operations.extend(ahead.map(|entry| Operation::SetRight { place: entry.place(), now }));
        if after.is_none() {
            operations.push(Operation::TidyCounts { before: now - COUNT_KEEP });
        }
        if !operations.is_empty() {
            self.write(operations).await?;
        }
        Ok(page.next)
    }
}

fn is_old(entry: &Entry, now: Timestamp) -> bool {
    let remember = if entry.is_provisional() { Duration::ZERO } else { REMEMBER };
    entry.expires.is_some_and(|expires| expires <= now && now.since(expires) >= remember)
}
