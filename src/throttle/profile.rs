//! What is known of a receiver before the first contact: its name, its MX hosts, its limits.
//!
//! Shipped profiles are the `[profile]` tables of `config/providers/*.toml`; `[[provider]]` of the configuration
//! overrides them key by key or adds new ones. A receiver that no profile names gets the defaults.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::options::ProviderOptions;

/// Simultaneous connections to one receiver, over all its hosts and domains and all our addresses. 500 is what
/// Outlook.com's postmaster page allows; nobody else is asked for more.
pub const MAX_CONNECTIONS: usize = 500;
const INITIAL_CONNECTIONS: usize = 5;
const MESSAGES_PER_CONNECTION: u32 = 50;
const RECIPIENTS_PER_MESSAGE: usize = 100;

const SHIPPED: [&str; 4] = [
    include_str!("../../config/providers/outlook.toml"),
    include_str!("../../config/providers/microsoft365.toml"),
    include_str!("../../config/providers/gmail.toml"),
    include_str!("../../config/providers/yahoo.toml"),
];

#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub name: Arc<str>,
    pub mx: Vec<String>,
    pub domains: Vec<String>,
    pub max_connections: usize,
    pub initial_connections: usize,
    pub messages_per_connection: u32,
    pub recipients_per_message: usize,
}

#[derive(Deserialize)]
struct ProviderFile {
    profile: ProviderOptions,
}

#[derive(Clone, Debug)]
pub struct Profiles {
    by_name: BTreeMap<Arc<str>, Profile>,
}

impl Profiles {
    /// The shipped profiles with `overrides` laid over them.
    pub fn new(overrides: &[ProviderOptions]) -> Profiles {
        let shipped = SHIPPED.iter().map(|text| {
            let file: ProviderFile = toml::from_str(text).expect("a shipped provider table is valid, a test holds it");
            file.profile
        });
        let mut by_name = BTreeMap::new();
        for options in shipped.chain(overrides.iter().cloned()) {
            let name: Arc<str> = options.name.as_str().into();
            let profile = by_name.entry(name.clone()).or_insert_with(|| Profile::unknown(&name));
            profile.lay_over(options);
        }
        Profiles { by_name }
    }

    /// The profile of `name`, or what holds for a receiver nobody has described.
    pub fn get(&self, name: &str) -> Profile {
        self.by_name.get(name).cloned().unwrap_or_else(|| Profile::unknown(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.by_name.values()
    }
}

impl Profile {
    fn unknown(name: &str) -> Profile {
        Profile {
            name: name.into(),
            mx: Vec::new(),
            domains: Vec::new(),
            max_connections: MAX_CONNECTIONS,
            initial_connections: INITIAL_CONNECTIONS,
            messages_per_connection: MESSAGES_PER_CONNECTION,
            recipients_per_message: RECIPIENTS_PER_MESSAGE,
        }
    }

    fn lay_over(&mut self, options: ProviderOptions) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut self.mx, options.mx);
        set(&mut self.domains, options.domains);
        set(&mut self.max_connections, options.max_connections);
        set(&mut self.initial_connections, options.initial_connections);
        set(&mut self.messages_per_connection, options.messages_per_connection);
        set(&mut self.recipients_per_message, options.recipients_per_message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_profiles_are_read() {
        let profiles = Profiles::new(&[]);
        let outlook = profiles.get("outlook");
        assert_eq!(outlook.max_connections, 500);
        assert!(outlook.mx.iter().any(|m| m == "*.olc.protection.outlook.com"));
        assert!(profiles.get("microsoft365").mx.iter().any(|m| m == "*.mail.protection.outlook.com"));
        let names: Vec<&str> = profiles.iter().map(|profile| &*profile.name).collect();
        assert_eq!(names, ["gmail", "microsoft365", "outlook", "yahoo"]);
    }

    #[test]
    fn an_override_replaces_its_keys_and_keeps_the_others() {
        let options = ProviderOptions { name: "outlook".into(), max_connections: Some(7), ..Default::default() };
        let profiles = Profiles::new(&[options]);
        assert_eq!(profiles.get("outlook").max_connections, 7);
        assert!(!profiles.get("outlook").mx.is_empty());
    }

    #[test]
    fn a_receiver_nobody_described_has_the_ceiling_all_the_same() {
        assert_eq!(Profiles::new(&[]).get("mx.example.com").max_connections, MAX_CONNECTIONS);
    }
}
