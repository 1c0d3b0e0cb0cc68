//! The wait that a reply names: "try again in 300 seconds", "greylisted for 5 minutes", "come back in 00:05:00".
//!
//! Where several stand there the first counts. Outside of greylisting a time may be many things ("limit: 100 an hour",
//! "timed out after 30 seconds"): there it must stand behind a word that asks to come back. A wait is kept between a minute and an hour: nobody who is asked sooner has
//! changed his mind, and who names days is asked by the schedule.

use std::time::Duration;

use crate::types::Reply;

pub(super) const AGAIN_MIN: Duration = Duration::from_secs(60);
pub(super) const AGAIN_MAX: Duration = Duration::from_secs(3600);
/// What stands further back in a reply is not looked at.
const READ_MAX: usize = 4096;

/// Words that ask to come back, in the reply's sentence no further before the time than this.
const CUE_WORDS: usize = 6;
const CUES: [&str; 12] = [
    "again",
    "back",
    "retry",
    "retrying",
    "retried",
    "retry-after",
    "wait",
    "resend",
    "reconnect",
    "return",
    "resubmit",
    "reattempt",
];

/// `any`: whatever stands before it.
pub(super) fn named_wait(reply: &Reply, any: bool) -> Option<Duration> {
    let mut text = String::new();
    for line in reply.lines() {
        text.push_str(&String::from_utf8_lossy(line));
        text.push(' ');
    }
    let text: String = text.chars().take(READ_MAX).collect();
    // What stands in an address is somebody's name.
    let words = text.split(|c: char| c.is_whitespace() || "(),;[]".contains(c)).filter(|w| !w.contains('@'));
    let words: Vec<String> =
        words.map(|w| w.trim_matches(['.', '!', ':']).to_ascii_lowercase()).filter(|w| !w.is_empty()).collect();
    let asks_back = |at: usize| {
        let before = words.get(at.saturating_sub(CUE_WORDS)..at).unwrap_or_default();
        before.iter().any(|word| CUES.contains(&word.as_str()))
    };
    let secs = (0..words.len()).find_map(|at| seconds_at(&words, at).filter(|_| any || asks_back(at)))?;
    Some(Duration::from_secs(secs).clamp(AGAIN_MIN, AGAIN_MAX))
}

fn seconds_at(words: &[String], at: usize) -> Option<u64> {
    let word = words[at].as_str();
    if let Some(secs) = clock(word) {
        // Behind anything else it is a time of day.
        let before = at.checked_sub(1).map(|before| words[before].as_str());
        return before.filter(|w| matches!(*w, "in" | "after" | "for" | "within" | "least")).map(|_| secs);
    }
    // "5-10 minutes": the longer one.
    let number = word.rsplit('-').next().unwrap_or(word);
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    let (value, inline) = match digits {
        0 => (spelled(word)?, ""),
        _ => (number[..digits].parse::<u64>().ok()?, &number[digits..]),
    };
    let unit = match inline {
        "" => unit(words.get(at + 1)?).filter(|_| words[at + 1].len() > 1)?,
        inline => unit(inline)?,
    };
    value.checked_mul(unit).filter(|secs| *secs > 0)
}

/// `00:05:00`
fn clock(word: &str) -> Option<u64> {
    let parts: Vec<&str> = word.split(':').collect();
    let is_part = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    let [hours, minutes, seconds] = parts[..] else { return None };
    if ![hours, minutes, seconds].iter().all(is_part) {
        return None;
    }
    let value = |part: &str| part.parse::<u64>().ok();
    Some(value(hours)? * 3600 + value(minutes)? * 60 + value(seconds)?).filter(|secs| *secs > 0)
}

fn unit(word: &str) -> Option<u64> {
    match word {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3600),
        _ => None,
    }
}

fn spelled(word: &str) -> Option<u64> {
    let words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    match word {
        "fifteen" => Some(15),
        "thirty" => Some(30),
        "a" | "an" => Some(1),
        _ => words.iter().position(|other| *other == word).map(|at| at as u64 + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(text: &str) -> Option<u64> {
        named_wait(&Reply::parse(text).unwrap(), true).map(|wait| wait.as_secs())
    }

    #[test]
    fn outside_of_greylisting_a_time_counts_where_it_is_asked_to_come_back() {
        for (text, expected) in [
            ("451 4.3.0 Overloaded, please come back in 120 seconds", Some(120)),
            ("451 busy. Retry after at least 10 minutes", Some(600)),
            ("452 out of memory; wait 90s", Some(90)),
            ("421 retry-after: 300 seconds", Some(300)),
            ("421 please try again in 00:05:00", Some(300)),
            ("451 4.4.1 connection timed out after 30 seconds", None),
            ("450 no more than 100 messages in 10 minutes", None),
            ("450 try again later; the limit of this server is 60 messages per 2 minutes", None),
        ] {
            let wait = named_wait(&Reply::parse(text).unwrap(), false);
            assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{text}");
        }
    }

    #[test]
    fn a_time_is_found_however_it_is_written() {
        for (text, expected) in [
            ("450 4.7.1 <u@x.test>: try again in 300 seconds", 300),
            ("450 4.2.0 Greylisted for 5 minutes, see http://x.test/400", 300),
            ("451 4.7.1 Greylisting in action, please come back in 00:07:30", 450),
            ("451 greylisted, retry in 10 min.", 600),
            ("451 4.7.1 try again in 90s", 90),
            ("450 please wait 5-10 minutes", 600),
            ("450 come back in five minutes", 300),
            ("450 come back in an hour", 3600),
            ("450 (300 secs)", 300),
        ] {
            assert_eq!(secs(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_taken_for_none_and_what_is_out_of_bounds_for_the_nearest() {
        for text in [
            "450 4.7.1 try again later",
            "450 4.7.1 Service unavailable at 10:05:00",
            "450 queue 300 of 400",
            "450 4.2.0 <300s@x.test> greylisted",
            "450 in 5 m of snow",
            "450 99999999999999999999 seconds",
            "450",
        ] {
            assert_eq!(secs(text), None, "{text}");
        }
        assert_eq!((secs("450 in 5 seconds"), secs("450 in 12 hours")), (Some(60), Some(3600)));
    }
}
