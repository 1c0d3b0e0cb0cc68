//! The parameters of MAIL by which a sender asks for more than delivery, and the limits of what may be asked:
//! MT-PRIORITY (RFC 6710), DELIVERBY (RFC 2852), FUTURERELEASE (RFC 4865).
//!
//! Rules that always hold:
//! - they are offered to clients that may relay, and to others they are unknown: nobody else has a place in the queue to ask for;
//! - a value that cannot be kept to is refused at MAIL (501), not bent.

use std::time::Duration;

use crate::types::{ByMode, DeliverBy, FutureRelease, Requests, SCHEDULE_MAX, Timestamp, TransferPriority};

use super::replies::{self, Said};

/// The keywords of EHLO with their limits (RFC 6710 section 3, RFC 2852 section 3, RFC 4865 section 4).
pub(super) fn offers(now: Timestamp) -> [String; 3] {
    let latest = Timestamp::from_secs((now + SCHEDULE_MAX).secs()).rfc3339_secs();
    [
        "MT-PRIORITY MIXER".to_string(),
        "DELIVERBY".to_string(),
        format!("FUTURERELEASE {} {latest}", SCHEDULE_MAX.as_secs()),
    ]
}

/// Takes the parameter if it is one of these.
pub(super) fn take(requests: &mut Requests, name: &str, value: Option<&str>) -> Option<Result<(), Said>> {
    let wants = |text: &'static str| Err(replies::BAD_SYNTAX.with(text));
    Some(match (name, value) {
        ("MT-PRIORITY", Some(value)) => match priority(value) {
            Some(priority) => {
                requests.priority = Some(priority);
                Ok(())
            }
            None => wants("MT-PRIORITY is a number from -9 to 9"),
        },
        ("BY", Some(value)) => match by(value) {
            Some(by) if by.mode == ByMode::Return && by.secs <= 0 => wants("BY with R takes a time above zero"),
            Some(by) => {
                requests.by = Some(by);
                Ok(())
            }
            None => wants("BY is up to nine digits, a semicolon, R or N, and T or nothing"),
        },
        ("HOLDFOR" | "HOLDUNTIL", Some(_)) if requests.release.is_some() => {
            wants("HOLDFOR and HOLDUNTIL exclude each other")
        }
        ("HOLDFOR", Some(value)) => match hold_for(value) {
            Some(secs) => {
                requests.release = Some(FutureRelease::For(secs));
                Ok(())
            }
            None => wants("HOLDFOR is a number of seconds, at most nine digits and no zero before them"),
        },
        ("HOLDUNTIL", Some(value)) => match Timestamp::parse_rfc3339(value) {
            Some(at) => {
                requests.release = Some(FutureRelease::Until(at));
                Ok(())
            }
            None => wants("HOLDUNTIL is a time as in 2026-12-01T08:00:00Z"),
        },
        ("MT-PRIORITY" | "BY" | "HOLDFOR" | "HOLDUNTIL", None) => {
            Err(replies::BAD_SYNTAX.with(format!("the value of {name}")))
        }
        _ => return None,
    })
}

/// Which of them a client asked for, by the name of the parameter.
pub(super) fn named(requests: &Requests) -> Option<&'static str> {
    let release = requests.release.map(|release| match release {
        FutureRelease::For(_) => "HOLDFOR",
        FutureRelease::Until(_) => "HOLDUNTIL",
    });
    requests.priority.map(|_| "MT-PRIORITY").or(requests.by.map(|_| "BY")).or(release)
}

/// Can the message be kept so long, and be tried between its two times?
pub(super) fn check(requests: &Requests, now: Timestamp) -> Result<(), Said> {
    let Some(release) = requests.release else { return Ok(()) };
    let (at, latest) = (release.moment(now), now + SCHEDULE_MAX);
    // What has been offered is offered for as long as it takes to use it.
    if at > latest + Duration::from_secs(1) {
        return Err(replies::BAD_SYNTAX
            .with(format!("no message is held for longer than {} seconds, or past {latest}", SCHEDULE_MAX.as_secs())));
    }
    match requests.returns_after() {
        Some(span) if now + span <= at => {
            Err(replies::BAD_SYNTAX.with("BY counts from now, and ends before the message is released"))
        }
        _ => Ok(()),
    }
}

/// Section 3 of RFC 6710: no zero before another digit, no plus.
fn priority(value: &str) -> Option<TransferPriority> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let is_good = matches!(digits.as_bytes(), [b'1'..=b'9']) || value == "0";
    TransferPriority::new(value.parse().ok().filter(|_| is_good)?)
}

/// Section 4 of RFC 2852.
fn by(value: &str) -> Option<DeliverBy> {
    let (time, mode) = value.split_once(';')?;
    let digits = time.strip_prefix(['-', '+']).unwrap_or(time);
    let is_good = (1..=9).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit());
    let (mode, trace) = match mode.to_ascii_uppercase().as_str() {
        "R" => (ByMode::Return, false),
        "RT" => (ByMode::Return, true),
        "N" => (ByMode::Notify, false),
        "NT" => (ByMode::Notify, true),
        _ => return None,
    };
    Some(DeliverBy { secs: time.parse().ok().filter(|_| is_good)?, mode, trace })
}

/// Section 4 of RFC 4865: one to nine digits, the first of which is no zero.
fn hold_for(value: &str) -> Option<u32> {
    let is_good =
        (1..=9).contains(&value.len()) && !value.starts_with('0') && value.bytes().all(|octet| octet.is_ascii_digit());
    value.parse().ok().filter(|_| is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Requests, String> {
        let mut requests = Requests::default();
        for (name, value) in parameters {
            take(&mut requests, name, Some(value).copied().filter(|v| !v.is_empty()))
                .unwrap()
                .map_err(|said| said.line())?;
        }
        Ok(requests)
    }

    #[test]
    fn values_are_read_by_their_grammar_and_no_others() {
        for (name, value, expected) in [
            ("MT-PRIORITY", "0", Some("0")),
            ("MT-PRIORITY", "-9", Some("-9")),
            ("MT-PRIORITY", "9", Some("9")),
            ("MT-PRIORITY", "10", None),
            ("MT-PRIORITY", "-0", None),
            ("MT-PRIORITY", "+3", None),
            ("MT-PRIORITY", "03", None),
            ("MT-PRIORITY", "high", None),
            ("MT-PRIORITY", "", None),
            ("BY", "120;R", Some("120;R")),
            ("BY", "+120;rt", Some("120;RT")),
            ("BY", "-120;N", Some("-120;N")),
            ("BY", "0;NT", Some("0;NT")),
            ("BY", "999999999;R", Some("999999999;R")),
            ("BY", "0;R", None),
            ("BY", "-1;R", None),
            ("BY", "1000000000;R", None),
            ("BY", "120", None),
            ("BY", "120;", None),
            ("BY", "120;T", None),
            ("BY", "120;TR", None),
            ("BY", ";R", None),
            ("BY", "+-1;N", None),
            ("BY", "1.5;N", None),
            ("HOLDFOR", "1", Some("for;1")),
            ("HOLDFOR", "259200", Some("for;259200")),
            ("HOLDFOR", "0", None),
            ("HOLDFOR", "060", None),
            ("HOLDFOR", "-5", None),
            ("HOLDFOR", "1000000000", None),
            ("HOLDUNTIL", "2026-12-01T08:00:00Z", Some("until;2026-12-01T08:00:00.000Z")),
            ("HOLDUNTIL", "2026-12-01T10:00:00+02:00", Some("until;2026-12-01T08:00:00.000Z")),
            ("HOLDUNTIL", "tomorrow", None),
            ("HOLDUNTIL", "1796112000", None),
        ] {
            let read = read(&[(name, value)]);
            let shown = read.clone().ok().map(|r| {
                let release = r.release.map(|release| release.to_string());
                release.or(r.by.map(|by| by.to_string())).or(r.priority.map(|p| p.to_string())).unwrap()
            });
            assert_eq!(shown.as_deref(), expected, "{name}={value}");
            assert!(read.is_ok() || read.unwrap_err().starts_with("501 5.5.4 "), "{name}={value}");
        }
        assert!(take(&mut Requests::default(), "SIZE", Some("1")).is_none());
    }

    #[test]
    fn only_one_time_of_release_may_be_named() {
        assert!(read(&[("HOLDFOR", "60"), ("HOLDUNTIL", "2026-12-01T08:00:00Z")]).is_err());
    }

    #[test]
    fn what_cannot_be_kept_to_is_refused() {
        let now = Timestamp::from_secs(1_796_000_000);
        let until = |secs: i64| format!("{}", Timestamp::from_secs(now.secs() + secs));
        let days = 86_400;
        for (parameters, is_good) in [
            (vec![("HOLDFOR", "259200".to_string())], true),
            (vec![("HOLDFOR", "259300".to_string())], false),
            (vec![("HOLDUNTIL", until(3 * days))], true),
            (vec![("HOLDUNTIL", until(3 * days + 60))], false),
            (vec![("HOLDUNTIL", until(-1))], true),
            (vec![("HOLDFOR", "60".to_string()), ("BY", "61;R".to_string())], true),
            (vec![("HOLDFOR", "60".to_string()), ("BY", "60;R".to_string())], false),
            (vec![("HOLDFOR", "60".to_string()), ("BY", "10;N".to_string())], true),
            (vec![("BY", "1;R".to_string())], true),
        ] {
            let parameters: Vec<(&str, &str)> =
                parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let requests = read(&parameters).unwrap();
            assert_eq!(check(&requests, now).is_ok(), is_good, "{parameters:?}");
        }
    }

    #[test]
    fn the_limits_stand_in_the_offer() {
        let offers = offers(Timestamp::from_millis(1_795_000_000_750));
        assert_eq!(offers[2], "FUTURERELEASE 259200 2026-11-21T11:06:40Z");
    }
}
