//! Numbers as people read them in reasons and alerts.

use std::fmt;

/// A whole number with its thousands set apart: `12,400`.
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// `38 recipients a minute`, and by the hour what is less than one a minute: `30 recipients an hour`.
pub fn per_minute(rate: f64) -> String {
    let (number, unit) = if rate < 1.0 { (rate * 60.0, "an hour") } else { (rate, "a minute") };
    // A cast from floating point saturates.
    let number = number.round() as u64;
    format!("{} recipient{} {unit}", Grouped(number), if number == 1 { "" } else { "s" })
}

/// `1 connection`, `2,000 connections`
pub fn count(n: impl TryInto<u64>, noun: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    format!("{} {noun}{}", Grouped(n), if n == 1 { "" } else { "s" })
}

/// `1 delivery`, `2 deliveries`
pub fn count_of(n: impl TryInto<u64>, one: &str, many: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    format!("{} {}", Grouped(n), if n == 1 { one } else { many })
}

/// `12.1 KiB`
pub fn size(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*factor);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

/// The two largest units that say something: `4d 2h`, `12m 5s`, `0s`.
pub fn span(span: std::time::Duration) -> String {
    let mut rest = span.as_secs();
    let Some(first) = UNITS.iter().position(|(_, secs)| rest >= *secs) else { return "0s".to_string() };
    let mut words = Vec::new();
    for (unit, secs) in UNITS.iter().skip(first).take(2) {
        if rest >= *secs {
            words.push(format!("{}{unit}", rest / secs));
            rest %= secs;
        }
    }
    words.join(" ")
}

/// `2026-11-21 20:33:40 UTC`
pub fn date(moment: super::Timestamp) -> String {
    let text = moment.to_string();
    let (day, time) = (text.get(..10).unwrap_or_default(), text.get(11..19).unwrap_or_default());
    format!("{day} {time} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_rates_are_told_by_the_hour() {
        for (rate, text) in [
            (0.5, "30 recipients an hour"),
            (1.0 / 60.0, "1 recipient an hour"),
            (1.0, "1 recipient a minute"),
            (38.4, "38 recipients a minute"),
            (12_000.0, "12,000 recipients a minute"),
        ] {
            assert_eq!(per_minute(rate), text);
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_400, "12,400"), (1_000_000, "1,000,000")] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }
}
