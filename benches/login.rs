//! What logging in costs: one check of a password, one that is remembered, one guess that is turned away.
//!
//! `cargo bench --bench login`. Wanted: 1,000 log-ins a second of one user. Guesses come from 20,000 clients, so what is
//! remembered of them is at its bound; the two seconds by which each answer is held back are not counted.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use weir::auth::options::User;
use weir::auth::{Auth, DELAY, Denied, Hash, Secret, Users};
use weir::clock::Clock;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LOG_INS: u32 = 100_000;
const CHECKS: u32 = 50;
const GUESSERS: u32 = 20_000;
const GUESSES_EACH: u32 = 3;

fn main() {
    let hash = Hash::of(b"s3cret").expect("a hash");
    let start = Instant::now();
    for _ in 0..CHECKS {
        black_box(hash.matches(black_box(b"s3cres")));
    }
    let check = start.elapsed() / CHECKS;
    println!("one check:     {:>10.1} ms on one core (argon2id, 19 MiB, 2 passes)", check.as_secs_f64() * 1000.0);
    let user = User { name: "app".into(), password_hash: Secret::new(hash.text()), ..User::default() };
    let users = Users::load("", &[user]).expect("users");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let auth = Auth::new(users, Clock::system());
        remembered(&auth).await;
        refused(&auth).await;
    });
}

async fn remembered(auth: &Auth) {
    let client = IpAddr::from([192, 0, 2, 1]);
    auth.log_in(client, "app", b"s3cret").await.expect("the right password");
    let start = Instant::now();
    for _ in 0..LOG_INS {
        black_box(auth.log_in(client, "app", b"s3cret").await).expect("the right password");
    }
    println!("remembered:    {:>10.0} log-ins a second of one user", per_second(LOG_INS, start.elapsed()));
}

async fn refused(auth: &Auth) {
    // Until the user is guessed at no more.
    let mut first = JoinSet::new();
    for n in 0..200 {
        let auth = auth.clone();
        first.spawn(async move { wrong(&auth, n).await });
    }
    first.join_all().await;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..GUESSERS {
        let auth = auth.clone();
        tasks.spawn(async move {
            for _ in 0..GUESSES_EACH {
                assert_eq!(wrong(&auth, 1_000_000 + n).await.err(), Some(Denied::TooMany));
            }
        });
    }
    tasks.join_all().await;
    let work = start.elapsed().saturating_sub(DELAY * GUESSES_EACH);
    println!("turned away:   {:>10.0} guesses a second", per_second(GUESSERS * GUESSES_EACH, work));
}

async fn wrong(auth: &Auth, client: u32) -> Result<(), Denied> {
    auth.log_in(IpAddr::from(client.to_be_bytes()), "app", b"s3cres").await.map(|_| ())
}

fn per_second(count: u32, elapsed: Duration) -> f64 {
    f64::from(count) / elapsed.as_secs_f64()
}
