//! Our own name, as the rest of the relay asks for it: found at start, or a little later where the DNS must be asked.

use std::sync::{Mutex, PoisonError};

use crate::route::identity::{Identity, system_hostname};

/// What is known by now.
pub(super) struct Known(Mutex<Option<Identity>>);

impl Known {
    pub(super) fn nothing_yet() -> Known {
        Known(Mutex::new(None))
    }

    pub(super) fn set(&self, identity: Identity) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    /// The public name; none as long as there is none.
    pub(super) fn name(&self) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().and_then(Identity::name).map(str::to_string)
    }

    /// Why nothing leaves for the public Internet, and what to do about it.
    pub(super) fn problem(&self) -> Option<String> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Identity::Unknown { why, remedy }) => {
                Some(format!("nothing is delivered to the Internet: {why}; {remedy}"))
            }
            _ => None,
        }
    }
}

/// How we call ourselves where no public name is needed: among our own networks, and in the greeting.
pub(super) fn private_name() -> String {
    system_hostname().unwrap_or_else(|| "localhost".to_string())
}
