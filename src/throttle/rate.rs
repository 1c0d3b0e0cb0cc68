//! How many recipients were accepted in the last minute, counted in slices of ten seconds.

use crate::types::Timestamp;

const SLICE_MILLIS: i64 = 10_000;
const SLICES: usize = 6;

#[derive(Clone, Debug, Default)]
pub(super) struct Rate {
    /// The number of the slice that each count belongs to, and the count.
    slices: [(i64, u32); SLICES],
}

impl Rate {
    pub(super) fn count(&mut self, recipients: u32, now: Timestamp) {
        let number = now.millis().div_euclid(SLICE_MILLIS);
        let place = usize::try_from(number.rem_euclid(SLICES as i64)).unwrap_or(0);
        let slice = &mut self.slices[place];
        if slice.0 != number {
            *slice = (number, 0);
        }
        slice.1 = slice.1.saturating_add(recipients);
    }

    /// Recipients in the last minute.
    pub(super) fn per_minute(&self, now: Timestamp) -> f64 {
        let oldest = now.millis().div_euclid(SLICE_MILLIS) - SLICES as i64 + 1;
        let recent = self.slices.iter().filter(|(number, _)| *number >= oldest);
        f64::from(recent.fold(0u32, |sum, (_, count)| sum.saturating_add(*count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_last_minute_and_forgets_what_is_older() {
        let at = |secs: i64| Timestamp::from_secs(1_000_000 + secs);
        let mut rate = Rate::default();
        for secs in 0..120 {
            rate.count(2, at(secs));
        }
        assert!((100.0..=120.0).contains(&rate.per_minute(at(119))), "{}", rate.per_minute(at(119)));
        assert_eq!(rate.per_minute(at(300)), 0.0);
    }
}
