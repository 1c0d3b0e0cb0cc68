//! A run minute by minute, as CSV: what the receiver saw, and what the relay's lane said of itself.
//!
//! Or as a plot: what the receiver allows, what the relay has learned, what it uses, and where it was refused.
//!
//! The first columns are counted at the receiver; `lane_…` are the fields of the lane's `status`, whichever there are.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;
use weir::admin::LaneRecord;
use weir::demo::{Sample, Seen, plot};
use weir::simulate::{Limits, Refused, WindowLimit};

use super::world::{START, World};

#[derive(Default)]
pub struct Trace {
    rows: Vec<Row>,
    samples: Vec<Sample>,
    accepted: usize,
    refused: Refused,
}

struct Row {
    seconds: u64,
    accepted: usize,
    open: usize,
    refused: [u64; 7],
    waiting: usize,
    lane: BTreeMap<String, String>,
}

impl Trace {
    /// Adds a row for the time since the last one.
    pub fn look(&mut self, world: &World) {
        let site = &world.sites[0];
        let (accepted, refused) = (site.accepted.len(), site.judgement().refused);
        let before = std::mem::replace(&mut self.refused, refused);
        self.sample(world, accepted, &refused);
        let new = |all: fn(&Refused) -> u64| all(&refused) - all(&before);
        self.rows.push(Row {
            seconds: world.now().since(START).as_secs(),
            accepted: accepted - std::mem::replace(&mut self.accepted, accepted),
            open: site.open(),
            refused: [
                new(|r| r.rate),
                new(|r| r.connections),
                new(|r| r.messages),
                new(|r| r.limited),
                new(|r| r.block),
                new(|r| r.penalty),
                new(|r| r.noise),
            ],
            waiting: world.post.len(),
            lane: lane(world),
        });
    }

    fn sample(&mut self, world: &World, accepted: usize, refused: &Refused) {
        let site = &world.sites[0];
        let minute = world.now().since(START).as_secs_f64() / 60.0;
        let last = self.rows.last().map_or(0.0, |row| row.seconds as f64 / 60.0);
        // A window is drawn as the rate it lets through.
        let limits = site.limits(world.now());
        let rate = |window: &WindowLimit| f64::from(window.count) * 60.0 / window.span.0.as_secs_f64();
        let per_minute = limits.windows().iter().map(rate).fold(f64::INFINITY, f64::min);
        let per_minute = per_minute.is_finite().then_some(per_minute.round() as u32);
        let lane = world.snapshot().lanes.first().and_then(|lane| {
            let mut lane = serde_json::to_value(lane).ok()?;
            lane.as_object_mut()?.insert("waiting".to_string(), Value::from(world.post.len()));
            serde_json::from_value::<LaneRecord>(lane).ok()
        });
        let seen = Seen {
            provider: "outlook",
            limits: Limits { per_minute, ..limits },
            accepted: accepted as u64,
            refused: refused.attempts() + refused.noise,
            connections: u32::try_from(site.open()).unwrap_or(u32::MAX),
            rate: (accepted - self.accepted) as f64 / (minute - last).max(1.0 / 60.0),
            lane,
        };
        self.samples.push(Sample { minute, queued: world.post.len() as u64, receivers: vec![seen] });
    }

    /// `about`: which receiver it is.
    pub fn svg(&self, about: &str) -> String {
        plot::svg(&self.samples, 0, about)
    }

    pub fn csv(&self) -> String {
        let mut names: Vec<&String> = self.rows.iter().flat_map(|row| row.lane.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let mut text = "seconds,accepted,open,refused_rate,refused_connections,refused_messages,refused_limited,\
                        refused_block,refused_penalty,refused_noise,waiting"
            .to_string();
        names.iter().for_each(|name| _ = write!(text, ",lane_{name}"));
        for row in &self.rows {
            let [rate, connections, messages, limited, block, penalty, noise] = row.refused;
            let _ = write!(
                text,
                "\n{},{},{},{rate},{connections},{messages},{limited},{block},{penalty},{noise},{}",
                row.seconds, row.accepted, row.open, row.waiting
            );
            names.iter().for_each(|name| _ = write!(text, ",{}", row.lane.get(*name).map_or("", String::as_str)));
        }
        text.push('\n');
        text
    }
}

/// The lane of the one receiver, field by field.
fn lane(world: &World) -> BTreeMap<String, String> {
    let lanes = world.snapshot().lanes;
    let Some(Ok(Value::Object(fields))) = lanes.first().map(serde_json::to_value) else { return BTreeMap::new() };
    let cell = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace(['"', '\n'], "'")),
        other => other.to_string(),
    };
    fields.into_iter().map(|(name, value)| (name, cell(value))).collect()
}
