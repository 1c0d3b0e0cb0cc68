//! Server-sent events: the status whenever it changes, and the lines of the event log as they are written.
//!
//! Whoever looks costs one status every two seconds, shared with all others who look; nobody who looks costs nothing.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::{Response, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use super::body;
use super::means::Means;
use super::routes::{At, Routes, Stop};

const STATUS_EVERY: Duration = Duration::from_secs(2);
/// A line that says nothing, so that both ends notice when the other is gone.
const HEARTBEAT: u32 = 7;
/// Lines of the log in a second; what comes beyond is counted.
const LINES_MAX: usize = 50;
const PIECES: usize = 8;

pub(super) fn routes<M: Means>(routes: &mut Routes) {
    routes.add(&["GET"], "/api/v1/live", get(live::<M>));
}

async fn live<M: Means>(site: At<M>, Extension(stop): Extension<Stop>) -> Response<Body> {
    let (sender, answer) = body::stream(PIECES);
    let log = site.means.follow();
    let work = async move {
        tokio::select! {
            () = stop.0.cancelled() => {}
            () = sender.closed() => {}
            () = tell(&site, log, &sender) => {}
        }
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], body::with_work(answer, work)).into_response()
}

/// Until nobody reads any more.
async fn tell<M: Means>(site: &At<M>, mut log: broadcast::Receiver<Bytes>, to: &mpsc::Sender<Bytes>) {
    let mut ticks = interval(STATUS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut silent, mut budget) = (String::new(), 0, Budget::default());
    loop {
        let piece = tokio::select! {
            _ = ticks.tick() => {
                silent += 1;
                let skipped = budget.renew();
                let status = site.status.get(&*site.means).await.ok().filter(|made| made.facts != last);
                let mut piece = skipped;
                if let Some(made) = status {
                    last.clone_from(&made.facts);
                    piece.push_str(&event("status", &made.text));
                }
                if piece.is_empty() && silent >= HEARTBEAT {
                    piece.push_str(": still here\n\n");
                }
                piece
            }
            lines = log.recv() => match lines {
                Ok(lines) => budget.take(&lines),
                Err(RecvError::Lagged(_)) => {
                    budget.skipped += 1;
                    continue;
                }
                Err(RecvError::Closed) => return,
            },
        };
        if piece.is_empty() {
            continue;
        }
        silent = 0;
        if to.send(piece.into()).await.is_err() {
            return;
        }
    }
}

/// One server-sent event; JSON has no line feeds.
fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

/// How many lines still go out until the next tick.
#[derive(Default)]
struct Budget {
    sent: usize,
    skipped: u64,
}

impl Budget {
    /// The events of these lines, as far as there is room.
    fn take(&mut self, lines: &[u8]) -> String {
        let mut events = String::new();
        for line in lines.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            match std::str::from_utf8(line) {
                Ok(line) if self.sent < LINES_MAX * 2 => {
                    self.sent += 1;
                    events.push_str(&event("log", line));
                }
                _ => self.skipped += 1,
            }
        }
        events
    }

    /// A new tick: what was left out is told.
    fn renew(&mut self) -> String {
        self.sent = 0;
        match std::mem::take(&mut self.skipped) {
            0 => String::new(),
            count => event("skipped", &format!("{{\"count\":{count}}}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_counted_and_not_sent() {
        let mut budget = Budget::default();
        let flood = "{\"seq\":1}\n".repeat(LINES_MAX * 2 + 7);
        assert_eq!(budget.take(flood.as_bytes()).matches("event: log").count(), LINES_MAX * 2);
        assert_eq!(budget.take(b"{}\n"), "");
        assert_eq!(budget.skipped, 8);
        budget.sent = 0;
        assert_eq!(budget.take(b"{}\n"), "event: log\ndata: {}\n\n");
    }
}
