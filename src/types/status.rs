//! How something stands that was looked at for an operator.

use serde::Serialize;

/// Whether a person must do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Mail goes, and may go better; or nobody could tell.
    Warn,
    /// Mail will be refused, be lost, or not go at all.
    Fail,
}

impl Status {
    /// As it stands at the beginning of a line.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        }
    }
}
