//! Mail that was put off only because no host could be found or reached, for the moment when one answers again.
//!
//! After a long outage the steps of the schedule are hours. The first connection that comes to be says that it is over, and
//! what was put off for it is due again:
//! - spread out: each second a share, the oldest of a domain first, so that a host that has just come back is not run over, and all
//!   of it within [`SPREAD_SECS`] where that is more;
//! - only while the host goes on answering: if it is lost again the rest stays where the schedule has put it;
//! - in memory alone: what the spool has planned stays planned, and a delivery is planned anew before it is tried. After a restart
//!   the last refusal tells which mail it is. What a full memory has left to the spool comes by its schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::core::{Core, Timer};
use super::destination::{DomainId, TargetId};
use crate::queue::Place;
use crate::types::{DeliveryId, Timestamp};

/// The rules of such refusals.
pub(super) const UNREACHABLE: &str = "unreachable";
pub(super) const NO_ROUTE: &str = "no-route";
pub(super) const LOGIN_REFUSED: &str = "login-refused";

/// All of it is due again within this many seconds, however much it is.
const SPREAD_SECS: usize = 600;
/// So many are due each second at least.
const SHARE_MIN: usize = 10;
const SHARE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Unreached {
    mail: BTreeMap<DomainId, Mail>,
    /// The domains of it, by where their mail goes now.
    domains: BTreeSet<(TargetId, DomainId)>,
    targets: BTreeMap<TargetId, Waiting>,
}

#[derive(Debug, Default)]
struct Mail {
    target: Option<TargetId>,
    ids: BTreeSet<DeliveryId>,
}

#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    /// So many are due again each second; none: the host does not answer.
    share: Option<usize>,
}

impl Unreached {
    pub(super) fn note(&mut self, domain: DomainId, target: Option<TargetId>, id: DeliveryId) {
        self.routed(domain, target);
        let mail = self.mail.entry(domain).or_insert_with(|| Mail { target, ids: BTreeSet::new() });
        if mail.ids.insert(id)
            && let Some(target) = target
        {
            self.domains.insert((target, domain));
            self.targets.entry(target).or_default().count += 1;
        }
    }

    /// It does not wait for that any more.
    pub(super) fn leave(&mut self, domain: DomainId, id: DeliveryId) {
        let Some(mail) = self.mail.get_mut(&domain).filter(|mail| mail.ids.contains(&id)) else { return };
        mail.ids.remove(&id);
        let (target, is_empty) = (mail.target, mail.ids.is_empty());
        if is_empty {
            self.mail.remove(&domain);
        }
        if let Some(target) = target {
            self.take_off(target, 1);
            if is_empty {
                self.domains.remove(&(target, domain));
            }
        }
    }

    /// The mail of the domain goes there from now on.
    pub(super) fn routed(&mut self, domain: DomainId, target: Option<TargetId>) {
        let Some(mail) = self.mail.get_mut(&domain).filter(|mail| mail.target != target) else { return };
        let (before, count) = (std::mem::replace(&mut mail.target, target), mail.ids.len());
        if let Some(before) = before {
            self.domains.remove(&(before, domain));
            self.take_off(before, count);
        }
        if let Some(target) = target {
            self.domains.insert((target, domain));
            self.targets.entry(target).or_default().count += count;
        }
    }

    fn take_off(&mut self, target: TargetId, count: usize) {
        if let Some(waiting) = self.targets.get_mut(&target) {
            waiting.count -= count;
            if waiting.count == 0 {
                self.targets.remove(&target);
            }
        }
    }

    /// The host is lost again.
    fn lose(&mut self, target: TargetId) {
        if let Some(waiting) = self.targets.get_mut(&target) {
            waiting.share = None;
        }
    }

    /// True: its mail begins to be due again now.
    fn answers(&mut self, target: TargetId) -> bool {
        match self.targets.get_mut(&target) {
            Some(waiting) if waiting.share.is_none() => {
                waiting.share = Some(SHARE_MIN.max(waiting.count.div_ceil(SPREAD_SECS)));
                true
            }
            _ => false,
        }
    }

    /// The share of this second.
    fn take_share(&mut self, target: TargetId) -> Vec<DeliveryId> {
        let Some(share) = self.targets.get(&target).and_then(|waiting| waiting.share) else { return Vec::new() };
        let mut taken = Vec::with_capacity(share);
        let domains = self.domains.range((target, DomainId::MIN)..=(target, DomainId::MAX));
        let of_domain = |(_, domain): &(TargetId, DomainId)| {
            let ids = self.mail.get(domain).into_iter().flat_map(|mail| mail.ids.iter());
            ids.map(|id| (*domain, *id)).take(share).collect::<Vec<_>>()
        };
        taken.extend(domains.flat_map(of_domain).take(share));
        for (domain, id) in &taken {
            self.leave(*domain, *id);
        }
        taken.into_iter().map(|(_, id)| id).collect()
    }
}

impl Core {
    /// The delivery was put off, and for nothing else.
    pub(super) fn note_unreached(&mut self, id: DeliveryId) {
        let Some(entry) = self.queue.get(id).filter(|entry| matches!(entry.place, Place::Later(_))) else { return };
        let target = self.places.domains.get(entry.domain).and_then(|domain| domain.target);
        self.unreached.note(entry.domain, target, id);
    }

    /// A connection to a host of the target came to be.
    pub(super) fn is_reached(&mut self, target: TargetId, now: Timestamp) {
        if self.unreached.answers(target) {
            self.wake_unreached(target, now);
        }
    }

    /// No host of the target could be reached.
    pub(super) fn is_lost(&mut self, target: TargetId) {
        self.unreached.lose(target);
    }

    /// This second's share is due within it, one after the other.
    pub(super) fn wake_unreached(&mut self, target: TargetId, now: Timestamp) {
        let share = self.unreached.take_share(target);
        let step = SHARE_EVERY / u32::try_from(share.len().max(1)).unwrap_or(u32::MAX);
        for (n, id) in (0..).zip(share) {
            let at = now + step * n;
            if self.queue.get(id).is_some_and(|entry| matches!(entry.place, Place::Later(planned) if planned > at)) {
                self.queue.put(id, Place::Later(at));
            }
        }
        if self.unreached.targets.get(&target).is_some_and(|waiting| waiting.share.is_some()) {
            self.set_timer(now + SHARE_EVERY, Timer::Unreached(target));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::core_tests::{CALM, World};
    use super::super::lane_tests::secs;
    use super::*;
    use crate::types::{QueueId, Stage};

    const HOUR: u64 = 3600;

    fn all_hosts() -> impl Iterator<Item = Arc<str>> {
        (1..=3).map(|n| format!("mx{n}.own.test").into())
    }

    /// A domain whose hosts are away for 20 hours, with so many messages from their beginning.
    fn after_an_outage(seed: u64, messages: usize) -> (World, Vec<QueueId>) {
        let mut world = World::new(seed, CALM);
        world.checks = messages < 100;
        world.dead_hosts.extend(all_hosts());
        let ids = (0..messages).map(|n| world.submit("s@sender.test", &[&format!("u{n}@own.test")])).collect();
        world.run_for(secs(20 * HOUR));
        (world, ids)
    }

    #[test]
    fn when_a_host_answers_again_what_was_put_off_for_it_goes_soon() {
        let (mut world, ids) = after_an_outage(61, 4);
        let latest = |world: &World| ids.iter().map(|id| world.only_delivery(*id).next_attempt.unwrap()).max().unwrap();
        assert!(latest(&world) > world.now + secs(HOUR), "the schedule is at its long steps");
        world.dead_hosts.clear();
        // The hosts are asked within half an hour; then all goes within ten minutes.
        world.submit("s@sender.test", &["new@own.test"]);
        world.run_for(secs(2600));
        assert!(world.spool.is_empty(), "{} of {} still wait", world.spool.len(), ids.len());
        world.assert_all_ended_once(61);
    }

    #[test]
    fn when_the_name_servers_answer_again_the_same_holds() {
        let mut world = World::new(62, CALM);
        world.mood.no_route = 1.0;
        for n in 0..20 {
            world.submit("s@sender.test", &[&format!("u{n}@own.test")]);
        }
        world.run_for(secs(20 * HOUR));
        world.mood = CALM;
        world.submit("s@sender.test", &["new@own.test"]);
        world.run_for(secs(600));
        assert!(world.spool.is_empty(), "{} still wait", world.spool.len());
        world.assert_all_ended_once(62);
    }

    #[test]
    fn it_is_due_spread_out_oldest_first_and_only_while_the_host_answers() {
        let mut world = World::new(63, CALM);
        world.script = Some((Stage::Rcpt, "450 4.3.0 later"));
        let ids: Vec<QueueId> = (0..300).map(|n| world.submit("s@sender.test", &[&format!("u{n}@own.test")])).collect();
        let late = |world: &World| {
            let is_late = |place| matches!(place, Place::Later(at) if at > world.now + secs(1200));
            let entry = |id: &QueueId| world.core.queue.get(DeliveryId { message: *id, part: 0 }).cloned();
            ids.iter().filter_map(entry).map(|entry| is_late(entry.place)).collect::<Vec<bool>>()
        };
        let count = |late: Vec<bool>| late.into_iter().filter(|late| *late).count();
        while count(late(&world)) < 300 {
            world.run_for(secs(60));
        }
        // As if it had been for want of a host.
        ids.iter().for_each(|id| world.core.note_unreached(DeliveryId { message: *id, part: 0 }));
        world.script = None;
        world.submit("s@sender.test", &["new@own.test"]);
        while count(late(&world)) == 300 {
            world.run_for(secs(1));
        }
        for second in 0..10 {
            let late = late(&world);
            assert!(late.is_sorted(), "oldest first: {late:?}");
            let due = 300 - count(late);
            assert!((SHARE_MIN * second..=SHARE_MIN * (second + 2)).contains(&due), "{due} after {second} s");
            world.run_for(secs(1));
        }
        // Lost again: the rest stays put off.
        let target = world.core.target_of(DeliveryId { message: ids[299], part: 0 }).unwrap();
        world.core.is_lost(target);
        let rest = count(late(&world));
        world.run_for(secs(2));
        assert_eq!(count(late(&world)), rest);
    }

    #[test]
    fn the_books_are_right_whatever_comes_and_goes() {
        let id = |n: i64| DeliveryId { message: QueueId::from_key(n).unwrap(), part: 0 };
        let mut unreached = Unreached::default();
        for n in 0..1000 {
            unreached.note(u32::try_from(n % 3).unwrap(), Some(7), id(n));
        }
        unreached.note(5, None, id(5000));
        assert_eq!(unreached.targets[&7].count, 1000);
        unreached.leave(0, id(0));
        unreached.leave(0, id(0));
        unreached.routed(1, Some(8));
        unreached.routed(5, Some(8));
        assert_eq!((unreached.targets[&7].count, unreached.targets[&8].count), (666, 334));
        assert!(unreached.answers(7) && !unreached.answers(7) && !unreached.answers(9));
        let mut taken = BTreeSet::new();
        while let share = unreached.take_share(7)
            && !share.is_empty()
        {
            assert!(share.len() <= SHARE_MIN);
            taken.extend(share);
        }
        assert_eq!((taken.len(), unreached.targets.contains_key(&7)), (666, false));
        unreached.routed(1, None);
        unreached.routed(5, None);
        assert!(unreached.targets.is_empty() && unreached.domains.is_empty());
        (0..1000).for_each(|n| unreached.leave(1, id(n)));
        unreached.leave(5, id(5000));
        assert!(unreached.mail.is_empty());
    }
}
