//! The rules that read replies, as everybody but the engine asks for them: a reload puts new ones in force.

use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;

use crate::config::Config;
use crate::verdict::Rules;

/// The shipped rules with those of the configuration before them.
pub(super) fn of(config: &Config) -> anyhow::Result<Rules> {
    let own = config.provider.iter().map(|provider| (provider.name.as_str(), provider.rule.as_slice()));
    Rules::with_own(own).context("the rules for replies cannot be used")
}

pub(super) struct InForce(Mutex<Rules>);

impl InForce {
    pub(super) fn new(rules: Rules) -> InForce {
        InForce(Mutex::new(rules))
    }

    pub(super) fn set(&self, rules: Rules) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    pub(super) fn get(&self) -> Rules {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
