//! What users had of their day, kept over a restart beside what was learned of the receivers.
//!
//! Rules that always hold:
//! - it is written every few seconds, not with each message, and once more after the last session has ended;
//! - a kill makes weir forget no more than those seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inbound::{Allowances, Used};
use crate::state::{Record, Store};

/// Between two writes. So much a kill forgets.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// In place of a provider. No provider and no domain is called so: it has blanks.
const OF_A_DAY: &str = "recipients of a day";

/// Parts what is kept of users from the records of lanes.
pub(super) fn parted(records: Vec<Record>) -> (Vec<(Arc<str>, Used)>, Vec<Record>) {
    let (users, lanes): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| record.provider == OF_A_DAY);
    // What cannot be read was not written by us, and the day begins anew.
    let used = |record: Record| Some((record.source.into(), serde_json::from_str(&record.state).ok()?));
    (users.into_iter().filter_map(used).collect(), lanes)
}

/// Hands over what has counted since the last time.
pub(super) fn save(allowances: &Allowances, store: &Store) {
    let record = |(user, used): (Arc<str>, Used)| {
        let state = serde_json::to_string(&used).ok()?;
        Some(Record { provider: OF_A_DAY.to_string(), source: user.to_string(), state })
    };
    store.save(allowances.take_new().into_iter().filter_map(record).collect());
}

/// Saves every few seconds until `stop`; after the last session it is for its owner to save once more.
pub(super) fn keep(allowances: Allowances, store: Store, tasks: &TaskTracker, stop: &CancellationToken) {
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SAVE_EVERY) => save(&allowances, &store),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::types::Timestamp;

    /// One run of the relay in this folder: what it finds; then it is given `used` to keep.
    async fn run(folder: &std::path::Path, used: &[(Arc<str>, Used)]) -> (Vec<(Arc<str>, Used)>, Vec<Record>) {
        let opened = crate::state::open(folder, Clock::starting_at(Timestamp::from_secs(1_800_000_000)));
        let (stop, writer) = (CancellationToken::new(), opened.writer);
        let record = |(user, used): &(Arc<str>, Used)| Record {
            provider: OF_A_DAY.to_string(),
            source: user.to_string(),
            state: serde_json::to_string(used).unwrap(),
        };
        let lane = Record { provider: "outlook".into(), source: "a".into(), state: "{}".into() };
        opened.store.save(used.iter().map(record).chain([lane]).collect());
        tokio::join!(writer.run(stop.clone()), async {
            opened.store.flush().await.unwrap();
            stop.cancel();
        });
        parted(opened.records)
    }

    #[tokio::test]
    async fn what_was_used_is_there_after_a_restart_apart_from_the_lanes() {
        let folder = tempfile::tempdir().unwrap();
        let used = [("app".into(), Used { day: 20_000, recipients: 7 })];
        assert_eq!(run(folder.path(), &used).await, (vec![], vec![]));
        let (users, lanes) = run(folder.path(), &[]).await;
        assert_eq!(users, used);
        assert_eq!(lanes.iter().map(|lane| lane.provider.as_str()).collect::<Vec<_>>(), ["outlook"]);
    }

    #[test]
    fn what_cannot_be_read_is_nothing() {
        let record = Record { provider: OF_A_DAY.into(), source: "app".into(), state: "{".into() };
        assert_eq!(parted(vec![record]), (vec![], vec![]));
    }
}
