//! Queue ids: time-ordered, never reused, short enough to read out on the telephone.
//!
//! An id is 63 bits: 42 bits of milliseconds since 1970, then 21 bits that start anywhere in a millisecond and
//! count up within it. So it is the primary key of the spool as it stands, sorts by age, and names the moment
//! the message was received. People see 13 characters of Crockford's base 32 (no I, L, O, U).
//! Rules that always hold: an id is greater than every id given before it, also across restarts and clocks that go
//! back (`QueueIds` starts above the highest id the spool has ever committed).

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SEQUENCE_BITS: u32 = 21;
const TEXT_LENGTH: usize = 13;

/// Names one message from its 250 to its end: in the reply, the Received header, the log, the events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(i64);

impl QueueId {
    /// From the spool's key; `None` if it is negative.
    pub fn from_key(key: i64) -> Option<QueueId> {
        (key >= 0).then_some(QueueId(key))
    }

    pub fn key(self) -> i64 {
        self.0
    }

    /// Not greater than any of a message received at this moment or later.
    pub fn first_of(moment: Timestamp) -> QueueId {
        QueueId(moment.millis().clamp(0, i64::MAX >> SEQUENCE_BITS) << SEQUENCE_BITS)
    }

    /// When the message was received, to the millisecond.
    pub fn received(self) -> Timestamp {
        Timestamp::from_millis(self.0 >> SEQUENCE_BITS)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_LENGTH];
        let mut rest = self.0.cast_unsigned();
        for place in text.iter_mut().rev() {
            *place = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no queue id: expected 13 letters and digits as in `01K9ZR4M2Q8AB`")]
pub struct QueueIdError(String);

impl FromStr for QueueId {
    type Err = QueueIdError;

    fn from_str(text: &str) -> Result<QueueId, QueueIdError> {
        let error = || QueueIdError(text.chars().take(40).collect());
        if text.len() != TEXT_LENGTH {
            return Err(error());
        }
        let mut value: u64 = 0;
        for byte in text.bytes() {
            let upper = byte.to_ascii_uppercase();
            let digit = ALPHABET.iter().position(|&c| c == upper).ok_or_else(error)?;
            if value >> 59 != 0 {
                return Err(error());
            }
            value = value << 5 | digit as u64;
        }
        i64::try_from(value).map(QueueId).map_err(|_| error())
    }
}

impl Serialize for QueueId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QueueId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<QueueId, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One delivery: the recipients of one message in one domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    pub message: QueueId,
    pub part: u16,
}

impl DeliveryId {
    /// Not greater than any other.
    pub const FIRST: DeliveryId = DeliveryId { message: QueueId(0), part: 0 };
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.message, self.part)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Gives out queue ids, each greater than the last. Shared by everything that accepts messages.
#[derive(Debug)]
pub struct QueueIds {
    last: Mutex<(i64, fastrand::Rng)>,
}

impl QueueIds {
    /// `above`: the highest id the spool has committed so far, 0 for a new spool.
    pub fn new(above: i64, seed: u64) -> QueueIds {
        QueueIds { last: Mutex::new((above, fastrand::Rng::with_seed(seed))) }
    }

    pub fn next(&self, now: Timestamp) -> QueueId {
        let mut guard = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (last, chance) = &mut *guard;
        // The upper half of the sequence stays free, so that a busy millisecond seldom borrows from the next.
        let fresh = now.millis().max(0) << SEQUENCE_BITS | chance.i64(0..1 << (SEQUENCE_BITS - 1));
        *last = fresh.max(*last + 1);
        QueueId(*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_goes_back() {
        let ids = QueueIds::new(0, 1);
        let mut last = ids.next(Timestamp::from_secs(1000));
        for secs in [1000, 1000, 999, 5, 1001] {
            let id = ids.next(Timestamp::from_secs(secs));
            assert!(id > last, "{id} after {last}");
            last = id;
        }
    }

    #[test]
    fn ids_start_above_what_the_spool_has_seen() {
        let before = QueueIds::new(0, 1).next(Timestamp::from_secs(2_000_000_000));
        assert!(QueueIds::new(before.key(), 2).next(Timestamp::from_secs(1)) > before);
    }

    #[test]
    fn text_and_back() {
        let id = QueueIds::new(0, 7).next(Timestamp::from_millis(1_795_293_220_042));
        let text = id.to_string();
        assert_eq!(text.len(), TEXT_LENGTH);
        assert_eq!(text.parse::<QueueId>().unwrap(), id);
        assert_eq!(text.to_lowercase().parse::<QueueId>().unwrap(), id);
        assert_eq!(id.received(), Timestamp::from_millis(1_795_293_220_042));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "short", "IIIIIIIIIIIII", "ZZZZZZZZZZZZZ", "0123456789ABCD", "é123456789AB"] {
            assert!(text.parse::<QueueId>().is_err(), "{text}");
        }
    }
}
