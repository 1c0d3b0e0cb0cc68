//! How urgent a message is: a login code must not stand behind a newsletter.

use super::reading::words;

words! {
    /// Mail of a higher class goes first; every class keeps a share of a lane that is held back.
    #[derive(Default)]
    Priority {
        /// Somebody waits for it.
        High = "high",
        #[default]
        Normal = "normal",
        /// Newsletters, lists, notices in large numbers.
        Bulk = "bulk",
    }
}

impl Priority {
    /// This one, but no more urgent than `most`.
    pub fn at_most(self, most: Priority) -> Priority {
        let rank = |priority: Priority| match priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Bulk => 2,
        };
        if rank(self) < rank(most) { most } else { self }
    }
}
