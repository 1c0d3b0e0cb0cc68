//! How patient weir is with a client, by how many places are taken.
//!
//! While there is room a client gets the times of RFC 5321 section 4.5.3.2 and may err as often as a test of the whole server does. The
//! fewer places are left, the sooner one that makes no progress gives his up. Rules that always hold:
//!
//! - the policy is pure: places in, level out, and each level is one row of limits;
//! - no limit is wider on a higher level;
//! - a level is left only some places below where it began, so that one connection more or less does not change it to and fro;
//! - clients we know are measured by the places they and the messages under way hold: however many strangers come, they make nobody
//!   but strangers hurry.

use std::time::Duration;

use crate::smtp::session::{ERRORS_MAX, IDLE_COMMANDS_MAX};

/// How nearly the places are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Calm,
    /// Three quarters are taken.
    Tight,
    /// Nineteen of twenty are taken.
    Full,
}

/// What one connection may take, at one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a command line to be whole, and so for the silence before it.
    pub command: Duration,
    /// For the next octets of content.
    pub silence: Duration,
    /// Content may take this long, and a second more for each `rate_min` octets of it.
    pub content_start: Duration,
    /// Octets a second.
    pub rate_min: u64,
    /// From MAIL to the end of the content.
    pub message: Duration,
    /// For replies to be taken by a client that does not read.
    pub write: Duration,
    /// For a handshake of TLS: two or three answers of the client, and the work of a small device.
    pub handshake: Duration,
    /// Errors (unknown words, wrong syntax or order, refused relaying) since the last accepted message.
    pub errors: u32,
    /// Commands that move nothing (NOOP, RSET, VRFY, HELP, EHLO) since the last accepted message.
    pub idle_commands: u32,
}

/// RFC 5321 section 4.5.3.2 wants five minutes a step. A modem of 1990 is faster than the rate, a client that only wants to hold
/// the connection is not.
const CALM: Patience = Patience {
    command: Duration::from_secs(300),
    silence: Duration::from_secs(300),
    content_start: Duration::from_secs(300),
    rate_min: 1000,
    message: Duration::from_secs(3600),
    write: Duration::from_secs(300),
    handshake: Duration::from_secs(60),
    errors: ERRORS_MAX,
    idle_commands: IDLE_COMMANDS_MAX,
};

const TIGHT: Patience = Patience {
    command: Duration::from_secs(60),
    silence: Duration::from_secs(60),
    content_start: Duration::from_secs(60),
    rate_min: 2000,
    message: Duration::from_secs(1200),
    write: Duration::from_secs(60),
    handshake: Duration::from_secs(30),
    errors: 50,
    idle_commands: 100,
};

/// Ten seconds, as Postfix gives under stress: longer than any live client on a live line needs. A message of 35 MiB still has ten
/// minutes, which is 60 kB a second.
const FULL: Patience = Patience {
    command: Duration::from_secs(10),
    silence: Duration::from_secs(10),
    content_start: Duration::from_secs(30),
    rate_min: 5000,
    message: Duration::from_secs(600),
    write: Duration::from_secs(10),
    handshake: Duration::from_secs(10),
    errors: 5,
    idle_commands: 20,
};

impl Level {
    /// The level that `taken` of `places` make, coming from `before`.
    pub fn of(taken: usize, places: usize, before: Level) -> Level {
        let over = |part: u64, of: u64| taken as u64 * of >= places as u64 * part;
        let begins = |tight: bool, full: bool| match (tight, full) {
            (_, true) => Level::Full,
            (true, false) => Level::Tight,
            (false, false) => Level::Calm,
        };
        let up = begins(over(3, 4), over(19, 20));
        let down = begins(over(2, 3), over(9, 10));
        before.clamp(up, down)
    }

    pub fn patience(self) -> &'static Patience {
        match self {
            Level::Calm => &CALM,
            Level::Tight => &TIGHT,
            Level::Full => &FULL,
        }
    }
}

impl Patience {
    /// How long content of which `octets` have come may take by now.
    pub fn content(&self, octets: u64) -> Duration {
        self.content_start + Duration::from_secs(octets / self.rate_min.max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: [Level; 3] = [Level::Calm, Level::Tight, Level::Full];

    #[test]
    fn levels_begin_and_end_where_the_table_says() {
        use Level::{Calm, Full, Tight};
        for (taken, before, level) in [
            (0, Calm, Calm),
            (749, Calm, Calm),
            (750, Calm, Tight),
            (949, Calm, Tight),
            (950, Calm, Full),
            (1000, Tight, Full),
            (949, Full, Full),
            (900, Full, Full),
            (899, Full, Tight),
            (700, Full, Tight),
            (749, Tight, Tight),
            (667, Tight, Tight),
            (666, Tight, Calm),
            (0, Full, Calm),
        ] {
            assert_eq!(Level::of(taken, 1000, before), level, "{taken} from {before:?}");
        }
        // The smallest relay: its one place is free or taken.
        assert_eq!((Level::of(0, 1, Full), Level::of(1, 1, Calm)), (Calm, Full));
    }

    #[test]
    fn patience_only_shrinks_and_large_messages_still_fit() {
        for pair in LEVELS.windows(2) {
            let (calm, tight) = (pair[0].patience(), pair[1].patience());
            assert!(tight.command < calm.command && tight.silence < calm.silence && tight.write < calm.write);
            assert!(tight.content_start < calm.content_start && tight.rate_min > calm.rate_min);
            assert!(tight.message < calm.message && tight.errors < calm.errors);
            assert!(tight.idle_commands < calm.idle_commands && tight.handshake < calm.handshake);
        }
        for level in LEVELS {
            let patience = level.patience();
            let largest: u64 = 35 << 20;
            assert!(largest / patience.message.as_secs() < 100_000, "{level:?}: 35 MiB at 100 kB/s");
            assert!(patience.silence <= patience.content_start && patience.command <= patience.message);
        }
        assert_eq!(CALM.content(2999), Duration::from_secs(302));
    }

    proptest! {
        #[test]
        fn more_places_taken_never_make_it_calmer(taken in 0usize..2000, places in 1usize..1000, before in 0usize..3) {
            let before = LEVELS[before];
            prop_assert!(Level::of(taken, places, before) <= Level::of(taken + 1, places, before));
            let level = Level::of(taken, places, before);
            prop_assert_eq!(Level::of(taken, places, level), level, "the same places, the same level");
        }
    }
}
