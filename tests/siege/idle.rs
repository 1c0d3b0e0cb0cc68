//! Ten thousand connections that do nothing: what each costs, in clear text and in TLS, and that others are served meanwhile.

use std::time::Duration;

use crate::generator::Siege;
use crate::kit::{Config, Relay, World, is_long, mail, now};

/// A connection that waits for a command may cost this much of the relay's memory.
const CLEAR_MAX: u64 = 24 << 10;
const TLS_MAX: u64 = 48 << 10;
/// Held besides the connections by databases, logs and the start itself.
const DESCRIPTORS_RESERVED: u64 = 328;

#[test]
fn idle_connections_cost_little_and_keep_nobody_waiting() {
    let _turn = crate::turn();
    let (world, mx) = World::with_domain("x.test");
    let relay = with_places(world.config()).start();
    besiege(&relay, "idle", CLEAR_MAX);
    mx.wait_accepted(2 * MESSAGES);
}

#[test]
fn idle_connections_in_tls_cost_little_and_keep_nobody_waiting() {
    let _turn = crate::turn();
    let (world, mx) = World::with_domain("x.test");
    let papers = tempfile::tempdir().expect("a folder for the certificate");
    let issued = rcgen::generate_simple_self_signed(vec!["relay.test".to_string()]).expect("a certificate");
    let file = |name: &str, text: String| {
        let path = papers.path().join(name);
        std::fs::write(&path, text).expect("write a certificate");
        format!("\"{}\"", path.display())
    };
    let config = with_places(world.config())
        .set("tls", "certificate", &file("tls.crt", issued.cert.pem()))
        .set("tls", "key", &file("tls.key", issued.signing_key.serialize_pem()))
        .table("[[listener]]\naddress = \"127.0.0.2:0\"\ntls = \"implicit\"");
    let relay = config.start();
    besiege(&relay, "idle-tls", TLS_MAX);
    mx.wait_accepted(2 * MESSAGES);
}

/// Honest messages before and during the siege.
const MESSAGES: usize = 20;

fn besiege(relay: &Relay, role: &str, octets_max: u64) {
    serve(relay);
    let before = relay.memory();
    let count = connections() * 94 / 100;
    let mut siege = Siege::of(relay);
    siege.order(&format!("{role} {count}"));
    siege.order(&format!("met {count}"));
    let each = relay.memory().saturating_sub(before) / count;
    let slowest = serve(relay);
    eprintln!("{count} connections, {role}: {each} octets each; the slowest message meanwhile took {slowest:?}");
    assert!(each <= octets_max, "{each} octets a connection, {octets_max} are allowed");
    assert_eq!(siege.seen().turned_away, 0);
}

/// Hands in some messages, each on a connection of its own; how long the slowest took.
fn serve(relay: &Relay) -> Duration {
    let one = |n: usize| {
        let begun = now();
        relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("honest-{n}"), "x"));
        begun.elapsed()
    };
    (0..MESSAGES).map(one).max().unwrap_or_default()
}

/// Ten thousand, or what descriptors there are for: three for two connections. They fill 94 of 100 places: beyond 95 idle strangers
/// have to hurry.
fn connections() -> u64 {
    let wanted = if is_long() { 10_640 } else { 640 };
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let there = descriptors.saturating_sub(DESCRIPTORS_RESERVED).saturating_mul(2) / 3;
    if there < wanted {
        eprintln!("{wanted} places were wanted, {descriptors} descriptors allow {there}");
    }
    wanted.min(there)
}

fn with_places(config: Config) -> Config {
    config.set("limits", "connections", &connections().to_string()).set("delivery", "max_connections", "10").set(
        "relay",
        "trusted_networks",
        "[\"127.0.0.0/24\"]",
    )
}
