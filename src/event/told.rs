//! What became of mail, in the words that administrators of mail servers know, for the log of the program.
//!
//! One line for each outcome of a recipient and for each change of a lane, once it stands in the event log. All of it goes
//! to the target `weir::mail`: `[log] level = "info,weir::mail=warn"` leaves the outcomes out.

use std::borrow::Cow;
use std::fmt;

use crate::types::{Class, Enhanced, Event, EventKind, Reply, printable};

const TARGET: &str = "weir::mail";
/// Of a reply; the whole of it is in the event log.
const REPLY_MAX: usize = 500;

/// Logs what `event` tells, where it is for people.
pub(super) fn tell(event: &Event) {
    match event.kind {
        EventKind::Delivered | EventKind::Deferred | EventKind::Bounced | EventKind::Expired | EventKind::Removed => {
            tracing::info!(target: TARGET, "{}", Outcome(event));
        }
        EventKind::Throttled | EventKind::Paused | EventKind::Resumed => {
            tracing::info!(target: TARGET, "{}", Change(event));
        }
        EventKind::Blocked => tracing::warn!(target: TARGET, "{}", Change(event)),
        EventKind::Suppressed => {
            let recipient = event.recipient.as_deref().unwrap_or_default();
            let reply = event.reply.as_deref().map(shown).unwrap_or_default();
            tracing::info!(target: TARGET, "<{recipient}> is on the suppression list now ({reply})");
        }
        EventKind::Returned | EventKind::Complained | EventKind::Unsubscribed | EventKind::Feedback => {
            tracing::info!(target: TARGET, "{}", Answer(event));
        }
        // Intake logs what it takes and refuses; an alert is logged as such.
        EventKind::Accepted | EventKind::Refused | EventKind::Alert => {}
    }
}

/// `ID: `, or `-: ` where there is none.
struct Id<'a>(&'a Event);

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.id {
            Some(id) => write!(f, "{id}: "),
            None => f.write_str("-: "),
        }
    }
}

/// `from=<>, to=<>`
struct Parties<'a>(&'a Event);

impl fmt::Display for Parties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sender, recipient) = (self.0.sender.as_deref(), self.0.recipient.as_deref());
        write!(f, "from=<{}>, to=<{}>", shown(sender.unwrap_or_default()), shown(recipient.unwrap_or_default()))
    }
}

/// `ID: from=<>, to=<>, relay=, delay=, dsn=, status=sent (…)`
struct Outcome<'a>(&'a Event);

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        write!(f, "{}{}, relay={}", Id(event), Parties(event), event.mx.as_deref().unwrap_or("none"))?;
        if let Some(millis) = event.delay_ms {
            write!(f, ", delay={}.{:02}", millis / 1000, millis % 1000 / 10)?;
        }
        let said = event.reply.as_deref().map_or(Cow::Borrowed(why(event)), shown);
        write!(f, ", dsn={}, status={} ({said})", dsn(event), status(event.kind))
    }
}

fn status(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Delivered => "sent",
        kind => kind.as_str(),
    }
}

/// Where no reply says it.
fn why(event: &Event) -> &str {
    event.rule.as_deref().unwrap_or("no reply")
}

/// The receiver's own status where it gave one, else the least that the outcome says (RFC 3463).
fn dsn(event: &Event) -> Enhanced {
    if event.kind == EventKind::Expired {
        return Enhanced::new(4, 4, 7);
    }
    let said = event.reply.as_deref().and_then(Reply::parse).and_then(|reply| reply.enhanced());
    said.unwrap_or(match (event.kind, event.class) {
        (EventKind::Delivered, _) => Enhanced::new(2, 0, 0),
        (EventKind::Deferred, _) => Enhanced::new(4, 0, 0),
        (_, Some(Class::RecipientUnknown)) => Enhanced::new(5, 1, 1),
        _ => Enhanced::new(5, 0, 0),
    })
}

/// `outlook from default: nothing is sent before …: 451 4.7.650 …`
struct Change<'a>(&'a Event);

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, shown(self.0.text.as_deref().unwrap_or_default()))?;
        self.0
            .reply
            .as_deref()
            .filter(|reply| !reply.is_empty())
            .map_or(Ok(()), |reply| write!(f, ": {}", shown(reply)))
    }
}

/// `ID: returned, from=<>, to=<>: 550 5.1.1 …`
struct Answer<'a>(&'a Event);

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.0;
        let said = event.text.as_deref().or(event.reply.as_deref()).map(shown).unwrap_or_default();
        write!(f, "{}{}, {}: {said}", Id(event), event.kind, Parties(event))
    }
}

/// On one line and not too long.
fn shown(text: &str) -> Cow<'_, str> {
    let line = printable::one_line(text);
    match line.char_indices().nth(REPLY_MAX) {
        Some((end, _)) => Cow::Owned(format!("{}…", &line[..end])),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueId, Timestamp};

    fn outcome(kind: EventKind, reply: Option<&str>) -> Event {
        let mut event = Event::new(Timestamp::EPOCH, kind);
        event.id = QueueId::from_key(42);
        event.sender = Some("shop@example.com".into());
        event.recipient = Some("anna@hotmail.com".to_string());
        event.mx = Some("mx.example".into());
        event.delay_ms = Some(1_239);
        event.reply = reply.map(str::to_string);
        event
    }

    #[test]
    fn an_outcome_is_a_line_in_familiar_words() {
        let id = QueueId::from_key(42).unwrap();
        let rows = [
            (EventKind::Delivered, Some("250 2.6.0 queued"), "dsn=2.6.0, status=sent (250 2.6.0 queued)"),
            (EventKind::Delivered, Some("250 ok"), "dsn=2.0.0, status=sent (250 ok)"),
            (
                EventKind::Deferred,
                Some("451 4.7.650 slow\ndown"),
                "dsn=4.7.650, status=deferred (451 4.7.650 slow down)",
            ),
            (EventKind::Deferred, Some("connection lost"), "dsn=4.0.0, status=deferred (connection lost)"),
            (EventKind::Bounced, Some("550 5.1.1 unknown"), "dsn=5.1.1, status=bounced (550 5.1.1 unknown)"),
            (EventKind::Expired, Some("451 4.3.2 later"), "dsn=4.4.7, status=expired (451 4.3.2 later)"),
            (EventKind::Removed, None, "dsn=5.0.0, status=removed (no reply)"),
        ];
        for (kind, reply, end) in rows {
            let line = Outcome(&outcome(kind, reply)).to_string();
            let start = format!("{id}: from=<shop@example.com>, to=<anna@hotmail.com>, relay=mx.example, delay=1.23, ");
            assert_eq!(line, start + end);
        }
    }

    #[test]
    fn a_change_of_a_lane_is_a_line_with_the_words_that_led_to_it() {
        let mut event = Event::new(Timestamp::EPOCH, EventKind::Paused);
        event.text = Some("outlook from default: nothing is sent before noon".to_string());
        event.reply = Some("421 RP-001\nslow down".to_string());
        assert_eq!(
            Change(&event).to_string(),
            "paused: outlook from default: nothing is sent before noon: 421 RP-001 slow down"
        );
    }

    #[test]
    fn a_long_reply_is_cut() {
        let line = Outcome(&outcome(EventKind::Bounced, Some(&"é".repeat(5_000)))).to_string();
        assert!(line.chars().count() < 700 && line.ends_with("…)"), "{line}");
    }
}
