//! The courses of a campaign as a plot (SVG): what part of each receiver's mail has gone, over time.

use std::fmt::Write as _;

use super::Course;
use crate::types::Timestamp;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 40.0;
/// Told apart also by those who do not see all colours (Okabe and Ito).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Light or dark, as the reader likes it.
pub fn svg(courses: &[Course], start: Timestamp) -> String {
    let end = courses.iter().filter_map(|course| course.done).max().unwrap_or(start);
    let hours = (end.since(start).as_secs_f64() / 3600.0).max(1.0 / 60.0);
    let x = |hour: f64| LEFT + (WIDTH - LEFT - RIGHT) * hour / hours;
    let y = |part: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>text{{fill:#333}}path,line{{fill:none;stroke:#999}}@media(prefers-color-scheme:dark){{text{{fill:#ddd}}line{{stroke:#666}}}}</style>\n"
    );
    for part in [0.0, 0.5, 1.0] {
        let y = y(part);
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            LEFT - 6.0,
            y + 4.0,
            part * 100.0
        );
    }
    for quarter in 0..=4 {
        let hour = hours * f64::from(quarter) / 4.0;
        let (x, y) = (x(hour), HEIGHT - BOTTOM + 18.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", after(hour));
    }
    for (n, course) in courses.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let mut path = format!("M{:.1},{:.1}", x(0.0), y(0.0));
        for (at, gone) in &course.points {
            let hour = at.since(start).as_secs_f64() / 3600.0;
            let _ = write!(path, "L{:.1},{:.1}", x(hour), y(*gone as f64 / course.recipients.max(1) as f64));
        }
        let _ = writeln!(svg, "<path d=\"{path}\" style=\"stroke:{colour}\" stroke-width=\"2\"/>");
        let (x, y) = (WIDTH - RIGHT + 10.0, TOP + 10.0 + 18.0 * n as f64);
        let name = course.provider.replace(['&', '<', '>', '"'], "_");
        let _ = writeln!(svg, "<text x=\"{x:.0}\" y=\"{y:.0}\" style=\"fill:{colour}\">{name}</text>");
    }
    svg.push_str("</svg>\n");
    svg
}

fn after(hours: f64) -> String {
    if hours >= 48.0 {
        format!("{:.0} d", hours / 24.0)
    } else if hours >= 2.0 {
        format!("{hours:.1} h")
    } else {
        format!("{:.0} min", hours * 60.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_course_has_its_line_and_no_name_breaks_the_picture() {
        let start = Timestamp::from_secs(1_794_960_000);
        let course = |provider: &str, secs: u64| Course {
            provider: provider.into(),
            recipients: 10,
            ahead: 0,
            done: Some(start + Duration::from_secs(secs)),
            held_by: Vec::new(),
            is_learned: true,
            urgent: None,
            points: vec![(start + Duration::from_secs(secs / 2), 5), (start + Duration::from_secs(secs), 10)],
        };
        let text = svg(&[course("outlook", 7200), course("<a&b>", 14_400)], start);
        assert_eq!(text.matches("<path").count(), 2);
        assert!(text.contains("_a_b_") && text.contains("4.0 h") && text.contains("L350.0,20.0"), "{text}");
        assert!(svg(&[], start).ends_with("</svg>\n"));
    }
}
