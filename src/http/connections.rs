//! How many may be connected, and who makes room: so that ten thousand who say nothing keep no probe waiting.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use crate::types::Timestamp;

/// Browsers open six, programs one each.
const MAX: usize = 256;
/// Who has been answered for so long may have to make room, too: a browser comes back by itself.
const ANSWERED_LONG: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// In the order in which they came.
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    came: Timestamp,
    /// Requests under way.
    busy: u32,
    leave: CancellationToken,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    number: u64,
    leave: CancellationToken,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy {
    connections: Connections,
    number: u64,
}

impl Connections {
    /// A place; none: all are taken, and nobody can be asked to leave.
    pub(super) fn enter(&self, now: Timestamp) -> Option<Place> {
        let mut inner = self.lock();
        if inner.open.len() >= MAX {
            let idle = inner.open.iter().find(|(_, open)| open.busy == 0);
            let long = || inner.open.iter().find(|(_, open)| now.since(open.came) >= ANSWERED_LONG);
            let (&number, open) = idle.or_else(long)?;
            open.leave.cancel();
            inner.open.remove(&number);
        }
        let (number, leave) = (inner.next, CancellationToken::new());
        inner.next += 1;
        inner.open.insert(number, Open { came: now, busy: 0, leave: leave.clone() });
        Some(Place { connections: self.clone(), number, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self, number: u64, change: i32) {
        if let Some(open) = self.lock().open.get_mut(&number) {
            open.busy = open.busy.saturating_add_signed(change);
        }
    }
}

impl Place {
    pub(super) async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// A request begins.
    pub(super) fn begin(&self) -> Busy {
        self.connections.busy(self.number, 1);
        Busy { connections: self.connections.clone(), number: self.number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connections.busy(self.number, -1);
    }
}

impl Busy {
    /// The request is under way until its answer is sent.
    pub(super) fn until_sent(self, body: Body) -> Sent {
        Sent { body, _busy: self }
    }
}

/// A body that keeps its request under way.
#[derive(Debug)]
pub(super) struct Sent {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    #[test]
    fn who_is_idle_longest_makes_room_and_who_is_answered_does_not() {
        let connections = Connections::default();
        let mut places: Vec<Place> = (0..MAX).map(|_| connections.enter(NOON).unwrap()).collect();
        let busy = places[0].begin();
        let newcomer = connections.enter(NOON).unwrap();
        assert!(!places[0].leave.is_cancelled() && places[1].leave.is_cancelled() && !places[2].leave.is_cancelled());
        drop(busy);
        drop(newcomer);
        // The place of the one that has left is free, and is not given back a second time.
        drop(places.remove(1));
        places.push(connections.enter(NOON).unwrap());
        let all: Vec<Busy> = places.iter().map(Place::begin).collect();
        assert!(connections.enter(NOON).is_none());
        assert!(connections.enter(NOON + ANSWERED_LONG).is_some());
        assert!(places[0].leave.is_cancelled());
        drop(all);
    }
}
