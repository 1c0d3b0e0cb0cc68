//! Who has a place, who waits for one, and who makes room. Pure: the time is an argument, and what is decided comes back as values.
//!
//! Rules that always hold:
//! - no more places are taken than there are; who was asked to leave holds none any more, and `LEAVING_MAX` at most are on their way out;
//! - whoever has begun a transaction is not asked to leave, and who was asked to leave begins none;
//! - of those who wait the one worth most comes first: clients we know, as they came; then strangers, whose network and address hold
//!   fewest places first;
//! - a client of lower rank makes room at once. One of the same rank keeps its place for [`EQUAL_STAY`]: a herd of honest clients is
//!   served one after the other, and nobody is cut off to serve another who is worth no more;
//! - strangers make room where their network, and in it their address, holds most places; a crowd among them after [`CROWD_STAY`];
//! - a part of the places is for strangers who are on their way to a log-in: who has said STARTTLS or AUTH is no mere stranger
//!   there. Beyond that part it is;
//! - strangers push out a client we know only where no stranger has a place.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::types::{Timestamp, client_of, network_of};

/// Sessions that were asked to leave and are not gone yet. Their descriptors are among those the relay keeps for itself.
pub(super) const LEAVING_MAX: usize = 32;
/// Connections that wait for a place beside those in the kernel's line. Their descriptors are among those as well.
pub(super) const WAITING_MAX: usize = 128;
/// A client idle outside a transaction keeps its place for so long against one that is worth as much: longer than an honest one
/// needs from its greeting to MAIL or AUTH.
pub(super) const EQUAL_STAY: Duration = Duration::from_secs(5);
/// The same, where the client's network holds a crowd of places and the newcomer's does not.
const CROWD_STAY: Duration = Duration::from_secs(1);
/// A network or address with fewer places is no crowd.
const CROWD_MIN: usize = 4;
/// So many addresses, for each rank, are looked at for somebody who could go: whoever comes must not cost more for all that are here.
const LOOKED_AT: usize = 32;
/// On the way to a log-in a stranger may be so long.
const KNOCK_STAY: Duration = Duration::from_secs(30);
/// For those on the way to a log-in, one place in so many.
const KNOCKING_PART: usize = 4;
/// A client we know that never rests had its turn after so long: between two messages it makes room for one that waits for
/// [`EQUAL_STAY`].
const TURN: Duration = Duration::from_secs(60);

/// How much a connection is worth keeping, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Of a client that has its share already: it waits for its greeting.
    Surplus,
    /// Nobody we know.
    Stranger,
    /// Nobody we know yet: it has said STARTTLS or AUTH.
    Knocking,
    /// May relay: from a trusted network, or logged in.
    Known,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct From {
    network: IpAddr,
    address: IpAddr,
}

#[derive(Debug)]
struct Seat {
    rank: Rank,
    from: From,
    entered: Timestamp,
    /// None while a transaction goes on.
    idle_since: Option<Timestamp>,
    leave: CancellationToken,
}

/// A newcomer that waits; `A` is how it hears of its place.
#[derive(Debug)]
struct Guest<A> {
    rank: Rank,
    from: From,
    since: Timestamp,
    answer: A,
}

/// A place that was given to a newcomer.
#[derive(Debug)]
pub(super) struct Granted<A> {
    pub(super) answer: A,
    pub(super) number: u64,
    pub(super) rank: Rank,
    pub(super) leave: CancellationToken,
}

/// What became of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It stands in the line, or has its place already. If nothing else happens it is looked at again then.
    Joined { number: u64, look_at: Option<Timestamp> },
    /// The line is full of clients who are worth as much: it is to ask again when one has left it.
    Full,
}

/// Strangers' places of one address.
#[derive(Debug, Default)]
struct Holding {
    seats: usize,
    /// Those that can be asked to leave.
    idle: BTreeSet<(Rank, Timestamp, u64)>,
}

#[derive(Debug, Default)]
struct Network {
    seats: usize,
    addresses: BTreeMap<IpAddr, Holding>,
    by_load: ByLoad,
    /// Those that can be asked to leave.
    idle: BTreeSet<(Rank, Timestamp, u64)>,
}

/// Networks, or addresses, with sessions of strangers that can be asked to leave, for each rank: who holds most places in front, of these
/// whose session is idle longest. Who has none of that rank is not there: he cannot hide those who have.
#[derive(Debug, Default)]
struct ByLoad(BTreeSet<(Rank, Reverse<usize>, Timestamp, IpAddr)>);

#[derive(Debug)]
pub(super) struct Seats<A> {
    places: usize,
    next: u64,
    /// Every session by the order of arrival.
    seats: BTreeMap<u64, Seat>,
    /// Sessions that were asked to leave.
    leaving: usize,
    /// Sessions of clients we know, and those in a transaction.
    held: usize,
    /// Those on their way to a log-in.
    knocking: usize,
    strangers: BTreeMap<IpAddr, Network>,
    by_load: ByLoad,
    /// When `serve` looked last, and when it wants to look again.
    looked: Option<(Timestamp, Option<Timestamp>)>,
    /// Clients we know that can be asked to leave, who was idle longest in front.
    known: BTreeSet<(Timestamp, u64)>,
    waiting: BTreeMap<u64, Guest<A>>,
}

/// Whether one could go before another: its rank, the places of its network and address (most first), since when it is idle, its number.
type Found = (Rank, Reverse<(usize, usize)>, Timestamp, u64);

/// Who could go for a newcomer.
struct Search {
    now: Timestamp,
    best: Option<Found>,
    /// When the first of the others could.
    then: Option<Timestamp>,
}

/// The ranks of strangers, who goes first in front.
const STRANGERS: [Rank; 3] = [Rank::Surplus, Rank::Stranger, Rank::Knocking];

/// The session of this rank that is idle longest.
fn longest_idle(idle: &BTreeSet<(Rank, Timestamp, u64)>, rank: Rank) -> Option<(Timestamp, u64)> {
    let mut of_rank = idle.range((rank, Timestamp::EPOCH, 0)..=(rank, Timestamp::NEVER, u64::MAX));
    of_rank.next().map(|&(_, since, number)| (since, number))
}

impl ByLoad {
    fn take_out(&mut self, ip: IpAddr, seats: usize, idle: &BTreeSet<(Rank, Timestamp, u64)>) {
        for rank in STRANGERS {
            longest_idle(idle, rank).map(|(since, _)| self.0.remove(&(rank, Reverse(seats), since, ip)));
        }
    }

    fn put_in(&mut self, ip: IpAddr, seats: usize, idle: &BTreeSet<(Rank, Timestamp, u64)>) {
        self.0.extend(
            STRANGERS
                .into_iter()
                .filter_map(|rank| longest_idle(idle, rank).map(|(since, _)| (rank, Reverse(seats), since, ip))),
        );
    }

    fn of_rank(&self, rank: Rank) -> impl Iterator<Item = &IpAddr> {
        let first = (rank, Reverse(usize::MAX), Timestamp::EPOCH, IpAddr::from([0; 4]));
        self.0.range(first..).take_while(move |(of, ..)| *of == rank).map(|(.., ip)| ip)
    }
}

impl Network {
    /// A session more, or one less, at this address.
    fn change(&mut self, address: IpAddr, change: impl FnOnce(&mut Holding)) {
        let holding = self.addresses.entry(address).or_default();
        self.by_load.take_out(address, holding.seats, &holding.idle);
        change(holding);
        self.by_load.put_in(address, holding.seats, &holding.idle);
        if holding.seats == 0 {
            self.addresses.remove(&address);
        }
    }
}

impl From {
    fn of(client: IpAddr) -> From {
        From { network: network_of(client), address: client_of(client) }
    }
}

impl Seat {
    fn is_leaving(&self) -> bool {
        self.leave.is_cancelled()
    }

    fn is_held(&self) -> bool {
        self.rank == Rank::Known || self.idle_since.is_none()
    }
}

impl Search {
    /// `stay`: how long after `since` it keeps its place.
    fn consider(&mut self, rank: Rank, seats: (usize, usize), since: Timestamp, number: u64, stay: Duration) {
        let until = since + stay;
        // Since then the clock was set back: how long it has been nobody knows.
        if self.now < until && self.now >= since {
            self.then = Some(self.then.map_or(until, |then| then.min(until)));
            return;
        }
        let found = (rank, Reverse(seats), since, number);
        if self.best.is_none_or(|best| found < best) {
            self.best = Some(found);
        }
    }
}

impl<A> Seats<A> {
    pub(super) fn new(places: usize) -> Seats<A> {
        Seats {
            places,
            next: 0,
            seats: BTreeMap::new(),
            leaving: 0,
            held: 0,
            knocking: 0,
            strangers: BTreeMap::new(),
            by_load: ByLoad::default(),
            looked: None,
            known: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Sessions that live.
    pub(super) fn open(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// A newcomer joins the line. What is in the list then leaves it: `serve` gives places, and where the line is too long a stranger
    /// whose network and address have most in it, perhaps this one, is let go: its `A` is dropped.
    pub(super) fn join(&mut self, rank: Rank, client: IpAddr, now: Timestamp, answer: A) -> (Line, Vec<Granted<A>>) {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Guest { rank, from: From::of(client), since: now, answer });
        let (granted, look_at) = self.serve(now);
        if self.waiting.len() > WAITING_MAX {
            let least = self.least_of_the_line();
            self.waiting.remove(&least.unwrap_or(number));
            if least.is_none() {
                return (Line::Full, granted);
            }
        }
        (Line::Joined { number, look_at }, granted)
    }

    /// Does not wait any more.
    pub(super) fn give_up(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// Gives places to those who wait, as far as there are some or somebody can go. Also: when to look again, if nothing else happens.
    pub(super) fn serve(&mut self, now: Timestamp) -> (Vec<Granted<A>>, Option<Timestamp>) {
        let (granted, then) = self.give_places(now);
        self.looked = Some((now, then));
        (granted, then)
    }

    /// The same at the time that was named, unless another who waits has looked since.
    pub(super) fn look_again(&mut self, due: Timestamp, now: Timestamp) -> (Vec<Granted<A>>, Option<Timestamp>) {
        match self.looked {
            Some((at, then)) if (due..=now).contains(&at) => (Vec::new(), then),
            _ => self.serve(now),
        }
    }

    fn give_places(&mut self, now: Timestamp) -> (Vec<Granted<A>>, Option<Timestamp>) {
        let mut granted = Vec::new();
        loop {
            let Some(first) = self.first_of_the_line() else { return (granted, None) };
            if self.seats.len() - self.leaving >= self.places {
                let search = self.who_could_go(first, now);
                match search.best {
                    Some((.., number)) if self.leaving < LEAVING_MAX => self.ask_to_leave(number),
                    _ => return (granted, search.then),
                }
            }
            let Some(guest) = self.waiting.remove(&first) else { return (granted, None) };
            let leave = CancellationToken::new();
            let Guest { rank, from, answer, .. } = guest;
            granted.push(Granted { answer, number: first, rank, leave: leave.clone() });
            self.sit(first, Seat { rank, from, entered: now, idle_since: Some(now), leave });
        }
    }

    /// A transaction begins or ends. False: the session was asked to leave already and begins none.
    pub(super) fn set_idle(&mut self, number: u64, idle_since: Option<Timestamp>) -> bool {
        let stays = self.seats.get(&number).is_some_and(|seat| !seat.is_leaving());
        if stays {
            self.change(number, |seat| seat.idle_since = idle_since);
        }
        stays
    }

    pub(super) fn set_rank(&mut self, number: u64, rank: Rank) {
        self.change(number, |seat| seat.rank = rank);
    }

    /// The session is over.
    pub(super) fn end(&mut self, number: u64) {
        if self.rise(number).is_some_and(|seat| seat.is_leaving()) {
            self.leaving -= 1;
        }
    }

    fn ask_to_leave(&mut self, number: u64) {
        self.leaving += 1;
        self.change(number, |seat| seat.leave.cancel());
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut Seat)) {
        if let Some(mut seat) = self.rise(number) {
            change(&mut seat);
            self.sit(number, seat);
        }
    }

    fn sit(&mut self, number: u64, seat: Seat) {
        self.held += usize::from(seat.is_held());
        let Seat { rank, from, idle_since, .. } = seat;
        match (seat.is_leaving(), rank) {
            (true, _) => {}
            (false, Rank::Known) => drop(idle_since.map(|since| self.known.insert((since, number)))),
            (false, _) => {
                self.knocking += usize::from(rank == Rank::Knocking);
                self.change_network(from, |network| {
                    network.seats += 1;
                    network.idle.extend(idle_since.map(|since| (rank, since, number)));
                    network.change(from.address, |holding| {
                        holding.seats += 1;
                        holding.idle.extend(idle_since.map(|since| (rank, since, number)));
                    });
                });
            }
        }
        self.seats.insert(number, seat);
    }

    fn rise(&mut self, number: u64) -> Option<Seat> {
        let seat = self.seats.remove(&number)?;
        self.held -= usize::from(seat.is_held());
        let Seat { rank, from, idle_since, .. } = seat;
        match (seat.is_leaving(), rank) {
            (true, _) => {}
            (false, Rank::Known) => drop(idle_since.map(|since| self.known.remove(&(since, number)))),
            (false, _) => {
                self.knocking -= usize::from(rank == Rank::Knocking);
                self.change_network(from, |network| {
                    network.seats -= 1;
                    idle_since.map(|since| network.idle.remove(&(rank, since, number)));
                    network.change(from.address, |holding| {
                        holding.seats -= 1;
                        idle_since.map(|since| holding.idle.remove(&(rank, since, number)));
                    });
                });
            }
        }
        Some(seat)
    }

    fn change_network(&mut self, from: From, change: impl FnOnce(&mut Network)) {
        let network = self.strangers.entry(from.network).or_default();
        self.by_load.take_out(from.network, network.seats, &network.idle);
        change(network);
        self.by_load.put_in(from.network, network.seats, &network.idle);
        if network.seats == 0 {
            self.strangers.remove(&from.network);
        }
    }

    /// Strangers' places of that network and that address.
    fn seats_of(&self, from: From) -> (usize, usize) {
        let Some(network) = self.strangers.get(&from.network) else { return (0, 0) };
        (network.seats, network.addresses.get(&from.address).map_or(0, |holding| holding.seats))
    }

    fn first_of_the_line(&self) -> Option<u64> {
        let worth = |(number, guest): (&u64, &Guest<A>)| {
            let seats = if guest.rank == Rank::Known { (0, 0) } else { self.seats_of(guest.from) };
            (Reverse(guest.rank), seats, *number)
        };
        self.waiting.iter().map(worth).min().map(|(.., number)| number)
    }

    /// Of the strangers in the line the one whose network and address have most, in it and in places; the latest of these.
    fn least_of_the_line(&self) -> Option<u64> {
        let strangers = || self.waiting.iter().filter(|(_, guest)| guest.rank != Rank::Known);
        let (mut networks, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for (_, guest) in strangers() {
            *networks.entry(guest.from.network).or_insert(0) += 1;
            *addresses.entry(guest.from.address).or_insert(0) += 1;
        }
        let load = |(number, guest): (&u64, &Guest<A>)| {
            let (network, address) = self.seats_of(guest.from);
            (network + networks[&guest.from.network], address + addresses[&guest.from.address], *number)
        };
        strangers().map(load).max().map(|(.., number)| number)
    }

    fn who_could_go(&self, newcomer: u64, now: Timestamp) -> Search {
        let mut search = Search { now, best: None, then: None };
        let Some(guest) = self.waiting.get(&newcomer) else { return search };
        for rank in STRANGERS {
            for (network, holding) in self.most_laden(rank).take(LOOKED_AT) {
                let Some((since, number)) = longest_idle(&holding.idle, rank) else { continue };
                let seats = (network.seats, holding.seats);
                let rank = if rank == Rank::Knocking && !self.keeps_knocking() { Rank::Stranger } else { rank };
                search.consider(rank, seats, since, number, self.stay(rank, guest, seats));
            }
        }
        let comes_last = guest.rank != Rank::Known && !self.strangers.is_empty();
        if let Some(&(since, number)) = self.known.first().filter(|_| !comes_last) {
            let entered = self.seats.get(&number).map_or(since, |seat| seat.entered);
            let had_its_turn = (entered + TURN).max(guest.since + EQUAL_STAY).since(since);
            search.consider(Rank::Known, (0, 0), since, number, had_its_turn.min(EQUAL_STAY));
        }
        search
    }

    /// Networks and addresses with idle sessions of this rank, who holds most places in front.
    fn most_laden(&self, rank: Rank) -> impl Iterator<Item = (&Network, &Holding)> {
        let networks = self.by_load.of_rank(rank).filter_map(|ip| self.strangers.get(ip));
        networks.flat_map(move |network| {
            network.by_load.of_rank(rank).filter_map(move |ip| Some((network, network.addresses.get(ip)?)))
        })
    }

    /// Are there places left of those for strangers on their way to a log-in?
    fn keeps_knocking(&self) -> bool {
        self.knocking <= (self.places / KNOCKING_PART).max(1)
    }

    /// How long an idle stranger of this rank keeps its place against the newcomer.
    fn stay(&self, rank: Rank, newcomer: &Guest<A>, (network, address): (usize, usize)) -> Duration {
        let is_known = newcomer.rank == Rank::Known;
        let (own_network, own_address) = self.seats_of(newcomer.from);
        let is_crowd = |seats: usize, own: usize| seats >= CROWD_MIN && seats > 2 * (own + 1);
        match rank {
            Rank::Surplus => Duration::ZERO,
            Rank::Knocking if is_known => EQUAL_STAY,
            Rank::Knocking => KNOCK_STAY,
            _ if is_known => Duration::ZERO,
            _ if is_crowd(network, own_network) || is_crowd(address, own_address) => CROWD_STAY,
            _ => EQUAL_STAY,
        }
    }
}

#[cfg(test)]
mod tests;
