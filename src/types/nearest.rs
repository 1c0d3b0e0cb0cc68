//! Which known name a wrong one was most probably meant to be: for the messages about keys nobody knows.

/// Characters that are compared: longer than any name, so that what is beyond changes no answer.
const LENGTH_MAX: usize = 80;

/// The name of `names` that is nearest to `wanted`, whatever the case of its letters; none if it is near to none.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let edits = |name: &str| distance(&wanted.to_lowercase(), &name.to_lowercase());
    let near = names.min_by_key(|name| edits(name))?;
    is_near(wanted, edits(near)).then_some(near)
}

/// Are so many edits a slip of the pen in a word of this length, or another word?
pub fn is_near(wanted: &str, edits: usize) -> bool {
    edits <= 1 + wanted.chars().count() / 4
}

/// Edits (insert, remove, replace a character) that turn one text into the other.
pub fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(LENGTH_MAX).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, c) in from.chars().take(LENGTH_MAX).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

/// Of an error of the TOML reader (`unknown field `x`, expected one of `a`, `b``) the key that was meant.
pub fn nearest_of_error(error: &str) -> Option<&str> {
    let rest = error.split_once("unknown field `")?.1;
    let (wanted, rest) = rest.split_once('`')?;
    let (_, known) = rest.split_once("expected ")?;
    // Every other piece stands between quotes.
    nearest(wanted, known.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (from, to, edits) in
            [("", "", 0), ("pause", "pause", 0), ("puase", "pause", 2), ("paus", "pause", 1), ("", "abc", 3)]
        {
            assert_eq!((distance(from, to), distance(to, from)), (edits, edits), "{from} {to}");
        }
    }

    #[test]
    fn only_what_is_near_was_meant() {
        let names = ["outlook", "gmail", "yahoo", "microsoft365"];
        for (wanted, meant) in [
            ("Outlok", Some("outlook")),
            ("gmal", Some("gmail")),
            ("microsoft", Some("microsoft365")),
            ("microsoft-365", Some("microsoft365")),
            ("bananas", None),
            ("", None),
        ] {
            assert_eq!(nearest(wanted, names.into_iter()), meant, "{wanted}");
        }
    }

    #[test]
    fn the_key_that_was_meant_is_read_from_the_error() {
        let error = "TOML parse error at line 1\nunknown field `per_minut`, expected one of `per_second`, `per_minute`, `per_hour`\n";
        assert_eq!(nearest_of_error(error), Some("per_minute"));
        assert_eq!(nearest_of_error("unknown field `hour`, expected `hours` or `seeds`"), Some("hours"));
        assert_eq!(nearest_of_error("invalid type: string"), None);
    }
}
