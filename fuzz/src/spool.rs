//! The spool read back (`spool/read`): rows and contents that somebody or something has damaged are refused with words, never sent in
//! part or under another envelope; and all ways of reading agree. The input: columns as texts that end with 0xFF, in the order below;
//! the rest is the content.

use rusqlite::{Connection, params};
use weir::clock::Clock;
use weir::spool::{Filter, Options, Reader, Spool, Stored};
use weir::types::{Body, DeliveryId, QueueId, Timestamp};

use super::kit;

const ID: i64 = 0x0123_4567_89AB;

pub fn check(mut bytes: &[u8]) {
    let folder = kit::folder();
    let path = folder.path();
    make(path);
    let (flags, part) = (kit::first(&mut bytes), u16::from(kit::first(&mut bytes)));
    let row = Row::read(&mut bytes, flags);
    row.insert(&Connection::open(path.join("spool.sqlite")).expect("open the spool"), part, bytes);
    if row.in_file {
        let name = QueueId::from_key(ID).expect("an id").to_string();
        std::fs::write(path.join("bodies").join(name), bytes).expect("write the content");
    }
    let reader = Reader::open(path).expect("open it for reading");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(look(&reader, &row, part, bytes));
}

/// An empty spool, as the relay makes it.
fn make(folder: &std::path::Path) {
    struct Nothing;
    impl weir::spool::Journal for Nothing {
        fn write(&mut self, _: &[weir::types::Event]) -> std::io::Result<()> {
            Ok(())
        }
    }
    let options = Options { folder: folder.to_path_buf(), queue_messages: 10, min_free_bytes: 0 };
    kit::run(async {
        let (committed, _receiver) = tokio::sync::mpsc::channel(1);
        let clock = Clock::starting_at(Timestamp::from_secs(1_795_293_220));
        Spool::open(options, clock, Box::new(Nothing), committed).map(drop).expect("make a spool");
    });
}

/// The columns that are texts, and some numbers.
struct Row {
    sender: String,
    domain: String,
    recipients: String,
    parameters: Option<String>,
    refusal: Option<String>,
    failed: Option<String>,
    next_hop: Option<String>,
    class: Option<String>,
    state: String,
    message_id: Option<String>,
    client: Option<String>,
    number: i64,
    size: i64,
    in_file: bool,
    /// Texts are stored as octets, which SQLite does not forbid.
    as_blob: bool,
}

impl Row {
    fn read(bytes: &mut &[u8], flags: u8) -> Row {
        let sometimes = |text: String| Some(text).filter(|text| !text.is_empty());
        let mut row = Row {
            sender: kit::text(bytes),
            domain: kit::text(bytes),
            recipients: kit::text(bytes),
            parameters: sometimes(kit::text(bytes)),
            refusal: sometimes(kit::text(bytes)),
            failed: sometimes(kit::text(bytes)),
            next_hop: sometimes(kit::text(bytes)),
            class: sometimes(kit::text(bytes)),
            state: kit::text(bytes),
            message_id: sometimes(kit::text(bytes)),
            client: sometimes(kit::text(bytes)),
            number: 0,
            size: 0,
            in_file: flags & 1 != 0,
            as_blob: flags & 2 != 0,
        };
        let number = kit::text(bytes);
        row.number = number.parse().unwrap_or(0);
        row.size = if flags & 4 == 0 { bytes.len() as i64 } else { row.number };
        row
    }

    fn insert(&self, on: &Connection, part: u16, content: &[u8]) {
        on.pragma_update(None, "synchronous", "OFF").expect("nothing here has to last");
        on.execute(
            "INSERT INTO message (id, received, sender, size, report, in_file, client, user, message_id, expire, parameters, class) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                ID,
                self.number,
                self.sender,
                self.size,
                self.number & 1,
                self.in_file,
                self.client,
                self.client,
                self.message_id,
                self.number,
                self.parameters,
                self.class,
            ],
        )
        .expect("a message");
        on.execute(
            "INSERT INTO delivery (message, part, domain, recipients, state, attempts, next_attempt, delay_reported, provider, source, \
             refusal, failed, next_hop) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                ID,
                part,
                self.domain,
                self.recipients,
                self.state,
                self.number,
                self.number,
                self.number & 1,
                self.class,
                self.class,
                self.refusal,
                self.failed,
                self.next_hop,
            ],
        )
        .expect("a delivery");
        if !self.in_file {
            on.execute("INSERT INTO body (id, content) VALUES (?1, ?2)", params![ID, content]).expect("a content");
        }
        if self.as_blob {
            on.execute("UPDATE delivery SET recipients = CAST(recipients AS BLOB)", ()).expect("other types");
        }
    }
}

async fn look(reader: &Reader, row: &Row, part: u16, content: &[u8]) {
    let id = DeliveryId { message: QueueId::from_key(ID).expect("an id"), part };
    let loaded = reader.load(id).await;
    let scanned = reader.scan(None, 10).await;
    let listed = reader.list(Filter::default(), None, 10).await;
    let due = reader.due(Timestamp::NEVER, None, 10).await;
    for fault in
        [loaded.as_ref().err(), scanned.as_ref().err(), listed.as_ref().err(), due.as_ref().err()].into_iter().flatten()
    {
        assert!(!fault.to_string().is_empty());
    }
    if let Ok(stored) = &loaded {
        let stored = stored.as_ref().expect("it is there");
        is_what_the_row_says(stored, row, content);
        let listed = listed.expect("what can be loaded can be listed").rows;
        assert_eq!((&listed[0].delivery, &listed[0].envelope), (&stored.delivery, &stored.envelope));
        let summary = &scanned.expect("what can be loaded can be counted")[0];
        assert_eq!((summary.id, &summary.domain), (stored.delivery.id, &stored.delivery.domain));
        let addresses = stored.delivery.recipients.iter().map(|recipient| recipient.address.as_str());
        assert!(addresses.eq(summary.recipients.iter().map(|address| &**address)), "{:?}", summary.recipients);
        assert_eq!(&*summary.sender, stored.envelope.sender.as_str());
        let filter = Filter { domain: Some(stored.delivery.domain.clone()), ..Filter::default() };
        assert_eq!(reader.list(filter, None, 10).await.expect("by its domain").rows.len(), 1);
    }
    reader.counts().await.expect("counters are numbers of their own");
}

fn is_what_the_row_says(stored: &Stored, row: &Row, content: &[u8]) {
    assert_eq!(stored.envelope.sender.as_str(), row.sender, "the sender word for word");
    let is_waiting = stored.delivery.state == weir::types::DeliveryState::Waiting;
    assert_eq!(is_waiting, row.state == "waiting", "only this word sends mail");
    assert!(!stored.delivery.recipients.iter().any(|recipient| recipient.address.as_str().contains(char::is_control)));
    match &stored.body {
        Body::Inline(octets) => assert_eq!(&octets[..], content),
        Body::File { size_bytes, .. } | Body::Headed { size_bytes, .. } => {
            assert_eq!(*size_bytes, content.len() as u64, "a file that was cut is never sent")
        }
    }
}
