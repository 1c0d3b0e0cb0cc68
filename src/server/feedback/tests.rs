//! The way back over years and keys: what counts, for whom, for how long, and how often it is told.

use std::path::Path;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::spool::{Journal, Options as SpoolOptions};
use crate::types::{DeliveryId, DeliveryState, QueueId, Recipient};
use crate::verdict::Rules;

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
const DAY_MILLIS: i64 = 86_400_000;

/// Counts what is written by its kind.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<EventKind>>>);

impl Journal for Log {
    fn write(&mut self, events: &[Event]) -> std::io::Result<()> {
        self.0.lock().unwrap().extend(events.iter().map(|event| event.kind));
        Ok(())
    }
}

struct World {
    feedback: Arc<Feedback>,
    clock: Clock,
    log: Log,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl World {
    fn new(folder: &Path) -> World {
        let (clock, log, stop, tasks) =
            (Clock::starting_at(NOW), Log::default(), CancellationToken::new(), TaskTracker::new());
        let options = SpoolOptions { folder: folder.to_owned(), queue_messages: 9, min_free_bytes: 0 };
        let (spool, writer) = Spool::open(options, clock.clone(), Box::new(log.clone()), mpsc::channel(1).0).unwrap();
        tasks.spawn(writer.run(stop.clone()));
        let (suppressions, writer) = List::open(&folder.join("suppression.sqlite"), clock.clone()).unwrap();
        tasks.spawn(writer.run(stop.clone()));
        let (store, writer) = Store::open(folder, clock.clone()).unwrap();
        tasks.spawn(writer.run(stop.clone()));
        let mut config = Config { data_dir: folder.to_owned(), ..Config::default() };
        config.feedback.domain = "fb.shop.example".into();
        config.feedback.return_path = vec![Domain::parse("shop.example").unwrap()];
        let rules = Arc::new(rules::InForce::new(Rules::shipped()));
        let parts = Parts { store, suppressions, rules, spool, clock: clock.clone() };
        let feedback = Feedback::new(prepare(&config).unwrap(), parts).unwrap();
        World { feedback, clock, log, stop, tasks }
    }

    /// The return path and the unsubscribe token of a message to this recipient.
    async fn send(&self, message: i64, recipient: &str) -> (Mailbox, String) {
        let id = DeliveryId { message: QueueId::from_key(message).unwrap(), part: 0 };
        let address = Mailbox::parse(recipient).unwrap();
        let envelope = Envelope {
            requests: Default::default(),
            id: id.message,
            received: self.clock.now(),
            sender: ReversePath::parse("news@shop.example").unwrap(),
            ret: None,
            envid: None,
            body_type: crate::types::BodyType::Undeclared,
            smtputf8: false,
            size_bytes: 9,
            message_id: Some(format!("<{message}@shop.example>")),
            client: None,
            user: None,
            expire: None,
            class: crate::types::Priority::Normal,
            origin: crate::types::Origin::Client,
        };
        let recipients = vec![Recipient { address: address.clone(), orcpt: None, notify: Default::default() }];
        let mut deliveries = vec![Delivery {
            id,
            domain: address.domain().clone(),
            recipients,
            state: DeliveryState::Waiting,
            attempts: 0,
            next_attempt: None,
            delay_reported: false,
            refusal: None,
            failed: Vec::new(),
            next_hop: None,
            own: None,
        }];
        self.feedback.stamp(&envelope, &mut deliveries, None).await.unwrap();
        let own = deliveries[0].own.clone().unwrap();
        let expires = envelope.received + self.feedback.keep();
        let token = Token::new(Purpose::Unsubscribe, id, &address, expires);
        let token = token.text(self.feedback.in_force().way.keys());
        (own.return_path.clone().unwrap(), token)
    }

    async fn take(&self, recipient: Option<&Mailbox>, head: &str) -> Outcome {
        let answer = Answer { head: head.as_bytes().to_vec(), recipient, client: None };
        self.feedback.take(answer).await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn bounce(id: &str, quoted: &str) -> String {
    format!(
        "From: mailer-daemon@x.example\nMessage-ID: <{id}>\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
         --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;x\n\nAction: failed\nStatus: 5.1.1\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\n--b\nContent-Type: text/rfc822-headers\n\n{quoted}\n--b--\n"
    )
}

#[tokio::test]
async fn a_token_counts_for_its_time_its_recipient_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(folder.path());
    let (anna, out) = world.send(1, "anna@x.example").await;
    let (bob, _) = world.send(2, "bob@x.example").await;
    assert_eq!(world.feedback.way_back(&anna), Some(WayBack::Open));
    assert_eq!(world.feedback.way_back(&Mailbox::parse("anna@x.example").unwrap()), None);
    assert!(world.take(Some(&anna), &bounce("1@x", "")).await.suppressed);
    assert!(!world.take(Some(&anna), &bounce("2@x", "")).await.suppressed, "it was told");
    // By its Message-ID alone it is an event, with what was found out.
    let told = world.take(None, &bounce("3@x", "Message-ID: <2@shop.example>")).await;
    assert_eq!((told.event, told.suppressed), (EventKind::Feedback, false));
    // Of two tokens none counts, and neither does one that names another's row.
    let both = bounce("4@x", &format!("Return-Path: <{anna}>\nX: <{bob}>"));
    assert_eq!(world.take(None, &both).await.event, EventKind::Feedback);
    world
        .feedback
        .store
        .add(vec![Sent {
            delivery: DeliveryId { message: QueueId::from_key(2).unwrap(), part: 0 },
            recipient: Mailbox::parse("victim@x.example").unwrap(),
            sender: ReversePath::Null,
            message_id: None,
        }])
        .await
        .unwrap();
    assert!(matches!(world.feedback.way_back(&bob), Some(WayBack::Shut(_))));
    assert_eq!(world.take(Some(&bob), &bounce("5@x", "")).await.event, EventKind::Feedback);
    // Its time is over.
    assert_eq!(world.feedback.peek(&out), Click::Done);
    world.clock.step(92 * DAY_MILLIS);
    assert_eq!((world.feedback.peek(&out), world.feedback.peek("u-x")), (Click::Expired, Click::Unknown));
    assert!(matches!(world.feedback.way_back(&anna), Some(WayBack::Shut(why)) if why.contains("expired")));
    let late = world.take(Some(&anna), &bounce("6@x", &format!("Return-Path: <{anna}>"))).await;
    assert_eq!((late.event, late.suppressed), (EventKind::Feedback, false));
    let kinds = world.log.0.lock().unwrap().clone();
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Returned).count(), 1);
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Suppressed).count(), 1);
    world.end().await;
}

#[tokio::test]
async fn where_the_tokens_cannot_be_looked_up_an_answer_is_asked_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(folder.path());
    let (anna, out) = world.send(1, "anna@x.example").await;
    // Nothing was read yet: the file is opened by the first look-up.
    std::fs::remove_file(folder.path().join("feedback.sqlite")).unwrap();
    std::fs::create_dir(folder.path().join("feedback.sqlite")).unwrap();
    assert_eq!(world.feedback.way_back(&anna), Some(WayBack::Busy));
    assert_eq!(world.feedback.peek(&out), Click::Failed);
    for head in [bounce("1@x", ""), bounce("2@x", &format!("Return-Path: <{anna}>"))] {
        let answer = Answer { head: head.into_bytes(), recipient: Some(&anna), client: None };
        assert!(world.feedback.take(answer).await.is_err(), "it is not lost");
    }
    // What has no token of ours needs no look-up.
    let stranger = Mailbox::parse("x@fb.shop.example").unwrap();
    assert!(matches!(world.feedback.way_back(&stranger), Some(WayBack::Shut(_))));
    world.end().await;
}

#[tokio::test]
async fn what_changes_nothing_is_written_so_often_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(folder.path());
    for n in 0..EVENTS_PER_MINUTE + 50 {
        world.take(None, &format!("From: a@x.example\nMessage-ID: <{n}@x>\n\nhello")).await;
    }
    let minutes = (world.clock.now().secs() / 60 - NOW.secs() / 60) as usize + 1;
    assert!(world.log.0.lock().unwrap().len() <= EVENTS_PER_MINUTE as usize * minutes);
    world.end().await;
}
