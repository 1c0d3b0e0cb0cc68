//! How many connections there may be, in all and of one client, and who makes room when there are too many.
//!
//! Rules that always hold:
//! - places in use are the sessions that live: a place is given back when its guard is dropped, however the session ended, or when its
//!   session is asked to leave: then a newcomer has it at once, so that a flood of them is taken at the speed of accepting;
//! - at the limit the connection least worth keeping is asked to leave, as `seats` says; where nobody is the newcomer waits. Clients we
//!   know are never turned away; of strangers, where too many of them wait, those whose network holds most, without a word;
//! - who was asked to leave begins no transaction any more, so a session may be cut off wherever it stands when it is asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::types::{Timestamp, client_of};

use super::pressure::{Level, Patience};
pub use super::seats::Rank;
use super::seats::{Granted, Line, Seats};

/// Who waits looks again after so long at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gives out places. Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: usize,
    per_client: usize,
    clock: Clock,
    seats: Mutex<Seats<oneshot::Sender<Place>>>,
    /// Somebody has left the line.
    line_moves: Notify,
    clients: Mutex<BTreeMap<IpAddr, Arc<Semaphore>>>,
    pressure: watch::Sender<Pressure>,
    panics: AtomicU64,
}

/// The levels strangers and clients we know are held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pressure {
    strangers: Level,
    known: Level,
}

/// A connection that stands in the line for a place, or has it already. Dropped: it gives up.
#[derive(Debug)]
pub struct Newcomer {
    gate: Gate,
    number: u64,
    place: oneshot::Receiver<Place>,
    look_at: Option<Timestamp>,
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

impl Gate {
    /// `connections` in all, `per_client` for each untrusted client; both at least 1.
    pub fn new(connections: usize, per_client: usize, clock: Clock) -> Gate {
        let connections = connections.max(1);
        Gate(Arc::new(Inner {
            connections,
            per_client: per_client.clamp(1, Semaphore::MAX_PERMITS),
            clock,
            seats: Mutex::new(Seats::new(connections)),
            line_moves: Notify::new(),
            clients: Mutex::default(),
            pressure: watch::Sender::default(),
            panics: AtomicU64::new(0),
        }))
    }

    /// Lets a new connection stand in the line. That takes a moment only where the line is full of clients we know.
    pub async fn line_up(&self, rank: Rank, client: IpAddr) -> Newcomer {
        loop {
            let moves = self.0.line_moves.notified();
            if let Some(newcomer) = self.try_line_up(rank, client) {
                return newcomer;
            }
            moves.await;
        }
    }

    fn try_line_up(&self, rank: Rank, client: IpAddr) -> Option<Newcomer> {
        let (answer, place) = oneshot::channel();
        let mut seats = self.seats();
        let (line, granted) = seats.join(rank, client, self.0.clock.now(), answer);
        self.hand_out(seats, granted);
        match line {
            Line::Joined { number, look_at } => Some(Newcomer { gate: self.clone(), number, place, look_at }),
            Line::Full => None,
        }
    }

    /// A place for a new connection, at once or when one is free. None: it is let go, see [`Newcomer::place`].
    pub async fn enter(&self, rank: Rank, client: IpAddr) -> Option<Place> {
        self.line_up(rank, client).await.place().await
    }

    /// One of the places of this client, when one is free. An IPv6 client is its /64: one customer has all of it.
    pub async fn client(&self, address: IpAddr) -> ClientPlace {
        let (mut place, places) = self.client_places(address);
        place.permit = places.acquire_owned().await.ok();
        place
    }

    /// The same, if one is free now.
    pub fn try_client(&self, address: IpAddr) -> Option<ClientPlace> {
        let (mut place, places) = self.client_places(address);
        place.permit = Some(places.try_acquire_owned().ok()?);
        Some(place)
    }

    fn client_places(&self, address: IpAddr) -> (ClientPlace, Arc<Semaphore>) {
        let client = client_of(address);
        let fresh = || Arc::new(Semaphore::new(self.0.per_client));
        let places = self.clients().entry(client).or_insert_with(fresh).clone();
        (ClientPlace { gate: self.clone(), client, permit: None }, places)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.seats().open()
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

    fn seats(&self) -> MutexGuard<'_, Seats<oneshot::Sender<Place>>> {
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Arc<Semaphore>>> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After something changed in `seats`: gives out what is free. Gives when to look again if nothing else happens.
    fn serve(&self, mut seats: MutexGuard<'_, Seats<oneshot::Sender<Place>>>) -> Option<Timestamp> {
        let (granted, then) = seats.serve(self.0.clock.now());
        self.hand_out(seats, granted);
        then
    }

    /// Tells the sessions where the level has changed, and newcomers of their places.
    fn hand_out(
        &self,
        seats: MutexGuard<'_, Seats<oneshot::Sender<Place>>>,
        granted: Vec<Granted<oneshot::Sender<Place>>>,
    ) {
        self.0.pressure.send_if_modified(|pressure| {
            let places = self.0.connections;
            let strangers = Level::of(seats.open(), places, pressure.strangers);
            let weighed = Pressure { strangers, known: Level::of(seats.held(), places, pressure.known) };
            let changes = *pressure != weighed;
            *pressure = weighed;
            changes
        });
        // A place that nobody waits for any more is given back as it is dropped, which takes the lock.
        drop(seats);
        for Granted { answer, number, rank, leave } in granted {
            self.0.line_moves.notify_one();
            let known = AtomicBool::new(rank == Rank::Known);
            let _given_up = answer.send(Place { gate: self.clone(), number, known, leave });
        }
    }
}

impl Newcomer {
    /// The place, when it is this newcomer's turn. None: it is a stranger, too many of them wait, and its network holds most.
    pub async fn place(mut self) -> Option<Place> {
        loop {
            let now = self.gate.0.clock.now();
            let wait = self.look_at.map_or(LOOK_EVERY, |at| at.since(now).min(LOOK_EVERY));
            tokio::select! {
                biased;
                place = &mut self.place => return place.ok(),
                () = tokio::time::sleep(wait) => {
                    let mut seats = self.gate.seats();
                    let (granted, then) = seats.look_again(now + wait, self.gate.0.clock.now());
                    self.gate.hand_out(seats, granted);
                    self.look_at = then;
                }
            }
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.gate.seats().give_up(self.number);
        self.gate.0.line_moves.notify_one();
    }
}

impl Place {
    /// A transaction begins: this connection is not asked to leave. False: it was asked already and begins none.
    #[must_use]
    pub fn busy(&self) -> bool {
        let mut seats = self.gate.seats();
        let stays = seats.set_idle(self.number, None);
        self.gate.hand_out(seats, Vec::new());
        stays
    }

    /// No transaction goes on from now on.
    pub fn idle(&self) {
        let mut seats = self.gate.seats();
        seats.set_idle(self.number, Some(self.gate.0.clock.now()));
        self.gate.serve(seats);
    }

    /// What is known of the client has changed: it has logged in, is about to, or waits beyond its share.
    pub fn set_rank(&self, rank: Rank) {
        self.known.store(rank == Rank::Known, Ordering::Relaxed);
        let mut seats = self.gate.seats();
        seats.set_rank(self.number, rank);
        self.gate.serve(seats);
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
        let mut seats = self.gate.seats();
        seats.end(self.number);
        self.gate.serve(seats);
        if std::thread::panicking() {
            let count = self.gate.0.panics.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::error!("a session ended in a panic, {count} since the start; the others go on");
        }
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.permit = None;
        let mut clients = self.gate.clients();
        // Waiters hold a clone, which they got under this lock: one left means nobody is there or waits.
        if clients.get(&self.client).is_some_and(|places| Arc::strong_count(places) == 1) {
            clients.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::super::seats::EQUAL_STAY;
    use super::*;

    const SOON: Duration = Duration::from_secs(1);
    const KNOWN: Rank = Rank::Known;

    fn gate(connections: usize, per_client: usize) -> Gate {
        Gate::new(connections, per_client, Clock::starting_at(Timestamp::from_secs(1000)))
    }

    fn client(n: u8) -> IpAddr {
        [192, 0, n, 1].into()
    }

    async fn soon(gate: &Gate, rank: Rank, n: u8) -> Option<Place> {
        timeout(SOON, gate.enter(rank, client(n))).await.ok().flatten()
    }

    fn is_asked(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_idle_longest_makes_room_for_one_worth_as_much_once_it_had_its_time() {
        let gate = gate(3, 1);
        let mut places = Vec::new();
        for n in 0..3 {
            places.push(soon(&gate, KNOWN, n).await.unwrap());
            sleep(Duration::from_millis(100)).await;
        }
        assert!(places[0].busy());
        let begun = gate.0.clock.now();
        let newcomer = gate.enter(KNOWN, client(4)).await.unwrap();
        assert_eq!(gate.0.clock.now().since(begun), EQUAL_STAY - Duration::from_millis(200));
        assert_eq!(places.iter().map(is_asked).collect::<Vec<_>>(), [false, true, false]);
        // The place has passed on already: when the one before is gone there is none for a third.
        assert!(newcomer.busy() && places[2].busy());
        places.remove(1);
        assert!(soon(&gate, KNOWN, 5).await.is_none());
        places.remove(0);
        assert!(soon(&gate, KNOWN, 6).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_herd_of_honest_clients_is_served_to_the_last_one() {
        let gate = gate(20, 1);
        let mut herd = tokio::task::JoinSet::new();
        for n in 0..100 {
            let gate = gate.clone();
            herd.spawn(async move {
                let place = gate.enter(KNOWN, client(n)).await.expect("a place");
                for _ in 0..3 {
                    // The greeting, a thought, a message.
                    sleep(Duration::from_millis(1500)).await;
                    assert!(place.busy(), "client {n} was cut off");
                    sleep(Duration::from_millis(500)).await;
                    place.idle();
                }
            });
        }
        herd.join_all().await;
        assert_eq!(gate.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_rests_makes_room_between_two_messages_after_its_turn() {
        let gate = gate(1, 1);
        let restless = soon(&gate, KNOWN, 1).await.unwrap();
        let begun = gate.0.clock.now();
        let works = async {
            while restless.busy() {
                sleep(Duration::from_millis(400)).await;
                restless.idle();
                sleep(Duration::from_millis(1)).await;
            }
        };
        let waits = gate.enter(KNOWN, client(2));
        let ((), place) = tokio::join!(works, waits);
        assert!(place.is_some());
        let waited = gate.0.clock.now().since(begun);
        assert!((60..62).contains(&waited.as_secs()), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_waits_for_the_first_that_is_gone_and_one_that_gives_up_holds_nothing() {
        let gate = gate(1, 1);
        let place = soon(&gate, KNOWN, 1).await.unwrap();
        assert!(place.busy());
        assert!(soon(&gate, KNOWN, 2).await.is_none());
        let newcomer = async {
            let newcomer = gate.enter(KNOWN, client(3)).await;
            (newcomer, gate.open())
        };
        let session = async {
            sleep(Duration::from_secs(100)).await;
            drop(place);
        };
        let ((newcomer, open), ()) = tokio::join!(newcomer, session);
        assert_eq!((newcomer.is_some(), open), (true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_full_of_clients_we_know_is_waited_for_and_strangers_in_it_give_way() {
        let gate = gate(1, 1);
        let place = soon(&gate, KNOWN, 1).await.unwrap();
        assert!(place.busy());
        let stranger = gate.line_up(Rank::Stranger, client(2)).await;
        let mut line = Vec::new();
        while let Ok(newcomer) = timeout(SOON, gate.line_up(KNOWN, client(3))).await {
            line.push(newcomer);
        }
        assert_eq!(line.len(), super::super::seats::WAITING_MAX);
        assert!(stranger.place().await.is_none(), "let go");
        let one_leaves = async {
            sleep(Duration::from_millis(10)).await;
            drop(line.pop());
        };
        let (joined, ()) = tokio::join!(timeout(SOON, gate.line_up(KNOWN, client(4))), one_leaves);
        assert!(joined.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_to_leave_begins_nothing_any_more() {
        let gate = gate(1, 1);
        let place = soon(&gate, Rank::Stranger, 1).await.unwrap();
        let newcomer = soon(&gate, KNOWN, 2).await.unwrap();
        assert!(newcomer.busy() && is_asked(&place) && !place.busy());
        // What it does until it is gone changes nothing: nobody else is asked in its stead, and nobody twice.
        place.idle();
        drop((place, newcomer));
        assert!(soon(&gate, KNOWN, 4).await.is_some_and(|place| place.busy()));
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_press_only_strangers_and_sessions_hear_of_it() {
        let gate = gate(20, 20);
        let (known, stranger) = (soon(&gate, KNOWN, 1).await.unwrap(), soon(&gate, Rank::Stranger, 1).await.unwrap());
        let (mut calm, mut pressed) = (known.gauge(), stranger.gauge());
        assert!(timeout(SOON, pressed.changed()).await.is_err());
        let mut crowd = Vec::new();
        for n in 2..20 {
            crowd.push(soon(&gate, Rank::Stranger, n).await.unwrap());
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
        let held = gate.seats().held();
        assert_eq!((held, gate.open()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_so_many_places_and_leaves_nothing_behind() {
        let gate = gate(9, 2);
        let client = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = gate.client(client("2001:db8::1")).await;
        let two = gate.try_client(client("2001:db8::2"));
        assert!(two.is_some() && gate.try_client(client("2001:db8::3")).is_none());
        assert!(timeout(SOON, gate.client(client("2001:db8::3"))).await.is_err());
        assert!(timeout(SOON, gate.client(client("2001:db8:0:1::1"))).await.is_ok());
        drop(one);
        let three = timeout(SOON, gate.client(client("2001:db8::3"))).await;
        assert!(three.is_ok());
        drop((two, three));
        assert!(gate.clients().is_empty());
    }
}
