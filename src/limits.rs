//! What the system lets this process open, and how it is shared.
//!
//! The rule: a connection takes a descriptor for its socket, and one for the file of a large message it carries: each outgoing one, and
//! of the incoming ones, most of which wait for something, every second. `RESERVE` stays
//! for the spool, the event log, listeners, name servers and commands. Where that is more than the process may open,
//! what is left is shared between incoming and outgoing connections in the proportion in which they were configured, so
//! that neither side can starve the other: mail that comes in must also be able to go out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Halves of descriptors that a connection takes: its socket, and the file of a message. Where more incoming connections than every
/// second carry a large message at once, and no other descriptor is left, some of these messages are put off.
const INBOUND_HALVES: u128 = 3;
const OUTBOUND_HALVES: u128 = 4;
/// Databases, logs, listeners, DNS sockets, control connections, sessions on their way out, those that wait for a place, and room to
/// spare.
const RESERVE: u64 = 256;

/// Connections, incoming and outgoing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    pub inbound: usize,
    pub outbound: usize,
}

/// How many connections there can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub connections: Connections,
    /// For the start line, where a setting was cut: what, why, and what to do.
    pub cut: Option<String>,
}

/// Raises the limit of open descriptors as far as this process may, and tells what it is then.
pub fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Some systems give an unlimited maximum that cannot be had; the old limit then stays.
        let _refused = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Shares `descriptors` between the connections that are configured. At least one is left on each side.
pub fn share(descriptors: u64, wanted: Connections) -> Share {
    let room = 2 * u128::from(descriptors.saturating_sub(RESERVE));
    let (inbound, outbound) = (wanted.inbound as u128, wanted.outbound as u128);
    let all = inbound * INBOUND_HALVES + outbound * OUTBOUND_HALVES;
    if all <= room {
        return Share { connections: wanted, cut: None };
    }
    // One outgoing connection there is always.
    let most = room.saturating_sub(OUTBOUND_HALVES) / INBOUND_HALVES;
    let inbound = (room.saturating_mul(inbound) / all).min(most).clamp(1, inbound.max(1));
    let outbound = (room.saturating_sub(inbound * INBOUND_HALVES) / OUTBOUND_HALVES).clamp(1, outbound.max(1));
    let fit = |n: u128| usize::try_from(n).unwrap_or(usize::MAX);
    let connections = Connections { inbound: fit(inbound), outbound: fit(outbound) };
    let needed = all.div_ceil(2) + u128::from(RESERVE);
    let cut = format!(
        "limits.connections cut from {} to {inbound} and delivery.max_connections from {} to {outbound}: this process \
         may open {descriptors} descriptors; allow {needed} (ulimit -n, LimitNOFILE=)",
        wanted.inbound, wanted.outbound
    );
    Share { connections, cut: Some(cut) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Connections = Connections { inbound: 1000, outbound: 2000 };

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(share(5756, WANTED), Share { connections: WANTED, cut: None });
        assert_eq!(share(u64::MAX, WANTED).cut, None);
    }

    #[test]
    fn what_does_not_fit_is_cut_in_proportion_and_told() {
        let share = share(1024, WANTED);
        assert_eq!(share.connections, Connections { inbound: 139, outbound: 279 });
        let text = share.cut.unwrap();
        assert!(text.contains("from 1000 to 139") && text.contains("from 2000 to 279"), "{text}");
        assert!(text.contains("may open 1024") && text.contains("allow 5756"), "{text}");
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let raised = raise_descriptors();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.current.unwrap_or(u64::MAX));
    }

    proptest! {
        #[test]
        fn never_more_than_fits_nor_than_was_wanted(descriptors in any::<u64>(), inbound in 1usize.., outbound in 1usize..) {
            let got = share(descriptors, Connections { inbound, outbound }).connections;
            prop_assert!((1..=inbound).contains(&got.inbound) && (1..=outbound).contains(&got.outbound));
            let (inbound, outbound) = (got.inbound as u128, got.outbound as u128);
            let used = inbound * INBOUND_HALVES + outbound * OUTBOUND_HALVES;
            // One on each side there is always.
            prop_assert!(used <= (2 * u128::from(descriptors.saturating_sub(RESERVE))).max(INBOUND_HALVES + OUTBOUND_HALVES));
        }
    }
}
