//! What can be done in a data folder while no relay runs: the queue and the suppression list are read, a list is imported.
//!
//! Each function hands over record by record, so that a list of any length takes no memory.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::admin::{Filter, Imported, QueueDetail, QueueRecord, SuppressFilter, SuppressRecord, WaveRecord};
use crate::clock::Clock;
use crate::server::listing::{narrowed, narrowed_suppressions, suppress_record};
use crate::server::suppression::wave_record;
use crate::spool::{Listed, Reader, own_folder};
use crate::suppress::{Entry, List, Merged, PIECE};
use crate::types::{Mailbox, QueueId};

/// Rows read in one go.
const PAGE: usize = 500;

/// Takes one record; its error (a reader that went away) ends the listing.
pub(super) type Each<'a, T> = &'a mut dyn FnMut(T) -> anyhow::Result<()>;

/// The queue, oldest first.
pub(super) async fn queue(data_dir: &Path, filter: &Filter, each: Each<'_, QueueRecord>) -> anyhow::Result<()> {
    rows(data_dir, filter, &mut |row| each(QueueRecord::of(&row.envelope, &row.delivery))).await
}

/// The deliveries of one message, with all that is known of them where no relay runs; `expire` is how long they are tried if
/// nothing else is said.
pub(super) async fn message(data_dir: &Path, id: QueueId, expire: Duration) -> anyhow::Result<Vec<QueueDetail>> {
    let mut details = Vec::new();
    let filter = Filter { ids: vec![id], ..Filter::default() };
    rows(data_dir, &filter, &mut |row| {
        let expires = Some(id.received() + row.envelope.expire.unwrap_or(expire));
        details.push(QueueDetail { expires, ..QueueDetail::of(&row.envelope, &row.delivery) });
        Ok(())
    })
    .await?;
    Ok(details)
}

async fn rows(data_dir: &Path, filter: &Filter, each: Each<'_, Listed>) -> anyhow::Result<()> {
    if !data_dir.join("spool.sqlite").exists() {
        anyhow::bail!("{}: there is no queue in this data folder (key data_dir); start `weir run`", data_dir.display());
    }
    let reader = Reader::open(data_dir).with_context(|| format!("cannot read the queue in {}", data_dir.display()))?;
    let now = Clock::system().now();
    let mut left = filter.limit.unwrap_or(u64::MAX);
    let mut after = None;
    loop {
        let page = reader.list(narrowed(filter, now), after, PAGE).await?;
        for row in page.rows {
            let provider = row.delivery.refusal.as_ref().map(|refusal| refusal.provider.clone()).unwrap_or_default();
            if left > 0 && filter.matches(&row.envelope, &row.delivery, &provider, row.delivery.state.into(), now) {
                left -= 1;
                each(row)?;
            }
        }
        after = page.next;
        if after.is_none() || left == 0 {
            return Ok(());
        }
    }
}

/// The suppression list, in the order of its addresses.
pub(super) async fn suppressed(
    data_dir: &Path,
    filter: &SuppressFilter,
    each: Each<'_, SuppressRecord>,
) -> anyhow::Result<()> {
    let list = open_list(data_dir)?;
    let narrow = narrowed_suppressions(filter).map_err(anyhow::Error::msg)?;
    let (mut after, mut left) = (None, filter.limit.unwrap_or(u64::MAX));
    loop {
        let page = list.list(&narrow, after.as_ref(), PAGE)?;
        for entry in page.entries {
            let meant = filter.recipient.is_none()
                || Mailbox::parse(&entry.recipient).is_ok_and(|mailbox| filter.matches_recipient(&mailbox));
            if meant && left > 0 {
                left -= 1;
                each(suppress_record(entry))?;
            }
        }
        after = page.next;
        if after.is_none() || left == 0 {
            return Ok(());
        }
    }
}

/// The entries of one address.
pub(super) async fn suppression_of(data_dir: &Path, recipient: &Mailbox) -> anyhow::Result<Vec<SuppressRecord>> {
    Ok(open_list(data_dir)?.entries(recipient)?.into_iter().map(suppress_record).collect())
}

/// The waves that wait for a decision.
pub(super) async fn waves(data_dir: &Path) -> anyhow::Result<Vec<WaveRecord>> {
    Ok(open_list(data_dir)?.waves()?.into_iter().map(wave_record).collect())
}

/// Merges `entries` into the list of a data folder that no relay uses, which is made if it is not there.
pub(super) async fn import(
    data_dir: &Path,
    entries: &mut impl Iterator<Item = Entry>,
    mut progress: impl FnMut(Imported),
) -> anyhow::Result<()> {
    let _owned = own_folder(data_dir)?;
    let (list, writer) = List::open(&data_dir.join("suppression.sqlite"), Clock::system())?;
    let work = async move {
        let mut import = list.import();
        let mut tell = |Merged { added, updated }| progress(Imported { added, updated });
        loop {
            let piece: Vec<Entry> = entries.by_ref().take(PIECE).collect();
            if piece.is_empty() {
                tell(import.end().await?);
                return Ok(());
            }
            tell(import.merge(piece).await?);
        }
    };
    // The writer ends when nobody can write any more.
    let (result, ()) = tokio::join!(work, writer.run(CancellationToken::new()));
    result
}

fn open_list(data_dir: &Path) -> anyhow::Result<List> {
    let path = data_dir.join("suppression.sqlite");
    if !path.exists() {
        anyhow::bail!(
            "{}: there is no suppression list in this data folder (key data_dir); start `weir run`",
            data_dir.display()
        );
    }
    Ok(List::read_only(&path, Clock::system())?)
}
