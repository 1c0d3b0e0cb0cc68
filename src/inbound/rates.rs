//! Messages a minute: of each user as its `rate` says, of each client's address as `limits.messages_per_client` does.
//!
//! A message counts when its MAIL is taken, whoever its sender is and whatever becomes of it. Rules that always hold:
//!
//! - in no stretch of time more pass than the rate brings in it and one minute's worth besides;
//! - a new rate is never a fresh burst: it begins with nothing in hand;
//! - a clock that is set back keeps nobody waiting for longer than one message takes at the rate;
//! - what is remembered is bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, RateLimiter};

use super::governed::{Time, moment, quota};
use crate::clock::Clock;
use crate::types::{Rate, RateLimit, Timestamp, client_of};

/// Users remembered at most: twice as many as there can be, for those who were renamed.
const USERS_MAX: usize = 20_000;
/// Clients remembered at most, some 10 MiB. At so many nobody is counted until some are forgotten: who has so many addresses is not
/// held by a limit to each.
const CLIENTS_MAX: usize = 100_000;
/// How often clients are forgotten who have a whole minute's worth again.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

type Limiter<K, S> = RateLimiter<K, S, Time, NoOpMiddleware<Duration>>;
type OfUser = Limiter<NotKeyed, InMemoryState>;
type OfClients = Limiter<IpAddr, HashMapStateStore<IpAddr>>;

/// Counts messages.
#[derive(Debug)]
pub(super) struct Rates {
    clock: Clock,
    users: Mutex<BTreeMap<Arc<str>, (Rate, OfUser)>>,
    clients: Option<Mutex<Clients>>,
}

#[derive(Debug)]
struct Clients {
    rate: Rate,
    limiter: OfClients,
    swept: Timestamp,
}

impl Rates {
    /// `per_client`: of each address.
    pub(super) fn new(per_client: RateLimit, clock: Clock) -> Rates {
        let clients = match per_client {
            RateLimit::Unlimited => None,
            RateLimit::At(rate) => Some(Mutex::new(Clients::new(rate, &clock))),
        };
        Rates { clock, users: Mutex::default(), clients }
    }

    /// One more message of this user; else, when there is room for one.
    pub(super) fn user(&self, name: &Arc<str>, rate: RateLimit) -> Result<(), Timestamp> {
        let RateLimit::At(rate) = rate else { return Ok(()) };
        let mut users = lock(&self.users);
        if users.len() >= USERS_MAX && !users.contains_key(name) {
            users.clear();
        }
        let (known, limiter) = users.entry(name.clone()).or_insert_with(|| (rate, of_user(rate, &self.clock)));
        if *known != rate {
            (*known, *limiter) = (rate, drained(rate, &self.clock));
        }
        let Err(not_until) = limiter.check() else { return Ok(()) };
        let goes_on = goes_on(&not_until, rate, self.clock.now());
        if goes_on.is_none() {
            *limiter = drained(rate, &self.clock);
        }
        Err(goes_on.unwrap_or_else(|| self.clock.now() + period(rate)))
    }

    /// One more message from this address; else, the rate and when there is room for one.
    pub(super) fn client(&self, client: IpAddr) -> Result<(), (Rate, Timestamp)> {
        let Some(clients) = &self.clients else { return Ok(()) };
        let mut clients = lock(clients);
        let (now, rate) = (self.clock.now(), clients.rate);
        clients.sweep(now);
        if clients.limiter.len() >= CLIENTS_MAX {
            return Ok(());
        }
        let Err(not_until) = clients.limiter.check_key(&client_of(client)) else { return Ok(()) };
        let goes_on = goes_on(&not_until, rate, now);
        if goes_on.is_none() {
            // All were counted by the clock as it was.
            *clients = Clients::new(rate, &self.clock);
        }
        Err((rate, goes_on.unwrap_or(now)))
    }
}

impl Clients {
    fn new(rate: Rate, clock: &Clock) -> Clients {
        let limiter = RateLimiter::hashmap_with_clock(quota(rate), Time(clock.clone()));
        Clients { rate, limiter, swept: clock.now() }
    }

    fn sweep(&mut self, now: Timestamp) {
        self.swept = self.swept.min(now);
        if now.since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.limiter.retain_recent();
        }
    }
}

fn of_user(rate: Rate, clock: &Clock) -> OfUser {
    RateLimiter::direct_with_clock(quota(rate), Time(clock.clone()))
}

fn drained(rate: Rate, clock: &Clock) -> OfUser {
    let limiter = of_user(rate, clock);
    // A burst fits into its own quota.
    let _ = limiter.check_n(quota(rate).burst_size());
    limiter
}

/// When there is room again; none: so late that the clock must have been set back.
fn goes_on(not_until: &NotUntil<Duration>, rate: Rate, now: Timestamp) -> Option<Timestamp> {
    let then = moment(not_until.earliest_possible());
    (then.since(now) <= period(rate) + Duration::from_millis(2)).then_some(then)
}

/// From one message to the next.
fn period(rate: Rate) -> Duration {
    quota(rate).replenish_interval()
}

/// Nothing that is done under these locks can break what they guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(per_client: &str) -> Rates {
        Rates::new(per_client.parse().unwrap(), Clock::starting_at(Timestamp::from_secs(1000)))
    }

    async fn pass(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_a_minute_at_once_and_then_its_rate() {
        let rates = rates("unlimited");
        let (app, other): (Arc<str>, Arc<str>) = ("app".into(), "other".into());
        let rate = "3/min".parse().unwrap();
        let heard: Vec<bool> = (0..4).map(|_| rates.user(&app, rate).is_ok()).collect();
        assert_eq!(heard, [true, true, true, false]);
        assert_eq!(rates.user(&app, rate), Err(Timestamp::from_secs(1020)));
        assert!(rates.user(&other, rate).is_ok());
        pass(19_999).await;
        assert_eq!(rates.user(&app, rate), Err(Timestamp::from_secs(1020)));
        pass(1).await;
        assert_eq!([(); 2].map(|()| rates.user(&app, rate).is_ok()), [true, false]);
        assert!(rates.user(&app, RateLimit::Unlimited).is_ok());
        assert!((0..1000).all(|_| rates.client([192, 0, 2, 1].into()).is_ok()), "no limit is set");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_begins_with_nothing_in_hand() {
        let rates = rates("unlimited");
        let app: Arc<str> = "app".into();
        assert!(rates.user(&app, "60/min".parse().unwrap()).is_ok());
        let faster = "600/min".parse().unwrap();
        assert_eq!(rates.user(&app, faster), Err(Timestamp::from_millis(1_000_100)));
        pass(100).await;
        assert_eq!([(); 2].map(|()| rates.user(&app, faster).is_ok()), [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_counted_whatever_its_address_looks_like_and_then_forgotten() {
        let rates = rates("2/min");
        let is_taken = |address: &str| rates.client(address.parse().unwrap()).is_ok();
        for [one, same] in [["192.0.2.1", "::ffff:192.0.2.1"], ["2001:db8::1", "2001:db8::ffff:2"]] {
            assert_eq!([is_taken(one), is_taken(same), is_taken(one), is_taken(same)], [true, true, false, false]);
        }
        let (rate, then) = rates.client([192, 0, 2, 1].into()).unwrap_err();
        assert_eq!((rate.to_string().as_str(), then), ("2/min", Timestamp::from_secs(1030)));
        pass(121_000).await;
        assert!(is_taken("2001:db8:0:1::1"));
        assert_eq!(lock(rates.clients.as_ref().unwrap()).limiter.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_keeps_nobody_waiting_for_long() {
        let (late, early) = (Clock::starting_at(Timestamp::from_secs(1_000_000)), Timestamp::from_secs(1000));
        let rate: RateLimit = "1/min".parse().unwrap();
        let mut rates = Rates::new(rate, late);
        let (app, client) = ("app".into(), IpAddr::from([192, 0, 2, 1]));
        assert!(rates.user(&app, rate).is_ok() && rates.client(client).is_ok());
        // As if the clock of all of them had been.
        let old = std::mem::replace(&mut rates.clock, Clock::starting_at(early));
        assert_eq!(old.now(), Timestamp::from_secs(1_000_000));
        assert_eq!(rates.user(&app, rate), Err(early + Duration::from_secs(60)));
        assert!(rates.client(client).is_err());
        pass(60_000).await;
        assert!(rates.user(&app, rate).is_ok() && rates.client(client).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_users_is_bounded() {
        let rates = rates("unlimited");
        for n in 0..USERS_MAX + 10 {
            let _ = rates.user(&n.to_string().into(), "1/min".parse().unwrap());
        }
        assert!(lock(&rates.users).len() <= USERS_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_stretch_of_time_brings_more_than_the_rate_and_a_minute_of_it(
            per_minute in 1u32..200, waits in prop::collection::vec(0u64..3000, 1..300)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let taken = runtime.block_on(async {
                let rates = rates("unlimited");
                let (app, rate) = ("app".into(), format!("{per_minute}/min").parse().unwrap());
                let mut taken = Vec::new();
                for wait in waits {
                    pass(wait).await;
                    taken.extend(rates.user(&app, rate).is_ok().then(|| rates.clock.now().millis()));
                }
                taken
            });
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let brought = (to - from) as f64 / 60_000.0 * f64::from(per_minute);
                    prop_assert!((last - first + 1) as f64 <= brought + f64::from(per_minute) + 1.0);
                }
            }
        }
    }
}
