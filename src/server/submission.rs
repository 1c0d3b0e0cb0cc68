//! Messages that come over HTTP go through the same door as those that come by SMTP: a session on a pipe inside the program.
//!
//! So what holds there holds here: who may send from where, rates and days, the suppression list, the fields that are taken out,
//! and that accepted means safe on disk.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

use crate::auth::User;
use crate::inbound::{Front, Intake};
use crate::smtp::outgoing::DataEncoder;
use crate::submit::{NotTaken, RecipientAnswer, Submission, Submitted};
use crate::types::QueueId;

/// Of the pipe, each way.
const PIPE: usize = 64 << 10;
/// Content that is encoded in one go.
const PIECE: usize = 32 << 10;
/// Before the id in the reply to a message.
const QUEUED: &str = "queued as ";

/// Hands a message in and gives what became of each recipient.
pub(super) async fn hand_in<I: Intake>(
    front: &Front<I>,
    user: Option<Arc<User>>,
    client: IpAddr,
    message: Submission,
    stop: &CancellationToken,
) -> Result<Submitted, NotTaken> {
    let (ours, theirs) = duplex(PIPE);
    let session = front.serve_known(theirs, client, user, stop);
    let dialogue = Dialogue { pipe: ours, heard: BytesMut::new() }.hold(message, client);
    let ((), done) = tokio::join!(session, dialogue);
    done
}

struct Dialogue {
    pipe: DuplexStream,
    heard: BytesMut,
}

/// A reply, its lines in one.
struct Heard {
    code: u16,
    text: String,
}

impl Heard {
    fn is_good(&self) -> bool {
        (200..400).contains(&self.code)
    }

    fn refusal(self) -> NotTaken {
        NotTaken { code: self.code, text: self.text }
    }
}

impl Dialogue {
    async fn hold(mut self, message: Submission, client: IpAddr) -> Result<Submitted, NotTaken> {
        self.good().await?;
        let literal = if client.is_ipv6() { format!("[IPv6:{client}]") } else { format!("[{client}]") };
        self.ask(&format!("EHLO {literal}")).await?;
        let mut mail = format!("MAIL FROM:<{}> SIZE={}", clean(&message.sender), message.content.len());
        if !message.content.is_ascii() {
            mail.push_str(" BODY=8BITMIME");
        }
        if !message.sender.is_ascii() || message.recipients.iter().any(|address| !address.is_ascii()) {
            mail.push_str(" SMTPUTF8");
        }
        self.ask(&mail).await?;
        let mut recipients = Vec::with_capacity(message.recipients.len());
        for recipient in message.recipients {
            let heard = self.say(&format!("RCPT TO:<{}>", clean(&recipient))).await?;
            let status = if heard.is_good() { "queued" } else { "refused" };
            recipients.push(RecipientAnswer { recipient, status, reply: heard.text });
        }
        if recipients.iter().all(|answer| answer.status == "refused") {
            return Ok(Submitted { id: None, recipients });
        }
        self.ask("DATA").await?;
        let end = self.content(&message.content).await?;
        let id = end.text.split_once(QUEUED).and_then(|(_, id)| id.trim().parse::<QueueId>().ok());
        Ok(Submitted { id, recipients })
    }

    /// A command that must be answered well.
    async fn ask(&mut self, line: &str) -> Result<Heard, NotTaken> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.good().await
    }

    async fn say(&mut self, line: &str) -> Result<Heard, NotTaken> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn content(&mut self, content: &Bytes) -> Result<Heard, NotTaken> {
        let (mut encoder, mut out) = (DataEncoder::new(), Vec::with_capacity(PIECE + 64));
        for piece in content.chunks(PIECE) {
            encoder.encode(piece, &mut out);
            self.write(&out).await?;
            out.clear();
        }
        encoder.finish(&mut out);
        self.write(&out).await?;
        self.good().await
    }

    async fn good(&mut self) -> Result<Heard, NotTaken> {
        let heard = self.reply().await?;
        if heard.is_good() { Ok(heard) } else { Err(heard.refusal()) }
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), NotTaken> {
        self.pipe.write_all(octets).await.map_err(|_| gone())
    }

    async fn reply(&mut self) -> Result<Heard, NotTaken> {
        let mut text = String::new();
        loop {
            if let Some(end) = memchr::memmem::find(&self.heard, b"\r\n") {
                let line = String::from_utf8_lossy(&self.heard[..end]).into_owned();
                self.heard.advance(end + 2);
                let code = line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(gone)?;
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(if text.is_empty() { &line } else { line.get(4..).unwrap_or_default() });
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Ok(Heard { code, text });
                }
            } else if self.pipe.read_buf(&mut self.heard).await.map_err(|_| gone())? == 0 {
                return Err(gone());
            }
        }
    }
}

/// Whatever else a text holds, it stays one argument of one command.
fn clean(address: &str) -> String {
    address.chars().filter(|c| !c.is_control()).collect()
}

/// The session ended: weir stops, or all its places are taken.
fn gone() -> NotTaken {
    NotTaken {
        code: 421,
        text: "421 4.3.2 weir is stopping, or takes no more at this moment: send it again later".into(),
    }
}
