//! What goes into one request.
//!
//! Pure. Rules that always hold:
//! - lines stay in their order, and each belongs to one batch;
//! - the same lines up to the same end are the same batch, with the same id and the same words;
//! - no two batches of an endpoint have one id, also where the log was begun anew: the id names the endpoint, the first and
//!   the last line, and when the first was written. There is no dot in it (Standard Webhooks).

use std::collections::VecDeque;

use super::endpoint::Endpoint;
use super::format;
use super::options::Format;
use crate::event::{Entry, RawLine};
use crate::types::Timestamp;

/// Of the body, in octets: below what frameworks take without being told to (100 KB is usual). A single event may be longer.
const SIZE_MAX: usize = 64 << 10;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) json: String,
    /// Events in it.
    pub(super) events: usize,
}

/// Lines taken off the front.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The last of them.
    pub(super) until: u64,
    /// None: there is nothing among them for this endpoint.
    pub(super) request: Option<Request>,
}

/// Takes the lines of the next batch off the front of `ahead`. `planned`: the batch ends with this line, as it did before.
/// None: there is no line.
pub(super) fn cut(ahead: &mut VecDeque<RawLine>, endpoint: &Endpoint, planned: Option<u64>) -> Option<Cut> {
    // What was planned may be gone from the log.
    let planned = planned.filter(|planned| ahead.front().is_some_and(|line| line.seq <= *planned));
    let mut parts = Parts::default();
    let mut until = None;
    while let Some(line) = ahead.front() {
        if planned.is_some_and(|planned| line.seq > planned) {
            break;
        }
        if let Some((text, time)) = written(endpoint, line)
            && !parts.add(line.seq, time, text, format::events_max(endpoint.format))
        {
            break;
        }
        until = Some(line.seq);
        ahead.pop_front();
    }
    Some(Cut { until: until?, request: parts.request(endpoint) })
}

/// An event as it stands in the body; none: the endpoint does not get it.
fn written(endpoint: &Endpoint, line: &RawLine) -> Option<(String, Timestamp)> {
    let entry = Entry::parse(&line.text)?;
    if !endpoint.kinds.contains(&entry.kind) {
        return None;
    }
    let text = match endpoint.format {
        Format::Weir => line.text.clone(),
        format => format::value(format, &entry)?.to_string(),
    };
    Some((text, entry.time))
}

#[derive(Default)]
struct Parts {
    texts: Vec<String>,
    size: usize,
    /// Number and time of the first, number of the last.
    range: Option<(u64, Timestamp, u64)>,
}

impl Parts {
    /// False: it belongs to the next batch.
    fn add(&mut self, seq: u64, time: Timestamp, text: String, events_max: usize) -> bool {
        let is_full = self.texts.len() >= events_max || self.size + text.len() > SIZE_MAX;
        if is_full && !self.texts.is_empty() {
            return false;
        }
        self.size += text.len();
        self.texts.push(text);
        let (first, since, _) = self.range.unwrap_or((seq, time, seq));
        self.range = Some((first, since, seq));
        true
    }

    fn request(self, endpoint: &Endpoint) -> Option<Request> {
        let (first, since, last) = self.range?;
        let json = match format::events_max(endpoint.format) {
            1 => self.texts.concat(),
            _ => format!("[{}]", self.texts.join(",")),
        };
        let name = endpoint.name.replace('.', "~");
        let id = format!("{name}-{first}-{last}-{:x}", since.millis());
        Some(Request { id, json, events: self.texts.len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::format::tests::line;
    use super::super::options::Webhook;
    use super::*;

    fn endpoint(format: Format, events: &[&str]) -> Endpoint {
        let events = events.iter().map(|name| name.to_string()).collect();
        let (name, url) = ("my.app".into(), "https://app.example/".into());
        Endpoint::load(&Webhook { name, url, format, events, ..Webhook::default() }).unwrap()
    }

    fn lines(events: &[&str]) -> VecDeque<RawLine> {
        let raw = |(at, event): (usize, &&str)| {
            let seq = at as u64 + 1;
            RawLine { seq, text: line(seq, event, "recipient-unknown", "550 5.1.1 no") }
        };
        events.iter().enumerate().map(raw).collect()
    }

    #[test]
    fn a_batch_holds_what_the_endpoint_wants_in_order_and_settles_what_it_does_not() {
        let mut ahead = lines(&["accepted", "deferred", "bounced", "suppressed", "deferred"]);
        let texts: Vec<String> = ahead.iter().map(|line| line.text.clone()).collect();
        let Cut { until, request } = cut(&mut ahead, &endpoint(Format::Weir, &[]), None).unwrap();
        let request = request.unwrap();
        assert_eq!((until, request.events, request.id.as_str()), (5, 2, "my~app-3-4-1a1ffd08cca"));
        assert_eq!(request.json, format!("[{},{}]", texts[2], texts[3]), "word for word");
        assert_eq!(cut(&mut ahead, &endpoint(Format::Weir, &[]), None), None);
        let nothing = cut(&mut lines(&["accepted", "paused"]), &endpoint(Format::Weir, &[]), None).unwrap();
        assert_eq!(nothing, Cut { until: 2, request: None });
    }

    #[test]
    fn who_takes_one_event_at_a_time_gets_one_object() {
        let mut ahead = lines(&["bounced", "deferred", "bounced"]);
        let endpoint = endpoint(Format::Postmark, &[]);
        for (until, id) in [(2, "my~app-1-1-1a1ffd08cca"), (3, "my~app-3-3-1a1ffd08cca")] {
            let found = cut(&mut ahead, &endpoint, None).unwrap();
            let request = found.request.unwrap();
            assert_eq!((found.until, request.id.as_str(), request.events), (until, id, 1));
            assert_eq!(serde_json::from_str::<Value>(&request.json).unwrap()["RecordType"], "Bounce");
        }
    }

    #[test]
    fn a_planned_batch_ends_where_it_did_though_more_has_come() {
        let all = ["bounced"; 9];
        let endpoint = endpoint(Format::SendGrid, &["bounced"]);
        let before = cut(&mut lines(&all[..4]), &endpoint, None).unwrap();
        let mut ahead = lines(&all);
        assert_eq!(cut(&mut ahead, &endpoint, Some(before.until)), Some(before));
        assert_eq!(cut(&mut ahead, &endpoint, None).unwrap().until, 9);
    }

    #[test]
    fn a_large_event_goes_alone() {
        let mut ahead = lines(&["bounced"; 3]);
        ahead[1].text = line(2, "bounced", "other", &"x".repeat(SIZE_MAX));
        let cut = |ahead: &mut _| cut(ahead, &endpoint(Format::Weir, &[]), None).unwrap().until;
        assert_eq!([cut(&mut ahead), cut(&mut ahead), cut(&mut ahead)], [1, 2, 3]);
    }

    proptest! {
        /// Whatever there is, and however it is read: each event once, in order, and ids that never meet.
        #[test]
        fn every_event_is_in_one_batch(
            kinds in prop::collection::vec(prop::sample::select(vec!["bounced", "deferred", "alert"]), 0..60),
            single in any::<bool>(),
        ) {
            let mut ahead = lines(&kinds);
            let endpoint = endpoint(if single { Format::Listmonk } else { Format::Weir }, &["bounced"]);
            let (mut events, mut ids, mut last) = (0, std::collections::BTreeSet::new(), 0);
            while let Some(Cut { until, request }) = cut(&mut ahead, &endpoint, None) {
                prop_assert!(until > last);
                last = until;
                if let Some(request) = request {
                    events += request.events;
                    prop_assert!(ids.insert(request.id));
                }
            }
            prop_assert_eq!((events, last), (kinds.iter().filter(|kind| **kind == "bounced").count(), kinds.len() as u64));
        }
    }
}
