//! The model by tables: each limit refuses exactly when it should, and the judgement agrees with what was said.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SOURCE: [u8; 4] = [192, 0, 2, 1];
const HOST: &str = "mx1.example";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + millis)
}

fn receiver(profile: &str) -> Receiver {
    Receiver::new(Profile::parse(profile).unwrap(), 1, at(0))
}

fn code(said: &Said) -> u16 {
    said.reply.as_ref().map_or(0, Reply::code)
}

fn connect(receiver: &mut Receiver, now: Timestamp) -> SessionId {
    let (session, said) = receiver.connect(SOURCE.into(), HOST, now);
    assert_eq!(code(&said), 220, "{said:?}");
    session.unwrap()
}

fn mail(receiver: &mut Receiver, session: SessionId, identity: &str, now: Timestamp) -> Said {
    let mail = Mail { sender: "a@sender.example", size_bytes: None, identity: Some(identity) };
    receiver.mail(session, &mail, now)
}

/// One message to one recipient as far as it gets; the code it ended with.
fn message(receiver: &mut Receiver, session: SessionId, recipient: &str, now: Timestamp) -> u16 {
    let said = mail(receiver, session, recipient, now);
    if code(&said) != 250 {
        if said.closes {
            receiver.lost(session, now);
        }
        return code(&said);
    }
    match code(&receiver.rcpt(session, recipient, now)) {
        250 => code(&receiver.data_end(session, 1000, now)),
        refused => {
            receiver.reset(session, now);
            refused
        }
    }
}

#[test]
fn the_ceiling_counts_over_all_hosts_and_sources_and_the_source_limit_over_its_hosts() {
    let mut receiver = receiver("limits = { connections = 3, connections_per_source = 2 }");
    let mut open = |source: u8, host: &str| receiver.connect(IpAddr::from([192, 0, 2, source]), host, at(0));
    let (first, _) = open(1, "mx1");
    assert_eq!(code(&open(1, "mx2").1), 220);
    let (none, said) = open(1, "mx3");
    assert!(none.is_none() && said.closes && said.reply.unwrap().text().starts_with("RP-003"));
    assert_eq!(code(&open(2, "mx1").1), 220);
    assert_eq!(code(&open(3, "mx1").1), 421, "the ceiling");
    receiver.lost(first.unwrap(), at(1));
    receiver.lost(first.unwrap(), at(1));
    assert_eq!(code(&receiver.connect(IpAddr::from([192, 0, 2, 3]), "mx1", at(1)).1), 220);
    let judgement = receiver.judgement();
    assert_eq!((judgement.connections, judgement.connections_open, judgement.connections_peak), (4, 3, 4));
    assert_eq!((judgement.ceiling_passed, judgement.refused.connections), (1, 2));
}

#[test]
fn a_connection_stands_until_it_is_lost_also_behind_a_reply_that_closes() {
    let mut receiver = receiver("limits = { connections = 1 }");
    let session = connect(&mut receiver, at(0));
    assert!(receiver.quit(session, at(0)).closes);
    assert_eq!(code(&receiver.connect(SOURCE.into(), HOST, at(0)).1), 421);
    receiver.lost(session, at(1));
    connect(&mut receiver, at(1));
}

#[test]
fn surplus_connections_are_told_at_mail_where_the_words_do_not_close() {
    let mut receiver = receiver("limits = { connections_per_source = 1 }\nwords = { connections = '4.7.652' }");
    let first = connect(&mut receiver, at(0));
    let second = connect(&mut receiver, at(0));
    assert_eq!(message(&mut receiver, first, "u@x.test", at(0)), 250);
    let said = mail(&mut receiver, second, "m", at(0));
    assert_eq!((code(&said), said.closes), (451, false));
    assert!(said.reply.unwrap().text().contains("[192.0.2.1] has exceeded the maximum number of connections"));
    receiver.lost(first, at(1));
    assert_eq!(message(&mut receiver, second, "u@x.test", at(1)), 250, "there is room now");
}

#[test]
fn rates_slide_and_refuse_exactly_what_is_over_them() {
    let mut receiver = receiver("limits = { per_minute = 2, per_hour = 3 }\nwords = { rate = '4.7.500' }");
    let session = connect(&mut receiver, at(0));
    let table = [
        (0, 250),
        (30_000, 250),
        (30_001, 451),
        (59_999, 451),
        (60_000, 250),
        // Three within the hour.
        (90_000, 451),
        (3_599_999, 451),
        (3_600_000, 250),
        (3_630_000, 250),
        (3_630_001, 451),
    ];
    for (millis, expected) in table {
        assert_eq!(message(&mut receiver, session, "u@x.test", at(millis)), expected, "after {millis} ms");
    }
    assert_eq!(receiver.judgement().refused.rate, 5);
    // Another source has windows of its own.
    let (other, _) = receiver.connect(IpAddr::from([192, 0, 2, 9]), HOST, at(3_630_001));
    assert_eq!(message(&mut receiver, other.unwrap(), "u@x.test", at(3_630_001)), 250);
}

#[test]
fn a_refusal_with_421_closes_and_can_be_said_at_the_greeting() {
    let mut at_mail = receiver("limits = { per_minute = 1 }");
    let session = connect(&mut at_mail, at(0));
    assert_eq!(message(&mut at_mail, session, "u@x.test", at(0)), 250);
    let said = mail(&mut at_mail, session, "m", at(1));
    assert!(said.closes && said.reply.unwrap().text().starts_with("RP-001 (mx1.example)"));
    let mut at_connect = receiver("limits = { per_minute = 1 }\nrefuses_at = 'connect'");
    let session = connect(&mut at_connect, at(0));
    assert_eq!(message(&mut at_connect, session, "u@x.test", at(0)), 250);
    let (none, said) = at_connect.connect(SOURCE.into(), HOST, at(1));
    assert!(none.is_none() && code(&said) == 421);
}

#[test]
fn each_recipient_counts_and_a_transaction_let_in_is_let_through() {
    let mut receiver = receiver("limits = { per_minute = 3 }");
    let session = connect(&mut receiver, at(0));
    mail(&mut receiver, session, "m", at(0));
    for recipient in ["a@x.test", "b@x.test", "c@x.test", "d@x.test"] {
        assert_eq!(code(&receiver.rcpt(session, recipient, at(0))), 250);
    }
    assert_eq!(code(&receiver.data(session, at(0))), 354);
    assert_eq!(code(&receiver.data_end(session, 10, at(0))), 250);
    assert_eq!(code(&mail(&mut receiver, session, "n", at(59_999))), 421);
    assert_eq!(receiver.judgement().recipients_accepted, 4);
}

#[test]
fn a_connection_takes_so_many_messages() {
    let mut receiver = receiver("limits = { messages_per_connection = 2 }");
    let session = connect(&mut receiver, at(0));
    let codes = [0, 1, 2].map(|n| message(&mut receiver, session, "u@x.test", at(n)));
    assert_eq!(codes, [250, 250, 421]);
    let next = connect(&mut receiver, at(2));
    assert_eq!(message(&mut receiver, next, "u@x.test", at(2)), 250);
    assert_eq!((receiver.judgement().refused.messages, receiver.judgement().pressed_on), (1, 0));
}

#[test]
fn regions_split_a_transaction() {
    let mut receiver = receiver("limits = { recipients_per_message = 2 }");
    let session = connect(&mut receiver, at(0));
    mail(&mut receiver, session, "m", at(0));
    let codes = ["a@x.test", "b@x.test", "c@x.test"].map(|to| code(&receiver.rcpt(session, to, at(0))));
    assert_eq!(codes, [250, 250, 452]);
    assert_eq!(code(&receiver.data_end(session, 10, at(0))), 250);
    assert_eq!((receiver.judgement().recipients_accepted, receiver.judgement().refused.recipients), (2, 1));
}

#[test]
fn unknown_and_full_mailboxes_are_the_same_ones_each_time_and_about_as_many_as_said() {
    let mut receiver = receiver(
        "mailboxes = { unknown = ['Nobody@x.test'], full = ['full@x.test'], unknown_share = 0.1, full_share = 0.0 }",
    );
    let session = connect(&mut receiver, at(0));
    assert_eq!(message(&mut receiver, session, "nobody@X.test", at(0)), 550);
    assert_eq!(message(&mut receiver, session, "full@x.test", at(0)), 550);
    let mut refused = [0, 0];
    for pass in &mut refused {
        for number in 0..2000 {
            *pass += u32::from(message(&mut receiver, session, &format!("u{number}@x.test"), at(0)) == 550);
        }
    }
    assert_eq!(refused[0], refused[1]);
    assert!((150..250).contains(&refused[0]), "{refused:?}");
    assert_eq!(receiver.judgement().refused.full, 1);
}

#[test]
fn dead_hosts_say_nothing() {
    let mut receiver =
        receiver("host = [{ name = 'silent.x', state = 'silent' }, { name = 'gone.x', state = 'refusing' }]");
    for (host, closes) in [("silent.x", false), ("GONE.x", true)] {
        let (session, said) = receiver.connect(SOURCE.into(), host, at(0));
        assert!(session.is_none() && said.reply.is_none());
        assert_eq!(said.closes, closes, "{host}");
    }
    assert_eq!(receiver.judgement().connections_peak, 0);
}

#[test]
fn limits_change_with_time_and_a_scheduled_block_begins_and_ends() {
    let mut receiver = receiver(
        "limits = { per_minute = 600, connections = 500, messages_per_connection = 50 }\n\
         [[change]]\nafter = '40m'\nscale = 1.0\n[[change]]\nafter = '20m'\nscale = 0.1\n\
         [[change]]\nafter = '1h'\nblock = '30m'\nlimits = { per_minute = 7 }",
    );
    let minute = |m: i64| at(m * 60_000);
    for (moment, rate, connections) in
        [(0, 600, 500), (19, 600, 500), (20, 60, 50), (39, 60, 50), (40, 600, 500), (60, 7, 500)]
    {
        let limits = receiver.limits_at(minute(moment));
        assert_eq!((limits.per_minute, limits.connections), (Some(rate), Some(connections)), "minute {moment}");
        assert_eq!(limits.messages_per_connection, Some(50));
    }
    let blocked = [59, 60, 89, 90].map(|moment| receiver.blocked_until(minute(moment)));
    assert_eq!(blocked, [None, Some(minute(90)), Some(minute(90)), None]);
    let next = [0, 20, 40, 60, 90].map(|moment| receiver.next_change(minute(moment)));
    assert_eq!(next, [Some(minute(20)), Some(minute(40)), Some(minute(60)), Some(minute(90)), None]);
    let session = connect(&mut receiver, minute(60));
    let said = mail(&mut receiver, session, "m", minute(60));
    assert!(said.reply.unwrap().text().contains("block list (S3150)") && !said.closes);
    assert_eq!(message(&mut receiver, session, "u@x.test", minute(90)), 250);
}

#[test]
fn the_judge_sees_a_sender_that_presses_on_and_punishes_it() {
    let mut receiver = receiver(
        "limits = { per_minute = 1 }\nwords = { rate = '4.7.500' }\n\
         reputation = { punishes = true, limit_after = 3, block_after = 6, blocked = '1h', limited = '30m' }",
    );
    let session = connect(&mut receiver, at(0));
    // The first is taken, the refusal of second 1 begins the series, and its grace ends with second 11.
    let codes: Vec<u16> =
        (0..20).map(|second| message(&mut receiver, session, "u@x.test", at(second * 1000))).collect();
    assert_eq!(codes[..12], [250, 451, 451, 451, 451, 451, 451, 451, 451, 451, 451, 451]);
    assert_eq!(codes[12..], [451, 451, 451, 451, 451, 451, 550, 550]);
    let judgement = receiver.judgement();
    assert_eq!((judgement.refused.rate, judgement.refused.limited, judgement.refused.block), (14, 3, 2));
    assert_eq!((judgement.pressed_on, judgement.blocks), (8, 1));
    assert_eq!(judgement.faults().len(), 2);
}

#[test]
fn the_judge_sees_what_is_offered_again_after_a_5xx() {
    let mut receiver = receiver("mailboxes = { unknown = ['gone@x.test'] }\n[[change]]\nafter = '1h'\nblock = '1h'");
    let session = connect(&mut receiver, at(0));
    let mut offer = |identity: &str, to: &str, now: i64| {
        mail(&mut receiver, session, identity, at(now));
        let code = code(&receiver.rcpt(session, to, at(now)));
        receiver.reset(session, at(now));
        (code, receiver.judgement().retransmitted)
    };
    assert_eq!(offer("one", "gone@x.test", 0), (550, 0));
    assert_eq!(offer("two", "gone@x.test", 0), (550, 0), "another message");
    assert_eq!(offer("one", "Gone@x.test", 0), (550, 1));
    // Refused at MAIL by a block: the pipelined RCPT tells whom it was for.
    assert_eq!(offer("three", "a@x.test", 3_600_000), (503, 1));
    assert_eq!(offer("three", "b@x.test", 7_200_000), (250, 1), "another recipient");
    assert_eq!(offer("three", "a@x.test", 7_200_000), (250, 2));
}

#[test]
fn the_judge_sees_mail_to_the_unknown_and_addresses_tried_without_mail() {
    let mut receiver = receiver("mailboxes = { unknown = ['gone@x.test'] }");
    let session = connect(&mut receiver, at(0));
    for number in 0..5 {
        mail(&mut receiver, session, &number.to_string(), at(0));
        receiver.rcpt(session, "gone@x.test", at(0));
        receiver.reset(session, at(0));
    }
    mail(&mut receiver, session, "x", at(0));
    receiver.rcpt(session, "there@x.test", at(0));
    receiver.quit(session, at(0));
    let judgement = receiver.judgement();
    assert_eq!((judgement.unknown_again, judgement.probed), (2, 1));
}

#[test]
fn troubles_come_as_often_as_said_and_a_5xx_after_the_content_is_final() {
    let mut often = receiver("trouble = [{ stage = 'rcpt', share = 0.25, reply = '4.7.700' }]");
    let session = connect(&mut often, at(0));
    let refused = (0..1000).filter(|n| message(&mut often, session, &format!("u{n}@x.test"), at(0)) == 451).count();
    assert_eq!(often.judgement().refused.noise, refused as u64);
    assert!((200..300).contains(&refused), "{refused}");
    let mut always =
        receiver("trouble = [{ stage = 'data', share = 1.0, reply = '554 5.6.0 Invalid message content' }]");
    let session = connect(&mut always, at(0));
    assert_eq!(message(&mut always, session, "u@x.test", at(0)), 554);
    assert_eq!(message(&mut always, session, "u@x.test", at(0)), 554);
    assert_eq!(always.judgement().retransmitted, 1);
}

#[test]
fn windows_of_any_length_and_kind_refuse_exactly_what_is_over_them() {
    let minute = 60_000;
    let profile =
        |kind: &str| format!("words = {{ rate = '4.7.500' }}\n[[limits.window]]\ncount = 2\nspan = '10m'\n{kind}");
    let table: [(&str, &[i64], &[i64]); 3] = [
        ("", &[0, 1, 2, 10, 11, 12], &[0, 1, 10, 11]),
        ("kind = 'clock'", &[1, 2, 3, 9, 10, 11, 19, 20], &[1, 2, 10, 11, 20]),
        ("kind = 'bucket'\ndepth = 3", &[0, 0, 0, 0, 4, 5, 9, 10, 60, 60, 60, 60], &[0, 0, 0, 5, 10, 60, 60, 60]),
    ];
    for (kind, tried, accepted) in table {
        // 1,795,000,000 is no multiple of ten minutes: what is counted by the clock is tried from the next one on.
        let start = Timestamp::from_secs(1_795_000_200);
        let mut receiver = Receiver::new(Profile::parse(&profile(kind)).unwrap(), 1, start);
        let (session, _) = receiver.connect(SOURCE.into(), HOST, start);
        let is_in = |minutes: &&i64| {
            let now = start + Duration::from_millis(u64::try_from(**minutes * minute).unwrap());
            message(&mut receiver, session.unwrap(), "u@x.test", now) == 250
        };
        let taken: Vec<i64> = tried.iter().filter(is_in).copied().collect();
        assert_eq!(taken, accepted, "{kind}");
    }
}

#[test]
fn a_window_of_all_sources_is_shared_and_others_are_not() {
    let text = |scope: &str| {
        format!("words = {{ rate = '4.7.500' }}\n[[limits.window]]\ncount = 3\nspan = '5m'\nscope = '{scope}'")
    };
    for (scope, expected) in [("source", 6), ("all", 3)] {
        let mut receiver = receiver(&text(scope));
        let sessions = [1, 2].map(|last| receiver.connect(IpAddr::from([192, 0, 2, last]), HOST, at(0)).0.unwrap());
        let taken = (0..10).filter(|n| message(&mut receiver, sessions[n % 2], "u@x.test", at(0)) == 250).count();
        assert_eq!(taken, expected, "{scope}");
    }
}

#[test]
fn the_rate_is_asked_where_the_profile_says_so() {
    for (stage, codes) in [("mail", [250, 250, 451]), ("rcpt", [250, 250, 451]), ("data", [250, 250, 451])] {
        let mut receiver = receiver(&format!(
            "refuses_at = '{stage}'\nwords = {{ rate = '4.7.500' }}\nlimits = {{ per_minute = 2 }}\n\
             mailboxes = {{ unknown = ['gone@x.test'] }}"
        ));
        let session = connect(&mut receiver, at(0));
        let taken = [0, 1, 2].map(|n| message(&mut receiver, session, &format!("u{n}@x.test"), at(n)));
        assert_eq!(taken, codes, "{stage}");
        // Refused at its stage and no other: an empty window is shown by the next command in the dialogue.
        let said = code(&mail(&mut receiver, session, "late", at(3)));
        assert_eq!(said == 451, stage == "mail", "{stage}: MAIL");
        if said == 250 {
            let said = code(&receiver.rcpt(session, "late@x.test", at(3)));
            assert_eq!(said == 451, stage == "rcpt", "{stage}: RCPT");
            receiver.reset(session, at(3));
        }
        assert_eq!(message(&mut receiver, session, "later@x.test", at(60_001)), 250, "{stage}: a minute later");
        assert!(receiver.judgement().refused.attempts() >= 1);
        assert_eq!(receiver.judgement().refused.protocol, 0, "{stage}");
    }
}

#[test]
fn a_block_is_said_at_the_stage_of_the_profile_and_is_final_there() {
    for stage in ["rcpt", "data"] {
        let mut receiver = receiver(&format!("refuses_at = '{stage}'\n[[change]]\nafter = '0s'\nblock = '1h'"));
        let session = connect(&mut receiver, at(0));
        assert_eq!(message(&mut receiver, session, "u@x.test", at(0)), 550, "{stage}");
        assert_eq!(message(&mut receiver, session, "u@x.test", at(3_600_000)), 250);
        assert_eq!(receiver.judgement().retransmitted, 1, "{stage}");
    }
}

#[test]
fn changes_scale_replace_and_repeat() {
    let receiver = receiver(
        "[[limits.window]]\ncount = 100\nspan = '10m'\nkind = 'bucket'\ndepth = 40\n\
         [[change]]\nafter = '10m'\nevery = '10m'\ntimes = 3\nfactor = 0.5\n\
         [[change]]\nafter = '1h'\nscale = 1.0\nlimits = { window = [{ count = 7, span = '1s' }] }\n\
         trouble = [{ stage = 'mail', share = 0.5, reply = '4.7.500' }]\n[[change]]\nafter = '2h'\ntrouble = []",
    );
    let minute = |m: i64| at(m * 60_000);
    let counts =
        |m: i64| receiver.limits_at(minute(m)).windows().iter().map(|w| (w.count, w.depth)).collect::<Vec<_>>();
    for (m, count) in [(0, 100), (9, 100), (10, 50), (20, 25), (30, 13), (59, 13)] {
        assert_eq!(counts(m)[0].0, count, "minute {m}");
    }
    assert_eq!((counts(10)[0].1, counts(60)), (Some(20), vec![(7, None)]));
    let troubles = [0, 60, 120].map(|m| receiver.profile().troubles_at(at(0), minute(m)).len());
    assert_eq!(troubles, [0, 1, 0]);
}

#[test]
fn a_refusal_for_a_rate_starts_a_penalty_and_knocking_makes_it_longer() {
    let mut receiver = receiver(
        "limits = { per_minute = 1 }\nwords = { rate = '4.7.500' }\nreputation = { penalty = '5m', grace = '0s' }",
    );
    let session = connect(&mut receiver, at(0));
    let mut at_second = |second: i64| message(&mut receiver, session, "u@x.test", at(second * 1000));
    assert_eq!([0, 1].map(&mut at_second), [250, 451]);
    // Begun at second 1; knocked at second 200, it ends ten minutes after that.
    assert_eq!([200, 302, 799].map(&mut at_second), [451, 451, 451]);
    assert_eq!([799 + 2399, 799 + 2400 + 2400].map(&mut at_second), [451, 451]);
    let refused = receiver.judgement().refused;
    assert_eq!((refused.rate, refused.penalty, refused.attempts()), (1, 5, 6));
}

#[test]
fn noise_is_held_against_nobody() {
    for (stage, reply) in [("connect", "RP-003"), ("mail", "RP-001"), ("rcpt", "4.7.500"), ("data", "RP-001")] {
        let mut receiver = receiver(&format!(
            "trouble = [{{ stage = '{stage}', share = 1.0, reply = '{reply}' }}]\n\
             reputation = {{ punishes = true, grace = '0s', limit_after = 1, penalty = '5m' }}"
        ));
        for second in 0..50 {
            let (session, said) = receiver.connect(SOURCE.into(), HOST, at(second * 1000));
            match session {
                Some(session) => {
                    let code = message(&mut receiver, session, "u@x.test", at(second * 1000));
                    assert_eq!(code, if reply == "RP-001" { 421 } else { 451 }, "{stage}");
                    receiver.lost(session, at(second * 1000));
                }
                None => assert!(said.closes && said.reply.unwrap().text().starts_with("RP-003")),
            }
        }
        let judgement = receiver.judgement();
        assert_eq!((judgement.refused.noise, judgement.refused.attempts()), (50, 0), "{stage}");
        assert_eq!((judgement.pressed_on, judgement.faults()), (0, Vec::new()), "{stage}");
    }
}

#[test]
fn noise_is_added_to_every_part_of_a_profile() {
    let text = "trouble = [{ stage = 'data', share = 0.1, reply = '4.7.700' }]\n[[change]]\nafter = '1h'\ntrouble = []";
    let profile = Profile::parse(text).unwrap().with_noise(0.002);
    let shares =
        |troubles: &[super::super::profile::Trouble]| troubles.iter().map(|trouble| trouble.share).sum::<f64>();
    assert!((shares(profile.troubles_at(at(0), at(0))) - 0.102).abs() < 1e-9);
    assert!((shares(profile.troubles_at(at(0), at(3_600_000))) - 0.002).abs() < 1e-9);
    assert_eq!(Profile::default().with_noise(0.0), Profile::default());
}

#[test]
fn delays_stay_within_their_jitter() {
    let mut receiver = receiver("latency = { connect = '1s', command = '100ms', data = '400ms', jitter = 0.5 }");
    let mut seen = BTreeMap::new();
    for _ in 0..50 {
        let (session, said) = receiver.connect(SOURCE.into(), HOST, at(0));
        let session = session.unwrap();
        assert!((500..=1500).contains(&said.after.as_millis()), "{said:?}");
        *seen.entry(said.after).or_insert(0) += 1;
        assert!((50..=150).contains(&mail(&mut receiver, session, "m", at(0)).after.as_millis()));
        receiver.rcpt(session, "u@x.test", at(0));
        assert!((200..=600).contains(&receiver.data_end(session, 1, at(0)).after.as_millis()));
    }
    assert!(seen.len() > 10, "drawn anew each time");
}

#[test]
fn commands_out_of_order_and_too_large_messages_are_refused() {
    let mut receiver = receiver("message_size = '1 KiB'\nstrict_helo = true");
    let session = connect(&mut receiver, at(0));
    assert_eq!(code(&receiver.ehlo(session, "localhost", at(0))), 501);
    assert_eq!(code(&receiver.ehlo(session, "mail.example.com", at(0))), 250);
    assert_eq!(code(&receiver.rcpt(session, "u@x.test", at(0))), 503);
    assert_eq!(code(&receiver.data(session, at(0))), 503);
    let large = Mail { size_bytes: Some(1025), ..Mail::default() };
    assert_eq!(code(&receiver.mail(session, &large, at(0))), 552);
    mail(&mut receiver, session, "m", at(0));
    receiver.rcpt(session, "u@x.test", at(0));
    assert_eq!(code(&receiver.data_end(session, 1025, at(0))), 552);
    assert_eq!(receiver.judgement().refused.size, 2);
    receiver.lost(session, at(0));
    let gone = receiver.mail(session, &Mail::default(), at(0));
    assert!(gone.reply.is_none() && gone.closes);
}

#[test]
fn what_a_profile_gets_wrong_is_said_with_its_key() {
    for (text, words) in [
        ("latency = { jitter = 2.0 }", "latency.jitter"),
        ("limit = {}", "limit"),
        ("limits = { per_week = 3 }", "per_week"),
        ("mailboxes = { unknown_share = -0.1 }", "mailboxes.unknown_share"),
        ("[[change]]\nafter = '1m'\nscale = nan", "change.scale"),
        ("words = { rate = 'RP-009' }", "RP-009"),
        ("reputation = { forgives = '0s' }", "reputation.forgives"),
        ("latency = { data = 5 }", "data"),
        ("[[limits.window]]\ncount = 5\nspan = '500ms'", "limits.window.span"),
        ("[[limits.window]]\ncount = 5\nspan = '1m'\nkind = 'bucket'", "limits.window.depth"),
        ("[[limits.window]]\ncount = 5\nspan = '1m'\ndepth = 3", "limits.window.depth"),
        ("[[limits.window]]\ncount = 5\nspam = '1m'", "span"),
        ("[[change]]\nafter = '1m'\nevery = '1m'", "change.every"),
        ("[[change]]\nafter = '1m'\nevery = '1m'\ntimes = 5000\nscale = 0.5", "change"),
        ("[[change]]\nafter = '1m'\nfactor = -1.0", "change.factor"),
        ("reputation = { penalty = '0s' }", "reputation.penalty"),
    ] {
        let error = Profile::parse(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
}

/// A step of a random sender.
#[derive(Clone, Debug)]
enum Step {
    Connect(u8),
    Message(usize, u8),
    Quit(usize),
    Lose(usize),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..3).prop_map(Step::Connect),
        6 => (any::<usize>(), 0u8..5).prop_map(|(n, to)| Step::Message(n, to)),
        1 => any::<usize>().prop_map(Step::Quit),
        1 => any::<usize>().prop_map(Step::Lose),
        3 => (1i64..20_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_judgement_agrees_with_what_was_said_and_no_limit_is_passed(
        steps in prop::collection::vec(step(), 1..200), seed: u64,
    ) {
        let profile = Profile::parse(
            "limits = { connections = 5, connections_per_source = 3, per_minute = 6, messages_per_connection = 3 }\n\
             mailboxes = { unknown = ['u0@x.test'] }",
        ).unwrap();
        let mut receiver = Receiver::new(profile, seed, at(0));
        let mut open: Vec<(SessionId, u8)> = Vec::new();
        let (mut now, mut accepted, mut let_in) = (0, 0u64, Vec::new());
        let mut said_codes: BTreeMap<u16, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Connect(source) => {
                    let (session, said) = receiver.connect(IpAddr::from([192, 0, 2, source]), HOST, at(now));
                    *said_codes.entry(code(&said)).or_default() += 1;
                    open.extend(session.map(|session| (session, source)));
                }
                Step::Message(n, to) if !open.is_empty() => {
                    let place = n % open.len();
                    let (session, source) = open[place];
                    let said = mail(&mut receiver, session, "m", at(now));
                    *said_codes.entry(code(&said)).or_default() += 1;
                    if said.closes {
                        receiver.lost(session, at(now));
                        open.swap_remove(place);
                        continue;
                    }
                    let_in.push((source, now));
                    let said = receiver.rcpt(session, &format!("u{to}@x.test"), at(now));
                    if code(&said) == 250 {
                        prop_assert_eq!(code(&receiver.data_end(session, 1, at(now))), 250);
                        accepted += 1;
                    } else {
                        receiver.reset(session, at(now));
                    }
                }
                Step::Quit(n) | Step::Lose(n) if !open.is_empty() => {
                    let (session, _) = open.swap_remove(n % open.len());
                    if let Step::Quit(_) = step {
                        receiver.quit(session, at(now));
                    }
                    receiver.lost(session, at(now));
                }
                Step::Wait(millis) => now += millis,
                _ => {}
            }
            let judgement = receiver.judgement();
            prop_assert_eq!(judgement.connections_open as usize, open.len());
            prop_assert!(open.len() <= 5);
            for source in 0..3 {
                prop_assert!(open.iter().filter(|(_, from)| *from == source).count() <= 3);
                let recent = let_in.iter().filter(|(from, t)| *from == source && t + 60_000 > now).count();
                prop_assert!(recent <= 6);
            }
            prop_assert_eq!(judgement.messages_accepted, accepted);
            prop_assert_eq!(judgement.refused.attempts(), said_codes.get(&421).copied().unwrap_or(0));
            prop_assert_eq!(judgement.connections, said_codes.get(&220).copied().unwrap_or(0));
            prop_assert!(judgement.connections_peak <= 6);
        }
    }
}
