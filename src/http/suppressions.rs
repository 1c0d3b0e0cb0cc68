//! The suppression list: pages of it, additions, removals, imports, waves.

use axum::body::Body;
use axum::extract::Path;
use axum::http::{Response, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::json as value;
use tokio::sync::mpsc;

use super::answer::{Refused, json};
use super::means::Means;
use super::queue::{Paging, filter, paging};
use super::routes::{At, Routes};
use super::status::query;
use super::{ask, body};
use crate::admin::{ImportEntry, Input, Request, SuppressFilter};
use crate::types::{Class, Mailbox, Timestamp};

/// One line of an import.
const LINE_MAX: usize = 64 << 10;
/// Pieces of a streamed answer in flight.
const PIECES: usize = 16;

pub(super) fn routes<M: Means>(routes: &mut Routes) {
    let list = get(list::<M>).post(add::<M>).delete(remove::<M>);
    routes.add(&["GET", "POST", "DELETE"], "/api/v1/suppressions", list);
    routes.add(&["POST"], "/api/v1/suppressions/import", post(import::<M>));
    routes.add(&["GET"], "/api/v1/suppressions/export", get(export::<M>));
    routes.add(&["GET"], "/api/v1/suppressions/waves", get(waves::<M>));
    routes.add(&["POST"], "/api/v1/suppressions/waves/{wave}/confirm", post(confirm::<M>));
    routes.add(&["POST"], "/api/v1/suppressions/waves/{wave}/undo", post(undo::<M>));
}

async fn list<M: Means>(site: At<M>, uri: Uri) -> Result<Response<Body>, Refused> {
    let Paging { limit, from: after, words } = paging(query(&uri)?, "after")?;
    let filter: SuppressFilter = filter(words)?;
    let page = site.means.suppressions_page(filter, after, limit).await?;
    let count = site.means.suppressions_count().await?;
    Ok(json(value!({ "items": page.items, "next": page.next, "count": count }).to_string()))
}

async fn add<M: Means>(site: At<M>, order: Body) -> Result<Response<Body>, Refused> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Add {
        recipient: Mailbox,
        class: Option<Class>,
        reason: Option<String>,
        expires: Option<Timestamp>,
    }
    let Add { recipient, class, reason, expires } = body::json(order).await?;
    let reason = reason.filter(|text| !text.trim().is_empty()).unwrap_or_else(|| "by an operator".into());
    ask::one(&*site.means, Request::SuppressAdd { recipient, class, reason, expires }).await
}

async fn remove<M: Means>(site: At<M>, uri: Uri, order: Body) -> Result<Response<Body>, Refused> {
    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Remove {
        recipients: Vec<Mailbox>,
        recipient: Option<Mailbox>,
    }
    let (asked, given): (Remove, Remove) = (query(&uri)?, body::json(order).await?);
    let recipients: Vec<Mailbox> =
        given.recipients.into_iter().chain(given.recipient).chain(asked.recipient).chain(asked.recipients).collect();
    if recipients.is_empty() {
        return Err(Refused::bad("recipients: the addresses that are written to again"));
    }
    let max = recipients.len();
    let (records, _) = ask::records(&*site.means, Request::SuppressRemove { recipients }, max).await?;
    Ok(json(ask::items(&records)))
}

async fn waves<M: Means>(site: At<M>) -> Result<Response<Body>, Refused> {
    let (records, _) = ask::records(&*site.means, Request::SuppressWaves, super::queue::PAGE_MAX).await?;
    Ok(json(ask::items(&records)))
}

async fn confirm<M: Means>(site: At<M>, Path(wave): Path<String>) -> Result<Response<Body>, Refused> {
    ask::one(&*site.means, Request::SuppressConfirm { wave }).await
}

async fn undo<M: Means>(site: At<M>, Path(wave): Path<String>) -> Result<Response<Body>, Refused> {
    let entries = site.means.undo_wave(wave).await?;
    Ok(json(value!({ "entries": entries }).to_string()))
}

/// Lines of addresses, of CSV with the address in front (or under the name `recipient` or `email`), or of JSON. What is merged when
/// the client goes stays.
async fn import<M: Means>(site: At<M>, order: Body) -> Response<Body> {
    let (feed, input) = Input::channel();
    let (sender, answer) = body::stream(PIECES);
    let means = site.means.clone();
    let work = async move {
        let read = feed_lines(order, feed);
        let (read, done) = tokio::join!(read, ask::stream(&*means, Request::SuppressImport, input, &sender));
        // What was read before an import breaks off is on the list; the last line says that it broke off.
        let fault = done.err().map(|failed| failed.0).or_else(|| read.err().map(|refused| refused.to_string()));
        let last = fault.map_or_else(|| value!({ "end": true }), |error| value!({ "error": error }));
        // Who is gone needs no last word.
        let _ = sender.send(format!("{last}\n").into()).await;
    };
    // It belongs to the answer: when nobody reads that any more, it ends.
    let answer = body::with_work(answer, work);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], answer).into_response()
}

async fn feed_lines(mut order: Body, feed: mpsc::Sender<ImportEntry>) -> Result<(), Refused> {
    let mut rest = BytesMut::new();
    let mut lines = Lines::default();
    loop {
        let data = body::next(&mut order).await?;
        let is_end = data.is_none();
        rest.extend_from_slice(&data.unwrap_or_default());
        while let Some(at) = memchr::memchr(b'\n', &rest) {
            let line = rest.split_to(at + 1);
            if let Some(entry) = lines.entry(&line)? {
                send(&feed, entry).await?;
            }
        }
        if rest.len() > LINE_MAX {
            return Err(lines.fault("it is too long"));
        }
        if is_end {
            return match lines.entry(&rest)? {
                Some(entry) => send(&feed, entry).await,
                None => Ok(()),
            };
        }
    }
}

async fn send(feed: &mpsc::Sender<ImportEntry>, entry: ImportEntry) -> Result<(), Refused> {
    feed.send(entry).await.map_err(|_| Refused::unavailable("the relay takes no more lines of the import"))
}

/// Reads lines, whatever of three forms they have.
#[derive(Default)]
struct Lines {
    number: u64,
    /// The column of the address, and of the reason, as a first line names them.
    column: usize,
    reason: Option<usize>,
}

impl Lines {
    fn entry(&mut self, line: &[u8]) -> Result<Option<ImportEntry>, Refused> {
        self.number += 1;
        let text = std::str::from_utf8(line).map_err(|_| self.fault("it is no UTF-8"))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        if text.starts_with('{') {
            return serde_json::from_str(text).map(Some).map_err(|error| self.fault(&error.to_string()));
        }
        let fields = fields(text);
        let is_named = |name: &str| fields.iter().position(|field| field.eq_ignore_ascii_case(name));
        if self.number == 1 && !text.contains('@') {
            let column = ["recipient", "email", "address", "e-mail"].into_iter().find_map(is_named);
            self.column = column.ok_or_else(|| self.fault("the first line names no column `recipient` or `email`"))?;
            self.reason = ["reply", "reason"].into_iter().find_map(is_named);
            return Ok(None);
        }
        let address = fields.get(self.column).map(String::as_str).unwrap_or_default();
        let recipient = Mailbox::parse(address).map_err(|error| self.fault(&error.to_string()))?;
        let reply = self.reason.and_then(|at| fields.get(at)).filter(|text| !text.is_empty()).cloned();
        Ok(Some(ImportEntry { reply, ..ImportEntry::of(recipient) }))
    }

    fn fault(&self, what: &str) -> Refused {
        Refused::bad(format!("line {} of the import: {what}; all before it is on the list", self.number.max(1)))
    }
}

/// The fields of a line of CSV (RFC 4180); a field with line feeds is not for lists of addresses.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if is_quoted || field.trim().is_empty() => is_quoted = !is_quoted,
            ',' | ';' | '\t' if !is_quoted => fields.push(std::mem::take(&mut field).trim().to_string()),
            other => field.push(other),
        }
    }
    fields.push(field.trim().to_string());
    fields
}

/// The list as CSV, as it comes.
async fn export<M: Means>(site: At<M>) -> Response<Body> {
    let (sender, answer) = body::stream(PIECES);
    let means = site.means.clone();
    let work = async move {
        let heading = Bytes::from_static(b"recipient,class,reply,source,first,last,hits,expires\r\n");
        if sender.send(heading).await.is_err() {
            return;
        }
        let mut after = None;
        loop {
            let page = means.suppressions_page(SuppressFilter::default(), after, super::queue::PAGE_MAX).await;
            // A list that was cut off ends without its last line feed: nobody takes it for whole.
            let Ok(page) = page else {
                return drop(sender.send(Bytes::from_static(b"# broken off: see weir's log")).await);
            };
            let text: String = page.items.iter().map(row).collect();
            if !text.is_empty() && sender.send(text.into()).await.is_err() {
                return;
            }
            after = page.next;
            if after.is_none() {
                return;
            }
        }
    };
    let fields = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"suppressions.csv\""),
    ];
    (StatusCode::OK, fields, body::with_work(answer, work)).into_response()
}

fn row(entry: &crate::admin::SuppressRecord) -> String {
    let text = |value: Option<String>| cell(&value.unwrap_or_default());
    let time = |at: Option<Timestamp>| text(at.map(|at| at.to_string()));
    [
        cell(&entry.recipient),
        text(entry.class.map(|class| class.to_string())),
        text(entry.reply.clone()),
        cell(&entry.source),
        time(entry.first),
        time(entry.last),
        entry.hits.to_string(),
        time(entry.expires),
    ]
    .join(",")
        + "\r\n"
}

/// A field of CSV. What a spreadsheet would take for a formula is given as text.
fn cell(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    if text.contains([',', '"', ';']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_is_read_in_each_of_its_forms() {
        let read = |text: &str| -> Vec<String> {
            let mut lines = Lines::default();
            let entries = text.split_inclusive('\n').filter_map(|line| lines.entry(line.as_bytes()).unwrap());
            entries.map(|entry| format!("{} {}", entry.recipient, entry.reply.unwrap_or_default())).collect()
        };
        assert_eq!(read("\u{feff}a@x.example\r\n\r\n# no\nb@x.example"), ["a@x.example ", "b@x.example "]);
        assert_eq!(
            read("id;Email;reason\n1;a@x.example;\"gone; \"\"for\"\" good\"\n"),
            ["a@x.example gone; \"for\" good"]
        );
        assert_eq!(read("{\"recipient\":\"a@x.example\",\"reply\":\"550 no\"}\n"), ["a@x.example 550 no"]);
        for broken in ["no address\n", "a@x.example\nb@\n", "{\"recipient\":1}\n", "a@x.example\n\u{0}@x\n"] {
            let mut lines = Lines::default();
            let fault = broken.split_inclusive('\n').find_map(|line| lines.entry(line.as_bytes()).err()).unwrap();
            assert!(fault.to_string().starts_with("line "), "{fault}");
        }
    }

    #[test]
    fn no_field_of_an_export_becomes_a_formula_or_a_line() {
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(cell("550 no,\r\n\"such\" user"), "\"550 no,  \"\"such\"\" user\"");
    }
}
