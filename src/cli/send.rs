//! `weir send`: hands one message to the running relay and says what the receiver answered.
//!
//! The message takes the way of every other: by SMTP to the first listener, so that a test tests what users use. The
//! outcome comes through the control socket. Exit code 0: every recipient was delivered, or with `--wait 0s` the
//! relay has taken the message.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use lettre::address::Envelope;
use lettre::message::header::{self, ContentType, Header, Headers};
use lettre::message::{Mailbox, Mailboxes};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::config::Config;
use super::output::{self, Output};
use super::piped::{self, Piped};
use super::{Format, human, relay, table, usage};
use crate::admin::protocol::OUTCOME_WAIT_MAX;
use crate::admin::{Client, ClientError, OutcomeRecord, QueueDetail, Request};
use crate::clock::Clock;
use crate::types::{EventKind, QueueId, Span, Timestamp};

/// The relay answers within it or is in trouble: it is on this host, and a commit takes milliseconds.
const HAND_IN_TIME: Duration = Duration::from_secs(30);
/// What is read from standard input; the relay's own `limits.message_size` decides below it.
const BODY_MAX: u64 = 64 << 20;
/// Beyond the time the relay waits for an outcome: its answer still has to come.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Send {
    /// Sender. With --test: default postmaster@HOSTNAME of the configuration
    #[arg(long, value_name = "ADDRESS", required_unless_present = "test")]
    from: Option<Mailbox>,
    /// Recipient; may be given more than once
    #[arg(long, value_name = "ADDRESS", required_unless_present = "test")]
    to: Vec<Mailbox>,
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    subject: String,
    /// Send a test message with a text of its own to this address
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["to", "subject"])]
    test: Option<Mailbox>,
    /// How long to wait for the receiver's answer, at most 10m; 0s: not at all
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    wait: Span,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn send(send: Send, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let wait = send.wait.0;
    if wait > OUTCOME_WAIT_MAX {
        return Err(usage(format!("--wait {}: at most {}", send.wait, Span(OUTCOME_WAIT_MAX))));
    }
    // Asked first: where no relay runs, nobody should have typed a message for nothing.
    let client = relay::connect(config).await?;
    let now = Clock::system().now();
    let message = compose(&send, config, now)?;
    let id = hand_in(listener(config)?, message).await?;
    if !send.format.json {
        output.line(&format!("queued as {id}"))?;
        output.flush()?;
    } else if wait.is_zero() {
        output.json(&serde_json::json!({ "id": id }))?;
    }
    if wait.is_zero() {
        return Ok(ExitCode::SUCCESS);
    }
    // The relay sends one copy to an address that is named twice.
    let recipients = send.to.iter().map(|to| to.email.to_string()).collect::<BTreeSet<String>>().len().max(1);
    follow(id, recipients, wait, client, send.format, output).await
}

/// What goes in.
#[derive(Debug)]
struct Whole {
    envelope: Envelope,
    content: Vec<u8>,
}

/// The test message, or what standard input says: a message that has a header, or the text for one.
fn compose(send: &Send, config: &Config, now: Timestamp) -> anyhow::Result<Whole> {
    let from = sender(send, config)?;
    if let Some(to) = &send.test {
        let subject = test_subject(config, now);
        return written(from, vec![to.clone()], subject, test_text(config, now), now);
    }
    let input = read_input()?;
    match Piped::read(&input) {
        Some(message) => as_it_is(send, from, message, now),
        None => {
            let text = String::from_utf8(input).context(
                "the text on standard input is not UTF-8: convert it, or send a message with a header of its own",
            )?;
            written(from, send.to.clone(), send.subject.clone(), text, now)
        }
    }
}

fn sender(send: &Send, config: &Config) -> anyhow::Result<Mailbox> {
    match (&send.from, &config.hostname) {
        (Some(from), _) => Ok(from.clone()),
        (None, Some(hostname)) => format!("postmaster@{hostname}").parse().map_err(|error| {
            usage(format!("postmaster@{hostname} is no sender address ({error}): name one with --from"))
        }),
        (None, None) => Err(usage("no `hostname` is configured to make a sender of: name one with --from")),
    }
}

fn message_id(from: &Mailbox, now: Timestamp) -> String {
    format!("<{}.{:016x}@{}>", now.compact(), fastrand::u64(..), from.email.domain())
}

fn date(now: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0))
}

/// A message with its own header: the options say who sends it to whom, the header what is shown of that.
fn as_it_is(send: &Send, from: Mailbox, message: Piped, now: Timestamp) -> anyhow::Result<Whole> {
    if !send.subject.is_empty() && message.has("subject") {
        return Err(usage("the message on standard input has a subject of its own: leave out --subject"));
    }
    let to = send.to.iter().map(|to| to.email.clone()).collect();
    let envelope = Envelope::new(Some(from.email.clone()), to).context("the message cannot be composed")?;
    let mut fields = vec![
        field(header::From::from(Mailboxes::from(from.clone()))),
        field(header::Date::new(date(now))),
        field(header::MessageId::from(message_id(&from, now))),
    ];
    fields.extend((!send.subject.is_empty()).then(|| field(header::Subject::from(send.subject.clone()))));
    Ok(Whole { envelope, content: message.completed(&fields) })
}

/// The name of a field, and the field as it stands in a header.
fn field<H: Header>(field: H) -> (String, String) {
    let mut headers = Headers::new();
    headers.set(field);
    (H::name().to_string(), headers.to_string())
}

fn written(from: Mailbox, to: Vec<Mailbox>, subject: String, text: String, now: Timestamp) -> anyhow::Result<Whole> {
    let message_id = message_id(&from, now);
    let mut message = Message::builder()
        .from(from)
        .subject(subject)
        .date(date(now))
        .message_id(Some(message_id))
        .header(ContentType::TEXT_PLAIN);
    for recipient in to {
        message = message.to(recipient);
    }
    let message = message.body(text).context("the message cannot be composed")?;
    Ok(Whole { envelope: message.envelope().clone(), content: message.formatted() })
}

fn read_input() -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        output::say("type the message and end it with Ctrl-D on a line of its own");
    }
    let mut body = Vec::new();
    stdin.lock().take(BODY_MAX + 1).read_to_end(&mut body).context("cannot read the message from standard input")?;
    if body.len() as u64 > BODY_MAX {
        bail!("the message on standard input is longer than {}", human::size(BODY_MAX));
    }
    if piped::is_empty(&body) {
        return Err(usage("the message on standard input is empty: nothing was sent"));
    }
    Ok(body)
}

/// The first listener, as it is reached from this host.
fn listener(config: &Config) -> anyhow::Result<SocketAddr> {
    let Some(mut address) = config.listeners.first().copied() else {
        bail!("no listener is configured: add a [[listener]]");
    };
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(address)
}

async fn hand_in(relay: SocketAddr, message: Whole) -> anyhow::Result<QueueId> {
    let transport: AsyncSmtpTransport<Tokio1Executor> =
        AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(relay.ip().to_string())
            .port(relay.port())
            .timeout(Some(HAND_IN_TIME))
            .build();
    let response = match transport.send_raw(&message.envelope, &message.content).await {
        Ok(response) => response,
        Err(error) if error.is_permanent() || error.is_transient() => {
            return Err(anyhow::Error::new(error).context(format!("the relay at {relay} did not take the message")));
        }
        Err(error) => return Err(anyhow::Error::new(error).context(format!("cannot hand the message to {relay}"))),
    };
    let reply = response.message().collect::<Vec<&str>>().join(" ");
    queue_id(&reply)
        .with_context(|| format!("{relay} took the message but named no queue id: `{}`", human::clean(&reply)))
}

/// The id of `2.0.0 queued as ID`.
fn queue_id(reply: &str) -> Option<QueueId> {
    reply.split_whitespace().last()?.parse().ok()
}

/// Waits for what becomes of the message and prints it.
async fn follow(
    id: QueueId,
    recipients: usize,
    wait: Duration,
    client: Client,
    format: Format,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut client = client.with_patience(wait + ANSWER_MARGIN);
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let outcomes: Vec<OutcomeRecord> = client.all(&Request::Outcome { id, wait_ms }).await?;
    for outcome in &outcomes {
        if format.json {
            output.json(outcome)?;
        } else {
            output.text(&describe(outcome, Clock::system().now()))?;
        }
    }
    if outcomes.len() < recipients {
        return still_waiting(id, wait, client, format, output).await;
    }
    let delivered = outcomes.iter().all(|outcome| outcome.event == EventKind::Delivered);
    Ok(if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// No answer so far, or not for everybody: says why, as `queue show` would.
async fn still_waiting(
    id: QueueId,
    wait: Duration,
    mut client: Client,
    format: Format,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let details: Vec<QueueDetail> = match client.all(&Request::QueueShow { id }).await {
        Ok(details) => details,
        Err(ClientError::Refused(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if format.json {
        for detail in &details {
            output.json(detail)?;
        }
    }
    let why = details.iter().find_map(|detail| {
        let lane = detail.lane.as_ref().and_then(|lane| lane.reason.clone());
        detail.record.reason.clone().or(lane)
    });
    bail!(
        "no answer for every recipient within {}{}; the relay keeps trying: `weir queue show {id}`",
        human::span(wait),
        why.map(|why| format!(": {}", human::clean(&why))).unwrap_or_default()
    )
}

fn describe(outcome: &OutcomeRecord, now: Timestamp) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let reading = [outcome.verdict.map(|v| v.to_string()), outcome.class.map(|c| c.to_string())];
    let mut reading = reading.into_iter().flatten().collect::<Vec<String>>().join(", ");
    if let Some(rule) = &outcome.rule {
        reading.push_str(&format!(" (rule {rule})"));
    }
    let next = outcome.next_attempt.map(|next| human::relative(next, now)).unwrap_or_default();
    let facts = table::facts(&[
        ("  reply", text(&outcome.reply)),
        ("  said by", text(&outcome.mx)),
        ("  provider", text(&outcome.provider)),
        ("  source", text(&outcome.source)),
        ("  TLS", text(&outcome.tls)),
        ("  read as", reading.trim().to_string()),
        ("  cause", text(&outcome.cause)),
        ("  remedy", text(&outcome.remedy)),
        ("  next attempt", next),
    ]);
    format!("{}: {}\n{facts}", human::clean(&outcome.recipient), outcome.event)
}

fn test_subject(config: &Config, now: Timestamp) -> String {
    match &config.hostname {
        Some(hostname) => format!("Delivery test of the mail relay {hostname}, {}", human::date(now)),
        None => format!("Delivery test of a mail relay, {}", human::date(now)),
    }
}

/// Over two kilobytes of plain text: receivers judge a message of three words by its shortness.
fn test_text(config: &Config, now: Timestamp) -> String {
    let host = config.hostname.as_deref().unwrap_or("this host");
    format!(
        "Hello,\n\
         \n\
         this is a test message. The operator of the mail relay on\n\
         {host}\n\
         sent it by hand on {date}, to see whether mail from there\n\
         arrives and what the receiving side says about it. It was sent to this\n\
         one address only. Nothing has to be done about it, and no further\n\
         message follows unless somebody runs the same test again.\n\
         \n\
         {TEST_TEXT}\
         \n\
         Kind regards,\n\
         the mail relay\n",
        date = human::date(now)
    )
}

const TEST_TEXT: &str = "\
How to read the result

The program that sent this message prints the reply of the receiving
server word for word, together with its own reading of it. A reply that
begins with 2 means that the server took over the responsibility for the
message. One that begins with 4 means that it should be tried again
later, which the relay does by itself. One that begins with 5 is final:
the message is returned to its sender and not sent a second time.

If you are reading this in your inbox, the whole way works: the name of
your domain was looked up, a connection to its mail server was made, the
message was accepted, and the filters behind the server saw no reason to
put it aside.

If you found it in the folder for unwanted mail, it was delivered but
not trusted. The usual reasons, in the order in which they are worth
checking:

 1. The address of the sending host has no name in the DNS, or the name
    does not point back to the same address.
 2. The domain of the sender does not list the sending address in its
    SPF record.
 3. The message carries no DKIM signature of the sender's domain, or the
    signature does not verify because something on the way changed the
    text.
 4. The domain of the sender publishes no DMARC policy, or the two
    checks above passed for a different domain than the one in the From
    line.
 5. The sending address is new to the receiver, or somebody sent
    unwanted mail from it before. Time and a steady, moderate volume of
    wanted mail help, and nothing else does.

All of these can be seen in the header of this message: look for the
line that begins with Authentication-Results, which your own server
added when the message came in. It names each check and its result.

If it did not arrive at all although the receiving server accepted it,
please ask those who run that server. They can find it in their log by
the time above and by the Message-ID in the header; the sending side has
no way to see what happens behind an accepted message.
";

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::types::{Class, Verdict};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        send: Send,
    }

    fn read(line: &str) -> Send {
        Line::try_parse_from(line.split_whitespace()).unwrap().send
    }

    fn config(hostname: Option<&str>, listener: SocketAddr) -> Config {
        Config { hostname: hostname.map(String::from), listeners: vec![listener], ..Config::for_tests() }
    }

    fn now() -> Timestamp {
        Timestamp::from_secs(1_795_293_220)
    }

    fn anywhere() -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 2525))
    }

    #[test]
    fn a_test_message_looks_like_mail() {
        let config = config(Some("relay.example.com"), anywhere());
        let message = compose(&read("send --test bob@outlook.com"), &config, now()).unwrap();
        let text = String::from_utf8(message.content).unwrap();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        for line in [
            "From: postmaster@relay.example.com",
            "To: bob@outlook.com",
            "Subject: Delivery test of the mail relay relay.example.com, 2026-11-21\r\n 20:33:40 UTC",
            "Date: Sat, 21 Nov 2026 20:33:40 +0000",
            "Message-ID: <20261121T203340Z.",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: 7bit",
        ] {
            assert!(header.contains(line), "{line} is missing in\n{header}");
        }
        assert!(body.len() > 2048, "{} bytes", body.len());
        assert!(body.lines().all(|line| line.len() <= 76), "lines need no encoding: {body}");
        assert!(!body.contains('{'), "{body}");
    }

    #[test]
    fn a_message_with_a_header_keeps_it() {
        let message = || Piped::read("Subject: mine\nFrom: x@example.com\n\ntext\n".as_bytes()).unwrap();
        let send = |more: &str| read(&format!("send --from ann@example.com --to b@outlook.com --to c@gmail.com{more}"));
        let from: Mailbox = "ann@example.com".parse().unwrap();
        let whole = as_it_is(&send(""), from.clone(), message(), now()).unwrap();
        assert_eq!(whole.envelope.from().unwrap().to_string(), "ann@example.com");
        assert_eq!(whole.envelope.to().len(), 2);
        let text = String::from_utf8(whole.content).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0], "Date: Sat, 21 Nov 2026 20:33:40 +0000");
        assert!(lines[1].starts_with("Message-ID: <20261121T203340Z."), "{text}");
        assert_eq!(lines[2..], ["Subject: mine", "From: x@example.com", "", "text"]);
        let error = as_it_is(&send(" --subject other"), from, message(), now()).unwrap_err();
        assert!(error.is::<super::super::Usage>() && error.to_string().contains("leave out --subject"), "{error}");
    }

    #[test]
    fn a_test_without_a_hostname_asks_for_a_sender() {
        let config = config(None, anywhere());
        let error = compose(&read("send --test bob@outlook.com"), &config, now()).unwrap_err();
        assert!(error.is::<super::super::Usage>(), "{error}");
        assert!(error.to_string().contains("--from"));
        compose(&read("send --test bob@outlook.com --from ann@example.com"), &config, now()).unwrap();
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(listener(&config(None, anywhere())).unwrap(), SocketAddr::from(([127, 0, 0, 1], 2525)));
        let v6 = "[::]:25".parse().unwrap();
        assert_eq!(listener(&config(None, v6)).unwrap(), "[::1]:25".parse().unwrap());
    }

    #[test]
    fn the_queue_id_is_read_from_the_reply() {
        assert_eq!(queue_id("2.0.0 queued as 0123456789ABC"), "0123456789ABC".parse().ok());
        assert_eq!(queue_id("2.0.0 ok"), None);
        assert_eq!(queue_id(""), None);
    }

    /// A relay that says `end` to the message.
    async fn relay_that_says(end: &'static str) -> (SocketAddr, impl Future<Output = Vec<String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut commands = Vec::new();
            let mut in_data = false;
            write.write_all(b"220 relay.example.com ESMTP\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                if in_data && line != "." {
                    continue;
                }
                let reply = match line.split(' ').next().unwrap() {
                    "." => end,
                    "EHLO" => "250 relay.example.com",
                    "DATA" => "354 go ahead",
                    "QUIT" => "221 bye",
                    _ => "250 2.1.0 ok",
                };
                in_data = line == "DATA";
                commands.push(line);
                write.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
            }
            commands
        };
        (address, serve)
    }

    #[tokio::test]
    async fn the_message_goes_in_by_smtp_and_its_id_comes_back() {
        let (address, relay) = relay_that_says("250 2.0.0 queued as 0123456789ABC").await;
        let config = config(Some("relay.example.com"), address);
        let message = compose(&read("send --test bob@outlook.com --from ann@example.com"), &config, now()).unwrap();
        let (id, commands) = tokio::join!(hand_in(listener(&config).unwrap(), message), relay);
        assert_eq!(id.unwrap().to_string(), "0123456789ABC");
        assert!(commands.contains(&"MAIL FROM:<ann@example.com>".to_string()), "{commands:?}");
        assert!(commands.contains(&"RCPT TO:<bob@outlook.com>".to_string()), "{commands:?}");
    }

    #[tokio::test]
    async fn a_refusal_of_the_relay_is_an_error_with_its_words() {
        let (address, relay) = relay_that_says("452 4.3.1 disk full").await;
        let config = config(Some("relay.example.com"), address);
        let message = compose(&read("send --test bob@outlook.com"), &config, now()).unwrap();
        let (id, _) = tokio::join!(hand_in(address, message), relay);
        let text = format!("{:#}", id.unwrap_err());
        assert!(text.contains("did not take the message") && text.contains("4.3.1 disk full"), "{text}");
    }

    #[test]
    fn the_reply_and_its_reading_are_printed() {
        let outcome = OutcomeRecord {
            id: QueueId::from_key(1).unwrap(),
            recipient: "bob@outlook.com".into(),
            event: EventKind::Bounced,
            reply: Some("550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302)".into()),
            class: Some(Class::RecipientUnknown),
            rule: Some("outlook-unknown".into()),
            verdict: Some(Verdict::Bounce),
            provider: Some("outlook".into()),
            source: Some("default".into()),
            mx: Some("outlook-com.olc.protection.outlook.com".into()),
            tls: None,
            cause: Some("there is no such mailbox".into()),
            remedy: Some("correct the address".into()),
            next_attempt: None,
        };
        let text = describe(&outcome, now());
        for part in [
            "bob@outlook.com: bounced\n",
            "  reply:     550 5.5.0 Requested action not taken",
            "  read as:   bounce, recipient-unknown (rule outlook-unknown)\n",
            "  remedy:    correct the address\n",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("TLS"), "{text}");
    }
}
