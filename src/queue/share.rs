//! How classes share what goes: the urgent first, and a tenth for each of the others.
//!
//! ```text
//! bulk, if nine others went since bulk was last served        (and bulk waits)
//! else normal, if nine others went since normal was last served
//! else the first of high, normal, bulk that waits
//! ```
//!
//! One rule for a line and for all the lines of a lane: a class in which something waits gets at least a tenth of what goes.

use crate::types::Priority;

/// So many others may go before a class that waits is served.
const OTHERS_MAX: u32 = 9;
pub(super) const CLASSES: usize = Priority::ALL.len();

#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    /// What went since each class was last served, while something of it waited.
    passed_over: [u32; CLASSES],
}

impl Share {
    /// The class whose turn it is, of those in which something waits.
    pub(super) fn next(&self, waits: [bool; CLASSES]) -> Option<usize> {
        let is_due = |class: &usize| waits[*class] && self.passed_over[*class] >= OTHERS_MAX;
        (0..CLASSES).rev().find(is_due).or_else(|| (0..CLASSES).find(|class| waits[*class]))
    }

    /// One of `class` went; `waits`: in which classes something waits after it.
    pub(super) fn served(&mut self, class: usize, waits: [bool; CLASSES]) {
        for (waits, passed_over) in waits.into_iter().zip(&mut self.passed_over) {
            *passed_over = if waits { passed_over.saturating_add(1) } else { 0 };
        }
        self.passed_over[class] = 0;
    }
}

/// How many go before one that has `ahead` of its own class before it, about: as if nothing came meanwhile. `lens`: how many
/// wait in each class.
pub fn ahead_in_all(class: Priority, ahead: usize, lens: [usize; CLASSES]) -> usize {
    let own = rank(class);
    let share = |other: usize| {
        // An urgent class goes first, but for the tenth; a less urgent one has its tenth alone.
        let nine = (OTHERS_MAX as usize).saturating_mul(ahead + 1);
        if other < own { lens[other].min(nine) } else { lens[other].min((ahead + 1) / OTHERS_MAX as usize) }
    };
    ahead + (0..CLASSES).filter(|other| *other != own).map(share).sum::<usize>()
}

pub(super) fn rank(class: Priority) -> usize {
    match class {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Bulk => 2,
    }
}

pub(super) const BY_RANK: [Priority; CLASSES] = [Priority::High, Priority::Normal, Priority::Bulk];
