//! What no single value shows: two settings that do not go together.
//!
//! Every check names the key at which somebody would put it right. A fault is what cannot work or would surely harm; a
//! warning is what works but is seldom meant.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Config;
use super::file::quoted;
use super::finding::{Findings, Place};
use super::tree::Places;
use crate::dkim::options::Dkim;
use crate::event::options::Output;
use crate::inbound::options::LogIn;
use crate::outbound::options::{HopTls, IpChoice, TlsMode};
use crate::route::options::RouteEntry;
use crate::throttle::options::{PAUSE, PAUSE_MAX, ProviderOptions};
use crate::types::nearest::nearest;
use crate::types::{Domain, EventKind, Mailbox};
use crate::webhook::options::{Target, Webhook, is_clear_text_abroad, is_short, speaks_of};

/// RFC 5321 section 4.5.3.1.7: messages of this size must be taken.
const MESSAGE_SIZE_MIN: u64 = 64 << 10;
/// RFC 5321 section 4.5.3.1.8: that many recipients must be taken.
const RECIPIENTS_MIN: usize = 100;
/// The groups of Microsoft's hosts, and domains that are known to be there (`.*`: under any top-level domain).
const MICROSOFT: [&str; 2] = ["outlook", "microsoft365"];
const MICROSOFT_DOMAINS: [&str; 7] =
    ["outlook.*", "hotmail.*", "live.*", "msn.com", "windowslive.com", "passport.com", "onmicrosoft.com"];
/// What holds for every receiver without a profile.
const OTHERS: &str = "default";
/// Below this the event log would be deleted while somebody reads it.
const EVENTS_SIZE_MIN: u64 = 1 << 20;

pub(super) struct Checks<'a> {
    pub(super) config: &'a Config,
    pub(super) places: &'a Places,
    /// Names of shipped providers.
    pub(super) profiles: &'a [String],
    pub(super) findings: &'a mut Findings,
}

impl Checks<'_> {
    pub(super) fn run(mut self) {
        self.hostname();
        self.listeners();
        self.relay();
        self.users();
        self.limits();
        self.queue();
        self.routes();
        self.unique("tls_policy", self.config.tls_policy.iter().map(|policy| plain(&policy.domain)), "domain");
        self.sources();
        self.providers();
        self.events();
        self.alerts();
        self.webhooks();
        self.dkim();
        self.feedback();
    }

    fn fault(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.fault(self.places.of(path), what, remedy);
    }

    fn warning(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.warning(self.places.of(path), what, remedy);
    }

    fn hostname(&mut self) {
        let name = &self.config.hostname;
        if !name.is_empty() && !name.contains('.') {
            let what = format!("`hostname` {} has no dot; many receivers refuse mail after such a HELO", quoted(name));
            self.warning("hostname", what, "write the full name, as in \"relay.example.com\"");
        }
    }

    fn listeners(&mut self) {
        let config = self.config;
        if config.listener.is_empty() {
            self.fault(
                "listener",
                "there is no listener",
                "add a [[listener]] with an address, or leave all of them out",
            );
        }
        for (at, listener) in config.listener.iter().enumerate() {
            let rival = config.listener[..at].iter().find(|other| collide(other.address, listener.address));
            if let Some(rival) = rival {
                let what = format!("listeners {} and {} cannot be there at once", rival.address, listener.address);
                self.fault(&format!("listener.{at}.address"), what, "take one out, or give it another port");
            }
        }
        self.listeners_take();
    }

    /// What listeners need from elsewhere.
    fn listeners_take(&mut self) {
        let config = self.config;
        let has_users = !config.relay.users_file.is_empty() || !config.relay.user.is_empty();
        let missing = [("certificate", &config.tls.certificate), ("key", &config.tls.key)];
        let missing = missing.iter().find(|(_, path)| path.as_os_str().is_empty()).map(|(key, _)| *key);
        for (at, listener) in config.listener.iter().enumerate() {
            let path = format!("listener.{at}");
            if let Some(key) = missing.filter(|_| listener.tls.is_used()) {
                let what = format!("the listener {} speaks TLS, and `tls.{key}` is not set", listener.address);
                self.fault(&format!("{path}.tls"), what, "set tls.certificate and tls.key, or tls = \"off\" here");
            }
            if listener.auth == LogIn::Require && !has_users {
                let what =
                    format!("the listener {} wants every client to log in, and there are no users", listener.address);
                self.fault(&format!("{path}.auth"), what, "set relay.users_file, or add a [[relay.user]]");
            }
        }
    }

    fn relay(&mut self) {
        for network in &self.config.relay.trusted_networks {
            if network.prefix_len() == 0 {
                let what = format!("`relay.trusted_networks` has {network}: everybody may send through this relay");
                self.warning("relay.trusted_networks", what, "name the networks of your own hosts");
            }
        }
    }

    fn users(&mut self) {
        let config = self.config;
        self.unique("relay.user", config.relay.user.iter().map(|user| user.name.clone()), "name");
        for (at, user) in config.relay.user.iter().enumerate() {
            let given = [
                ("password_hash", !user.password_hash.is_empty()),
                ("password_file", !user.password_file.is_empty()),
                ("password", !user.password.is_empty()),
            ];
            let given: Vec<&str> = given.iter().filter_map(|(key, given)| given.then_some(*key)).collect();
            let name = quoted(&user.name);
            if let [_, second, ..] = given[..] {
                let what = format!("user {name} has {}", given.join(" and "));
                self.fault(&format!("relay.user.{at}.{second}"), what, "keep one of them");
            }
            // A password that was told to be faulty is not told to be missing as well.
            if given.is_empty()
                && !user.has_token()
                && config.relay.users_file.is_empty()
                && self.findings.faults.is_empty()
            {
                let remedy = "give it `password_hash` or `password_file`, or name a file with `relay.users_file`";
                self.fault(&format!("relay.user.{at}.name"), format!("user {name} has no password"), remedy);
            }
            if let Some(expire) = user.expire.filter(|expire| *expire > config.queue.expire) {
                let what =
                    format!("`expire` {expire} of user {name} is longer than `queue.expire`, {}", config.queue.expire);
                self.warning(&format!("relay.user.{at}.expire"), what, "the shorter one holds; make this one shorter");
            }
        }
    }

    fn limits(&mut self) {
        let limits = &self.config.limits;
        if limits.message_size.0 == 0 {
            self.fault("limits.message_size", "`limits.message_size` is zero", "write the size of the largest message");
        } else if limits.message_size.0 < MESSAGE_SIZE_MIN {
            let what = format!("`limits.message_size` is {}, smaller than much mail", limits.message_size);
            self.warning("limits.message_size", what, "allow at least \"64 KiB\" (RFC 5321 section 4.5.3.1.7)");
        }
        if limits.recipients < RECIPIENTS_MIN {
            let what = format!("`limits.recipients` is {}", limits.recipients);
            self.warning("limits.recipients", what, "allow at least 100 (RFC 5321 section 4.5.3.1.8)");
        }
    }

    fn queue(&mut self) {
        let queue = &self.config.queue;
        let Some(first) = queue.retry.first() else {
            self.fault("queue.retry", "`queue.retry` is empty", "write at least one wait, as in [\"5m\"]");
            return;
        };
        if queue.expire < *first {
            let what =
                format!("`queue.expire` is {}, shorter than the first wait of `queue.retry`, {first}", queue.expire);
            let path = if self.places.has("queue.expire") { "queue.expire" } else { "queue.retry" };
            self.warning(path, what, "every deferred message expires without a second try; make it longer");
        }
        let bounces = &self.config.bounces;
        if self.places.has("bounces.delay_after") && bounces.delay_after >= queue.expire {
            let what = format!(
                "`bounces.delay_after` is {}, not before `queue.expire`, {}",
                bounces.delay_after, queue.expire
            );
            self.warning("bounces.delay_after", what, "no delay report is ever sent; make it shorter");
        }
    }

    fn routes(&mut self) {
        let config = self.config;
        let mut seen = BTreeMap::new();
        for (at, route) in config.route.iter().enumerate().filter(|(_, route)| route.enabled) {
            self.login(at, route);
            let by = if route.provider.is_empty() { "domain" } else { "provider" };
            if route.domain.is_empty() == route.provider.is_empty() {
                let what = "a route needs either `domain` or `provider`".to_string();
                self.fault(&format!("route.{at}.{by}"), what, "write whose mail goes there".to_string());
                continue;
            }
            let domain = Domain::parse(&route.domain).map_or_else(|_| route.domain.clone(), |d| d.to_string());
            let name = if by == "domain" { domain } else { route.provider.clone() };
            if let Some(earlier) = seen.insert((by, name.clone()), at) {
                let what = format!("a second route for {}", quoted(&name));
                let remedy = self.beside("the first is", &format!("route.{earlier}.{by}"), "take one of them out");
                self.fault(&format!("route.{at}.{by}"), what, remedy);
            }
            if !route.limits.is_empty() {
                self.known_provider(&format!("route.{at}.limits"), "route.limits", &route.limits);
            }
        }
    }

    /// What an entry says of TLS and log-in, against the rest of it.
    fn login(&mut self, at: usize, route: &RouteEntry) {
        let path = |key: &str| format!("route.{at}.{key}");
        let named = route.named();
        let is_implicit = route.tls == Some(HopTls::Implicit);
        if route.to.ends_with(":465") && !is_implicit {
            let what = format!("the {named} leads to port 465, where TLS begins with the first octet");
            self.warning(&path("to"), what, "set tls = \"implicit\" there, or take port 587");
        }
        let given = [("password", !route.password.is_empty()), ("password_file", !route.password_file.is_empty())];
        let given: Vec<&str> = given.iter().filter_map(|(key, given)| given.then_some(*key)).collect();
        match (route.username.is_empty(), &given[..]) {
            (_, [_, second]) => {
                self.fault(&path(second), format!("the {named} has {}", given.join(" and ")), "keep one of them")
            }
            (true, [key]) => {
                self.fault(
                    &path(key),
                    format!("the {named} has a {key} and no username"),
                    "give it `username`, or take the password out",
                );
            }
            // A password that was told to be faulty is not told to be missing as well.
            (false, []) if self.findings.faults.is_empty() => {
                let what = format!("the {named} has a username and no password");
                self.fault(&path("username"), what, "give it `password_file` or `password`");
            }
            _ => {}
        }
        let weak = route.tls.filter(|tls| tls.mode() != TlsMode::Verify && !route.username.is_empty());
        if let Some(tls) = weak {
            let who = if tls == HopTls::Encrypt { "whoever answers there" } else { "whoever listens on the way" };
            let what = format!("the {named} logs in without a verified host: {who} gets the password");
            let remedy = "set tls = \"verify\", with `delivery.ca_file` for a certificate of your own authority";
            self.warning(&path("tls"), what, remedy);
        }
    }

    fn sources(&mut self) {
        let config = self.config;
        self.unique("source", config.source.iter().map(|source| source.name.to_lowercase()), "name");
        self.unique("source", config.source.iter().map(|source| source.address.to_string()), "address");
        for (at, source) in config.source.iter().enumerate() {
            if let Some(public) = source.public_address().filter(|public| public.is_ipv4() != source.address.is_ipv4())
            {
                let what = format!(
                    "`public` {public} of source {} is of the other family than its address",
                    quoted(&source.name)
                );
                self.fault(&format!("source.{at}.public"), what, "write the address that this one is translated to");
            }
            for provider in &source.warm_up {
                self.known_provider(&format!("source.{at}.warm_up"), "source.warm_up", provider);
            }
        }
        if config.delivery.ip != IpChoice::Ipv4 {
            return;
        }
        for (at, source) in config.source.iter().enumerate().filter(|(_, source)| source.address.is_ipv6()) {
            let path = format!("source.{at}.address");
            let what = format!("source {} is an IPv6 address, and `delivery.ip` is \"ipv4\"", quoted(&source.name));
            let remedy = "set `delivery.ip` to \"prefer-ipv4\" or \"both\", or give the source an IPv4 address";
            if config.source.iter().all(|source| source.address.is_ipv6()) {
                self.fault(&path, format!("{what}: nothing can be delivered"), remedy);
            } else {
                self.warning(&path, format!("{what}: nothing is sent from it"), remedy);
            }
        }
    }

    /// What is given of the pace of a provider, against the rest of it.
    fn pace(&mut self, at: usize, provider: &ProviderOptions) {
        let name = quoted(&provider.name);
        let (pause, most) = (provider.pause.unwrap_or(PAUSE), provider.pause_max.unwrap_or(PAUSE_MAX));
        if pause > most && provider.pause.is_some() {
            let what = format!("`pause` {pause} of provider {name} is longer than its `pause_max` {most}");
            self.fault(&format!("provider.{at}.pause"), what, format!("write at most {most}, or raise `pause_max`"));
        } else if pause > most {
            let what = format!("`pause_max` {most} of provider {name} is shorter than its `pause` {pause}");
            self.fault(&format!("provider.{at}.pause_max"), what, format!("write at least {pause}, or lower `pause`"));
        }
        if let Some(growth) = provider.growth.filter(|&growth| growth > 0.0 && growth < 1.0) {
            let what = format!("`growth` {growth} of provider {name} would let less through every hour");
            self.fault(&format!("provider.{at}.growth"), what, "write 1 or more, or 0 for no guard");
        }
        let Some(schedule) = &provider.warm_up else { return };
        let path = format!("provider.{at}.warm_up");
        if schedule.is_empty() {
            let remedy = "write the recipients of each day, as in [50, 100, 200]";
            self.fault(&path, format!("`warm_up` of provider {name} is empty"), remedy);
        }
        if let Some(days) = schedule.windows(2).find(|days| days[1] < days[0]) {
            let what = format!("`warm_up` of provider {name} falls from {} to {}", days[0], days[1]);
            self.fault(&path, what, "let each day have at least as many as the day before");
        }
    }

    fn known_provider(&mut self, path: &str, key: &str, name: &str) {
        if self.provider_names().any(|known| known == name) {
            return;
        }
        let what = format!("`{key}` names no provider: {}", quoted(name));
        let remedy = match nearest(name, self.provider_names()) {
            Some(nearest) => format!("the nearest there is is \"{nearest}\"; or add a [[provider]] of this name"),
            None => "add a [[provider]] of this name".to_string(),
        };
        self.fault(path, what, remedy);
    }

    fn providers(&mut self) {
        let config = self.config;
        self.unique("provider", config.provider.iter().map(|provider| provider.name.to_lowercase()), "name");
        for (at, provider) in config.provider.iter().enumerate() {
            if let (Some(initial), Some(max)) = (provider.initial_connections, provider.max_connections)
                && initial > max
            {
                let what = format!(
                    "`initial_connections` {initial} of provider {} is above its `max_connections` {max}",
                    quoted(&provider.name)
                );
                self.fault(&format!("provider.{at}.initial_connections"), what, format!("write at most {max}"));
            }
            self.pace(at, provider);
            if provider.name == OTHERS {
                let own = [
                    ("mx", provider.mx.is_some()),
                    ("domains", provider.domains.is_some()),
                    ("canary", provider.canary.is_some()),
                    ("preflight_from", provider.preflight_from.is_some()),
                ];
                for (key, _) in own.into_iter().filter(|(_, is_given)| *is_given) {
                    let what = format!(
                        "`{key}` of provider \"{OTHERS}\": it is every receiver without a profile, and no one of them"
                    );
                    self.fault(
                        &format!("provider.{at}.{key}"),
                        what,
                        "give the one receiver a name of its own".to_string(),
                    );
                }
                continue;
            }
            let routed = config.route.iter().any(|route| route.limits == provider.name);
            let matched = provider.mx.is_some() || provider.domains.is_some() || routed;
            if !matched && !self.profiles.contains(&provider.name) {
                let what = format!(
                    "provider {} has neither `mx` nor `domains`: no mail is ever its own",
                    quoted(&provider.name)
                );
                let remedy = match nearest(&provider.name, self.profiles.iter().map(String::as_str)) {
                    Some(name) => format!("give it `mx`, or take a shipped name; the nearest is \"{name}\""),
                    None => "give it `mx`".to_string(),
                };
                self.warning(&format!("provider.{at}.name"), what, remedy);
            }
        }
        self.patterns();
    }

    /// Where two providers claim the same hosts, it would be chance who gets them.
    fn patterns(&mut self) {
        let config = self.config;
        let mut seen = BTreeMap::new();
        for (at, provider) in config.provider.iter().enumerate() {
            for pattern in provider.mx.iter().flatten() {
                if let Some(earlier) = seen.insert(pattern.to_lowercase(), at)
                    && earlier != at
                {
                    let what = format!("{} is claimed by two providers", quoted(pattern));
                    let remedy = self.beside("the first is", &format!("provider.{earlier}.mx"), "take it out of one");
                    self.fault(&format!("provider.{at}.mx"), what, remedy);
                }
            }
        }
    }

    /// The receiver that blocks us is the one whose block should be told.
    fn alerts(&mut self) {
        let alerts = &self.config.alerts;
        let Ok(to) = Mailbox::parse(&alerts.mail) else { return };
        if !alerts.webhook.is_empty() || !alerts.command.is_empty() || !self.is_at_microsoft(to.domain()) {
            return;
        }
        let what = format!("`alerts.mail` {} is at Microsoft: nobody hears of a block there", quoted(&alerts.mail));
        let remedy = "word of a provider is never mailed through it: set `alerts.webhook` or `alerts.command` too";
        self.warning("alerts.mail", what, remedy);
    }

    /// As far as it shows without asking the DNS.
    fn is_at_microsoft(&self, domain: &Domain) -> bool {
        let name = domain.to_string();
        let is_listed = |listed: &String| listed.eq_ignore_ascii_case(&name);
        let of_groups = self.config.provider.iter().filter(|p| MICROSOFT.contains(&p.name.as_str()));
        // `com`, `de`, `co.uk`, not `example.com`.
        let is_top = |rest: &str| rest.split('.').all(|label| label.len() <= 3);
        let is_consumer = MICROSOFT_DOMAINS.iter().any(|known| match known.strip_suffix(".*") {
            Some(label) => name.strip_prefix(label).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_top),
            None => name == *known || name.ends_with(&format!(".{known}")),
        });
        is_consumer || of_groups.flat_map(|provider| provider.domains.iter().flatten()).any(is_listed)
    }

    fn dkim(&mut self) {
        let config = self.config;
        let name = |entry: &Dkim| format!("{}._domainkey.{}", entry.selector, entry.domain).to_lowercase();
        let mut seen = BTreeMap::new();
        for (at, entry) in config.dkim.iter().enumerate() {
            let path = format!("dkim.{at}");
            if let Some(earlier) = seen.insert(name(entry), at) {
                let first = format!("dkim.{earlier}.selector");
                let remedy = self.beside("the first is", &first, "give each key a selector of its own");
                self.fault(
                    &format!("{path}.selector"),
                    format!("a second dkim with the record {}", name(entry)),
                    remedy,
                );
            }
            match (entry.key_file.is_empty(), entry.key.is_empty()) {
                (false, false) => {
                    let what = format!("dkim {} has `key_file` and `key`", quoted(&entry.domain));
                    self.fault(&format!("{path}.key"), what, "keep one of them");
                }
                // A key that was told to be faulty is not told to be missing as well.
                (true, true) if self.findings.faults.is_empty() => {
                    let what = format!("dkim {} has no key", quoted(&entry.domain));
                    let remedy = "name its file with `key_file`; `weir dkim keygen` makes one";
                    self.fault(&format!("{path}.domain"), what, remedy);
                }
                _ => {}
            }
        }
    }

    /// Mail must not tell its readers of a way back that is not there.
    fn feedback(&mut self) {
        let feedback = &self.config.feedback;
        let (path, fields) = ("feedback.return_path", "feedback.list_unsubscribe");
        let Some(domain) = feedback.domain() else {
            for (key, given) in [(path, &feedback.return_path), (fields, &feedback.list_unsubscribe)] {
                if !given.is_empty() {
                    let what = format!("`{key}` is set, and `feedback.domain` is not: no answer would arrive");
                    self.fault(key, what, "set `feedback.domain` to a domain whose MX leads here");
                }
            }
            return;
        };
        let both = [(path, &feedback.return_path), (fields, &feedback.list_unsubscribe)];
        for (key, _) in both.into_iter().filter(|(_, given)| given.contains(&domain)) {
            let what = format!("`{key}` has {domain}, which is `feedback.domain`: mail to people at it is refused");
            self.fault(key, what, "give answers a domain of their own, as in \"fb.example.com\"");
        }
        if feedback.is_asked_for() && self.config.limits.recipients > usize::from(u16::MAX) {
            let what = "`limits.recipients` is above 65535, the most that a message with copies of its own may have";
            self.fault("limits.recipients", what, "write at most 65535");
        }
        if feedback.list_unsubscribe.is_empty() {
            return;
        }
        if feedback.url.is_empty() {
            let what = "`feedback.list_unsubscribe` is set, and `feedback.url` is not: there is nothing to click on";
            self.fault(
                fields,
                what,
                "set `feedback.url` to how the world reaches [http], as in \"https://fb.example.com\"",
            );
        } else if self.config.http.socket().is_none() {
            let what = "`feedback.list_unsubscribe` is set, and `http.address` is not: nobody answers a click";
            self.fault(fields, what, "set `http.address`, and lead `feedback.url` there");
        }
        let signs = |domain: &Domain| self.config.dkim.iter().any(|entry| domain.is_within(&entry.domain));
        let unsigned: Vec<String> =
            feedback.list_unsubscribe.iter().filter(|domain| !signs(domain)).map(ToString::to_string).collect();
        if !unsigned.is_empty() {
            let what = format!("there is no [[dkim]] for {}, of `feedback.list_unsubscribe`", unsigned.join(", "));
            self.warning(fields, what, "add one: one-click counts only in a signed header (RFC 8058 section 4)");
        }
        if feedback.keep.0 < Duration::from_secs(30 * 86_400) {
            let what = format!("`feedback.keep` is {}, and people unsubscribe later than that", feedback.keep);
            self.warning("feedback.keep", what, "allow at least \"30d\"");
        }
    }

    fn webhooks(&mut self) {
        let config = self.config;
        // The name is a file's name, too.
        self.unique("webhook", config.webhook.iter().map(|hook| hook.name.to_lowercase()), "name");
        if let (Some(_), Output::Stdout) = (config.webhook.first(), config.events.output) {
            let what = "webhooks read the event log, and `events.output` is \"stdout\": there is no file to read";
            let path = if self.places.has("events.output") { "events.output" } else { "webhook" };
            self.fault(path, what, "set `events.output` to \"both\" or \"file\"");
        }
        for (at, hook) in config.webhook.iter().enumerate() {
            self.webhook(&format!("webhook.{at}"), hook);
        }
    }

    fn webhook(&mut self, path: &str, hook: &Webhook) {
        let name = quoted(&hook.name);
        match (hook.url.is_empty(), hook.url_file.is_empty()) {
            (false, false) => {
                self.fault(
                    &format!("{path}.url_file"),
                    format!("webhook {name} has url and url_file"),
                    "keep one of them",
                );
            }
            // A URL that was told to be faulty is not told to be missing as well.
            (true, true) if self.findings.faults.is_empty() => {
                self.fault(
                    &format!("{path}.name"),
                    format!("webhook {name} has no url"),
                    "give it `url` or `url_file`",
                );
            }
            _ => {}
        }
        if !hook.secret.is_empty() && !hook.secret_file.is_empty() {
            let what = format!("webhook {name} has secret and secret_file");
            self.fault(&format!("{path}.secret_file"), what, "keep one of them");
        }
        if is_short(&hook.secret) {
            let what = format!("the secret of webhook {name} is shorter than 24 octets, and can be guessed at");
            self.warning(&format!("{path}.secret"), what, "make a longer one, as in `openssl rand -base64 32`");
        }
        if let Some(target) = Target::parse_with_user(&hook.url)
            && is_clear_text_abroad(&target, &hook.networks)
        {
            let what = format!("webhook {name} would send events in clear text over the Internet");
            let remedy = "write https://, or name the network the endpoint is in with `networks`";
            self.fault(&format!("{path}.url"), what, remedy);
        }
        self.events_of(path, hook);
    }

    /// The events it asks for: there is one of each name, and its format speaks of it.
    fn events_of(&mut self, path: &str, hook: &Webhook) {
        let path = format!("{path}.events");
        for event in &hook.events {
            let Ok(kind) = event.parse::<EventKind>() else {
                let what = format!("there is no event {}", quoted(event));
                let remedy = match nearest(event, EventKind::ALL.iter().map(|kind| kind.as_str())) {
                    Some(nearest) => format!("the nearest there is is \"{nearest}\""),
                    None => format!(
                        "write one of {}",
                        EventKind::ALL.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(", ")
                    ),
                };
                self.fault(&path, what, remedy);
                continue;
            };
            if !speaks_of(hook.format, kind) {
                let what =
                    format!("the format \"{}\" has no words for the event \"{kind}\": none is sent", hook.format);
                self.warning(&path, what, "take it out, or set `format` to \"weir\" (docs/webhooks.md)");
            }
        }
    }

    fn events(&mut self) {
        let size = self.config.events.max_size;
        if size.0 < EVENTS_SIZE_MIN {
            let what = format!("`events.max_size` is {size}");
            self.fault("events.max_size", what, "allow at least \"1 MiB\"");
        }
    }

    fn provider_names(&self) -> impl Iterator<Item = &str> {
        let own = self.config.provider.iter().map(|provider| provider.name.as_str());
        own.chain(self.profiles.iter().map(String::as_str))
    }

    /// Tells of every element whose `key` an earlier one has already.
    fn unique(&mut self, list: &str, values: impl Iterator<Item = String>, key: &str) {
        let mut seen = BTreeMap::new();
        for (at, value) in values.enumerate() {
            let what = format!("a second {list} with the {key} {}", quoted(&value));
            if let Some(earlier) = seen.insert(value, at) {
                let first = format!("{list}.{earlier}.{key}");
                let remedy = self.beside("the first is", &first, &format!("give it another {key}, or take one out"));
                self.fault(&format!("{list}.{at}.{key}"), what, remedy);
            }
        }
    }

    /// `remedy`, and where the other one stands, if somebody wrote it.
    fn beside(&self, introduction: &str, path: &str, remedy: &str) -> String {
        match self.places.of(path) {
            Place::Nowhere {} => remedy.to_string(),
            place => format!("{remedy} ({introduction} at {place})"),
        }
    }
}

/// A domain as it is looked for, with the dot that may stand before it.
fn plain(text: &str) -> String {
    let (dot, name) = text.strip_prefix('.').map_or(("", text), |name| (".", name));
    format!("{dot}{}", Domain::parse(name).map_or_else(|_| name.to_lowercase(), |name| name.to_string()))
}

/// Can only one of the two be listened on? Port 0 is a free one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip();
    let covers = one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified());
    one.port() != 0 && one.port() == other.port() && (same_ip || covers)
}
