//! How long to wait after a failure, and from when on a person should hear of it.
//!
//! Pure. Rules that always hold: waits grow up to [`WAIT_MAX`] and are never all of one length; what the endpoint asks for
//! (Retry-After, RFC 9110 section 10.2.3) is obeyed between [`WAIT_MIN`] and [`ASKED_MAX`]; a single failure is no news,
//! unless it says that a person must act.

use std::time::Duration;

use hyper::StatusCode;

use crate::post::PostError;
use crate::types::Timestamp;

pub(super) const WAIT_MIN: Duration = Duration::from_secs(1);
/// Nobody waits longer for the events of an endpoint that is well again.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// An endpoint that asks for more is asked again after this.
const ASKED_MAX: Duration = Duration::from_secs(3600);
/// An endpoint that is restarted is back after this.
const ALERT_AFTER: Duration = Duration::from_secs(60);

/// How an endpoint has done lately.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    /// When the first of them was.
    since: Option<Timestamp>,
}

impl Patience {
    /// After a failure: how long to wait. `chance` is from 0 to 1.
    pub(super) fn wait(&mut self, error: &PostError, now: Timestamp, chance: f64) -> Duration {
        let doublings = self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
        if let PostError::Status { retry_after: Some(text), .. } = error
            && let Some(asked) = asked(text, now)
        {
            return asked.clamp(WAIT_MIN, ASKED_MAX).mul_f64(1.0 + 0.1 * chance);
        }
        let wait = WAIT_MIN.saturating_mul(1 << doublings).min(WAIT_MAX);
        wait.mul_f64(0.8 + 0.4 * chance)
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Since when it fails, if a person should hear of it.
    pub(super) fn troubled_since(&self, error: &PostError, now: Timestamp) -> Option<Timestamp> {
        self.since.filter(|since| asks_for_a_person(error) || now.since(*since) >= ALERT_AFTER)
    }
}

/// Will it stay so until somebody changes something?
fn asks_for_a_person(error: &PostError) -> bool {
    match error {
        PostError::Forbidden(_) | PostError::Request(_) => true,
        PostError::Status { status, .. } => {
            status.is_redirection()
                || matches!(
                    *status,
                    StatusCode::UNAUTHORIZED
                        | StatusCode::FORBIDDEN
                        | StatusCode::NOT_FOUND
                        | StatusCode::METHOD_NOT_ALLOWED
                        | StatusCode::GONE
                )
        }
        _ => false,
    }
}

/// What to do about it.
pub(super) fn remedy(error: &PostError) -> &'static str {
    match error {
        PostError::Forbidden(_) => {
            "if the endpoint is meant to be there, name its network in `networks` of the [[webhook]]"
        }
        PostError::Status { status, .. } if *status == StatusCode::GONE => {
            "the endpoint says that it is gone for good: correct its url, or take the [[webhook]] out; until then it is asked now and then"
        }
        PostError::Status { status, .. } if status.is_redirection() => {
            "redirections are not followed: write the address it leads to into the url of the [[webhook]]"
        }
        PostError::Status { status, .. } if asks_for_a_person(error) || status.is_client_error() => {
            "see in the endpoint's log why it refuses the request, and correct url, secret or format of the [[webhook]]"
        }
        PostError::Tls(_) => "the endpoint needs a certificate of its name by a public authority",
        _ => "see that the endpoint is up and answers with 2xx in time",
    }
}

/// What Retry-After asks for: seconds, or a date.
fn asked(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(secs) => Some(Duration::from_secs(secs)),
        Err(_) => Timestamp::parse_rfc5322(text).map(|moment| moment.since(now)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    fn status(code: u16, retry_after: Option<&str>) -> PostError {
        let status = StatusCode::from_u16(code).unwrap();
        PostError::Status { status, retry_after: retry_after.map(str::to_string) }
    }

    #[test]
    fn waits_double_up_to_ten_minutes() {
        let mut patience = Patience::default();
        let waits: Vec<u64> = (0..13).map(|_| patience.wait(&status(500, None), NOON, 0.5).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
        assert_eq!(patience.failures(), 13);
    }

    #[test]
    fn what_the_endpoint_asks_for_is_obeyed_within_bounds() {
        let date = (NOON + Duration::from_secs(90)).rfc5322().replace("+0000", "GMT");
        for (text, secs) in
            [("120", 120), ("0", 1), ("86400", 3600), (date.as_str(), 90), ("18446744073709551615", 3600)]
        {
            let wait = Patience::default().wait(&status(503, Some(text)), NOON, 0.0);
            assert_eq!(wait.as_secs(), secs, "{text}");
        }
        // What nobody can read is not there.
        for text in ["soon", "-5", "1.5"] {
            assert_eq!(Patience::default().wait(&status(503, Some(text)), NOON, 0.5).as_secs(), 1, "{text}");
        }
    }

    #[test]
    fn a_person_hears_of_what_lasts_and_at_once_of_what_will() {
        let since = |error: PostError, secs: u64| {
            let mut patience = Patience::default();
            patience.wait(&error, NOON, 0.0);
            patience.troubled_since(&error, NOON + Duration::from_secs(secs))
        };
        for code in [401, 403, 404, 410, 302] {
            assert_eq!(since(status(code, None), 0), Some(NOON), "{code}");
        }
        for error in [status(500, None), status(429, Some("5")), status(400, None), PostError::Connect("x".into())] {
            let text = error.to_string();
            assert_eq!(since(error, 59), None, "{text}");
        }
        assert_eq!(since(PostError::Late(Duration::from_secs(20)), 60), Some(NOON));
        assert_eq!(Patience::default().troubled_since(&status(404, None), NOON), None, "it has not failed");
    }

    proptest! {
        #[test]
        fn no_wait_is_out_of_bounds(failures in 0u32..100, chance in 0.0f64..=1.0, text in "[0-9]{0,25}") {
            let mut patience = Patience { failures, since: None };
            let wait = patience.wait(&status(503, Some(&text)), NOON, chance);
            prop_assert!(wait >= Duration::from_millis(800) && wait <= Duration::from_secs(3960), "{:?}", wait);
        }
    }
}
