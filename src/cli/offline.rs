//! What can be read in a data folder while no relay runs: the queue and the suppression list.
//!
//! Each function hands over record by record, so that a list of any length takes no memory.

use std::path::Path;

use anyhow::Context as _;

use crate::admin::{Filter, QueueRecord, SuppressRecord};
use crate::clock::Clock;
use crate::server::listing::{narrowed, suppress_record};
use crate::spool::Reader;
use crate::suppress::{self, List};
use crate::types::Mailbox;

/// Rows read in one go.
const PAGE: usize = 500;

/// Takes one record; its error (a reader that went away) ends the listing.
pub(super) type Each<'a, T> = &'a mut dyn FnMut(T) -> anyhow::Result<()>;

/// The queue, oldest first.
pub(super) async fn queue(data_dir: &Path, filter: &Filter, each: Each<'_, QueueRecord>) -> anyhow::Result<()> {
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
            let record = QueueRecord::of(&row.envelope, &row.delivery);
            let provider = record.provider.as_deref().unwrap_or_default();
            if left > 0 && filter.matches(&row.envelope, &row.delivery, provider, record.state, now) {
                left -= 1;
                each(record)?;
            }
        }
        after = page.next;
        if after.is_none() || left == 0 {
            return Ok(());
        }
    }
}

/// The suppression list, in the order of its addresses.
pub(super) async fn suppressed(data_dir: &Path, filter: &Filter, each: Each<'_, SuppressRecord>) -> anyhow::Result<()> {
    let list = open_list(data_dir)?;
    let narrow = suppress::Filter { domain: filter.domain.clone(), ..suppress::Filter::default() };
    let (mut after, mut left) = (None::<String>, filter.limit.unwrap_or(u64::MAX));
    loop {
        let page = list.list(&narrow, after.as_deref(), PAGE)?;
        for entry in page.entries {
            let meant = Mailbox::parse(&entry.recipient).is_ok_and(|mailbox| filter.matches_recipient(&mailbox));
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

/// The entry of one address.
pub(super) async fn suppression_of(data_dir: &Path, recipient: &Mailbox) -> anyhow::Result<Option<SuppressRecord>> {
    Ok(open_list(data_dir)?.check(recipient)?.map(suppress_record))
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
