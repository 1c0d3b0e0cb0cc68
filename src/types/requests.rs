//! What a sender asks for with MAIL beside delivery: a priority (RFC 6710), a time by which (RFC 2852), a time before which not (RFC 4865).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Priority, Timestamp};

/// All of it; mostly nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<TransferPriority>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<DeliverBy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<FutureRelease>,
}

/// MT-PRIORITY (RFC 6710 section 3): from -9 to 9, higher is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransferPriority(i8);

/// BY (RFC 2852 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverBy {
    /// Seconds since the message came in; below zero: it was late when it came.
    pub secs: i64,
    pub mode: ByMode,
    /// The sender hears of every host that the message is passed on to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trace: bool,
}

/// What is done with a message that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ByMode {
    /// It is returned.
    #[serde(rename = "R")]
    Return,
    /// The sender is told, and it is tried on.
    #[serde(rename = "N")]
    Notify,
}

/// HOLDFOR or HOLDUNTIL (RFC 4865 section 4), as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FutureRelease {
    /// Seconds.
    For(u32),
    Until(Timestamp),
}

impl Requests {
    pub fn is_empty(&self) -> bool {
        *self == Requests::default()
    }

    /// How long the message may be tried, where it is to be returned then.
    pub fn returns_after(&self) -> Option<Duration> {
        self.by
            .filter(|by| by.mode == ByMode::Return)
            .map(|by| Duration::from_secs(u64::try_from(by.secs).unwrap_or(0)))
    }

    /// When the sender is told that it is late, if it is tried on then.
    pub fn notifies_at(&self, received: Timestamp) -> Option<Timestamp> {
        // What was late when it came was told of before (RFC 2852 section 4.1.4).
        self.by.filter(|by| by.mode == ByMode::Notify && by.secs > 0).map(|by| by.moment(received))
    }
}

impl TransferPriority {
    /// None outside the range.
    pub fn new(value: i8) -> Option<TransferPriority> {
        (-9..=9).contains(&value).then_some(TransferPriority(value))
    }

    /// Each value belongs to the nearest of the three levels of the policy MIXER (RFC 6710 appendix B): -4, 0 and 4.
    pub fn class(self) -> Priority {
        match self.0 {
            3.. => Priority::High,
            -2..=2 => Priority::Normal,
            _ => Priority::Bulk,
        }
    }

    /// This one, but of no more urgent a class than `most`: then it is the level of that class.
    pub fn at_most(self, most: Priority) -> TransferPriority {
        if self.class().at_most(most) == self.class() {
            return self;
        }
        TransferPriority(match most {
            Priority::High => 4,
            Priority::Normal => 0,
            Priority::Bulk => -4,
        })
    }
}

impl fmt::Display for TransferPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl DeliverBy {
    pub fn moment(self, received: Timestamp) -> Timestamp {
        let span = Duration::from_secs(self.secs.unsigned_abs());
        if self.secs < 0 { received - span } else { received + span }
    }

    /// What is left of it after so long (section 4.1.4).
    #[must_use]
    pub fn after(self, waited: Duration) -> DeliverBy {
        let waited = i64::try_from(waited.as_secs()).unwrap_or(i64::MAX);
        // Nine digits are all that the parameter holds.
        DeliverBy { secs: self.secs.saturating_sub(waited).clamp(-999_999_999, 999_999_999), ..self }
    }
}

/// The value of BY.
impl fmt::Display for DeliverBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            ByMode::Return => "R",
            ByMode::Notify => "N",
        };
        write!(f, "{};{mode}{}", self.secs, if self.trace { "T" } else { "" })
    }
}

impl FutureRelease {
    /// Nobody gets it before.
    pub fn moment(self, received: Timestamp) -> Timestamp {
        match self {
            FutureRelease::For(secs) => received + Duration::from_secs(u64::from(secs)),
            FutureRelease::Until(at) => at,
        }
    }
}

/// As reports name it: `for;3600`, `until;2026-12-01T08:00:00.000Z` (section 5).
impl fmt::Display for FutureRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FutureRelease::For(secs) => write!(f, "for;{secs}"),
            FutureRelease::Until(at) => write!(f, "until;{at}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_class_and_none_of_a_higher_value_is_less_urgent() {
        let class = |value| TransferPriority::new(value).unwrap().class();
        for (value, expected) in [
            (-9, Priority::Bulk),
            (-3, Priority::Bulk),
            (-2, Priority::Normal),
            (0, Priority::Normal),
            (2, Priority::Normal),
            (3, Priority::High),
            (9, Priority::High),
        ] {
            assert_eq!(class(value), expected, "{value}");
        }
        for value in -9..9 {
            assert_eq!(class(value + 1).at_most(class(value)), class(value), "{value}");
        }
        assert_eq!((TransferPriority::new(10), TransferPriority::new(-10)), (None, None));
    }

    #[test]
    fn what_is_too_urgent_gets_the_level_of_what_is_allowed() {
        for (value, most, expected) in [
            (9, Priority::High, 9),
            (9, Priority::Normal, 0),
            (2, Priority::Normal, 2),
            (-1, Priority::Normal, -1),
            (1, Priority::Bulk, -4),
            (-9, Priority::Bulk, -9),
        ] {
            let value = TransferPriority::new(value).unwrap();
            assert_eq!(value.at_most(most).to_string(), expected.to_string(), "{value} {most:?}");
        }
    }

    #[test]
    fn time_that_was_waited_is_taken_off() {
        let by = DeliverBy { secs: 120, mode: ByMode::Notify, trace: true };
        assert_eq!(by.after(Duration::from_millis(50_900)).to_string(), "70;NT");
        assert_eq!(by.after(Duration::from_secs(200)).to_string(), "-80;NT");
        let late = DeliverBy { secs: -999_999_990, mode: ByMode::Notify, trace: false };
        assert_eq!(late.after(Duration::from_secs(100)).to_string(), "-999999999;N");
        assert_eq!(by.moment(Timestamp::from_secs(1000)), Timestamp::from_secs(1120));
        assert_eq!(DeliverBy { secs: -100, ..by }.moment(Timestamp::from_secs(1000)), Timestamp::from_secs(900));
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let requests = Requests {
            priority: TransferPriority::new(-4),
            by: Some(DeliverBy { secs: -3, mode: ByMode::Return, trace: true }),
            release: Some(FutureRelease::Until(Timestamp::from_secs(1_800_000_000))),
        };
        let text = serde_json::to_string(&requests).unwrap();
        assert_eq!(serde_json::from_str::<Requests>(&text).unwrap(), requests, "{text}");
        assert_eq!(serde_json::to_string(&Requests::default()).unwrap(), "{}");
    }
}
