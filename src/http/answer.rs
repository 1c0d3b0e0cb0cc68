//! What every answer has: its fields for the browser, JSON for what was asked, one sentence for what went wrong.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

/// Nothing from elsewhere, nothing inline, nowhere else: without exceptions.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                   form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Fields of every answer.
pub(super) fn secure(answer: &mut Response<Body>) {
    let fields = answer.headers_mut();
    fields.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(CSP));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    fields.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refused {
    status: StatusCode,
    text: String,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
}

impl Refused {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Refused {
        Refused { status, text: text.into(), retry_after: None }
    }

    /// What was asked cannot be understood.
    pub(super) fn bad(text: impl Into<String>) -> Refused {
        Refused::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn not_found(text: impl Into<String>) -> Refused {
        Refused::new(StatusCode::NOT_FOUND, text)
    }

    pub(super) fn unavailable(text: impl Into<String>) -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// The same may be asked again after so many seconds.
    pub(super) fn retry_after(self, seconds: u64) -> Refused {
        Refused { retry_after: Some(seconds), ..self }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        let mut answer = (self.status, Json(ErrorBody { error: &self.text })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"weir\""));
        }
        if let Some(seconds) = self.retry_after {
            answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        answer
    }
}

impl From<crate::admin::Failed> for Refused {
    /// The relay's own words: what was asked makes no sense to it, or it cannot now.
    fn from(failed: crate::admin::Failed) -> Refused {
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, failed.0)
    }
}

/// JSON that was made already.
pub(super) fn json(text: String) -> Response<Body> {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
