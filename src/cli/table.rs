//! Tables for people: columns as wide as their widest cell, numbers to the right.

use super::human;
use super::output::Output;

/// Cells longer than this are cut, but for the last column: a reply may fill its line.
const CELL_MAX: usize = 60;

/// One column's heading and side.
#[derive(Clone, Copy, Debug)]
pub(super) enum Column {
    Left(&'static str),
    Right(&'static str),
}

impl Column {
    fn heading(self) -> &'static str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

/// What cells are cut to where a terminal is too narrow, step by step; an id is always whole.
const NARROWER: [usize; 6] = [CELL_MAX, 40, 30, 22, 16, 13];
/// The last column gets so much, or what it needs, before the others get more.
const LAST_MIN: usize = 20;

/// Headings and rows, each line ended by a line feed and, where there is a `width`, no longer than that.
pub(super) fn render_within(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let Some(width) = width else { return render(columns, rows) };
    let last = columns.len().saturating_sub(1);
    let longest = |place: usize| {
        let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| human::clean(cell).chars().count());
        cells.chain(columns.get(place).map(|column| column.heading().chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(longest).collect();
    let needed = |cell_max: usize| -> usize {
        let cut = widths.iter().enumerate().map(|(place, &w)| w.min(if place == last { LAST_MIN } else { cell_max }));
        cut.sum::<usize>() + 2 * last
    };
    let narrowest = NARROWER[NARROWER.len() - 1];
    let cell_max = NARROWER.into_iter().find(|&cell_max| needed(cell_max) <= width).unwrap_or(narrowest);
    let whole = render_cut(columns, rows, cell_max);
    whole.lines().map(|line| human::short(line, width).trim_end().to_string() + "\n").collect()
}

/// The same, as wide as it is.
pub(super) fn render(columns: &[Column], rows: &[Vec<String>]) -> String {
    render_cut(columns, rows, CELL_MAX)
}

fn render_cut(columns: &[Column], rows: &[Vec<String>], cell_max: usize) -> String {
    let last = columns.len().saturating_sub(1);
    let cell = |row: &[String], place: usize| -> String {
        let text = human::clean(row.get(place).map_or("", String::as_str));
        if place == last { text } else { human::short(&text, cell_max) }
    };
    let headings: Vec<String> = columns.iter().map(|column| column.heading().to_string()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(headings.as_slice())
        .chain(rows.iter().map(Vec::as_slice))
        .map(|row| (0..columns.len()).map(|place| cell(row, place)).collect())
        .collect();
    let width = |place: usize| lines.iter().filter_map(|line| line.get(place)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).map(|place| width(place).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        text.push_str(render_line(columns, &widths, line).trim_end());
        text.push('\n');
    }
    text
}

fn render_line(columns: &[Column], widths: &[usize], cells: &[String]) -> String {
    let pad = |((column, &width), cell): ((&Column, &usize), &String)| match column {
        Column::Left(_) => format!("{cell:<width$}"),
        Column::Right(_) => format!("{cell:>width$}"),
    };
    columns.iter().zip(widths).zip(cells).map(pad).collect::<Vec<String>>().join("  ")
}

/// A table of any length: printed page by page, each as wide as it needs, so that memory has a limit.
pub(super) struct Pages<'a> {
    columns: &'a [Column],
    rows: Vec<Vec<String>>,
    printed: bool,
}

/// Rows of one page.
const PAGE_ROWS: usize = 1000;

impl<'a> Pages<'a> {
    pub(super) fn new(columns: &'a [Column]) -> Pages<'a> {
        Pages { columns, rows: Vec::new(), printed: false }
    }

    pub(super) fn row(&mut self, row: Vec<String>, output: &mut Output) -> anyhow::Result<()> {
        self.rows.push(row);
        if self.rows.len() >= PAGE_ROWS { self.print(output) } else { Ok(()) }
    }

    /// The rest; `nothing` where there was no row at all.
    pub(super) fn finish(mut self, nothing: &str, output: &mut Output) -> anyhow::Result<()> {
        if !self.rows.is_empty() {
            self.print(output)
        } else if !self.printed {
            output.line(nothing)
        } else {
            Ok(())
        }
    }

    fn print(&mut self, output: &mut Output) -> anyhow::Result<()> {
        output.text(&render_within(self.columns, &self.rows, output.width()))?;
        self.rows.clear();
        self.printed = true;
        Ok(())
    }
}

/// `name: value` lines under one another, the values aligned. Empty values are left out.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    facts_within(facts, None)
}

/// The same; a value that is longer than the `width` allows goes on below its beginning.
pub(super) fn facts_within(facts: &[(&str, String)], width: Option<usize>) -> String {
    let said: Vec<_> = facts.iter().filter(|(_, value)| !value.is_empty()).collect();
    let indent = said.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 3;
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(LAST_MIN));
    let mut text = String::new();
    for (name, value) in said {
        let mut name = format!("{name}:");
        for line in human::wrapped(&human::clean(value), room) {
            text.push_str(&format!("{name:<indent$}{line}\n"));
            name.clear();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let columns = [Column::Left("NAME"), Column::Right("COUNT"), Column::Left("WHY")];
        let rows = [
            vec!["outlook".to_string(), "12,400".into(), "451 4.7.650 slow".into()],
            vec!["gmäil".to_string(), "1".into(), String::new()],
        ];
        let text = render(&columns, &rows);
        assert_eq!(
            text,
            "NAME      COUNT  WHY\n\
             outlook  12,400  451 4.7.650 slow\n\
             gmäil         1\n"
        );
    }

    #[test]
    fn a_line_is_no_longer_than_the_terminal_and_a_row_is_one_line() {
        let columns = [Column::Left("ID"), Column::Left("SENDER"), Column::Right("TRIES"), Column::Left("REASON")];
        let row = |sender: &str, reason: &str| -> Vec<String> {
            vec!["0123456789ABC".into(), sender.into(), "3".into(), reason.into()]
        };
        let rows = [row(&format!("{}@example.com", "x".repeat(50)), &"slow down ".repeat(30)), row("a@b.c", "short")];
        assert_eq!(render_within(&columns, &rows, None), render(&columns, &rows));
        for width in 20..200 {
            let text = render_within(&columns, &rows, Some(width));
            assert_eq!(text.lines().count(), 3);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert!(text.lines().skip(1).all(|line| line.starts_with("0123456789ABC")), "{width}:\n{text}");
        }
        let text = render_within(&columns, &rows, Some(80));
        assert!(text.contains("slow down slow down"), "the reason has room, too:\n{text}");
        assert_eq!(render_within(&columns, &rows, Some(1_000)), render(&columns, &rows));
    }

    #[test]
    fn a_short_row_and_foreign_words_do_no_harm() {
        let columns = [Column::Left("A"), Column::Left("B")];
        assert_eq!(render(&columns, &[vec!["x\ny".into()]]), "A    B\nx y\n");
        assert_eq!(render(&columns, &[]), "A  B\n");
        let long = "x".repeat(100);
        let text = render(&columns, &[vec![long.clone(), long.clone()]]);
        let line = text.lines().nth(1).unwrap();
        assert!(line.contains('…') && line.ends_with(&long), "{line}");
    }

    #[test]
    fn facts_stand_under_one_another() {
        let text = facts(&[("id", "1".into()), ("sender", "a@b.c".into()), ("user", String::new())]);
        assert_eq!(text, "id:      1\nsender:  a@b.c\n");
        let why = "the receiver takes less from this address just now".to_string();
        let text = facts_within(&[("why", why), ("next", "now".into())], Some(30));
        assert_eq!(text, "why:   the receiver takes less\n       from this address just\n       now\nnext:  now\n");
    }
}
