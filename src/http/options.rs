//! `[http]`: whether and where the page, the API and the metrics are served.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// `127.0.0.1:8025`. Empty: nothing is served.
    pub address: String,
    /// A file that holds the token. Empty: `http-token` in the data folder, made at the first start.
    pub token_file: String,
    /// Names by which the page may be asked for, besides addresses and localhost.
    pub hosts: Vec<String>,
}

impl Http {
    /// Where it listens; none: it is off.
    pub fn socket(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }
}
