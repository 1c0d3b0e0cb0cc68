//! The running relay as the commands reach it.

use super::config::Config;
use crate::admin::{Client, ClientError};

/// A connection to the relay of this configuration's data folder.
pub(super) async fn connect(config: &Config) -> anyhow::Result<Client> {
    Ok(Client::connect(&config.data_dir).await?)
}

/// As `connect`, but `None` where no relay runs: for what can also be read in the data folder itself.
pub(super) async fn connect_if_running(config: &Config) -> anyhow::Result<Option<Client>> {
    match Client::connect(&config.data_dir).await {
        Ok(client) => Ok(Some(client)),
        Err(ClientError::NoRelay(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
