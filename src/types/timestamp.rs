//! A moment: milliseconds since 1970-01-01T00:00:00Z.
//!
//! Pure: nothing here reads a clock, the time always comes in as an argument (`crate::clock` is the only source).
//! Written as RFC 3339 in UTC with milliseconds wherever people or programs read it.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use time::macros::format_description;

/// A moment further ahead than this is named with its day.
const SAME_DAY: Duration = Duration::from_secs(20 * 3600);

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const EPOCH: Timestamp = Timestamp(0);
    /// Later than every moment that is ever planned.
    pub const NEVER: Timestamp = Timestamp(253_402_300_799_000);

    pub const fn from_millis(millis: i64) -> Timestamp {
        Timestamp(millis)
    }

    pub const fn from_secs(secs: i64) -> Timestamp {
        Timestamp(secs.saturating_mul(1000))
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same moment by a clock that was set forward (or back) by so much. What never comes, and the beginning of time, stay.
    #[must_use]
    pub fn shifted(self, by_millis: i64) -> Timestamp {
        match self {
            Timestamp::NEVER | Timestamp::EPOCH => self,
            Timestamp(millis) => Timestamp(millis.saturating_add(by_millis).min(Timestamp::NEVER.0)),
        }
    }

    /// The date for a header field (RFC 5322 section 3.3), in UTC: `Sat, 21 Nov 2026 20:33:40 +0000`.
    pub fn rfc5322(self) -> String {
        self.date().format(&Rfc2822).unwrap_or_default()
    }

    /// Compact form for file names: `20261121T203340Z`.
    pub fn compact(self) -> String {
        self.date().format(format_description!("[year][month][day]T[hour][minute][second]Z")).unwrap_or_default()
    }

    /// Whole seconds, as programs write it: `2026-11-21T20:33:40Z`.
    pub fn rfc3339_secs(self) -> String {
        self.date().format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z")).unwrap_or_default()
    }

    /// To the minute, with the day where it is not clear: `14:10 UTC`, `14:10 UTC on 2026-11-22`.
    pub fn about(self, now: Timestamp) -> String {
        let date = self.date();
        let time = format!("{:02}:{:02} UTC", date.hour(), date.minute());
        if self.since(now) < SAME_DAY {
            return time;
        }
        format!("{time} on {:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
    }

    pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
        let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(date.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp)
    }

    /// `Fri, 21 Nov 2026 20:33:40 +0000`; GMT and UTC are taken for their number.
    pub fn parse_rfc5322(text: &str) -> Option<Timestamp> {
        let text = text.replace("UTC", "+0000").replace("GMT", "+0000");
        OffsetDateTime::parse(&text, &Rfc2822).ok().map(|date| Timestamp::from_secs(date.unix_timestamp()))
    }

    fn date(self) -> OffsetDateTime {
        let secs = self.0.clamp(0, Timestamp::NEVER.0).div_euclid(1000);
        OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(millis).min(Timestamp::NEVER.0))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(millis))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.date();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            date.hour(),
            date.minute(),
            date.second(),
            self.0.rem_euclid(1000)
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(d)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_reads_rfc_3339() {
        let moment = Timestamp::from_millis(1_795_293_220_042);
        assert_eq!(moment.to_string(), "2026-11-21T20:33:40.042Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-11-21T20:33:40.042Z"), Some(moment));
        assert_eq!(Timestamp::parse_rfc3339("2026-11-21T21:33:40.042+01:00"), Some(moment));
    }

    #[test]
    fn writes_the_date_of_a_header() {
        assert_eq!(Timestamp::from_secs(1_795_293_220).rfc5322(), "Sat, 21 Nov 2026 20:33:40 +0000");
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::NEVER + Duration::MAX, Timestamp::NEVER);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::from_secs(5)), Duration::ZERO);
    }
}
