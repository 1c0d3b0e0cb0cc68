//! The answers behind the control socket that speak of the suppression list.
//!
//! Long work is cut into short pieces: nobody's look-up and nobody's refusal waits for an import or a removal.

use super::control::{RelayControl, failed};
use super::listing::{imported, narrowed_suppressions, suppress_record};
use crate::admin::{Answer, Changed, Failed, Imported, Input as Lines, Removed, SuppressFilter, WaveRecord};
use crate::suppress::{Entry, Merged, PIECE, Source};
use crate::types::{Class, Mailbox, Timestamp};

/// An import says so often how far it is.
const PROGRESS_EVERY: u64 = 10_000;

impl RelayControl {
    pub(super) async fn suppress_list(&self, filter: &SuppressFilter, answer: &Answer) -> Result<(), Failed> {
        self.each_suppressed(filter, |entry| async { Ok(answer.record(&suppress_record(entry)).await?) }).await
    }

    /// Walks over the entries that a filter means.
    async fn each_suppressed<F, R>(&self, filter: &SuppressFilter, mut visit: F) -> Result<(), Failed>
    where
        F: FnMut(Entry) -> R,
        R: Future<Output = Result<(), Failed>>,
    {
        let narrow = narrowed_suppressions(filter).map_err(Failed::new)?;
        let (mut after, mut left) = (None, filter.limit.unwrap_or(u64::MAX));
        loop {
            let page = self.suppressions.list(&narrow, after.as_ref(), PIECE).map_err(failed)?;
            for entry in page.entries {
                let meant = filter.recipient.is_none()
                    || Mailbox::parse(&entry.recipient).is_ok_and(|mailbox| filter.matches_recipient(&mailbox));
                if meant && left > 0 {
                    left -= 1;
                    visit(entry).await?;
                }
            }
            after = page.next;
            if after.is_none() || left == 0 {
                return Ok(());
            }
            // A page of which nothing was meant has waited for nobody.
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn suppress_check(&self, recipient: &Mailbox, answer: &Answer) -> Result<(), Failed> {
        for entry in self.suppressions.entries(recipient).map_err(failed)? {
            answer.record(&suppress_record(entry)).await?;
        }
        Ok(())
    }

    pub(super) async fn suppress_add(
        &self,
        recipient: &Mailbox,
        class: Option<Class>,
        reason: &str,
        expires: Option<Timestamp>,
        answer: &Answer,
    ) -> Result<(), Failed> {
        let now = self.clock.now();
        if let Some(moment) = expires.filter(|moment| *moment <= now) {
            let text = format!(
                "nothing was changed: {moment} lies in the past. Give a time to come, or none, or remove the address"
            );
            return Err(Failed::new(text));
        }
        let class = class.unwrap_or(Class::Other);
        let entry = Entry { expires, ..Entry::new(recipient, class, reason, Source::Manual, now) };
        self.suppressions.add(entry).await.map_err(failed)?;
        match self.suppressions.check(recipient, None).map_err(failed)? {
            Some(entry) => Ok(answer.record(&suppress_record(entry)).await?),
            None => Err(Failed::new(format!("{recipient} was taken off the list again by somebody else"))),
        }
    }

    pub(super) async fn suppress_remove(&self, recipients: Vec<Mailbox>, answer: &Answer) -> Result<(), Failed> {
        for recipient in recipients {
            let removed = self.suppressions.remove(&recipient).await.map_err(failed)?;
            answer.record(&Removed { recipient, removed }).await?;
        }
        Ok(())
    }

    pub(super) async fn suppress_sweep(
        &self,
        filter: &SuppressFilter,
        dry_run: bool,
        answer: &Answer,
    ) -> Result<(), Failed> {
        if filter.is_everything() {
            return Err(Failed::new("this would empty the whole list: say which entries are meant"));
        }
        if let Some(crate::admin::AddressPattern::Mailbox(mailbox)) = &filter.recipient {
            return Err(Failed::new(format!("one address is removed by its name: weir suppress remove {mailbox}")));
        }
        // What has run out is remembered and counts against its address: it goes with the rest.
        let filter = SuppressFilter { expired: true, limit: None, ..filter.clone() };
        let entries = if dry_run {
            let count = std::sync::atomic::AtomicU64::new(0);
            self.each_suppressed(&filter, |_: Entry| {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                std::future::ready(Ok(()))
            })
            .await?;
            count.into_inner()
        } else {
            self.suppressions.remove_all(&narrowed_suppressions(&filter).map_err(Failed::new)?).await.map_err(failed)?
        };
        Ok(answer.record(&Changed { entries }).await?)
    }

    pub(super) async fn suppress_waves(&self, answer: &Answer) -> Result<(), Failed> {
        // One statement over all their entries: not for a thread that others want as well.
        let list = self.suppressions.clone();
        let waves = tokio::task::spawn_blocking(move || list.waves()).await.map_err(failed)?;
        for wave in waves.map_err(failed)? {
            answer.record(&wave_record(wave)).await?;
        }
        Ok(())
    }

    pub(super) async fn suppress_confirm(&self, wave: &str, answer: &Answer) -> Result<(), Failed> {
        let entries = self.suppressions.confirm(wave).await.map_err(failed)?;
        Ok(answer.record(&Changed { entries }).await?)
    }

    pub(super) async fn suppress_import(&self, mut input: Lines, answer: &Answer) -> Result<(), Failed> {
        let (mut import, mut told) = (self.suppressions.import(), 0);
        loop {
            let piece = self.piece(&mut input).await;
            if piece.is_empty() {
                let done = import.end().await.map_err(failed)?;
                return Ok(answer.record(&imported_so_far(done)).await?);
            }
            self.has_room()?;
            let so_far = import.merge(piece).await.map_err(failed)?;
            if so_far.added + so_far.updated >= told + PROGRESS_EVERY {
                told = so_far.added + so_far.updated;
                answer.record(&imported_so_far(so_far)).await?;
            }
        }
    }

    /// Mail is worth more than a long list: an import ends before it takes the room that the queue keeps free.
    fn has_room(&self) -> Result<(), Failed> {
        match self.spool.free_bytes() {
            Ok(free) if free < self.about.disk_min_bytes => Err(Failed::new(format!(
                "the disk of {} has only {} MiB free, and the queue needs them: make room (an entry takes some 300 bytes)",
                self.about.data_dir,
                free >> 20
            ))),
            // Whoever cannot ask finds out by writing.
            _ => Ok(()),
        }
    }

    async fn piece(&self, input: &mut Lines) -> Vec<Entry> {
        let (mut piece, now) = (Vec::with_capacity(PIECE), self.clock.now());
        while piece.len() < PIECE
            && let Some(line) = input.next().await
        {
            piece.push(imported(line, now));
        }
        piece
    }
}

fn imported_so_far(Merged { added, updated }: Merged) -> Imported {
    Imported { added, updated }
}

pub(crate) fn wave_record(wave: crate::suppress::Wave) -> WaveRecord {
    let crate::suppress::Wave { id, provider, entries, first, last, expires } = wave;
    WaveRecord { wave: id, provider, entries, first, last, expires }
}
