//! How many connections there may be, in all and of one client, and who makes room when there are too many.
//!
//! Rules that always hold:
//! - places in use are the sessions that live: a place is given back when its guard is dropped, however the session ended, or when its
//!   session is asked to leave: then a newcomer has it at once, so that a flood of them is taken at the speed of accepting.
//!   `LEAVING_MAX` sessions at most are on their way out;
//! - at the limit the connection idle longest outside a transaction is asked to leave; where none is idle the newcomer waits until one
//!   is. Nobody is turned away;
//! - those of a client that has its share already go first, then other strangers, then clients we know: strangers never push out a
//!   client we know while one of theirs can go;
//! - who was asked to leave begins no transaction any more, so a session may be cut off wherever it stands when it is asked;
//! - each newcomer that waits costs at most one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::types::{Timestamp, client_of};

use super::pressure::{Level, Patience};

/// Sessions that were asked to leave and are not gone yet. Their descriptors are among those the relay keeps for itself.
const LEAVING_MAX: usize = 32;

/// Gives out places. Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: Arc<Semaphore>,
    connections: usize,
    per_client: usize,
    state: Mutex<State>,
    pressure: watch::Sender<Pressure>,
    panics: AtomicU64,
}

/// How much a connection is worth keeping, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Of a client that has its share already: it waits for its greeting.
    Surplus,
    /// Nobody we know.
    Stranger,
    /// May relay: from a trusted network, or logged in.
    Known,
}

/// The levels strangers and clients we know are held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pressure {
    strangers: Level,
    known: Level,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Every session, by the order of arrival.
    seats: BTreeMap<u64, Seat>,
    /// Those that can be asked to leave, who goes first in front.
    idle: BTreeSet<(Rank, Timestamp, u64)>,
    /// Sessions of clients we know, and those in a transaction.
    held: usize,
    /// Sessions that were asked to leave.
    leaving: usize,
    /// Newcomers that wait for a place, and how many of them no session was asked to leave for yet.
    waiting: usize,
    wanted: usize,
    clients: BTreeMap<IpAddr, Arc<Semaphore>>,
}

#[derive(Debug)]
struct Seat {
    rank: Rank,
    /// None while a transaction goes on.
    idle_since: Option<Timestamp>,
    leave: CancellationToken,
    /// None once it was asked to leave.
    permit: Option<OwnedSemaphorePermit>,
}

/// One connection's place. Dropped: free again.
#[derive(Debug)]
pub struct Place {
    gate: Gate,
    number: u64,
    known: AtomicBool,
    leave: CancellationToken,
}

/// One place of those an untrusted client may have.
#[derive(Debug)]
pub struct ClientPlace {
    gate: Gate,
    client: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

/// What one session may take just now.
#[derive(Debug)]
pub struct Gauge<'a> {
    place: &'a Place,
    pressure: watch::Receiver<Pressure>,
}

/// Counts a newcomer as waiting until it has its place or gives up.
struct Waiting<'a>(&'a Gate);

impl Gate {
    /// `connections` in all, `per_client` for each untrusted client; both at least 1.
    pub fn new(connections: usize, per_client: usize) -> Gate {
        let connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        Gate(Arc::new(Inner {
            places: Arc::new(Semaphore::new(connections)),
            connections,
            per_client: per_client.clamp(1, Semaphore::MAX_PERMITS),
            state: Mutex::default(),
            pressure: watch::Sender::default(),
            panics: AtomicU64::new(0),
        }))
    }

    /// A place for a new connection, at once or when one is free.
    pub async fn enter(&self, rank: Rank, now: Timestamp) -> Place {
        let permit = match self.0.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait().await,
        };
        let leave = CancellationToken::new();
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.sit(number, Seat { rank, idle_since: Some(now), leave: leave.clone(), permit: Some(permit) });
        self.weigh(&state);
        drop(state);
        let known = AtomicBool::new(rank == Rank::Known);
        Place { gate: self.clone(), number, known, leave }
    }

    async fn wait(&self) -> OwnedSemaphorePermit {
        let mut permit = pin!(self.0.places.clone().acquire_owned());
        // In the line first: a place that is given back from then on is this newcomer's before it is a later one's.
        let first = poll_fn(|context| Poll::Ready(permit.as_mut().poll(context))).await;
        let permit = match first {
            Poll::Ready(permit) => permit,
            Poll::Pending => {
                let _waiting = Waiting::new(self);
                permit.await
            }
        };
        permit.expect("the semaphore of places is never closed")
    }

    /// One of the places of this client, when one is free. An IPv6 client is its /64: one customer has all of it.
    pub async fn client(&self, address: IpAddr) -> ClientPlace {
        let client = client_of(address);
        let places = {
            let mut state = self.state();
            let fresh = || Arc::new(Semaphore::new(self.0.per_client));
            state.clients.entry(client).or_insert_with(fresh).clone()
        };
        let mut place = ClientPlace { gate: self.clone(), client, permit: None };
        place.permit = places.acquire_owned().await.ok();
        place
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.state().seats.len()
    }

    /// Connections there may be.
    pub fn connections(&self) -> usize {
        self.0.connections
    }

    /// How short places are, as strangers feel it.
    pub fn level(&self) -> Level {
        self.0.pressure.borrow().strangers
    }

    /// Sessions that ended in a panic since the start.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the sessions where the level has changed.
    fn weigh(&self, state: &State) {
        self.0.pressure.send_if_modified(|pressure| {
            let places = self.0.connections;
            let strangers = Level::of(state.seats.len(), places, pressure.strangers);
            let weighed = Pressure { strangers, known: Level::of(state.held, places, pressure.known) };
            let changes = *pressure != weighed;
            *pressure = weighed;
            changes
        });
    }
}

impl State {
    fn sit(&mut self, number: u64, seat: Seat) {
        self.held += usize::from(seat.is_held());
        if let Some(since) = seat.idle_since.filter(|_| !seat.leave.is_cancelled()) {
            self.idle.insert((seat.rank, since, number));
        }
        self.seats.insert(number, seat);
    }

    fn rise(&mut self, number: u64) -> Option<Seat> {
        let seat = self.seats.remove(&number)?;
        self.held -= usize::from(seat.is_held());
        if let Some(since) = seat.idle_since {
            self.idle.remove(&(seat.rank, since, number));
        }
        Some(seat)
    }

    fn change(&mut self, number: u64, change: impl FnOnce(&mut Seat)) {
        if let Some(mut seat) = self.rise(number) {
            change(&mut seat);
            self.sit(number, seat);
        }
    }

    /// Asks one idle session to leave for each newcomer: of the least rank, and of these the one idle longest.
    fn make_room(&mut self) {
        while self.wanted > 0 && self.leaving < LEAVING_MAX {
            let Some((.., number)) = self.idle.pop_first() else { return };
            if let Some(seat) = self.seats.get_mut(&number) {
                seat.leave.cancel();
                seat.permit = None;
                self.leaving += 1;
                self.wanted -= 1;
            }
        }
    }
}

impl Seat {
    fn is_held(&self) -> bool {
        self.rank == Rank::Known || self.idle_since.is_none()
    }
}

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate) -> Waiting<'a> {
        let mut state = gate.state();
        state.waiting += 1;
        state.wanted += 1;
        state.make_room();
        drop(state);
        Waiting(gate)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        state.wanted = state.wanted.min(state.waiting);
    }
}

impl Place {
    /// A transaction begins: this connection is not asked to leave. False: it was asked already and begins none.
    #[must_use]
    pub fn busy(&self) -> bool {
        let mut state = self.gate.state();
        if self.leave.is_cancelled() {
            return false;
        }
        state.change(self.number, |seat| seat.idle_since = None);
        self.gate.weigh(&state);
        true
    }

    /// No transaction goes on since `now`.
    pub fn idle(&self, now: Timestamp) {
        let mut state = self.gate.state();
        state.change(self.number, |seat| seat.idle_since = Some(now));
        state.make_room();
        self.gate.weigh(&state);
    }

    /// What is known of the client has changed: it has logged in, or waits beyond its share.
    pub fn set_rank(&self, rank: Rank) {
        self.known.store(rank == Rank::Known, Ordering::Relaxed);
        let mut state = self.gate.state();
        state.change(self.number, |seat| seat.rank = rank);
        self.gate.weigh(&state);
    }

    /// Resolves when this connection is asked to make room. It is in no transaction then.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    pub fn gauge(&self) -> Gauge<'_> {
        Gauge { place: self, pressure: self.gate.0.pressure.subscribe() }
    }
}

impl Gauge<'_> {
    /// What this session may take, for its rank and at the level of this moment.
    pub fn patience(&self) -> &'static Patience {
        let pressure = *self.pressure.borrow();
        let known = self.place.known.load(Ordering::Relaxed);
        if known { pressure.known.patience() } else { pressure.strangers.patience() }
    }

    /// Resolves when `patience` may have changed. Cancelled: nothing is missed.
    pub async fn changed(&mut self) {
        if self.pressure.changed().await.is_err() {
            // The gate outlives its places, so there is always somebody who may tell of a change.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        let seat = state.rise(self.number);
        if self.leave.is_cancelled() {
            state.leaving -= 1;
            state.make_room();
        }
        drop(seat);
        self.gate.weigh(&state);
        drop(state);
        if std::thread::panicking() {
            let count = self.gate.0.panics.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::error!("a session ended in a panic, {count} since the start; the others go on");
        }
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.permit = None;
        let mut state = self.gate.state();
        // Waiters hold a clone, which they got under this lock: one left means nobody is there or waits.
        if state.clients.get(&self.client).is_some_and(|places| Arc::strong_count(places) == 1) {
            state.clients.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);
    const KNOWN: Rank = Rank::Known;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn is_asked(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_idle_longest_makes_room() {
        let gate = Gate::new(3, 1);
        let (first, second, third) =
            (gate.enter(KNOWN, at(1)).await, gate.enter(KNOWN, at(2)).await, gate.enter(KNOWN, at(3)).await);
        assert!(first.busy());
        let newcomer = timeout(SOON, gate.enter(KNOWN, at(4))).await.unwrap();
        assert_eq!([is_asked(&first), is_asked(&second), is_asked(&third)], [false, true, false]);
        // The place has passed on already: when the one before is gone there is none for a third.
        assert!(newcomer.busy() && third.busy());
        drop(second);
        assert!(timeout(SOON, gate.enter(KNOWN, at(5))).await.is_err());
        drop(first);
        assert!(timeout(SOON, gate.enter(KNOWN, at(6))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_waits_for_the_first_that_becomes_idle() {
        let gate = Gate::new(1, 1);
        let place = gate.enter(KNOWN, at(1)).await;
        assert!(place.busy());
        let newcomer = async {
            let newcomer = gate.enter(KNOWN, at(2)).await;
            (newcomer, gate.open())
        };
        let session = async {
            tokio::task::yield_now().await;
            assert!(!is_asked(&place));
            place.idle(at(9));
            place.asked_to_leave().await;
            drop(place);
        };
        let ((_newcomer, open), ()) = tokio::join!(newcomer, session);
        let state = gate.state();
        assert!(open <= 2, "{open}");
        assert_eq!((state.seats.len(), state.leaving, state.waiting, state.wanted), (1, 0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_newcomer_costs_one_connection() {
        let gate = Gate::new(3, 1);
        let places = [gate.enter(KNOWN, at(1)).await, gate.enter(KNOWN, at(2)).await, gate.enter(KNOWN, at(3)).await];
        let waits = timeout(SOON, gate.enter(KNOWN, at(4)));
        let others = async {
            tokio::task::yield_now().await;
            places[1].idle(at(5));
            assert!(places[2].busy());
            places[2].idle(at(6));
        };
        let (newcomer, ()) = tokio::join!(waits, others);
        assert!(newcomer.is_ok());
        assert_eq!(places.iter().filter(|p| is_asked(p)).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn surplus_goes_before_strangers_and_strangers_before_clients_we_know() {
        let gate = Gate::new(4, 1);
        let ranks = [Rank::Known, Rank::Stranger, Rank::Stranger, Rank::Surplus];
        let mut places = Vec::new();
        for (rank, now) in ranks.into_iter().zip(1..) {
            places.push(gate.enter(rank, at(now)).await);
        }
        // The last one logs in and is known from then on; the first stranger has more connections than it should.
        places[2].set_rank(Rank::Known);
        places[1].set_rank(Rank::Surplus);
        let mut newcomers = Vec::new();
        for leaves in [1, 3, 0, 2] {
            let newcomer = timeout(SOON, gate.enter(Rank::Stranger, at(9))).await.unwrap();
            assert!(newcomer.busy() && is_asked(&places[leaves]), "{leaves}");
            newcomers.push(newcomer);
        }
        assert!(timeout(SOON, gate.enter(Rank::Known, at(9))).await.is_err(), "whoever is in a transaction stays");
        assert_eq!(gate.state().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_on_their_way_out() {
        let gate = Gate::new(LEAVING_MAX + 5, 1);
        let mut places = Vec::new();
        for now in 0..LEAVING_MAX + 5 {
            places.push(gate.enter(Rank::Stranger, at(i64::try_from(now).unwrap())).await);
        }
        let mut newcomers = Vec::new();
        while let Ok(newcomer) = timeout(SOON, gate.enter(KNOWN, at(99))).await {
            assert!(newcomer.busy());
            newcomers.push(newcomer);
        }
        assert_eq!((newcomers.len(), gate.open()), (LEAVING_MAX, 2 * LEAVING_MAX + 5));
        let mut left = places.split_off(LEAVING_MAX);
        let waits = async {
            tokio::task::yield_now().await;
            drop(places.pop());
        };
        let (newcomer, ()) = tokio::join!(timeout(SOON, gate.enter(KNOWN, at(100))), waits);
        assert!(newcomer.is_ok(), "one is gone, so one more is asked");
        assert!(is_asked(&left.remove(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_to_leave_begins_nothing_any_more() {
        let gate = Gate::new(1, 1);
        let place = gate.enter(KNOWN, at(1)).await;
        let newcomer = timeout(SOON, gate.enter(KNOWN, at(2))).await.unwrap();
        assert!(newcomer.busy() && is_asked(&place) && !place.busy());
        // What it does until it is gone changes nothing: nobody else is asked in its stead, and nobody twice.
        place.idle(at(3));
        assert!(gate.state().idle.is_empty());
        drop((place, newcomer));
        assert!(timeout(SOON, gate.enter(KNOWN, at(4))).await.is_ok_and(|place| place.busy()));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_press_only_strangers_and_sessions_hear_of_it() {
        let gate = Gate::new(20, 20);
        let (known, stranger) = (gate.enter(KNOWN, at(1)).await, gate.enter(Rank::Stranger, at(1)).await);
        let (mut calm, mut pressed) = (known.gauge(), stranger.gauge());
        assert!(timeout(SOON, pressed.changed()).await.is_err());
        let mut crowd = Vec::new();
        for now in 2..20 {
            crowd.push(gate.enter(Rank::Stranger, at(now)).await);
        }
        assert!(timeout(SOON, pressed.changed()).await.is_ok());
        assert!(timeout(SOON, calm.changed()).await.is_ok(), "told, and nothing is different");
        assert_eq!(pressed.patience(), Level::Full.patience());
        assert_eq!(calm.patience(), Level::Calm.patience());
        // Who logs in is patient with, and so is who sends a message: until they, too, are many.
        crowd[0].set_rank(KNOWN);
        assert_eq!(crowd[0].gauge().patience(), Level::Calm.patience());
        assert!(crowd[1..].iter().all(Place::busy));
        assert_eq!(calm.patience(), Level::Full.patience());
        drop(crowd);
        assert_eq!((calm.patience(), pressed.patience()), (Level::Calm.patience(), Level::Calm.patience()));
        drop((known, stranger));
        let state = gate.state();
        assert_eq!((state.held, state.idle.len(), state.seats.len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_so_many_places_and_leaves_nothing_behind() {
        let gate = Gate::new(9, 2);
        let client = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = gate.client(client("2001:db8::1")).await;
        let two = gate.client(client("2001:db8::2")).await;
        assert!(timeout(SOON, gate.client(client("2001:db8::3"))).await.is_err());
        assert!(timeout(SOON, gate.client(client("2001:db8:0:1::1"))).await.is_ok());
        drop(one);
        let three = timeout(SOON, gate.client(client("2001:db8::3"))).await;
        assert!(three.is_ok());
        drop((two, three));
        assert!(gate.state().clients.is_empty());
    }

    #[test]
    fn a_mapped_client_is_the_ipv4_client() {
        assert_eq!(client_of("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
