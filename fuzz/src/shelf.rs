//! The front door with an intake in memory, and a client that writes octets in given pieces and hears everything that is answered.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;
use weir::auth::{Auth, Users};
use weir::clock::Clock;
use weir::inbound::options::{BareNewlines, Chunking, Limits, Listener, Relay};
use weir::inbound::{
    AcceptError, BodySink, Door, Front, Intake, NoRoom, Received, RefusedRecipient, Standing, Suppressed,
};
use weir::types::{ByteSize, Class, Mailbox, QueueId, ReversePath, Timestamp};

/// The largest message: small, so that inputs reach the limit.
pub const MESSAGE_SIZE: u64 = 2000;
/// Recipients of a message.
const RECIPIENTS: usize = 4;
pub const TRUSTED: [u8; 4] = [127, 0, 0, 1];
pub const STRANGER: [u8; 4] = [192, 0, 2, 66];

/// What a dialogue came to.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// Every octet the server said.
    pub heard: Vec<u8>,
    pub stored: Vec<Stored>,
    pub refused: usize,
}

/// A message that was answered with 250.
#[derive(Debug, PartialEq)]
pub struct Stored {
    pub sender: String,
    pub recipients: Vec<String>,
    pub body: Vec<u8>,
}

/// What the client is, and what the operator has set.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub client: [u8; 4],
    pub bare_newlines: BareNewlines,
    pub chunking: Chunking,
}

impl Setting {
    /// Three bits choose.
    pub fn of(choice: u8) -> Setting {
        Setting {
            client: if choice & 1 == 0 { TRUSTED } else { STRANGER },
            bare_newlines: if choice & 2 == 0 { BareNewlines::Normalize } else { BareNewlines::Reject },
            chunking: if choice & 4 == 0 { Chunking::Off } else { Chunking::On },
        }
    }
}

/// A dialogue in which the client writes `pieces`, each when the server has nothing more to do, and then nothing more.
pub fn converse(setting: Setting, pieces: &[&[u8]]) -> Outcome {
    let shelf = Arc::new(Shelf::default());
    let heard = super::kit::run(talk(setting, pieces, shelf.clone()));
    let stored = std::mem::take(&mut *shelf.stored.lock().unwrap_or_else(PoisonError::into_inner));
    let refused = *shelf.refused.lock().unwrap_or_else(PoisonError::into_inner);
    Outcome { heard, stored, refused }
}

async fn talk(setting: Setting, pieces: &[&[u8]], shelf: Arc<Shelf>) -> Vec<u8> {
    let start = Timestamp::from_secs(1_795_293_220);
    let limits = Limits {
        message_size: ByteSize(MESSAGE_SIZE),
        recipients: RECIPIENTS,
        bare_newlines: setting.bare_newlines,
        ..Limits::default()
    };
    let relay = Relay { postmaster: "ops@own.test".to_string(), ..Relay::default() };
    let clock = Clock::starting_at(start);
    let auth = Auth::new(Users::default(), clock.clone());
    let front = Front::new("relay.test", &relay, &limits, auth, shelf, clock).expect("a front door");
    let listener = Listener { chunking: setting.chunking, ..Listener::at(([127, 0, 0, 1], 25).into()) };
    let door = Door::new(&listener, None).expect("a listener in clear text");
    let (here, there) = duplex(64 << 10);
    let (mut hears, mut says) = tokio::io::split(here);
    let server = async {
        let place = front.enter(setting.client.into()).await.unwrap();
        front.serve(&door, there, setting.client.into(), place, &CancellationToken::new()).await;
    };
    let speaks = async {
        for piece in pieces {
            if says.write_all(piece).await.is_err() {
                break;
            }
            // The clock jumps when everybody waits: the server has done what it can with the piece.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = says.shutdown().await;
    };
    let mut heard = Vec::new();
    let listens = async { hears.read_to_end(&mut heard).await.map(drop).unwrap_or_default() };
    tokio::join!(server, speaks, listens);
    assert_eq!(front.gate().open(), 0, "a connection that is over holds no place");
    heard
}

/// An intake in memory. Ids count up, so that two dialogues that say the same hear the same.
#[derive(Debug, Default)]
struct Shelf {
    next: Mutex<i64>,
    stored: Mutex<Vec<Stored>>,
    refused: Mutex<usize>,
}

#[derive(Debug)]
struct Sheet(Vec<u8>);

impl Intake for Shelf {
    type Body = Sheet;
    type Space = ();

    fn next_id(&self, _: Timestamp) -> QueueId {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        QueueId::from_key(*next).expect("small numbers are ids")
    }

    fn room(&self, size_bytes: u64) -> Result<(), NoRoom> {
        if size_bytes == 1999 { Err(NoRoom("no room for 1999".to_string())) } else { Ok(()) }
    }

    fn set_aside(&self, size_bytes: Option<u64>) -> Result<(), NoRoom> {
        self.room(size_bytes.unwrap_or(0))
    }

    fn standing(&self, recipient: &Mailbox, _: &ReversePath) -> Standing {
        match recipient.local_part() {
            "suppressed" => Standing::Refuse(Suppressed {
                class: Class::RecipientUnknown,
                reply: "550 5.1.1 no\r\nsuch user".to_string(),
                by_receiver: true,
                since: Timestamp::from_secs(90_000),
            }),
            "dropped" => Standing::Drop,
            _ => Standing::Welcome,
        }
    }

    fn refused(&self, _: RefusedRecipient<'_>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn body(&self, _: QueueId, _: &ReversePath, _: Option<()>) -> Sheet {
        Sheet(Vec::new())
    }

    fn accept(&self, message: Received<Sheet>) -> impl Future<Output = Result<(), AcceptError>> + Send {
        let sender = message.envelope.sender.as_str().to_string();
        let failed = sender.starts_with("unlucky@");
        assert_eq!(message.envelope.size_bytes, message.body.0.len() as u64);
        if !failed {
            let all = message.recipients.iter().chain(&message.dropped);
            let recipients = all.map(|recipient| recipient.address.to_string()).collect();
            let stored = Stored { sender, recipients, body: message.body.0 };
            self.stored.lock().unwrap_or_else(PoisonError::into_inner).push(stored);
        }
        std::future::ready(if failed { Err(AcceptError::Failed("the disk said no".to_string())) } else { Ok(()) })
    }
}

impl BodySink for Sheet {
    fn write(&mut self, octets: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        self.0.extend_from_slice(octets);
        std::future::ready(Ok(()))
    }
}
