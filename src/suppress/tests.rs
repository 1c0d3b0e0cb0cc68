//! The list as others use it: real files, virtual time.

use tokio_util::task::TaskTracker;

use super::options::Suppression;
use super::*;
use crate::types::{Class, Domain, QueueId, Timestamp};

const START: Timestamp = Timestamp::from_secs(1_795_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn open(folder: &Path) -> List {
    let clock = Clock::starting_at(START);
    let (list, writer) = List::open(&folder.join("suppression.sqlite"), clock).unwrap();
    // Ends with the list: nobody can write any more.
    TaskTracker::new().spawn(writer.run(CancellationToken::new()));
    list
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text).unwrap()
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn hit(recipient: &str, class: Class, message: i64, at: Timestamp) -> Hit {
    Hit {
        mailbox: mailbox(recipient),
        class,
        reply: "550 no".into(),
        rule: "some-rule".into(),
        tag: Some("S775".into()),
        provider: "outlook".into(),
        source: Source::Bounce,
        sender_domain: Some(domain("sender.example")),
        message: QueueId::from_key(message).unwrap(),
        wave: None,
        at,
    }
}

fn in_wave(wave: &str, hit: Hit) -> Hit {
    Hit { wave: Some(wave.into()), ..hit }
}

async fn pass(span: Duration) {
    tokio::time::sleep(span).await;
}

async fn merge(list: &List, entries: Vec<Entry>) -> Merged {
    let mut import = list.import();
    import.merge(entries).await.unwrap();
    import.end().await.unwrap()
}

fn found(list: &List, filter: &Filter) -> String {
    let (mut all, mut after) = (Vec::new(), None::<Place>);
    loop {
        let page = list.list(filter, after.as_ref(), 1).unwrap();
        all.extend(page.entries.into_iter().map(|entry| entry.recipient));
        after = page.next;
        if after.is_none() {
            return all.join(" ");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_is_found_in_every_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    for (added, asked) in [
        ("User@Example.COM", "uSER@example.com"),
        ("a@bücher.example", "A@xn--bcher-kva.example"),
        ("\"plain\"@example.com", "plain@example.com"),
        ("\"with blank\"@example.com", "\"WITH blank\"@example.com"),
        ("jürgen@example.com", "JÜRGEN@example.com"),
    ] {
        assert_eq!(list.check(&mailbox(asked), None).unwrap(), None, "{asked}");
        let entry = Entry::new(&mailbox(added), Class::RecipientUnknown, "550 5.1.1 no", Source::Manual, START);
        list.add(entry.clone()).await.unwrap();
        assert_eq!(list.check(&mailbox(asked), None).unwrap(), Some(entry), "{asked}");
        assert!(list.remove(&mailbox(asked)).await.unwrap());
        assert!(!list.remove(&mailbox(asked)).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_refusal_holds_its_time_and_the_second_until_removed() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let user = mailbox("user@example.com");
    let refuse = |n, at| list.note_refusal(hit("User@example.com", Class::RecipientUnknown, n, at));
    let first = refuse(1, START).await.unwrap();
    assert_eq!(first, Noted { listed: true, is_new: true, expires: Some(START + DAY * 90) });
    // Mail that was already under way when the entry came.
    let again = refuse(2, START + Duration::from_secs(5)).await.unwrap();
    assert_eq!(again, Noted { is_new: false, ..first });
    pass(DAY * 90 - Duration::from_secs(1)).await;
    let entry = list.check(&user, None).unwrap().unwrap();
    assert_eq!((entry.hits, entry.tag.as_deref(), entry.provider.as_deref()), (2, Some("S775"), Some("outlook")));
    pass(Duration::from_secs(1)).await;
    assert_eq!(list.check(&user, None).unwrap(), None);
    let second = refuse(3, START + DAY * 91).await.unwrap();
    assert_eq!((second.is_new, second.expires), (true, None));
    pass(DAY * 900).await;
    assert_eq!(list.check(&user, None).unwrap().unwrap().hits, 3);
}

#[tokio::test(start_paused = true)]
async fn the_options_say_how_many_refusals_and_how_long() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let mut options = Suppression::default();
    (options.after.mailbox_full, options.keep.mailbox_full.0) = (2, DAY * 3);
    list.set_policy(options.policy());
    let refuse = |n: u32| list.note_refusal(hit("a@x.example", Class::MailboxFull, i64::from(n), START + DAY * n));
    assert!(!refuse(1).await.unwrap().listed);
    assert_eq!(refuse(2).await.unwrap().expires, Some(START + DAY * 5));
    for class in [Class::RateLimit, Class::Content, Class::IpBlock] {
        assert!(!list.note_refusal(hit("b@x.example", class, 1, START)).await.unwrap().listed);
        assert_eq!(list.standing(&mailbox("b@x.example"), None).unwrap(), Standing::Free, "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_the_recipient_holds_back_this_sender_domain_alone() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let user = mailbox("user@example.com");
    let (ours, other) = (domain("Sender.example"), domain("other.example"));
    for n in 1..=3 {
        let one = hit("user@example.com", Class::RecipientPolicy, n, START + DAY * n as u32);
        assert_eq!(list.note_refusal(one.clone()).await.unwrap().listed, n == 3);
        // The same from elsewhere, and without a sender, adds nothing here.
        if n < 3 {
            let elsewhere = Hit { sender_domain: Some(other.clone()), ..one.clone() };
            assert!(!list.note_refusal(elsewhere).await.unwrap().listed);
        }
        assert!(!list.note_refusal(Hit { sender_domain: None, ..one }).await.unwrap().listed);
    }
    assert!(list.check(&user, Some(&ours)).unwrap().is_some());
    assert_eq!(list.check(&user, Some(&other)).unwrap(), None);
    assert_eq!(list.check(&user, None).unwrap(), None);
    assert_eq!(list.standing(&user, Some(&other)).unwrap(), Standing::Remembered);
    assert_eq!(list.entries(&user).unwrap().len(), 1);
    // A delivery from the other domain clears that domain's count, and lifts nothing here.
    list.note_delivered(&user, Some(&other)).await.unwrap();
    assert_eq!(list.standing(&user, Some(&other)).unwrap(), Standing::Free);
    assert!(matches!(list.standing(&user, Some(&ours)).unwrap(), Standing::Listed(_)));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_clears_counts_and_what_has_run_out() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let user = mailbox("user@example.com");
    let refuse = |n: u32, class| list.note_refusal(hit("user@example.com", class, i64::from(n), START + DAY * n));
    assert_eq!(list.standing(&user, None).unwrap(), Standing::Free);
    for n in 1..=2 {
        refuse(n, Class::MailboxFull).await.unwrap();
    }
    assert_eq!(list.standing(&user, None).unwrap(), Standing::Remembered);
    list.note_delivered(&user, None).await.unwrap();
    assert_eq!(list.standing(&user, None).unwrap(), Standing::Free);
    // Counted from the beginning.
    assert!(!refuse(3, Class::MailboxFull).await.unwrap().listed);
    // What holds is not lifted by a message that was under way; what ran out is forgotten.
    refuse(3, Class::RecipientUnknown).await.unwrap();
    list.note_delivered(&user, None).await.unwrap();
    assert!(list.check(&user, None).unwrap().is_some());
    pass(DAY * 100).await;
    assert_eq!(list.standing(&user, None).unwrap(), Standing::Remembered);
    list.note_delivered(&user, None).await.unwrap();
    assert_eq!(list.standing(&user, None).unwrap(), Standing::Free);
    let first_again = refuse(101, Class::RecipientUnknown).await.unwrap();
    assert_eq!(first_again.expires, Some(START + DAY * 191));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_never_shortens_what_a_person_put_there() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let user = mailbox("user@example.com");
    list.add(Entry::new(&user, Class::Other, "asked to", Source::Complaint, START)).await.unwrap();
    list.note_refusal(hit("user@example.com", Class::RecipientUnknown, 1, START)).await.unwrap();
    let entry = list.check(&user, None).unwrap().unwrap();
    assert_eq!((entry.expires, entry.source, entry.hits), (None, Source::Complaint, 2));
    // Nor does another list that is merged into this one; a person's new word does.
    let short = Entry { expires: Some(START + DAY), ..Entry::new(&user, Class::Other, "x", Source::Import, START) };
    assert_eq!(merge(&list, vec![short.clone()]).await, Merged { added: 0, updated: 1 });
    assert_eq!(list.check(&user, None).unwrap().unwrap().expires, None);
    list.add(short).await.unwrap();
    assert_eq!(list.check(&user, None).unwrap().unwrap().expires, Some(START + DAY));
}

#[tokio::test(start_paused = true)]
async fn a_wave_is_confirmed_or_undone_or_runs_out() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let unknown = Class::RecipientUnknown;
    // Known from before, so that the next time would be the second.
    list.note_refusal(hit("old@x.example", unknown, 1, START)).await.unwrap();
    pass(DAY * 100).await;
    let now = START + DAY * 100;
    for (wave, users) in [("w1", ["a", "b", "old"]), ("w2", ["c", "d", "e"])] {
        for user in users {
            let one = hit(&format!("{user}@x.example"), unknown, 2, now);
            let noted = list.note_refusal(in_wave(wave, one)).await.unwrap();
            assert_eq!((noted.listed, noted.expires), (true, Some(now + WAVE_KEEP)));
        }
    }
    let open_waves: Vec<(String, u64)> = list.waves().unwrap().into_iter().map(|w| (w.id, w.entries)).collect();
    assert_eq!(open_waves, [("w1".to_string(), 3), ("w2".to_string(), 3)]);

    assert_eq!((list.confirm("w1").await.unwrap(), list.confirm("none").await.unwrap()), (3, 0));
    let expires = |user: &str| list.check(&mailbox(user), None).unwrap().map(|entry| entry.expires);
    assert_eq!(expires("a@x.example"), Some(Some(now + DAY * 90)));
    assert_eq!(expires("old@x.example"), Some(None), "the second time");
    assert_eq!(list.waves().unwrap().len(), 1);

    let of_wave = |wave: &str| Filter { wave: Some(wave.into()), expired: true, ..Filter::default() };
    assert_eq!(list.remove_all(&of_wave("w2")).await.unwrap(), 3);
    assert_eq!((expires("c@x.example"), list.waves().unwrap()), (None, vec![]));

    // Undecided: free again after seven days, remembered as one refusal, swept or not.
    list.note_refusal(in_wave("w3", hit("f@x.example", unknown, 3, now))).await.unwrap();
    pass(WAVE_KEEP).await;
    assert_eq!((expires("f@x.example"), list.waves().unwrap()), (None, vec![]));
    assert_eq!(list.standing(&mailbox("f@x.example"), None).unwrap(), Standing::Remembered);
    assert_eq!(list.tidy_step(None).await.unwrap(), None);
    assert_eq!(list.standing(&mailbox("f@x.example"), None).unwrap(), Standing::Remembered);
    let noted = list.note_refusal(hit("f@x.example", unknown, 4, now + WAVE_KEEP)).await.unwrap();
    assert_eq!(noted.expires, Some(now + WAVE_KEEP + DAY * 90));
    assert_eq!(list.check(&mailbox("f@x.example"), None).unwrap().unwrap().hits, 2);
}

#[tokio::test(start_paused = true)]
async fn a_wave_that_is_undone_gives_nobody_a_second_chance_more() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    list.note_refusal(hit("old@x.example", Class::RecipientUnknown, 1, START)).await.unwrap();
    pass(DAY * 100).await;
    let now = START + DAY * 100;
    list.note_refusal(in_wave("w", hit("old@x.example", Class::RecipientUnknown, 2, now))).await.unwrap();
    let wave = Filter { wave: Some("w".into()), ..Filter::default() };
    assert_eq!(list.remove_all(&wave).await.unwrap(), 1);
    assert_eq!(list.check(&mailbox("old@x.example"), None).unwrap(), None);
    let again = list.note_refusal(hit("old@x.example", Class::RecipientUnknown, 3, now)).await.unwrap();
    assert_eq!(again.expires, None, "the second time in truth");
}

#[tokio::test(start_paused = true)]
async fn what_a_clock_that_was_ahead_has_listed_lasts_no_longer_than_it_was_to() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let ahead = START + DAY * 400;
    list.note_refusal(hit("a@x.example", Class::RecipientUnknown, 1, ahead)).await.unwrap();
    list.add(Entry::new(&mailbox("kept@x.example"), Class::Other, "x", Source::Manual, ahead)).await.unwrap();
    list.tidy_step(None).await.unwrap();
    let entry = list.check(&mailbox("a@x.example"), None).unwrap().unwrap();
    assert_eq!((entry.first, entry.last, entry.expires), (START, START, Some(START + DAY * 90)));
    assert_eq!(list.check(&mailbox("kept@x.example"), None).unwrap().unwrap().expires, None);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_needs_to_know_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    list.note_refusal(hit("old@x.example", Class::RecipientUnknown, 1, START)).await.unwrap();
    list.note_refusal(hit("full@x.example", Class::MailboxFull, 2, START)).await.unwrap();
    list.add(Entry::new(&mailbox("kept@x.example"), Class::Other, "x", Source::Manual, START)).await.unwrap();
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    tracker.spawn(list.clone().keep_tidy(stop.clone()));
    pass(DAY * 30).await;
    assert_eq!(list.standing(&mailbox("full@x.example"), None).unwrap(), Standing::Remembered);
    pass(DAY * 60).await;
    assert_eq!(list.standing(&mailbox("full@x.example"), None).unwrap(), Standing::Free);
    pass(DAY * 364).await;
    assert_eq!(list.count().unwrap(), 2);
    pass(DAY * 3).await;
    assert_eq!(list.count().unwrap(), 1);
    stop.cancel();
    tracker.close();
    tracker.wait().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_is_there_after_a_restart_and_for_a_reader_without_a_relay() {
    let folder = tempfile::tempdir().unwrap();
    let user = mailbox("user@example.com");
    let list = open(folder.path());
    list.note_refusal(hit("user@example.com", Class::RecipientDisabled, 1, START)).await.unwrap();
    drop(list);
    let offline = List::read_only(&folder.path().join("suppression.sqlite"), Clock::starting_at(START)).unwrap();
    assert_eq!(offline.check(&user, None).unwrap().unwrap().class, Class::RecipientDisabled);
    assert!(offline.remove(&user).await.unwrap_err().to_string().contains("reading alone"));
}

#[tokio::test(start_paused = true)]
async fn lists_and_removals_take_what_the_filter_says_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    for (n, (address, class, source)) in (0..).zip([
        ("a@x.example", Class::RecipientUnknown, Source::Bounce),
        ("b_1@x.example", Class::MailboxFull, Source::Import),
        ("b%1@y.example", Class::RecipientUnknown, Source::Manual),
        ("c@sub.x.example", Class::RecipientUnknown, Source::Bounce),
    ]) {
        let entry = Entry {
            tag: (n == 0).then(|| "S3150".to_string()),
            provider: Some(if n == 3 { "gmail" } else { "outlook" }.to_string()),
            ..Entry::new(&mailbox(address), class, &format!("550 Number {n}"), source, START + DAY * n)
        };
        list.add(entry).await.unwrap();
    }
    let old =
        Entry { expires: Some(START), ..Entry::new(&mailbox("z@x.example"), Class::Other, "x", Source::Bounce, START) };
    list.add(old).await.unwrap();
    let all = Filter::default;
    let filters = [
        (all(), "a@x.example b%1@y.example b_1@x.example c@sub.x.example"),
        (Filter { domain: Some(domain("X.example")), ..all() }, "a@x.example b_1@x.example"),
        (Filter { class: Some(Class::MailboxFull), ..all() }, "b_1@x.example"),
        (Filter { source: Some(Source::Bounce), ..all() }, "a@x.example c@sub.x.example"),
        (Filter { recipient: Some("B%1".into()), ..all() }, "b%1@y.example"),
        (Filter { reply: Some("number 2".into()), ..all() }, "b%1@y.example"),
        (Filter { tag: Some("s3150".into()), ..all() }, "a@x.example"),
        (Filter { provider: Some("gmail".into()), ..all() }, "c@sub.x.example"),
        (Filter { since: Some(START + DAY), until: Some(START + DAY * 2), ..all() }, "b_1@x.example"),
        (Filter { wave: Some("w".into()), ..all() }, ""),
    ];
    for (filter, expected) in &filters {
        assert_eq!(found(&list, filter), *expected, "{filter:?}");
    }
    assert!(found(&list, &Filter { expired: true, ..all() }).ends_with("z@x.example"));
    for (filter, expected) in filters.iter().skip(2) {
        let left = found(&list, filter).split_whitespace().count() as u64;
        assert_eq!(list.remove_all(filter).await.unwrap(), left, "{expected}");
        assert_eq!(found(&list, filter), "");
    }
    assert_eq!(found(&list, &Filter { expired: true, ..all() }), "z@x.example");
}

#[tokio::test(start_paused = true)]
async fn a_long_import_lets_other_writes_through() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let entry = |n: usize| {
        Entry::new(&mailbox(&format!("user{n}@x{}.example", n % 7)), Class::Other, "gone", Source::Import, START)
    };
    let import = async {
        let mut import = list.import();
        for piece in 0..30 {
            let so_far = import.merge((piece * PIECE..(piece + 1) * PIECE).map(entry).collect()).await.unwrap();
            assert_eq!(so_far, Merged { added: (piece * PIECE) as u64, updated: 0 }, "all but the piece on its way");
        }
        assert_eq!(import.end().await.unwrap().added, 30 * PIECE as u64);
    };
    let other = async {
        list.note_refusal(hit("between@x.example", Class::RecipientUnknown, 1, START)).await.unwrap();
        list.count().unwrap()
    };
    let ((), seen) = tokio::join!(import, other);
    // At most two pieces were before it, and some follow until this task has its turn to count.
    assert!(seen <= 10 * PIECE as u64, "the other write waited for {seen} entries");
    assert_eq!(list.count().unwrap(), 30 * PIECE as u64 + 1);
    let last = 30 * PIECE - 1;
    assert!(list.check(&mailbox(&format!("USER{last}@x{}.example", last % 7)), None).unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_wave_of_many_pieces_is_confirmed_whole_and_no_other_is() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let count = 3 * PIECE + 7;
    let entry = |n: usize| {
        let mailbox = mailbox(&format!("user{n}@x.example"));
        let wave = if n.is_multiple_of(2) { "even" } else { "odd" };
        let expires = Some(START + WAVE_KEEP);
        let entry = Entry::new(&mailbox, Class::RecipientUnknown, "550 no", Source::Wave, START);
        Entry { wave: Some(wave.into()), expires, terms: 0, ..entry }
    };
    let mut import = list.import();
    for from in (0..2 * count).step_by(PIECE) {
        import.merge((from..(from + PIECE).min(2 * count)).map(entry).collect()).await.unwrap();
    }
    import.end().await.unwrap();
    assert_eq!(list.confirm("even").await.unwrap(), count as u64);
    assert_eq!(list.confirm("even").await.unwrap(), 0);
    let waves = list.waves().unwrap();
    assert!(waves.len() == 1 && waves[0].id == "odd" && waves[0].entries == count as u64, "{waves:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_says_of_others_changes_how_long_one_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let list = open(folder.path());
    let unknown = Class::RecipientUnknown;
    for (name, message) in [("a@x.example", 1), ("b@x.example", 2)] {
        list.note_refusal(in_wave("x-unproven", hit(name, unknown, message, START))).await.unwrap();
    }
    list.note_refusal(hit("c@x.example", unknown, 3, START)).await.unwrap();
    list.add(Entry::new(&mailbox("d@x.example"), unknown, "by hand", Source::Manual, START)).await.unwrap();
    let stands = |name: &str| {
        let entry = list.check(&mailbox(name), None).unwrap()?;
        Some((entry.source, entry.expires.map(|end| end.since(START).as_secs() / 86_400), entry.terms))
    };
    assert_eq!(list.waves().unwrap(), [], "nobody has to decide about these");
    // It takes others: as long as any other.
    assert!(list.doubt(&mailbox("a@x.example"), "x-unproven", Doubt::Settled).await.unwrap());
    assert_eq!(stands("a@x.example"), Some((Source::Bounce, Some(90), 1)));
    // It means us: off the list, and only who stands there for that.
    assert!(list.doubt(&mailbox("b@x.example"), "x-unproven", Doubt::Justified).await.unwrap());
    assert!(!list.doubt(&mailbox("a@x.example"), "x-unproven", Doubt::Justified).await.unwrap());
    assert!(stands("b@x.example").is_none() && stands("a@x.example").is_some());
    // It calls everybody unknown: for some days, whoever it was that it said so of first; a person's word stands.
    assert!(list.doubt(&mailbox("c@x.example"), "x-unproven", Doubt::Raised).await.unwrap());
    assert_eq!(stands("c@x.example"), Some((Source::Wave, Some(7), 0)));
    assert!(list.doubt(&mailbox("c@x.example"), "w1", Doubt::Raised).await.unwrap());
    assert_eq!(list.confirm("w1").await.unwrap(), 1);
    assert!(!list.doubt(&mailbox("d@x.example"), "w1", Doubt::Raised).await.unwrap());
    assert_eq!(stands("d@x.example"), Some((Source::Manual, None, 1)));
}

#[tokio::test(start_paused = true)]
async fn memory_and_disk_say_the_same_before_and_after_it_was_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suppression.sqlite");
    let plain = |n: usize| format!("u{n}@x.example");
    {
        let list = open(folder.path());
        for n in 0..20 {
            list.note_refusal(hit(&plain(n), Class::RecipientUnknown, 1, START)).await.unwrap();
        }
        // Counted, and not on the list yet.
        list.note_refusal(hit("counted@x.example", Class::MailboxFull, 1, START)).await.unwrap();
    }
    let list = open(folder.path());
    let on_disk = List::read_only(&path, list.0.clock.clone()).unwrap();
    let agree = |when: &str| {
        for n in 0..60 {
            let who = mailbox(&plain(n));
            assert_eq!(list.check(&who, None).unwrap(), on_disk.check(&who, None).unwrap(), "{when}: {who:?}");
            assert_eq!(list.standing(&who, None).unwrap(), on_disk.standing(&who, None).unwrap(), "{when}: {who:?}");
        }
        let counted = list.standing(&mailbox("counted@x.example"), Some(&domain("sender.example"))).unwrap();
        assert_eq!(counted, Standing::Remembered, "{when}");
    };
    agree("before");
    list.clone().learn(CancellationToken::new()).await;
    agree("learnt");
    assert!(!list.may_hold("nobody@x.example"), "and nobody else is looked up");
    for n in 30..40 {
        list.note_refusal(hit(&plain(n), Class::RecipientUnknown, 2, START)).await.unwrap();
    }
    list.add(Entry::new(&mailbox(&plain(41)), Class::Other, "by hand", Source::Manual, START)).await.unwrap();
    merge(&list, vec![Entry::new(&mailbox(&plain(42)), Class::Other, "imported", Source::Import, START)]).await;
    list.remove(&mailbox(&plain(3))).await.unwrap();
    agree("after writes of every kind");
}
