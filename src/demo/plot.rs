//! The plot: how the throttle found the receiver's limits, as SVG. A pure function of what was seen.
//!
//! One panel for the rate and one for the connections: what the receiver allowed, what the relay had learned, what it used, a mark for
//! each look in which something was refused, and a band where the relay paused. It follows the reader's choice of light or dark.

use std::fmt::Write as _;

use super::{Sample, Seen};
use crate::admin::LaneState;

const WIDTH: f64 = 960.0;
const PANEL: f64 = 200.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 116.0;
const BETWEEN: f64 = 64.0;
const HEIGHT: f64 = TOP + 2.0 * PANEL + BETWEEN + 56.0;
/// A mark every so many minutes: the shortest of these that makes no more than `MARKS` of them.
const MINUTES: [f64; 6] = [5.0, 10.0, 15.0, 30.0, 60.0, 360.0];
const MARKS: f64 = 14.0;
/// Lines across a panel, beside the one at its foot.
const PARTS: u32 = 4;
/// What is allowed is above this many times of what was used: it is no part of the picture.
const FAR: f64 = 8.0;

/// Colours of both kinds of background; the meaning of a class is its name.
const STYLE: &str = "<style>\
    .page{fill:#fff}.ink{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d8dee4}.line{fill:none;stroke-width:2}\
    .allowed{stroke:#59636e;stroke-dasharray:6 4}.learned{stroke:#d97706}.used{stroke:#1f6feb}.area{fill:#1f6feb;fill-opacity:.1}\
    .refused{fill:#cf222e}.paused{fill:#cf222e;fill-opacity:.09}\
    @media(prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#f0f6fc}.faint{fill:#9198a1}.grid{stroke:#2a313c}\
    .allowed{stroke:#9198a1}.learned{stroke:#e3a13a}.used{stroke:#58a6ff}.area{fill:#58a6ff}.refused{fill:#ff6b64}.paused{fill:#ff6b64;fill-opacity:.14}}\
    </style>\n";

/// One curve: a value for each moment it is known.
struct Curve {
    points: Vec<(f64, f64)>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Allowed,
    Learned,
    Used,
}

struct Panel {
    title: &'static str,
    top: f64,
    curves: [Curve; 3],
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Kind::Allowed => "allowed",
            Kind::Learned => "learned",
            Kind::Used => "used",
        }
    }

    /// A value holds until the next one.
    fn steps(self) -> bool {
        self != Kind::Used
    }
}

/// The curves of one receiver: its place in [`Sample::receivers`]. `domains` says who that is.
pub fn svg(samples: &[Sample], receiver: usize, domains: &str) -> String {
    let seen: Vec<(f64, &Seen)> =
        samples.iter().filter_map(|sample| Some((sample.minute, sample.receivers.get(receiver)?))).collect();
    let minutes = seen.last().map_or(1.0, |(minute, _)| minute.max(1.0));
    let mut text = String::new();
    head(&mut text, &seen, domains);
    for panel in [rate(&seen), connections(&seen)] {
        pauses(&mut text, &seen, panel.top, minutes);
        grid(&mut text, &panel, minutes);
        draw(&mut text, &panel, minutes);
        changes(&mut text, &panel, minutes);
        refusals(&mut text, &seen, panel.top, minutes);
    }
    text.push_str("</svg>\n");
    text
}

fn rate(seen: &[(f64, &Seen)]) -> Panel {
    let per_minute = |seen: &Seen| seen.limits.per_minute.map(f64::from);
    let learned = |seen: &Seen| seen.learned_rate();
    Panel { title: "Messages a minute", top: TOP, curves: curves(seen, per_minute, learned, |seen| seen.rate) }
}

fn connections(seen: &[(f64, &Seen)]) -> Panel {
    let limit = |seen: &Seen| seen.limits.connections_per_source.or(seen.limits.connections).map(f64::from);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred connections")]
    let learned = |seen: &Seen| seen.lane.as_ref().map(|lane| lane.connections_allowed as f64);
    Panel {
        title: "Connections at a time",
        top: TOP + PANEL + BETWEEN,
        curves: curves(seen, limit, learned, |seen| f64::from(seen.connections)),
    }
}

/// In the order in which they are drawn: what was used lies on top.
fn curves(
    seen: &[(f64, &Seen)],
    allowed: impl Fn(&Seen) -> Option<f64>,
    learned: impl Fn(&Seen) -> Option<f64>,
    used: impl Fn(&Seen) -> f64,
) -> [Curve; 3] {
    let points = |value: &dyn Fn(&Seen) -> Option<f64>| -> Vec<(f64, f64)> {
        seen.iter().filter_map(|(minute, seen)| Some((*minute, value(seen)?))).collect()
    };
    [
        Curve { points: points(&allowed), kind: Kind::Allowed },
        Curve { points: points(&learned), kind: Kind::Learned },
        Curve { points: points(&|seen| Some(used(seen))), kind: Kind::Used },
    ]
}

fn head(text: &mut String, seen: &[(f64, &Seen)], domains: &str) {
    let (accepted, refused) = seen.last().map_or((0, 0), |(_, seen)| (seen.accepted, seen.refused));
    let _ = write!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', sans-serif\" font-size=\"13\">\n\
         <title>How weir finds the limits of {domains}</title>\n{STYLE}\
         <rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"8\"/>\n\
         <text class=\"ink\" x=\"{LEFT}\" y=\"32\" font-size=\"18\" font-weight=\"600\">How weir finds the limits of {domains}</text>\n\
         <text class=\"faint\" x=\"{LEFT}\" y=\"53\">A simulated receiver, whose limits weir is not told: {accepted} messages accepted, \
         {refused} attempts refused.</text>\n"
    );
    legend(text);
}

fn legend(text: &mut String) {
    let mut x = LEFT;
    let entries = [
        ("allowed", "the receiver allows", 178.0),
        ("learned", "weir has learned", 164.0),
        ("used", "weir uses", 120.0),
        ("refused", "refused", 106.0),
        ("paused", "weir pauses", 0.0),
    ];
    for (class, name, width) in entries {
        let (middle, right) = (x + 11.0, x + 22.0);
        let _ = match class {
            "refused" => writeln!(text, "<path class=\"refused\" d=\"{}\"/>", triangle(middle, 80.0)),
            "paused" => writeln!(text, "<rect class=\"paused\" x=\"{x}\" y=\"66\" width=\"22\" height=\"16\"/>"),
            _ => writeln!(text, "<path class=\"line {class}\" d=\"M{x} 74H{right}\"/>"),
        };
        let _ = writeln!(text, "<text class=\"ink\" x=\"{}\" y=\"79\">{name}</text>", x + 29.0);
        x += width;
    }
}

fn grid(text: &mut String, panel: &Panel, minutes: f64) {
    let most = scale(panel);
    let (title, bottom) = (panel.title, panel.top + PANEL);
    let _ = writeln!(
        text,
        "<text class=\"ink\" x=\"{LEFT}\" y=\"{}\" font-weight=\"600\">{title}</text>",
        panel.top - 10.0
    );
    for part in 0..=PARTS {
        let value = most * f64::from(part) / f64::from(PARTS);
        let y = height(value, panel.top, most);
        let _ = writeln!(
            text,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{}\"/>\
             <text class=\"faint\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.5
        );
    }
    let every = MINUTES.into_iter().find(|every| minutes / every <= MARKS).unwrap_or(1440.0);
    let mut minute = 0.0;
    while minute <= minutes {
        let (x, y) = (across(minute, minutes), bottom + 19.0);
        let unit = if minute == 0.0 { " min" } else { "" };
        let _ = writeln!(
            text,
            "<text class=\"faint\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{minute:.0}{unit}</text>"
        );
        minute += every;
    }
}

fn draw(text: &mut String, panel: &Panel, minutes: f64) {
    let most = scale(panel);
    for curve in panel.curves.iter().filter(|curve| !curve.points.is_empty()) {
        let (path, class) = (path(curve, panel.top, most, minutes), curve.kind.class());
        if let (Kind::Used, Some((first, _)), Some((last, _))) = (curve.kind, curve.points.first(), curve.points.last())
        {
            let (first, last, foot) = (across(*first, minutes), across(*last, minutes), panel.top + PANEL);
            let _ = writeln!(text, "<path class=\"area\" d=\"{path}L{last:.1} {foot:.1}H{first:.1}Z\"/>");
        }
        let _ = writeln!(text, "<path class=\"line {class}\" d=\"{path}\"/>");
    }
}

fn path(curve: &Curve, top: f64, most: f64, minutes: f64) -> String {
    let mut path = String::new();
    for (number, (minute, value)) in curve.points.iter().enumerate() {
        let (x, y) = (across(*minute, minutes), height(*value, top, most));
        let _ = match (number, curve.kind.steps()) {
            (0, _) => write!(path, "M{x:.1} {y:.1}"),
            (_, true) => write!(path, "H{x:.1}V{y:.1}"),
            (_, false) => write!(path, "L{x:.1} {y:.1}"),
        };
    }
    path
}

/// Words where the receiver changes what it allows.
fn changes(text: &mut String, panel: &Panel, minutes: f64) {
    let most = scale(panel);
    let Some(curve) = panel.curves.iter().find(|curve| curve.kind == Kind::Allowed) else { return };
    for pair in curve.points.windows(2) {
        let [(_, before), (minute, after)] = pair else { continue };
        let word = match before.total_cmp(after) {
            std::cmp::Ordering::Less => "it allows more again",
            std::cmp::Ordering::Greater => "now it allows less",
            std::cmp::Ordering::Equal => continue,
        };
        let (x, y) = (across(*minute, minutes) + 6.0, height(after.max(*before), panel.top, most) - 6.0);
        let _ = writeln!(text, "<text class=\"faint\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"12\">{word}</text>");
    }
}

/// A band for each pause.
fn pauses(text: &mut String, seen: &[(f64, &Seen)], top: f64, minutes: f64) {
    let mut since = None;
    let mut band = |from: f64, to: f64| {
        let (x, width) = (across(from, minutes), across(to, minutes) - across(from, minutes));
        let _ =
            writeln!(text, "<rect class=\"paused\" x=\"{x:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{PANEL}\"/>");
    };
    for (minute, seen) in seen {
        match (seen.state().0 == LaneState::Paused, since) {
            (true, None) => since = Some(*minute),
            (false, Some(from)) => {
                band(from, *minute);
                since = None;
            }
            _ => {}
        }
    }
    if let (Some(from), Some((last, _))) = (since, seen.last()) {
        band(from, *last);
    }
}

/// A mark at the foot of the panel for each look that saw new refusals.
fn refusals(text: &mut String, seen: &[(f64, &Seen)], top: f64, minutes: f64) {
    let mut before = 0;
    for (minute, seen) in seen {
        if seen.refused > before {
            let _ = writeln!(
                text,
                "<path class=\"refused\" d=\"{}\"><title>{} refused</title></path>",
                triangle(across(*minute, minutes), top + PANEL),
                seen.refused - before
            );
        }
        before = seen.refused;
    }
}

/// It stands on `foot`.
fn triangle(x: f64, foot: f64) -> String {
    format!("M{x:.1} {:.1}l5.5 11h-11z", foot - 11.0)
}

/// A round number above what was used and allowed; what was learned may lie far above and is cut off.
fn scale(panel: &Panel) -> f64 {
    let most = |kind: Kind| {
        let curves = panel.curves.iter().filter(move |curve| curve.kind == kind);
        curves.flat_map(|curve| curve.points.iter().map(|(_, value)| *value)).fold(0.0, f64::max)
    };
    let used = most(Kind::Used).max(1.0);
    let allowed = Some(most(Kind::Allowed)).filter(|allowed| *allowed <= used * FAR).unwrap_or(0.0);
    round_up(used.max(allowed) * 1.1 / f64::from(PARTS)) * f64::from(PARTS)
}

/// The next of 1, 2, 5, 10, 20, 50 … or four or six of such a power of ten: what is easily read at a line.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 4.0, 5.0, 6.0, 8.0].map(|n| n * power).into_iter().find(|step| *step >= value).unwrap_or(power * 10.0)
}

fn across(minute: f64, minutes: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * (minute / minutes).clamp(0.0, 1.0)
}

fn height(value: f64, top: f64, most: f64) -> f64 {
    top + PANEL * (1.0 - (value / most).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Limits;

    fn sample(minute: f64, limit: u32, refused: u64) -> Sample {
        let limits = Limits { per_minute: Some(limit), ..Limits::default() };
        let seen = Seen { provider: "outlook", limits, accepted: 0, refused, connections: 5, rate: 30.0, lane: None };
        Sample { minute, queued: 0, receivers: vec![seen] }
    }

    #[test]
    fn curves_and_refusals_are_drawn() {
        let samples = [sample(0.0, 40, 0), sample(5.0, 40, 3), sample(10.0, 40, 3)];
        let svg = svg(&samples, 0, "outlook.com");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<title>3 refused</title>").count(), 2, "once in each panel");
        let drawn = |kind: Kind| svg.matches(&format!("<path class=\"line {}\"", kind.class())).count();
        assert_eq!([Kind::Allowed, Kind::Learned, Kind::Used].map(drawn), [2, 1, 3], "with one of each in the legend");
    }

    #[test]
    fn a_change_of_the_limits_is_named() {
        let svg = svg(&[sample(0.0, 40, 0), sample(5.0, 4, 0), sample(10.0, 40, 0)], 0, "outlook.com");
        assert!(svg.contains("now it allows less") && svg.contains("it allows more again"));
    }

    #[test]
    fn nothing_seen_is_an_empty_plot() {
        assert!(svg(&[], 0, "nobody").ends_with("</svg>\n"));
    }

    #[test]
    fn a_long_time_has_no_more_marks_than_are_read() {
        for (minutes, marks) in [(32.0, 7), (100.0, 11), (420.0, 15), (100_000.0, 70)] {
            let svg = svg(&[sample(0.0, 40, 0), sample(minutes, 40, 0)], 0, "outlook.com");
            assert_eq!(svg.matches("text-anchor=\"middle\"").count(), 2 * marks, "{minutes}");
        }
    }

    #[test]
    fn a_scale_is_easily_read() {
        for (value, round) in [(0.3, 1.0), (6.6, 8.0), (33.0, 40.0), (9.1, 10.0), (100.0, 100.0), (121.0, 200.0)] {
            assert_eq!(round_up(value), round, "{value}");
        }
    }
}
