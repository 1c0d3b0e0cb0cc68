//! How we log in at a relay that takes mail only from those it knows.

use super::Secret;

/// Equal ones may share connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: Secret,
    /// Where somebody would put it right: `username and password_file /etc/weir/ses of the [[route]] for "*"`.
    pub set_in: String,
}
