//! How many connections there may be, in all and of one client.
//!
//! Rules that always hold:
//! - places in use are the sessions that live: a place is given back when its guard is dropped, however the session ended;
//! - at the limit the connection idle longest outside a transaction is asked to leave, and the newcomer waits for its place; where
//!   none is idle the newcomer waits until one is. Nobody is turned away;
//! - each newcomer that waits costs at most one connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::types::Timestamp;

/// Gives out places. Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places: Arc<Semaphore>,
    per_client: usize,
    state: Mutex<State>,
    panics: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Every session, by the order of arrival.
    seats: BTreeMap<u64, Seat>,
    /// Newcomers that wait for a place, and how many of them no session was asked to leave for yet.
    waiting: usize,
    wanted: usize,
    clients: BTreeMap<IpAddr, Arc<Semaphore>>,
}

#[derive(Debug)]
struct Seat {
    /// None while a transaction goes on.
    idle_since: Option<Timestamp>,
    leave: CancellationToken,
}

/// One connection's place. Dropped: free again.
#[derive(Debug)]
pub struct Place {
    gate: Gate,
    number: u64,
    leave: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// One place of those an untrusted client may have.
#[derive(Debug)]
pub struct ClientPlace {
    gate: Gate,
    client: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

/// Counts a newcomer as waiting until it has its place or gives up.
struct Waiting<'a>(&'a Gate);

impl Gate {
    /// `connections` in all, `per_client` for each untrusted client; both at least 1.
    pub fn new(connections: usize, per_client: usize) -> Gate {
        let places = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        let per_client = per_client.clamp(1, Semaphore::MAX_PERMITS);
        Gate(Arc::new(Inner { places, per_client, state: Mutex::default(), panics: AtomicU64::new(0) }))
    }

    /// A place for a new connection, at once or when one is free.
    pub async fn enter(&self, now: Timestamp) -> Place {
        let permit = match self.0.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::new(self);
                self.0.places.clone().acquire_owned().await.expect("the semaphore of places is never closed")
            }
        };
        let leave = CancellationToken::new();
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.seats.insert(number, Seat { idle_since: Some(now), leave: leave.clone() });
        drop(state);
        Place { gate: self.clone(), number, leave, _permit: permit }
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

    /// Sessions that ended in a panic since the start.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Asks one idle session to leave for each newcomer, the one idle longest first.
    fn make_room(&mut self) {
        while self.wanted > 0 {
            let idle = self.seats.iter().filter(|(_, seat)| !seat.leave.is_cancelled());
            let longest = idle.filter_map(|(number, seat)| Some((seat.idle_since?, *number))).min();
            let Some(seat) = longest.and_then(|(_, number)| self.seats.get(&number)) else { return };
            seat.leave.cancel();
            self.wanted -= 1;
        }
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
    /// A transaction begins: this connection is not asked to leave.
    pub fn busy(&self) {
        if let Some(seat) = self.gate.state().seats.get_mut(&self.number) {
            seat.idle_since = None;
        }
    }

    /// No transaction goes on since `now`.
    pub fn idle(&self, now: Timestamp) {
        let mut state = self.gate.state();
        if let Some(seat) = state.seats.get_mut(&self.number) {
            seat.idle_since = Some(now);
        }
        state.make_room();
    }

    /// Resolves when this connection is asked to make room.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The permit goes after this, so that places in use are never fewer than the sessions that hold them.
        let mut state = self.gate.state();
        state.seats.remove(&self.number);
        drop(state);
        if std::thread::panicking() {
            self.gate.0.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!("a session ended in a panic; the others go on");
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

/// The address that counts as one client.
pub(super) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn is_asked(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_idle_longest_makes_room() {
        let gate = Gate::new(3, 1);
        let (first, second, third) = (gate.enter(at(1)).await, gate.enter(at(2)).await, gate.enter(at(3)).await);
        first.busy();
        assert!(timeout(SOON, gate.enter(at(4))).await.is_err());
        assert_eq!([is_asked(&first), is_asked(&second), is_asked(&third)], [false, true, false]);
        drop(second);
        assert!(timeout(SOON, gate.enter(at(5))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_waits_for_the_first_that_becomes_idle() {
        let gate = Gate::new(1, 1);
        let place = gate.enter(at(1)).await;
        place.busy();
        let newcomer = async {
            let newcomer = gate.enter(at(2)).await;
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
        assert_eq!((open, state.waiting, state.wanted), (1, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_newcomer_costs_one_connection() {
        let gate = Gate::new(3, 1);
        let places = [gate.enter(at(1)).await, gate.enter(at(2)).await, gate.enter(at(3)).await];
        let waits = timeout(SOON, gate.enter(at(4)));
        let others = async {
            tokio::task::yield_now().await;
            places[1].idle(at(5));
            places[2].busy();
            places[2].idle(at(6));
        };
        let (newcomer, ()) = tokio::join!(waits, others);
        assert!(newcomer.is_err());
        assert_eq!(places.iter().filter(|p| is_asked(p)).count(), 1);
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
