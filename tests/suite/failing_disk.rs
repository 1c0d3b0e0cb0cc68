//! A disk that fails while the relay runs: writes, syncs (also with the loss of what was written), a file system that becomes
//! read-only. A failing write never yields 250; nothing is begun whose outcome could not be recorded; outcomes that wait for the
//! disk are not forgotten; and when it is well again everything goes on without a restart and ends exactly once.
//!
//! The faults are those of `kit/faults.c`; without a C compiler the tests say so and pass.

use std::process::Command;
use std::time::Duration;

use crate::kit::mx::wait_at;
use crate::kit::{
    At, Client, Fault, Faults, Gate, Mx, Relay, World, client, mail, now, say, skip, stays, try_until, until,
};

/// The ways in which the disk can fail below the spool, and the files that it concerns.
const FAULTS: [(Fault, &str); 7] = [
    (Fault::Writes, "spool.sqlite-wal"),
    (Fault::Full, "spool.sqlite-wal"),
    (Fault::Syncs, "spool.sqlite-wal"),
    (Fault::LostSyncs, "spool.sqlite-wal"),
    (Fault::Writes, "events/"),
    (Fault::ReadOnly, ""),
    (Fault::LostSyncs, ""),
];

struct Story {
    world: World,
    mx: Mx,
    relay: Relay,
    faults: Faults,
}

impl Story {
    fn begin() -> Option<Story> {
        let (world, mx) = World::with_domain("x.test");
        let mut relay = Relay::prepare(crate::kit::relay::WEIR.into(), world.config());
        let faults = Faults::under(&mut relay)?;
        relay.run();
        Some(Story { world, mx, relay, faults })
    }

    fn submit(&self, name: &str, content: &[u8]) {
        self.relay.submit("app@sender.test", &[&format!("{name}@x.test")], content);
    }

    /// Hands a message in as far as it is taken, and returns the last reply, which must be a no that is none for good.
    fn is_refused(&self, name: &str, text: &str) -> String {
        let mut client = self.relay.client();
        let reply = attempt(&mut client, name, &mail(name, text));
        assert!(reply.starts_with("451 ") || reply.starts_with("452 4.3.1"), "a failing disk was answered by {reply}");
        reply
    }

    /// How often a message named so came through.
    fn came(&self, name: &str) -> usize {
        let address = format!("{name}@x.test");
        self.mx.accepted().iter().filter(|got| got.to() == [address.as_str()]).count()
    }

    /// No new connection and no new command for a while.
    fn nothing_is_begun(&self, span: Duration) {
        let mut seen = self.mx.commands().len();
        // What was on its way when the disk broke comes to its end first.
        until("the receiver hears no more", || {
            let before = std::mem::replace(&mut seen, self.mx.commands().len());
            try_until(Duration::from_millis(60), || (self.mx.commands().len() > seen).then_some(()))
                .is_none()
                .then_some(())
                .filter(|()| before == seen)
        });
        let seen = (self.mx.connections(), self.mx.commands().len());
        stays(span, "nothing is begun", || (self.mx.connections(), self.mx.commands().len()) == seen);
    }
}

/// The reply at which a hand-in ended.
fn attempt(client: &mut Client, name: &str, content: &[u8]) -> String {
    for line in ["MAIL FROM:<app@sender.test>", &format!("RCPT TO:<{name}@x.test>"), "DATA"] {
        client.send(line);
        let reply = client.reply();
        if !reply.starts_with(['2', '3']) {
            return reply;
        }
    }
    client.send_bytes(&client::stuffed(content));
    client.reply()
}

/// The whole story of one fault; with `kill`, the relay is killed while it lasts.
fn play(fault: Fault, pattern: &str, kill: bool) {
    let Some(mut story) = Story::begin() else { return };
    let (mx, gate) = (&story.mx, Gate::new());
    story.submit("before", &mail("before", "x"));
    mx.wait_accepted(1);
    // One is in the middle of its transaction when the disk breaks, one waits.
    mx.always(At::to("during@x.test"), wait_at(&gate));
    mx.always(At::to("waits@x.test"), say("451 4.3.0 later"));
    if !kill {
        story.submit("during", &mail("during", "x"));
        until("the transaction", || (gate.waiting() == 1).then_some(()));
    }
    story.submit("waits", &mail("waits", &"line\r\n".repeat(if kill { 40_000 } else { 10 })));
    story.relay.wait_event("deferred", "waits@x.test");

    let lines = story.relay.lines_beside_outcomes();
    story.faults.begin(fault, pattern);
    story.is_refused("refused", "small");
    story.relay.until_mail_is("452 4.3.1", "");
    story.is_refused("refused", &"line\r\n".repeat(40_000));
    gate.open();
    story.mx.relent(At::to("waits@x.test"));
    story.nothing_is_begun(Duration::from_millis(700));
    assert!(story.relay.json(&["health"])[0]["ready"] == false, "ready with a disk that fails");
    let said = story.relay.lines_beside_outcomes() - lines;
    assert!(said < 25, "{said} lines while the disk fails");

    if kill {
        story.relay.kill();
        story.faults.end();
        story.relay.run();
    } else {
        story.faults.end();
    }
    story.relay.until_mail_is("250", "");
    story.submit("after", &mail("after", &"line\r\n".repeat(40_000)));
    let expected: &[&str] = if kill { &["before", "waits", "after"] } else { &["before", "during", "waits", "after"] };
    until("all mail", || expected.iter().all(|name| story.came(name) > 0).then_some(()));
    story.relay.wait_queue_empty();
    for name in expected {
        assert_eq!(story.came(name), 1, "{name} ({fault:?} {pattern})");
    }
    if kill {
        // A commit that failed may be found after a kill: then the client's next try is a second message (RFC 1047).
        assert!(story.came("refused") <= 1);
    } else {
        assert_eq!(story.came("refused"), 0, "refused and delivered all the same ({fault:?} {pattern})");
        story.relay.assert_settled();
    }
    assert!(story.relay.stop().success());
    drop(story.world);
}

#[test]
fn a_failing_disk_stops_intake_and_sending_and_all_goes_on_when_it_is_well() {
    // Nearly all of it is waiting.
    std::thread::scope(|scope| {
        for (fault, pattern) in FAULTS {
            scope.spawn(move || play(fault, pattern, false));
        }
    });
}

#[test]
fn a_kill_while_the_disk_fails_loses_nothing_and_repeats_nothing_that_waited() {
    std::thread::scope(|scope| {
        for (fault, pattern) in [FAULTS[0], FAULTS[3], FAULTS[5]] {
            scope.spawn(move || play(fault, pattern, true));
        }
    });
}

#[test]
fn one_sync_that_fails_costs_the_messages_of_its_commit_and_nothing_else() {
    let Some(story) = Story::begin() else { return };
    let large = "line\r\n".repeat(40_000);
    for (fault, pattern, text) in [
        (Fault::LostSyncs, "/bodies/", large.as_str()),
        (Fault::Syncs, "/bodies", &large),
        (Fault::LostSyncs, "spool.sqlite-wal", "small"),
        (Fault::LostSyncs, "spool.sqlite-wal", &large),
    ] {
        story.relay.until_mail_is("250", "");
        let hits = story.faults.hits();
        story.faults.once(fault, pattern);
        let reply = story.is_refused("refused", text);
        assert!(reply.starts_with("451"), "{reply}");
        assert_eq!(story.faults.hits(), hits + 1);
    }
    story.relay.until_mail_is("250", "");
    story.submit("after", &mail("after", &large));
    story.mx.wait_accepted(1);
    story.relay.assert_settled();
    let bodies = std::fs::read_dir(story.relay.data_dir().join("bodies")).unwrap().count();
    assert_eq!(bodies, 0, "contents of refused messages were left");
    // Whoever reads the event log finds an end for each it calls accepted, also where the client was refused.
    let told = story.relay.events_of("removed");
    assert!(
        told.iter().all(|event| event["rule"] == "not-stored" && event["recipient"] == "refused@x.test"),
        "{told:?}"
    );
}

#[test]
fn a_refusal_that_the_suppression_list_cannot_take_is_written_when_it_can() {
    let Some(story) = Story::begin() else { return };
    story.mx.always(At::to("gone@x.test"), say("550 5.1.1 no such user"));
    story.faults.begin(Fault::Writes, "suppression.sqlite");
    story.submit("gone", &mail("gone", "x"));
    story.relay.wait_event("bounced", "gone@x.test");
    // Mail to others goes on; to this one no second RCPT is sent while the first is not on the list.
    story.submit("gone", &mail("again", "x"));
    story.submit("other", &mail("other", "x"));
    until("the other's mail", || (story.came("other") == 1).then_some(()));
    story.faults.wait_hits(0, 2);
    assert!(story.relay.events_of("suppressed").is_empty());
    story.faults.end();
    story.relay.wait_event("suppressed", "gone@x.test");
    let mut client = story.relay.client();
    assert!(attempt(&mut client, "gone", b"x\r\n").starts_with("550 5.1.1"));
    story.relay.wait_events(2, "bounced", |event| event["recipient"] == "gone@x.test");
    assert_eq!(story.mx.rcpts("gone@x.test"), 1);
}

#[test]
fn what_lanes_learn_is_not_worth_stopping_mail_for() {
    let Some(story) = Story::begin() else { return };
    story.faults.begin(Fault::ReadOnly, "state.sqlite");
    for n in 0..3 {
        story.submit(&format!("u{n}"), &mail("m", "x"));
    }
    story.mx.wait_accepted(3);
    story.relay.assert_settled();
    assert!(story.relay.log().matches("state.sqlite").count() <= 1, "{}", story.relay.log());
}

/// A file system that shuts itself: ext4 on a loop device, told to abort, as it does when the disk below it fails.
#[test]
fn a_file_system_that_turns_read_only_under_the_relay_gives_everything_back_after_a_repair() {
    let folder = tempfile::tempdir().expect("a folder");
    let (image, mount) = (folder.path().join("image"), folder.path().join("mount"));
    std::fs::create_dir(&mount).expect("a folder to mount on");
    let file = std::fs::File::create(&image).expect("make an image");
    file.set_len(96 << 20).expect("make an image");
    let run = |program: &str, arguments: &[&str], paths: &[&std::path::Path]| {
        Command::new(program).args(arguments).args(paths).output().is_ok_and(|output| output.status.success())
    };
    if !run("mkfs.ext4", &["-q", "-F"], &[&image]) || !run("mount", &["-o", "loop"], &[&image, &mount]) {
        return skip("an ext4 image cannot be mounted here");
    }
    struct Mounted<'a>(&'a std::path::Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let mounted = Mounted(&mount);
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Mail, say("451 4.3.0 later"));
    let mut relay = Relay::prepare_on(&mount, &world.config());
    relay.run();
    for name in ["a", "b"] {
        relay.submit("app@sender.test", &[&format!("{name}@x.test")], &mail(name, &"line\r\n".repeat(40_000)));
    }
    relay.wait_events(2, "deferred", |_| true);
    if !run("mount", &["-o", "remount,abort"], &[&mount]) {
        return skip("this kernel does not abort an ext4 file system on demand");
    }
    let reply = attempt(&mut relay.client(), "refused", &mail("refused", "x"));
    assert!(reply.starts_with("451") || reply.starts_with("452 4.3.1"), "{reply}");
    let begun = now();
    until("452 to MAIL", || {
        let reply = attempt(&mut relay.client(), "refused", &mail("refused", "x"));
        assert!(!reply.starts_with("250"), "accepted on a dead disk after {:?}", begun.elapsed());
        reply.starts_with("452 4.3.1").then_some(())
    });
    // What was under way when the disk died comes to its end.
    let mut last = (mx.count("MAIL"), now());
    until("no further try", || {
        if mx.count("MAIL") != last.0 {
            last = (mx.count("MAIL"), now());
        }
        (last.1.elapsed() > Duration::from_millis(500)).then_some(())
    });
    mx.relent(At::Mail);
    let seen = mx.count("DATA") + mx.count("BDAT");
    stays(Duration::from_millis(700), "nothing is sent", || mx.count("DATA") + mx.count("BDAT") == seen);
    relay.kill();
    assert!(run("umount", &[], &[&mount]) && run("mount", &["-o", "loop"], &[&image, &mount]), "mount it again");
    relay.run();
    // The event log is not synced: its last lines went with the file system.
    mx.wait_accepted(2);
    relay.wait_queue_empty();
    relay.kill();
    drop(mounted);
}
