//! Log-ins as a whole: who gets in, what a refusal costs, what is remembered.
//!
//! Where all cores are held, a log-in that needs a check ends as `Busy`: so it shows what went without one.

use tokio::task::JoinSet;

use super::guesses::{CLIENT_MAX, USER_MAX};
use super::*;
use crate::types::Timestamp;

/// Of "password", and cheap.
const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

fn users(names: &[&str]) -> Users {
    let user = |name: &&str| options::User {
        name: name.to_string(),
        password_hash: Secret::new(HASH),
        ..options::User::default()
    };
    Users::load("", &names.iter().map(user).collect::<Vec<_>>()).unwrap()
}

fn auth() -> Auth {
    Auth::new(users(&["app", "other"]), Clock::starting_at(Timestamp::from_secs(1000)))
}

fn from(n: u32) -> IpAddr {
    IpAddr::from(n.to_be_bytes())
}

impl Auth {
    /// What is answered, and after how long.
    async fn timed(&self, client: u32, name: &str, password: &str) -> (Result<String, Denied>, Duration) {
        let begun = self.0.clock.now();
        let answer = self.log_in(from(client), name, password.as_bytes()).await;
        (answer.map(|user| user.name.to_string()), self.0.clock.now().since(begun))
    }

    async fn answer(&self, client: u32, name: &str, password: &str) -> Result<String, Denied> {
        self.timed(client, name, password).await.0
    }
}

fn app() -> Result<String, Denied> {
    Ok("app".to_string())
}

#[tokio::test(start_paused = true)]
async fn the_right_password_is_let_in_at_once() {
    let auth = auth();
    assert_eq!(auth.timed(1, "app", "password").await, (app(), Duration::ZERO));
    assert_eq!(auth.timed(2, "app", "password").await, (app(), Duration::ZERO));
    assert!(auth.has_users() && auth.user("app").is_some() && auth.user("App").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_user_who_does_not_exist_is_answered_like_one_who_does() {
    let auth = auth();
    let long = "x".repeat(10_000);
    for (name, password) in
        [("app", "wrong"), ("app", ""), ("nobody", "password"), ("", ""), ("App", "password"), (&long, &long)]
    {
        assert_eq!(auth.timed(1, name, password).await, (Err(Denied::Wrong), DELAY), "{name:.10}");
    }
    // The same work, too.
    let _held = auth.0.checks.occupy().await;
    for name in ["app", "nobody"] {
        assert_eq!(auth.answer(2, name, "wrong").await, Err(Denied::Busy), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_who_does_not_exist_is_limited_like_one_who_does() {
    for name in ["app", "nobody"] {
        let auth = auth();
        for client in 0..USER_MAX {
            assert_eq!(auth.answer(client as u32, name, "wrong").await, Err(Denied::Wrong));
        }
        assert_eq!(auth.answer(1000, name, "wrong").await, Err(Denied::TooMany), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_password_is_remembered_for_ten_minutes() {
    let auth = auth();
    assert_eq!(auth.answer(1, "app", "password").await, app());
    {
        let _held = auth.0.checks.occupy().await;
        assert_eq!(auth.timed(1, "app", "password").await, (app(), Duration::ZERO));
        assert_eq!(auth.answer(2, "app", "password").await, app());
        assert_eq!(auth.answer(1, "app", "passwort").await, Err(Denied::Busy));
        assert_eq!(auth.answer(1, "other", "password").await, Err(Denied::Busy));
        tokio::time::sleep(table::REMEMBERED_FOR).await;
        assert_eq!(auth.answer(1, "app", "password").await, Err(Denied::Busy));
    }
    assert_eq!(auth.answer(1, "app", "password").await, app());
}

#[tokio::test(start_paused = true)]
async fn a_new_table_forgets_the_passwords_and_keeps_the_guesses() {
    let auth = auth();
    assert_eq!(auth.answer(1, "app", "password").await, app());
    while auth.answer(2, "app", "wrong").await == Err(Denied::Wrong) {}
    auth.replace(users(&["app"]));
    assert_eq!(auth.answer(2, "app", "password").await, Err(Denied::TooMany));
    assert!(auth.user("other").is_none());
    {
        let _held = auth.0.checks.occupy().await;
        assert_eq!(auth.answer(1, "app", "password").await, Err(Denied::Busy));
    }
    assert_eq!(auth.answer(1, "app", "password").await, app());
    auth.replace(Users::default());
    assert!(!auth.has_users());
    assert_eq!(auth.answer(1, "app", "password").await, Err(Denied::Wrong));
}

#[tokio::test(start_paused = true)]
async fn what_the_old_table_still_checks_the_new_one_does_not_remember() {
    let auth = auth();
    let held = auth.0.checks.occupy().await;
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let auth = auth.clone();
        async move { auth.answer(1, "app", "password").await }
    });
    tokio::task::yield_now().await;
    auth.replace(users(&["app"]));
    drop(held);
    assert_eq!(tasks.join_all().await, [app()]);
    let _held = auth.0.checks.occupy().await;
    assert_eq!(auth.answer(1, "app", "password").await, Err(Denied::Busy));
}

#[tokio::test(start_paused = true)]
async fn log_ins_with_one_password_at_once_share_one_check() {
    let auth = auth();
    let held = auth.0.checks.occupy().await;
    let mut tasks = JoinSet::new();
    // More than could wait each for its own, and more than a client may guess.
    for n in 0..500 {
        let auth = auth.clone();
        tasks.spawn(async move { auth.answer(n % 3, "app", "password").await });
    }
    tokio::task::yield_now().await;
    drop(held);
    assert!(tasks.join_all().await.iter().all(|answer| *answer == app()));
}

#[tokio::test(start_paused = true)]
async fn the_same_wrong_password_at_once_is_one_guess() {
    let auth = auth();
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let auth = auth.clone();
        tasks.spawn(async move { auth.timed(1, "app", "wrong").await });
    }
    assert!(tasks.join_all().await.iter().all(|answer| *answer == (Err(Denied::Wrong), DELAY)));
    for n in 1..CLIENT_MAX {
        assert_eq!(auth.answer(1, "app", &n.to_string()).await, Err(Denied::Wrong));
    }
    assert_eq!(auth.answer(1, "app", "x").await, Err(Denied::TooMany));
}

#[tokio::test(start_paused = true)]
async fn after_too_many_guesses_nothing_is_checked_any_more() {
    let auth = auth();
    for n in 0..CLIENT_MAX {
        assert_eq!(auth.answer(1, "app", &n.to_string()).await, Err(Denied::Wrong));
    }
    let _held = auth.0.checks.occupy().await;
    assert_eq!(auth.timed(1, "app", "password").await, (Err(Denied::TooMany), DELAY));
    assert_eq!(auth.answer(1, "other", "password").await, Err(Denied::TooMany));
}

#[tokio::test(start_paused = true)]
async fn a_remembered_password_opens_nothing_to_a_client_that_guessed_too_often() {
    let auth = auth();
    assert_eq!(auth.answer(1, "app", "password").await, app());
    while auth.answer(2, "other", "wrong").await == Err(Denied::Wrong) {}
    assert_eq!(auth.answer(1, "app", "password").await, app());
    assert_eq!(auth.answer(2, "app", "password").await, Err(Denied::TooMany));
}

#[tokio::test(start_paused = true)]
async fn who_logged_in_before_comes_through_while_others_guess_at_the_user() {
    let auth = auth();
    assert_eq!(auth.answer(1, "app", "password").await, app());
    for client in 0..USER_MAX {
        assert_eq!(auth.answer(100 + client as u32, "app", "wrong").await, Err(Denied::Wrong));
    }
    assert_eq!(auth.answer(2, "app", "password").await, Err(Denied::TooMany));
    assert_eq!(auth.timed(1, "app", "password").await, (app(), Duration::ZERO));
    // And without what is remembered.
    auth.replace(users(&["app"]));
    assert_eq!(auth.timed(1, "app", "password").await, (app(), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn to_hang_up_before_the_answer_is_to_have_guessed_wrong() {
    let auth = auth();
    let held = auth.0.checks.occupy().await;
    for n in 0..CLIENT_MAX {
        let guess = format!("guess {n}");
        let asked = timeout(Duration::from_secs(1), auth.answer(1, "app", &guess)).await;
        assert!(asked.is_err());
    }
    drop(held);
    assert_eq!(auth.answer(1, "app", "password").await, Err(Denied::TooMany));
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_checked_is_no_guess() {
    let auth = auth();
    let held = auth.0.checks.occupy().await;
    for n in 0..2 * CLIENT_MAX {
        assert_eq!(auth.answer(1, "app", &format!("password {n}")).await, Err(Denied::Busy));
    }
    drop(held);
    assert_eq!(auth.answer(1, "app", "password").await, app());
}

#[tokio::test(start_paused = true)]
async fn who_stays_when_the_first_to_ask_gave_up_is_counted() {
    let auth = auth();
    while auth.answer(1, "app", "wrong").await == Err(Denied::Wrong) {}
    tokio::time::sleep(guesses::WINDOW).await;
    for n in 0..CLIENT_MAX {
        let (first, second) = (auth.clone(), auth.clone());
        let guess = n.to_string();
        let held = auth.0.checks.occupy().await;
        let early = async { timeout(Duration::from_secs(30), first.answer(1, "app", &guess)).await };
        let late = async {
            tokio::time::sleep(WAIT_MAX - Duration::from_secs(1)).await;
            second.answer(1, "app", &guess).await
        };
        let free = async {
            tokio::time::sleep(WAIT_MAX + Duration::from_secs(1)).await;
            drop(held);
        };
        let (early, late, ()) = tokio::join!(early, late, free);
        assert_eq!((early, late), (Ok(Err(Denied::Busy)), Err(Denied::Wrong)), "{n}");
    }
    assert_eq!(auth.answer(1, "app", "x").await, Err(Denied::TooMany));
}
