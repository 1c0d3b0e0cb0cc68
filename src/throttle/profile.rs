//! What is known of a receiver before the first contact: its name, its MX hosts, its limits.
//!
//! Shipped profiles are the `[profile]` tables of `config/providers/*.toml`; `[[provider]]` of the configuration
//! overrides them key by key or adds new ones. A receiver that no profile names gets the defaults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::options::{GROWTH_FLOOR, INITIAL_CONNECTIONS, PAUSE, PAUSE_MAX, PROBE_BLOCK, ProviderOptions};
use crate::types::{Preflight, Rate, RateLimit, TlsMode};

/// Simultaneous connections to one receiver, over all its hosts and domains and all our addresses. 500 is what
/// Outlook.com's postmaster page allows; nobody else is asked for more.
pub const MAX_CONNECTIONS: usize = 500;
const MESSAGES_PER_CONNECTION: u32 = 50;
const RECIPIENTS_PER_MESSAGE: usize = 100;
/// Recipients a day of a new address where the profile says nothing else: half as many again each day, 17 days.
/// Outlook.com asks for about two weeks; senders begin at Microsoft with 50 to 300 a day and grow by half a day.
const WARM_UP: [u32; 17] =
    [100, 150, 225, 340, 500, 750, 1_100, 1_700, 2_500, 3_800, 5_700, 8_500, 13_000, 19_000, 29_000, 43_000, 65_000];

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
    /// Recipients a minute at most; none: no fixed limit.
    pub max_rate: Option<f64>,
    /// In an hour at most this many times the busiest clean hour of the last 30 days; 0: no guard.
    pub growth: f64,
    /// Recipients an hour that the growth guard always lets through.
    pub growth_floor: f64,
    /// BDAT may be used where it is offered.
    pub chunking: bool,
    /// TLS towards its hosts; none: as for all.
    pub tls: Option<TlsMode>,
    /// The unit of this provider's waits.
    pub pause: Duration,
    /// A wait that is doubled on each repeat grows to this many at most, or to the like part of it.
    pub pause_max: Duration,
    /// The first probe after a block of our address; doubled up to 24 times this.
    pub probe_block: Duration,
    /// An own mailbox there, for probes.
    pub canary: Option<Arc<str>>,
    /// What is done when mail of a sender domain lacks what the receiver asks for.
    pub preflight: Preflight,
    /// From so many recipients of a sender domain in a day on it asks for that; 0: never.
    pub preflight_from: u32,
    /// Recipients on the first, second, … day of a new address that is warmed up.
    pub warm_up: Vec<u32>,
}

#[derive(Deserialize)]
struct ProviderFile {
    profile: ProviderOptions,
}

#[derive(Clone, Debug)]
pub struct Profiles {
    by_name: BTreeMap<Arc<str>, Profile>,
    /// What holds for a receiver that nobody has described: `[[provider]] name = "default"`.
    others: Profile,
}

/// The name under which an operator says what holds for every receiver without a profile.
const OTHERS: &str = "default";

impl Profiles {
    /// The shipped profiles with `overrides` laid over them.
    pub fn new(overrides: &[ProviderOptions]) -> Profiles {
        let shipped = SHIPPED.iter().map(|text| {
            let file: ProviderFile = toml::from_str(text).expect("a shipped provider table is valid, a test holds it");
            file.profile
        });
        let (for_others, overrides): (Vec<ProviderOptions>, Vec<ProviderOptions>) =
            overrides.iter().cloned().partition(|options| options.name == OTHERS);
        let mut others = Profile::unknown(OTHERS);
        for options in for_others {
            others.lay_over(ProviderOptions { mx: None, domains: None, ..options });
        }
        let mut by_name = BTreeMap::new();
        let is_shipped = shipped.map(|options| (options, true));
        for (options, is_shipped) in is_shipped.chain(overrides.into_iter().map(|options| (options, false))) {
            let name: Arc<str> = options.name.as_str().into();
            // A profile of the program says what it means; what an operator leaves out of a new one is as for all others.
            let new = || if is_shipped { Profile::unknown(&name) } else { others.named(&name) };
            let profile = by_name.entry(name.clone()).or_insert_with(new);
            profile.lay_over(options);
        }
        Profiles { by_name, others }
    }

    /// The profile of `name`, or what holds for a receiver nobody has described.
    pub fn get(&self, name: &str) -> Profile {
        self.by_name.get(name).cloned().unwrap_or_else(|| self.others.named(name))
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
            max_rate: None,
            growth: 0.0,
            growth_floor: GROWTH_FLOOR.in_hour(),
            chunking: true,
            tls: None,
            pause: PAUSE.0,
            pause_max: PAUSE_MAX.0,
            probe_block: PROBE_BLOCK.0,
            canary: None,
            preflight: Preflight::default(),
            preflight_from: 0,
            warm_up: WARM_UP.to_vec(),
        }
    }

    /// The same for a receiver of this name.
    fn named(&self, name: &str) -> Profile {
        Profile { name: name.into(), ..self.clone() }
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
        set(&mut self.max_rate, options.max_rate.map(RateLimit::in_minute));
        set(&mut self.growth, options.growth);
        set(&mut self.growth_floor, options.growth_floor.map(Rate::in_hour));
        set(&mut self.chunking, options.chunking);
        set(&mut self.tls, options.tls.map(Some));
        set(&mut self.pause, options.pause.map(|span| span.0));
        set(&mut self.pause_max, options.pause_max.map(|span| span.0));
        set(&mut self.probe_block, options.probe_block.map(|span| span.0));
        set(&mut self.canary, options.canary.map(|text| (!text.is_empty()).then(|| text.as_str().into())));
        set(&mut self.preflight, options.preflight);
        set(&mut self.preflight_from, options.preflight_from);
        set(&mut self.warm_up, options.warm_up);
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

    #[test]
    fn what_is_said_of_default_holds_for_all_that_no_profile_names() {
        let said: Vec<ProviderOptions> =
            ["name = 'corp'\npause = '3s'", "name = 'default'\nmax_connections = 7\nmax_rate = '60/min'"]
                .iter()
                .map(|text| toml::from_str(text).unwrap())
                .collect();
        let profiles = Profiles::new(&said);
        for (name, connections, pause) in [("mx.example.com", 7, 600), ("default", 7, 600), ("corp", 7, 3)] {
            let profile = profiles.get(name);
            assert_eq!((profile.max_connections, profile.pause.as_secs()), (connections, pause), "{name}");
            assert_eq!((&*profile.name, profile.max_rate), (name, Some(60.0)));
        }
        for name in ["outlook", "gmail", "yahoo"] {
            assert_eq!(profiles.get(name), Profiles::new(&[]).get(name), "{name} has a profile");
        }
        assert!(profiles.iter().all(|profile| &*profile.name != "default"));
    }

    #[test]
    fn the_microsoft_profiles_guard_growth_and_the_others_do_not() {
        let profiles = Profiles::new(&[]);
        for (name, growth) in [("outlook", 2.0), ("microsoft365", 2.0), ("gmail", 0.0), ("mx.example.com", 0.0)] {
            let profile = profiles.get(name);
            assert_eq!((profile.growth, profile.growth_floor), (growth, 500.0), "{name}");
            assert_eq!((profile.max_rate, profile.canary), (None, None), "{name}");
            assert_eq!(profile.pause.as_secs(), 600, "{name}");
            assert_eq!(profile.pause_max.as_secs(), 24 * 3600, "{name}");
            assert_eq!(profile.probe_block.as_secs(), 3600, "{name}");
        }
    }

    #[test]
    fn the_shipped_schedules_take_two_weeks_and_more_and_never_more_than_double() {
        for name in ["outlook", "microsoft365", "mx.example.com"] {
            let schedule = Profiles::new(&[]).get(name).warm_up;
            assert!(schedule.len() > 14 && (50..=300).contains(&schedule[0]), "{name}");
            assert!(schedule.windows(2).all(|days| days[0] < days[1] && days[1] <= 2 * days[0]), "{name}");
        }
    }

    #[test]
    fn every_key_of_an_override_takes_effect() {
        let text = r#"
            name = "outlook"
            max_rate = "120/h"
            growth = 3
            growth_floor = "10/min"
            pause = "2s"
            pause_max = "1m"
            probe_block = "5m"
            canary = "probe@outlook.com"
            warm_up = [1, 2]
        "#;
        let profile = Profiles::new(&[toml::from_str(text).unwrap()]).get("outlook");
        assert_eq!((profile.max_rate, profile.growth, profile.growth_floor), (Some(2.0), 3.0, 600.0));
        let waits = [profile.pause, profile.pause_max, profile.probe_block].map(|wait| wait.as_secs());
        assert_eq!((waits, profile.canary.as_deref()), ([2, 60, 300], Some("probe@outlook.com")));
        assert_eq!(profile.warm_up, [1, 2]);
        let lifted = "name = 'outlook'\nmax_rate = 'unlimited'\ngrowth = 0.0\ncanary = ''";
        let profile = Profiles::new(&[toml::from_str(text).unwrap(), toml::from_str(lifted).unwrap()]).get("outlook");
        assert_eq!((profile.max_rate, profile.growth, profile.canary), (None, 0.0, None));
        assert_eq!(profile.pause.as_secs(), 2);
    }
}
