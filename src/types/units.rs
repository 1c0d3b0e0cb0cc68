//! Sizes, durations and rates as people write them: "35 MiB", "5m", "1h 30m", "600/min".
//!
//! A configuration never holds a bare number of seconds or bytes whose unit one has to guess.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written with a binary unit: `35 MiB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

/// A length of time, written with units: `90s`, `5m`, `4d`, `1h 30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub Duration);

/// So many of something in a time, written with the unit behind a slash: `600/min`, `500/h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    count: u32,
    per: Per,
}

/// A rate that nothing may pass, or none: `600/min`, `unlimited`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RateLimit {
    Unlimited,
    At(Rate),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

const RATES: [(&str, Per, f64); 4] =
    [("s", Per::Second, 1.0 / 60.0), ("min", Per::Minute, 1.0), ("h", Per::Hour, 60.0), ("d", Per::Day, 24.0 * 60.0)];
const UNLIMITED: &str = "unlimited";

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    #[error("`{0}` is no size: write a whole number and a unit, as in \"35 MiB\" (B, KiB, MiB, GiB, TiB)")]
    Size(String),
    #[error("`{0}` is no duration: write whole numbers with units, as in \"5m\" or \"1h 30m\" (ms, s, m, h, d, w)")]
    Span(String),
    #[error("`{0}` is no rate: write a whole number above zero and a time, as in \"600/min\" (s, min, h, d)")]
    Rate(String),
}

impl Rate {
    pub const fn per_hour(count: u32) -> Rate {
        Rate { count, per: Per::Hour }
    }

    /// How many in a minute.
    pub fn in_minute(self) -> f64 {
        f64::from(self.count) / self.minutes()
    }

    /// How many in an hour.
    pub fn in_hour(self) -> f64 {
        f64::from(self.count) * 60.0 / self.minutes()
    }

    fn minutes(self) -> f64 {
        RATES.iter().find(|(_, per, _)| *per == self.per).map_or(1.0, |(_, _, minutes)| *minutes)
    }
}

impl RateLimit {
    /// How many in a minute; none: as many as one likes.
    pub fn in_minute(self) -> Option<f64> {
        match self {
            RateLimit::Unlimited => None,
            RateLimit::At(rate) => Some(rate.in_minute()),
        }
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Rate, UnitError> {
        let error = || UnitError::Rate(text.chars().take(40).collect());
        let (count, unit) = text.split_once('/').ok_or_else(error)?;
        let count: u32 = count.trim().parse().ok().filter(|&count| count > 0).ok_or_else(error)?;
        let (_, per, _) = RATES.iter().find(|(name, ..)| *name == unit.trim()).ok_or_else(error)?;
        Ok(Rate { count, per: *per })
    }
}

impl FromStr for RateLimit {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<RateLimit, UnitError> {
        if text.trim() == UNLIMITED { Ok(RateLimit::Unlimited) } else { text.parse().map(RateLimit::At) }
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<ByteSize, UnitError> {
        let error = || UnitError::Size(text.chars().take(40).collect());
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let (number, unit) = trimmed.split_at(split);
        let number: u64 = number.parse().map_err(|_| error())?;
        let unit = unit.trim();
        let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(error)?;
        number.checked_mul(*factor).filter(|&n| n <= 1 << 62).map(ByteSize).ok_or_else(error)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Span, UnitError> {
        let error = || UnitError::Span(text.chars().take(40).collect());
        let mut rest = text.trim();
        let mut millis: u64 = 0;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            let number: u64 = rest[..digits].parse().map_err(|_| error())?;
            let after = rest[digits..].trim_start();
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (_, factor) = SPANS.iter().find(|(name, _)| *name == &after[..end]).ok_or_else(error)?;
            millis = number.checked_mul(*factor).and_then(|n| millis.checked_add(n)).ok_or_else(error)?;
            rest = after[end..].trim_start();
        }
        // A century: longer than anything that is meant, short enough for any arithmetic.
        (millis <= 3_155_760_000_000).then(|| Span(Duration::from_millis(millis))).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            SIZES.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)).unwrap_or(&SIZES[4]);
        write!(f, "{} {unit}", self.0 / factor)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        let mut first = true;
        // Weeks are read but not written: "14d" says more than "2w" beside "4d".
        for (unit, factor) in &SPANS[1..] {
            if millis >= *factor {
                write!(f, "{}{}{unit}", if first { "" } else { " " }, millis / factor)?;
                millis %= factor;
                first = false;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATES.iter().find(|(_, per, _)| *per == self.per).map_or("min", |(name, ..)| *name);
        write!(f, "{}/{unit}", self.count)
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RateLimit::Unlimited => f.write_str(UNLIMITED),
            RateLimit::At(rate) => rate.fmt(f),
        }
    }
}

macro_rules! text_serde {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_serde!(ByteSize, Span, Rate, RateLimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("35 MiB", 35 << 20), ("1GiB", 1 << 30), ("512 B", 512), (" 7 kib ", 7 << 10)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for text in ["35", "MiB", "-1 MiB", "1.5 GiB", "35 MB", "99999999999 TiB", ""] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(ByteSize(35 << 20).to_string(), "35 MiB");
        assert_eq!(ByteSize(1500).to_string(), "1500 B");
    }

    #[test]
    fn spans() {
        for (text, secs) in
            [("5m", 300), ("4d", 345_600), ("1h 30m", 5400), ("1h30m", 5400), ("2w", 1_209_600), ("0s", 0)]
        {
            assert_eq!(text.parse::<Span>().unwrap().0.as_secs(), secs, "{text}");
        }
        for text in ["5", "m", "", "5 minutes", "-5m", "99999999999w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for text in ["1h 30m", "4d", "500ms", "0s", "14d"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rates() {
        for (text, minute) in [("600/min", 600.0), ("90/h", 1.5), ("2/s", 120.0), (" 1440 / d ", 1.0)] {
            assert!((text.parse::<Rate>().unwrap().in_minute() - minute).abs() < 1e-9, "{text}");
        }
        for text in ["600", "0/min", "/min", "-1/h", "1.5/h", "5/m", "5/week", "99999999999/s", "unlimited", ""] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["unlimited", "600/min", "1/s", "500/h", "7/d"] {
            assert_eq!(text.parse::<RateLimit>().unwrap().to_string(), text);
        }
        assert_eq!("unlimited".parse::<RateLimit>().unwrap().in_minute(), None);
        assert!("none".parse::<RateLimit>().is_err());
    }
}
