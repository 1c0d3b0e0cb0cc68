//! A disk that is full, or has no inode left: new mail is refused at MAIL, what waits is delivered, and as soon as there is
//! room all goes on without a restart.
//!
//! On a small tmpfs; where none may be mounted the tests say so and pass (`WEIR_TEST_FAULTS=required`: they fail).

use crate::kit::{At, Config, Disk, Mx, Relay, World, mail, say};

const MIB: u64 = 1 << 20;

fn world() -> (World, Mx, Config) {
    let (world, mx) = World::with_domain("x.test");
    let config = world.config().set("limits", "min_free_disk", "\"8 MiB\"");
    (world, mx, config)
}

fn start_on(disk: &Disk, config: &Config) -> Relay {
    let mut relay = Relay::prepare_on(disk.path(), config);
    relay.run();
    relay
}

#[test]
fn a_disk_below_its_reserve_refuses_at_mail_delivers_what_waits_and_heals_by_itself() {
    let Some(mut disk) = Disk::mount(64, 10_000) else { return };
    let (_world, mx, config) = world();
    mx.always(At::Mail, say("451 4.3.0 later"));
    let relay = start_on(&disk, &config);
    let mut client = relay.client();
    for n in 0..5 {
        client.submit(
            "app@sender.test",
            &[&format!("u{n}@x.test")],
            &mail(&format!("m{n}"), &"line\r\n".repeat(n * 9000)),
        );
    }
    // What the client says that it will send decides, before it sends it.
    disk.leave_free(20 * MIB);
    relay.until_mail_is("452 4.3.1", " SIZE=15000000");
    relay.until_mail_is("250", " SIZE=100000");
    disk.leave_free(4 * MIB);
    let reply = relay.until_mail_is("452 4.3.1", "");
    assert!(reply.contains("min_free_disk"), "{reply}");
    assert!(relay.ok(&["status"]).contains("min_free_disk"));

    mx.relent(At::Mail);
    mx.wait_accepted(5);
    relay.assert_settled();
    relay.until_mail_is("452 4.3.1", "");
    disk.clear();
    relay.until_mail_is("250", "");
    client.submit("app@sender.test", &["after@x.test"], &mail("after", "x"));
    mx.wait_accepted(6);
    relay.assert_settled();
    let said = relay.lines_beside_outcomes();
    assert!(said < 20, "a flood of {said} lines:\n{}", relay.log());
}

#[test]
fn a_disk_without_a_free_byte_loses_nothing_and_a_kill_on_it_neither() {
    let Some(mut disk) = Disk::mount(48, 10_000) else { return };
    let (_world, mx, config) = world();
    mx.always(At::Mail, say("451 4.3.0 later"));
    let mut relay = start_on(&disk, &config);
    let mut client = relay.client();
    for n in 0..3 {
        client.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    disk.leave_free(0);
    relay.until_mail_is("452 4.3.1", "");
    // Attempts go on, or stop because they cannot be recorded; either way nothing comes to an end.
    relay.kill();
    disk.clear();
    disk.leave_free(0);
    // It starts if it can; if not it says why and what to do, and the next start finds everything.
    disk.clear();
    mx.relent(At::Mail);
    relay.run();
    mx.wait_accepted(3);
    relay.assert_settled();

    disk.leave_free(0);
    relay.until_mail_is("452 4.3.1", "");
    disk.clear();
    relay.until_mail_is("250", "");
    relay.submit("app@sender.test", &["after@x.test"], &mail("after", "x"));
    mx.wait_accepted(4);
    relay.assert_settled();
}

#[test]
fn without_inodes_it_is_the_same() {
    let Some(mut disk) = Disk::mount(64, 1400) else { return };
    let (_world, mx, config) = world();
    mx.always(At::Mail, say("451 4.3.0 later"));
    let relay = start_on(&disk, &config);
    let mut client = relay.client();
    client.submit("app@sender.test", &["u@x.test"], &mail("m", &"line\r\n".repeat(40_000)));
    disk.leave_inodes(0);
    let reply = relay.until_mail_is("452 4.3.1", "");
    assert!(reply.contains("inodes"), "{reply}");
    mx.relent(At::Mail);
    mx.wait_accepted(1);
    relay.assert_settled();
    disk.clear();
    relay.until_mail_is("250", "");
    client.submit("app@sender.test", &["after@x.test"], &mail("after", &"line\r\n".repeat(40_000)));
    mx.wait_accepted(2);
    relay.assert_settled();
}

#[test]
fn many_large_messages_at_once_leave_the_reserve_free() {
    const RESERVE: u64 = 32 * MIB;
    let Some(disk) = Disk::mount(96, 10_000) else { return };
    let (_world, mx, config) = world();
    mx.always(At::Mail, say("451 4.3.0 later"));
    mx.count_only();
    let relay = start_on(&disk, &config.set("limits", "min_free_disk", "\"32 MiB\"").set("queue", "retry", "[\"1h\"]"));
    let content = mail("large", &"0123456789abcdef\r\n".repeat(8 << 20 >> 4));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (relay, content) = (&relay, &content[..]);
    let (taken, least) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut least = u64::MAX;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let found = rustix::fs::statvfs(disk.path()).unwrap();
                least = least.min(found.f_bavail * found.f_frsize);
            }
            least
        });
        let senders: Vec<_> = (0..20)
            .map(|n| if n % 2 == 0 { "" } else { " SIZE=9500000" })
            .map(|size| scope.spawn(move || is_taken(relay, content, size)))
            .collect();
        let taken = senders.into_iter().map(|sender| sender.join().unwrap()).filter(|taken| *taken).count();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        (taken, watch.join().unwrap())
    });
    eprintln!("{taken} messages of 9 MiB taken, {} MiB free at least", least >> 20);
    assert!(least >= RESERVE - MIB, "{} KiB free", least >> 10);
    assert!(taken > 0);
}

/// Hands in one message, which is taken or put off for want of room.
fn is_taken(relay: &Relay, content: &[u8], size: &str) -> bool {
    let mut client = relay.client();
    client.send(&format!("MAIL FROM:<app@sender.test>{size}"));
    let mut reply = client.reply();
    if reply.starts_with("250") {
        client.ask("RCPT TO:<u@x.test>", "250");
        client.ask("DATA", "354");
        client.try_send(content);
        client.try_send(b".\r\n");
        reply = client.reply();
    }
    assert!(reply.starts_with("250") || reply.starts_with("452 4.3.1"), "{reply}");
    reply.starts_with("250")
}

#[test]
fn a_drained_spool_has_room_again_at_once_and_after_a_kill() {
    let Some(disk) = Disk::mount(32, 10_000) else { return };
    let (_world, mx, config) = world();
    mx.always(At::Mail, say("451 4.3.0 later"));
    mx.count_only();
    let mut relay = start_on(&disk, &config.set("queue", "retry", "[\"1h\"]"));
    let mut client = relay.client();
    let content = mail("fill", &"0123456789\r\n".repeat(8000));
    let mut taken = 0;
    // Until there is no room, which MAIL says, and never the reply to the content.
    loop {
        client.send("MAIL FROM:<app@sender.test>");
        if !client.reply().starts_with("250") {
            break;
        }
        client.ask(&format!("RCPT TO:<u{taken}@x.test>"), "250");
        client.data(&content);
        taken += 1;
    }
    assert!(taken > 30, "only {taken} messages found room");
    mx.relent(At::Mail);
    relay.ok(&["queue", "flush"]);
    mx.wait_accepted_at_least(taken);
    relay.wait_queue_empty();
    relay.until_mail_is("250", "");
    relay.kill();
    relay.run();
    relay.until_mail_is("250", "");
}
