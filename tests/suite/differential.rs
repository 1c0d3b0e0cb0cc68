//! The same dialogues to the relay and to real Postfix and Exim: what they answer, and how many messages they take.
//!
//! Each row of [`DIFFERENCES`] says where another server answers otherwise, and why the relay does as it does. A difference that is
//! not in the table fails the test, and so does a row of it that no longer comes about: the table is the whole truth.
//!
//! A dialogue is compared as its classes: the first digit of each reply, `x` where the server closed before it was asked to, behind `|`
//! what came when everything was sent, and then how many messages were taken.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::kit::mta::{Kind, Mta};
use crate::kit::server::{MESSAGE_SIZE, RECIPIENTS};
use crate::kit::{Client, World};

use differences::{DIFFERENCES, STEP_DIFFERENCES};

mod dialogues;
mod differences;

/// Lines of which each is answered before the next is sent, then octets after which the client says nothing more.
struct Dialogue {
    name: String,
    lines: Vec<String>,
    last: Vec<u8>,
}

/// What a dialogue comes to.
struct Outcome {
    /// The class of each reply, and what has become of the connection.
    classes: String,
    taken: usize,
}

impl Outcome {
    fn text(&self) -> String {
        format!("{} q={}", self.classes, self.taken)
    }

    fn hear(&mut self, client: &mut Client) -> bool {
        let Some(reply) = client.try_reply() else { return false };
        let is_taken = reply.starts_with("250") && (reply.contains("queued as") || reply.contains("OK id="));
        self.taken += usize::from(is_taken);
        self.classes.push_str(reply.get(..1).unwrap_or("?"));
        true
    }
}

fn play(address: SocketAddr, dialogue: &Dialogue) -> Outcome {
    let mut client = Client::open(IpAddr::V4(Ipv4Addr::LOCALHOST), address).expect("connect");
    let mut outcome = Outcome { classes: String::new(), taken: 0 };
    let mut is_open = outcome.hear(&mut client);
    for line in &dialogue.lines {
        is_open = is_open && client.try_send(format!("{line}\r\n").as_bytes()) && outcome.hear(&mut client);
    }
    if is_open {
        outcome.classes.push('|');
        client.try_send(&dialogue.last);
        client.say_no_more();
        while outcome.hear(&mut client) {}
    } else {
        outcome.classes.push('x');
    }
    outcome
}

/// The relay with the limits the other servers have. What it takes is kept.
fn relay(world: &World) -> crate::kit::Relay {
    let config = world.config().set("limits", "message_size", &format!("\"{MESSAGE_SIZE} B\""));
    let config = config.set("limits", "recipients", &RECIPIENTS.to_string());
    config.set("relay", "postmaster", "\"ops@x.test\"").start()
}

fn compare(kind: Kind) {
    let (world, _mx) = World::with_domain("x.test");
    let Some(other) = Mta::serve(kind) else { return };
    let relay = relay(&world);
    let mut faults = Vec::new();
    let mut rows: Vec<_> = DIFFERENCES.iter().filter(|row| row.server == kind).collect();
    for dialogue in dialogues::scripted() {
        let (ours, theirs) = (play(relay.address(), &dialogue).text(), play(other.address(), &dialogue).text());
        let row = rows.iter().position(|row| row.dialogue == dialogue.name).map(|at| rows.remove(at));
        match row {
            None if ours != theirs => faults.push(format!("{:?}: weir {ours}, {kind:?} {theirs}", dialogue.name)),
            Some(row) if theirs != row.theirs => {
                faults.push(format!("{:?}: {kind:?} {theirs}, and not {} as its row says", dialogue.name, row.theirs));
            }
            Some(row) if ours == theirs => {
                faults.push(format!("{:?}: no difference any more: {}", row.dialogue, row.why))
            }
            _ => {}
        }
    }
    faults.extend(rows.iter().map(|row| format!("{:?}: no such dialogue", row.dialogue)));
    faults.extend(compare_walks(kind, relay.address(), other.address()));
    assert!(faults.is_empty(), "{} differences that {kind:?} should not have:\n{}", faults.len(), faults.join("\n"));
}

/// Dialogues at random, reply by reply.
fn compare_walks(kind: Kind, relay: SocketAddr, other: SocketAddr) -> Vec<String> {
    let mut faults = Vec::new();
    let mut rows: Vec<_> = STEP_DIFFERENCES.iter().filter(|row| row.server == kind).map(|row| (row, false)).collect();
    for dialogue in dialogues::walks() {
        let (ours, theirs) = (play(relay, &dialogue), play(other, &dialogue));
        assert_eq!(ours.taken, theirs.taken, "{}: {:?}: messages taken", dialogue.name, dialogue.lines);
        // The greeting is answered by no line.
        let steps = dialogue.lines.iter().zip(ours.classes.chars().zip(theirs.classes.chars()).skip(1));
        for (line, (ours, theirs)) in steps.filter(|(_, (ours, theirs))| ours != theirs) {
            let row = rows.iter_mut().find(|(row, _)| row.line == line && row.ours == ours && row.theirs == theirs);
            match row {
                Some((_, was_seen)) => *was_seen = true,
                None => faults
                    .push(format!("{}: {line:?}: weir {ours}, {kind:?} {theirs}: {:?}", dialogue.name, dialogue.lines)),
            }
        }
    }
    let idle = rows.iter().filter(|(_, was_seen)| !was_seen);
    faults.extend(idle.map(|(row, _)| format!("{:?}: no difference any more: {}", row.line, row.why)));
    faults
}

#[test]
fn postfix_answers_as_the_relay_does_but_where_the_table_says_why_not() {
    compare(Kind::Postfix);
}

#[test]
fn exim_answers_as_the_relay_does_but_where_the_table_says_why_not() {
    compare(Kind::Exim);
}
