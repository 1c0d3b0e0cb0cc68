//! The page for Prometheus: OpenMetrics text 1.0.0, made when it is asked for.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Meters;

/// What the page is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Number = Gauge<f64, AtomicU64>;

/// What stands at one moment; whoever knows it fills it in.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Deliveries by state: `waiting`, `active`, `held`.
    pub queue: Vec<(&'static str, u64)>,
    pub queue_messages: u64,
    /// Age of the oldest delivery, by the label of its provider.
    pub oldest_seconds: Vec<(String, f64)>,
    pub lanes: Vec<LaneGauges>,
    pub spool_free_bytes: u64,
    pub spool_bytes: u64,
    pub clients: u64,
    pub clients_allowed: u64,
    pub memory_bytes: Option<u64>,
    pub alerts: u64,
    pub ready: bool,
    /// Seconds since 1970.
    pub started: f64,
}

/// Of one lane, or of all lanes without a label of their own together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaneGauges {
    pub provider: String,
    pub source: String,
    pub connections: u64,
    pub connections_allowed: u64,
    pub rate_per_minute: f64,
    pub breaker_open: bool,
    /// So long nothing has gone; 0: it goes.
    pub paused_seconds: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfProvider {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLane {
    provider: String,
    source: String,
}

impl Meters {
    /// The whole page.
    pub fn page(&self, gauges: &Gauges) -> String {
        let mut registry = Registry::with_prefix("weir");
        self.register_totals(&mut registry);
        register_gauges(&mut registry, gauges);
        register_lanes(&mut registry, &gauges.lanes);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }

    fn register_totals(&self, registry: &mut Registry) {
        let inner = &self.0;
        let info = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of weir", info);
        registry.register("accepted", "Messages taken: each was safe on disk", inner.accepted.clone());
        registry.register("delivered", "Recipients whose receiver took the message", inner.delivered.clone());
        registry.register(
            "deferred",
            "Attempts that a receiver put off, or that reached nobody",
            inner.deferred.clone(),
        );
        registry.register(
            "throttled",
            "Answers by which a receiver slowed a whole lane down: its mail waits, and no attempt is counted",
            inner.throttled.clone(),
        );
        registry.register("bounced", "Recipients refused for good", inner.bounced.clone());
        registry.register("expired", "Recipients given up after [queue] expire", inner.expired.clone());
        registry.register(
            "removed",
            "Recipients taken out of the queue by an operator or the list",
            inner.removed.clone(),
        );
        registry.register("refused", "Suppressed recipients refused when a client named them", inner.refused.clone());
        registry.register("suppressed", "Addresses that came onto the suppression list", inner.suppressed.clone());
        registry.register("feedback", "Answers to mail that was taken, by what they came to", inner.feedback.clone());
        let seconds = || Unit::Seconds;
        let help = "From the end of a message's content until it was safe on disk";
        registry.register_with_unit("accept", help, seconds(), inner.accept_seconds.clone());
        registry.register_with_unit("commit", "One commit of the spool", seconds(), inner.commit_seconds.clone());
        let help = "From acceptance until a message was offered to a receiver, each time it was";
        registry.register_with_unit("queue_wait", help, seconds(), inner.queue_wait_seconds.clone());
        let help = "One transaction with a receiver, from MAIL to its last answer";
        registry.register_with_unit("delivery", help, seconds(), inner.delivery_seconds.clone());
        let help = "From acceptance until the receiver took the message, by recipient";
        registry.register_with_unit("delivery_delay", help, seconds(), inner.delivery_delay_seconds.clone());
    }
}

fn register_gauges(registry: &mut Registry, gauges: &Gauges) {
    let states: Family<OfState, Number> = Family::default();
    for (state, count) in &gauges.queue {
        states.get_or_create(&OfState { state }).set(*count as f64);
    }
    registry.register(
        "queue_messages",
        "Deliveries in the queue (a message to several domains has one for each), by state",
        states,
    );
    let oldest: Family<OfProvider, Number> = Family::default();
    for (provider, age) in &gauges.oldest_seconds {
        oldest.get_or_create(&OfProvider { provider: provider.clone() }).set(*age);
    }
    registry.register("queue_oldest_seconds", "Age of the oldest delivery in the queue", oldest);
    let single: [(&str, &str, f64); 8] = [
        ("queue_distinct_messages", "Messages in the queue, each counted once", gauges.queue_messages as f64),
        ("spool_free_bytes", "Free on the disk of the spool", gauges.spool_free_bytes as f64),
        ("spool_content_bytes", "Contents of all messages in the queue", gauges.spool_bytes as f64),
        ("clients_open", "SMTP connections of clients", gauges.clients as f64),
        ("clients_allowed", "limits.connections", gauges.clients_allowed as f64),
        ("alerts_raised", "Alerts that stand", gauges.alerts as f64),
        ("ready", "1: takes messages and delivers them", f64::from(u8::from(gauges.ready))),
        ("start_time_seconds", "When weir started, in seconds since 1970", gauges.started),
    ];
    for (name, help, value) in single
        .into_iter()
        .chain(gauges.memory_bytes.map(|bytes| ("memory_bytes", "Resident memory of the process", bytes as f64)))
    {
        registry.register(name, help, number(value));
    }
}

fn register_lanes(registry: &mut Registry, lanes: &[LaneGauges]) {
    let of = |value: &dyn Fn(&LaneGauges) -> f64| {
        let family: Family<OfLane, Number> = Family::default();
        for lane in lanes {
            let labels = OfLane { provider: lane.provider.clone(), source: lane.source.clone() };
            family.get_or_create(&labels).set(value(lane));
        }
        family
    };
    registry.register("connections_open", "Connections to the receiver", of(&|lane| lane.connections as f64));
    let help = "Connections the lane may have now";
    registry.register("connections_allowed", help, of(&|lane| lane.connections_allowed as f64));
    let help = "Recipients the receiver took in the last minute";
    registry.register("rate_per_minute", help, of(&|lane| lane.rate_per_minute));
    let help = "1: the receiver blocks our address, and nothing but a rare probe goes out";
    registry.register("breaker_open", help, of(&|lane| f64::from(u8::from(lane.breaker_open))));
    let help = "So long nothing has gone; 0: mail goes";
    registry.register("paused_seconds", help, of(&|lane| lane.paused_seconds));
}

fn number(value: f64) -> Number {
    let gauge = Number::default();
    gauge.set(value);
    gauge
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{Class, Event, EventKind, Timestamp};

    /// The value of the one line that begins so.
    fn value(page: &str, line: &str) -> String {
        let found: Vec<&str> = page.lines().filter_map(|text| text.strip_prefix(line)?.strip_prefix(' ')).collect();
        assert_eq!(found.len(), 1, "{line}: {page}");
        found[0].to_string()
    }

    fn event(kind: EventKind, provider: &str, class: Option<Class>) -> Event {
        Event { provider: Some(provider.into()), class, delay_ms: Some(2000), ..Event::new(Timestamp::EPOCH, kind) }
    }

    #[test]
    fn every_metric_that_was_promised_is_there_with_its_labels() {
        let meters = Meters::new(["outlook".into()]);
        meters.count(&[
            Event::new(Timestamp::EPOCH, EventKind::Accepted),
            event(EventKind::Delivered, "outlook", None),
            event(EventKind::Delivered, "mx.example", None),
            event(EventKind::Delivered, "mx.another.example", None),
            event(EventKind::Deferred, "outlook", Some(Class::RateLimit)),
            event(EventKind::Bounced, "mx.example", Some(Class::RecipientUnknown)),
            Event::new(Timestamp::EPOCH, EventKind::Suppressed),
        ]);
        meters.throttled("outlook", Class::RateLimit);
        meters.throttled("mx.example", Class::ConnectionLimit);
        meters.accepted_in(Duration::from_millis(3));
        let lane = LaneGauges {
            provider: "outlook".into(),
            source: "default".into(),
            connections: 3,
            connections_allowed: 20,
            rate_per_minute: 38.0,
            breaker_open: true,
            paused_seconds: 600.0,
        };
        let page = meters.page(&Gauges {
            queue: vec![("waiting", 7), ("active", 1), ("held", 0)],
            oldest_seconds: vec![("outlook".into(), 61.5)],
            lanes: vec![lane],
            spool_free_bytes: 1 << 30,
            ..Gauges::default()
        });
        let lane = "{provider=\"outlook\",source=\"default\"}";
        for (line, expected) in [
            ("weir_accepted_total", "1"),
            ("weir_delivered_total{provider=\"outlook\"}", "1"),
            ("weir_delivered_total{provider=\"other\"}", "2"),
            ("weir_deferred_total{provider=\"outlook\",class=\"rate-limit\"}", "1"),
            ("weir_throttled_total{provider=\"outlook\",class=\"rate-limit\"}", "1"),
            ("weir_throttled_total{provider=\"other\",class=\"connection-limit\"}", "1"),
            ("weir_bounced_total{provider=\"other\",class=\"recipient-unknown\"}", "1"),
            ("weir_suppressed_total", "1"),
            ("weir_queue_messages{state=\"waiting\"}", "7.0"),
            ("weir_queue_oldest_seconds{provider=\"outlook\"}", "61.5"),
            (&format!("weir_connections_open{lane}"), "3.0"),
            (&format!("weir_connections_allowed{lane}"), "20.0"),
            (&format!("weir_rate_per_minute{lane}"), "38.0"),
            (&format!("weir_breaker_open{lane}"), "1.0"),
            (&format!("weir_paused_seconds{lane}"), "600.0"),
            ("weir_spool_free_bytes", "1073741824.0"),
            ("weir_accept_seconds_count", "1"),
            ("weir_accept_seconds_bucket{le=\"0.002\"}", "0"),
            ("weir_accept_seconds_bucket{le=\"0.005\"}", "1"),
            ("weir_delivery_delay_seconds_sum", "6.0"),
        ] {
            assert_eq!(value(&page, line), expected, "{line}");
        }
        assert!(page.contains("weir_build_info{version=\"") && page.ends_with("# EOF\n"), "{page}");
    }

    /// The names in expressions that are ours.
    fn named(expression: &str) -> Vec<String> {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.filter(|word| word.starts_with("weir_")).map(str::to_string).collect()
    }

    #[test]
    fn the_rules_and_the_panels_speak_of_metrics_that_exist() {
        let meters = Meters::new(["outlook".into()]);
        meters.count(&[
            event(EventKind::Delivered, "outlook", None),
            event(EventKind::Deferred, "outlook", Some(Class::RateLimit)),
            event(EventKind::Bounced, "outlook", Some(Class::RecipientUnknown)),
            event(EventKind::Expired, "outlook", None),
        ]);
        meters.throttled("outlook", Class::RateLimit);
        let page = meters.page(&Gauges {
            queue: vec![("waiting", 1)],
            oldest_seconds: vec![("outlook".into(), 1.0)],
            lanes: vec![LaneGauges { provider: "outlook".into(), ..LaneGauges::default() }],
            memory_bytes: Some(1),
            ..Gauges::default()
        });
        let known: std::collections::BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.split(['{', ' ']).next())
            .filter(|name| !name.starts_with('#'))
            .collect();
        let rules = yaml_rust2::YamlLoader::load_from_str(include_str!("../../docker/alerts.yaml")).unwrap();
        let rules = rules[0]["groups"][0]["rules"].as_vec().unwrap();
        let mut expressions: Vec<String> =
            rules.iter().map(|rule| rule["expr"].as_str().unwrap().to_string()).collect();
        assert!(rules.iter().all(|rule| rule["annotations"]["remedy"].as_str().is_some()));
        let panels: serde_json::Value = serde_json::from_str(include_str!("../../docker/grafana.json")).unwrap();
        for panel in panels["panels"].as_array().unwrap() {
            let targets = panel["targets"].as_array().unwrap();
            expressions.extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_string()));
        }
        assert!(expressions.len() > 25, "{expressions:?}");
        for expression in &expressions {
            for name in named(expression) {
                assert!(known.contains(&*name), "{name} of `{expression}` is none of {known:?}");
            }
        }
    }
}
