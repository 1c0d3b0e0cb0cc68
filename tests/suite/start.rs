//! A start with a large queue: the relay listens and delivers at once, and does not read the backlog into memory.
//!
//! `WEIR_TEST=long` only: a million messages take a while to make. The debug build keeps the limits as well, ten times over
//! on a busy machine with two cores.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use crate::dashboard::{logged_in, with_page};
use crate::http::Api;
use crate::kit::browser::{ENTER, ESCAPE};
use crate::kit::{At, Relay, World, is_long, mail, now, say, until_within};

#[test]
fn a_million_waiting_messages_do_not_hold_up_the_start() {
    if !is_long() {
        eprintln!("skipped: a million messages only with WEIR_TEST=long");
        return;
    }
    let (world, mx) = World::with_domain("x.test");
    mx.count_only();
    mx.always(At::to("seed@x.test"), say("451 4.3.0 later"));
    let mut relay = with_page(world.config().set("queue", "retry", "[\"1h\"]")).start();
    // One real message, deferred: the rows of the million are copies of its rows, so the schema stays the spool's affair.
    relay.submit("app@sender.test", &["seed@x.test"], &mail("seed", "x"));
    relay.wait_event("deferred", "seed@x.test");
    assert!(relay.stop().success());
    multiply(&relay.data_dir(), 1_000_000);

    let begun = now();
    relay.run();
    let listening = begun.elapsed();
    relay.submit("app@sender.test", &["new@x.test"], &mail("new", "x"));
    until_within(Duration::from_secs(5), "the first delivery", || (mx.accepted_count() > 0).then_some(()));
    let delivered = begun.elapsed();
    let peak = relay.memory_peak();
    eprintln!("1,000,000 waiting: listens after {listening:?}, delivers after {delivered:?}, peak {} MiB", peak >> 20);
    assert!(listening < Duration::from_secs(1), "listened only after {listening:?}");
    assert!(delivered < Duration::from_secs(5), "delivered only after {delivered:?}");
    assert!(peak < 300 << 20, "{} MiB", peak >> 20);
    relay.ok(&["pause", "--all"]);
    let api = Api::of(&relay);
    let first = api.get("/api/v1/queue?limit=100");
    let next = first["next"].as_str().expect("more pages");
    for path in [
        "/api/v1/status".to_string(),
        "/api/v1/queue?limit=100".to_string(),
        format!("/api/v1/queue?limit=100&after={next}"),
        "/api/v1/queue?recipient=u500000@x.test".to_string(),
        "/api/v1/queue?provider=nobody".to_string(),
        "/api/v1/queue?state=active".to_string(),
        "/api/v1/queue?domain=nowhere.test".to_string(),
        "/api/v1/queue?state=held".to_string(),
        "/api/v1/events?limit=100".to_string(),
        "/api/v1/events?kind=blocked".to_string(),
        "/api/v1/suppressions".to_string(),
        "/api/v1/history?span=30d".to_string(),
    ] {
        let begun = now();
        api.get(&path);
        let took = begun.elapsed();
        eprintln!("1,000,000 waiting: {path} in {took:?}");
        assert!(took < Duration::from_secs(2), "{path} took {took:?}");
    }
    look_at_the_page(&relay);
}

/// As an operator does: how much waits, the pages one after the other, one message by its recipient, and on how many an order acts.
fn look_at_the_page(relay: &Relay) {
    let Some(browser) = logged_in(relay) else { return };
    browser.until_shown("All mail is paused by hand");
    // Some left before the pause.
    browser.until_shown("999,9");
    browser.script("location.hash = '#/queue'");
    browser.until("document.querySelectorAll('tbody tr').length === 50");
    let first = browser.text("document.querySelector('tbody a.id').textContent");
    browser.click("Next page");
    browser.until_shown("First page");
    browser.until(&format!(
        "document.querySelectorAll('tbody tr').length === 50 && !document.body.innerText.includes('{first}')"
    ));
    browser.fill("Find", "u500000@x.test");
    browser.press(&[ENTER]);
    browser.until(
        "document.querySelectorAll('tbody tr').length === 1 && document.querySelector('tbody').innerText.includes('u500000@')",
    );
    browser.script("location.hash = '#/queue'");
    browser.click("All that is found (the whole queue), also on other pages");
    browser.click("Hold …");
    // All of them, or as many as could be counted in five seconds and a word that there are more.
    browser.until_shown("messages for ");
    browser.press(&[ESCAPE]);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Adds `n` copies of the one message in the spool, older than it and due at once. The tables are those of `docs/spool.md`.
fn multiply(data_dir: &Path, n: i64) {
    let file = find(data_dir, "spool.sqlite").expect("spool.sqlite in the data folder");
    let spool = Connection::open(file).expect("open the spool");
    spool
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; BEGIN")
        .expect("a transaction on the spool");
    for (table, changed) in [
        ("message", &[("id", "id - i")][..]),
        ("body", &[("id", "id - i")]),
        (
            "delivery",
            &[
                ("message", "message - i"),
                ("recipients", "replace(recipients, 'seed@', 'u' || i || '@')"),
                ("next_attempt", "next_attempt - 7200000"),
            ],
        ),
    ] {
        let columns = columns(&spool, table);
        let expression =
            |c: &String| changed.iter().find(|(name, _)| name == c).map_or(c.as_str(), |(_, e)| e).to_string();
        let values: Vec<String> = columns.iter().map(expression).collect();
        // Falling ids would be inserted before one another: counted from the far end they are appended.
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT {n} UNION ALL SELECT i - 1 FROM n WHERE i > 1),
                            seed AS MATERIALIZED (SELECT * FROM {table} LIMIT 1)
             INSERT INTO {table} ({}) SELECT {} FROM n, seed",
            columns.join(", "),
            values.join(", ")
        );
        assert_eq!(spool.execute(&sql, ()).unwrap_or_else(|e| panic!("{sql}: {e}")), usize::try_from(n).unwrap_or(0));
    }
    let count = "UPDATE meta SET messages = messages + ?1, deliveries = deliveries + ?1, bytes = bytes + ?1 * bytes";
    spool.execute(count, (n,)).expect("correct the counters");
    spool.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").expect("commit the backlog");
}

fn columns(spool: &Connection, table: &str) -> Vec<String> {
    let mut statement = spool.prepare("SELECT name FROM pragma_table_info(?1)").expect("ask for the columns");
    let names = statement.query_map((table,), |row| row.get(0)).expect("read the columns");
    names.collect::<Result<_, _>>().expect("names of columns")
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let found = if path.is_dir() { find(&path, name) } else { (entry.file_name() == name).then_some(path) };
        if found.is_some() {
            return found;
        }
    }
    None
}
